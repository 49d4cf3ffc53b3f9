"""GET /openapi.json: the interface as a document. Answers are described by the structs that write them."""

from functools import cache

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import __version__, limits
from overnight.server import answers, context, openapiexports, openapiusage
from overnight.server.openapischemas import Json, ref, schemas


async def document(http_request: HttpRequest) -> Response:
    """The document of this server, with its settings; needs no key."""
    here = context.of(http_request)
    return answers.json(described(needs_key=here.doors.needs_key, needs_version=here.settings.strict_version))


@cache
def described(*, needs_key: bool, needs_version: bool) -> Json:
    """The interface. `needs_key` and `needs_version`: whether callers must send a key, and `anthropic-version`."""
    schemes: list[Json] = [{"api_key": []}, {"bearer": []}] if needs_key else []
    paths: dict[str, Json] = {
        "/v1/messages/batches": {"post": _create(), "get": _list()},
        "/v1/messages/batches/{batch_id}": {"get": _retrieve(), "delete": _delete()},
        "/v1/messages/batches/{batch_id}/cancel": {"post": _cancel()},
        "/v1/messages/batches/{batch_id}/results": {"get": _results()},
        "/v1/messages": {"post": _message()},
        "/v1/messages/count_tokens": {"post": _count_tokens()},
        "/v1/models": {"get": _models()},
        "/v1/models/{model_id}": {"get": _model()},
        "/v1/organizations/rate_limits": {"get": _rate_limits()},
        "/v1/overnight/status": {"get": _status()},
        **openapiusage.paths(answer=_json, errors=_errors),
        "/v1/overnight/batches/{batch_id}/retry": {"post": openapiexports.retry()},
        "/v1/overnight/batches/{batch_id}/export": {"get": openapiexports.export()},
        "/health": {"get": _health()},
        "/ready": {"get": _ready()},
        "/metrics": {"get": {**_metrics(), "security": [{}, *schemes]}},
        "/openapi.json": {"get": _openapi()},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "overnight",
            "version": __version__,
            "description": "A self-hosted Message Batches API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": schemes,
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": {"version": {**_VERSION, "required": needs_version}, "betas": _BETAS},
            "headers": _HEADERS,
            "responses": {name: _error(said, status=status) for name, (status, said) in _ERRORS.items()},
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


# --- Operations -----------------------------------------------------------------------------------------------------


def _create() -> Json:
    answer = {**_json("MessageBatch", "The batch, in progress and durable."), "links": _LINKS}
    return {
        "operationId": "create_batch",
        "summary": "Create a batch",
        "description": "`params` of a request are checked later: mistakes in them become errored results.",
        "parameters": [*_ASKED, _IDEMPOTENCY_KEY],
        "requestBody": _body("CreateBody"),
        "responses": {"200": answer, **_errors("400", "401", "408", "409", "413", "429", "500")},
    }


def _list() -> Json:
    return {
        "operationId": "list_batches",
        "summary": "List batches, newest first",
        "parameters": [*_ASKED, *_PAGING],
        "responses": {"200": _json("BatchPage", "A page."), **_errors("400", "401", "429", "500")},
    }


def _retrieve() -> Json:
    said = "The batch. `retry-after` is there until it has ended, `overnight-waiting` while nothing of it runs."
    answer = _json("MessageBatch", said, "retry-after", "overnight-waiting")
    return {
        "operationId": "retrieve_batch",
        "summary": "Retrieve a batch",
        "parameters": [*_ASKED, _BATCH_ID],
        "responses": {"200": answer, **_errors("400", "401", "404", "429", "500")},
    }


def _delete() -> Json:
    return {
        "operationId": "delete_batch",
        "summary": "Delete a batch that has ended",
        "parameters": [*_ASKED, _BATCH_ID],
        "responses": {"200": _json("DeletedBatch", "It is gone."), **_errors("400", "401", "404", "429", "500")},
    }


def _cancel() -> Json:
    answer = _json("MessageBatch", "The batch, canceling; or as it was, if it had ended.")
    return {
        "operationId": "cancel_batch",
        "summary": "Cancel a batch",
        "description": "Takes no body. Twice, or too late, is no error.",
        "parameters": [*_ASKED, _BATCH_ID],
        "responses": {"200": answer, **_errors("400", "401", "404", "429", "500")},
    }


def _results() -> Json:
    answer = {
        "description": "One ResultLine a line, one line a request, in any order. Gzip, if that is accepted.",
        "headers": _headers("content-length", "overnight-cursor", "overnight-processing-status"),
        "content": {"application/x-jsonl": {"schema": {"type": "string"}, "x-line-schema": ref("ResultLine")}},
    }
    more = {
        "206": {**answer, "description": "The bytes that `range` asks for."},
        "304": {"description": "The client has them: `if-none-match`.", "headers": _headers()},
        "416": _json("Problem", "There is no such byte."),
    }
    return {
        "operationId": "batch_results",
        "summary": "Download the results of a batch that has ended, or those that there are so far",
        "parameters": [*_ASKED, _BATCH_ID, *_SO_FAR],
        "responses": {"200": answer, **more, **_errors("400", "401", "404", "409", "429", "500")},
    }


def _message() -> Json:
    answer = _json("Message", "The answer; with `stream`, its events.")
    answer["content"]["text/event-stream"] = {}
    return {
        "operationId": "create_message",
        "summary": "Answer one request at once",
        "description": "Statuses of 4xx that are not listed are the engine's own refusals.",
        "parameters": _ASKED,
        "requestBody": _body("MessagesBody"),
        "responses": {"200": answer, **_ENGINE_ERRORS},
    }


def _count_tokens() -> Json:
    return {
        "operationId": "count_tokens",
        "summary": "Count the tokens of a prompt",
        "description": "Statuses of 4xx that are not listed are the engine's own refusals.",
        "parameters": _ASKED,
        "requestBody": _body("CountBody"),
        "responses": {"200": _json("TokenCount", "The count."), **_ENGINE_ERRORS},
    }


def _models() -> Json:
    return {
        "operationId": "list_models",
        "summary": "List the models that engines serve now",
        "parameters": [_text("after_id", "query"), _text("before_id", "query")],
        "responses": {"200": _json("ModelPage", "All of them."), **_errors("401", "500")},
    }


def _model() -> Json:
    return {
        "operationId": "retrieve_model",
        "summary": "Look a model up",
        "parameters": [{**_text("model_id", "path"), "required": True}],
        "responses": {"200": _json("ModelInfo", "The model."), **_errors("401", "404", "500")},
    }


def _rate_limits() -> Json:
    return {
        "operationId": "list_rate_limits",
        "summary": "The limits of the caller's workspace",
        "parameters": [_text("group_type", "query"), _text("model", "query")],
        "responses": {"200": _json("RateLimitPage", "All of them."), **_errors("401", "404", "500")},
    }


def _health() -> Json:
    return {
        "operationId": "health",
        "summary": "Whether this server does its work",
        "security": [],
        "responses": {
            "200": _json("Health", "Batches are accepted."),
            "503": _json("Health", "Batches cannot be accepted."),
            **_errors("500"),
        },
    }


def _ready() -> Json:
    return {
        "operationId": "ready",
        "summary": "Whether to send this server work",
        "security": [],
        "responses": {
            "200": _json("Ready", "Batches are accepted, and can be worked on."),
            "503": _json("Ready", "They are not, or no engine is there."),
            **_errors("500"),
        },
    }


def _status() -> Json:
    return {
        "operationId": "status",
        "summary": "What the engines do, and what waits",
        "description": "An extension. A key sees, of what waits, what is of its workspace.",
        "responses": {"200": _json("Status", "As it is now."), **_errors("401", "500")},
    }


def _metrics() -> Json:
    answer = {
        "description": "The text format of Prometheus.",
        "headers": _headers(),
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    return {
        "operationId": "metrics",
        "summary": "Metrics",
        "description": "Needs no key if asked on the machine itself.",
        "responses": {"200": answer, **_errors("401", "500")},
    }


def _openapi() -> Json:
    answer = _json("Message", "OpenAPI 3.1.")
    answer["content"]["application/json"]["schema"] = {"type": "object", "required": ["openapi", "info", "paths"]}
    return {
        "operationId": "openapi",
        "summary": "This document",
        "security": [],
        "responses": {"200": answer, **_errors("500")},
    }


# --- Parts ----------------------------------------------------------------------------------------------------------


def _headers(*more: str) -> Json:
    return {name: ref(name, "headers") for name in (*_ALWAYS, *more)}


def _json(schema: str, said: str, *headers: str) -> Json:
    """An answer in JSON."""
    return {
        "description": said,
        "headers": _headers(*headers),
        "content": {"application/json": {"schema": ref(schema)}},
    }


def _error(said: str, *, status: str) -> Json:
    headers = {"429": ("required-retry-after",), "529": ("required-retry-after",), "404": ("x-should-retry",)}
    answer = _json("Problem", said, *headers.get(status, ()))
    answer["headers"] = {name.removeprefix("required-"): found for name, found in answer["headers"].items()}
    return answer


def _errors(*statuses: str) -> Json:
    wanted = {*statuses, "403"} if "401" in statuses else set(statuses)  # A key may be of another workspace.
    return {status: ref(name, "responses") for name, (status, _) in _ERRORS.items() if status in wanted}


def _body(schema: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": ref(schema)}}}


def _text(name: str, place: str) -> Json:
    return {"name": name, "in": place, "schema": {"type": "string"}}


_ERRORS = {
    "InvalidRequest": ("400", "The request is wrong; the message begins with where."),
    "NotAuthenticated": ("401", "No key, or an unknown one."),
    "PermissionDenied": ("403", "The key, or its workspace, may not do this."),
    "NotFound": ("404", "No such thing in this workspace."),
    "BodyTimeout": ("408", "The body stopped arriving."),
    "Conflict": ("409", "The idempotency key was used with another body, or lines before `after` are gone."),
    "TooLarge": ("413", "The body is too large."),
    "RateLimited": ("429", "Too many requests a minute."),
    "Refused": ("4XX", "The engine's own refusal."),
    "Failed": ("500", "Our fault, or the engine's."),
    "EngineTimeout": ("504", "The engine did not answer in time."),
    "Overloaded": ("529", "No room at the moment."),
}
_ENGINE_ERRORS = _errors("400", "401", "404", "408", "413", "4XX", "500", "504", "529")
_SECONDS: Json = {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds."}
_ALWAYS = ("request-id", "anthropic-workspace-id", "anthropic-organization-id")
_HEADERS: dict[str, Json] = {
    "request-id": {"required": True, "schema": {"type": "string", "pattern": "^req_[0-9A-Za-z]+$"}},
    "anthropic-workspace-id": {"schema": {"type": "string", "pattern": "^wrkspc_[0-9A-Za-z]+$"}},
    "anthropic-organization-id": {"schema": {"type": "string", "format": "uuid"}},
    "retry-after": _SECONDS,
    "required-retry-after": {**_SECONDS, "required": True},
    "overnight-waiting": {"schema": {"type": "string"}, "description": "Why nothing of it runs, for people."},
    "x-should-retry": {"schema": {"enum": ["true", "false"]}},
    "content-length": {"schema": {"type": "integer", "minimum": 0}, "description": "Bytes."},
    "overnight-cursor": {"schema": {"type": "string"}, "description": "With `so_far`: for the next `after`."},
    "overnight-processing-status": {"schema": {"enum": ["in_progress", "canceling", "ended"]}},
}
_VERSION: Json = {"name": "anthropic-version", "in": "header", "schema": {"enum": list(context.API_VERSIONS)}}
_BETAS: Json = {**_text("anthropic-beta", "header"), "description": "A comma-separated list, for the engine."}
_ASKED = [ref("version", "parameters"), ref("betas", "parameters")]
_BATCH_ID: Json = {**_text("batch_id", "path"), "required": True}
_SO_FAR: list[Json] = [
    {
        "name": "so_far",
        "in": "query",
        "schema": {"enum": ["true", "false"]},
        "description": "Do not wait for the end.",
    },
    {
        **_text("after", "query"),
        "description": "An `overnight-cursor`: only the lines that were not given before it.",
    },
    {**_text("range", "header"), "description": "One range of bytes, of finished results (RFC 9110 14)."},
]
_IDEMPOTENCY_KEY: Json = {
    "name": "idempotency-key",
    "in": "header",
    "description": "The same key with the same body finds the batch that was created, instead of making another.",
    "schema": {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_LENGTH_MAX},
}
_PAGING: list[Json] = [
    {
        "name": "limit",
        "in": "query",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": limits.LIST_LIMIT_MAX,
            "default": limits.LIST_LIMIT_DEFAULT,
        },
    },
    {**_text("after_id", "query"), "description": "The batches that are older than this one."},
    {**_text("before_id", "query"), "description": "The batches that are newer than this one. Not with `after_id`."},
]
_LINKS: Json = {
    operation: {"operationId": operation, "parameters": {"batch_id": "$response.body#/id"}}
    for operation in ("retrieve_batch", "cancel_batch", "batch_results", "delete_batch")
}
