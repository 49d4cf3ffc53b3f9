"""What GET /openapi.json says of exports and retries."""

from overnight import limits
from overnight.server.openapischemas import Json, ref


def export() -> Json:
    """GET /v1/overnight/batches/{batch_id}/export."""
    text: Json = {"schema": {"type": "string"}}
    kinds = ("application/x-jsonl", "text/csv", "application/vnd.apache.parquet")
    answer: Json = {
        "description": "The file: one row a request.",
        "headers": {name: ref(name, "headers") for name in ("request-id", "anthropic-workspace-id")},
        "content": dict.fromkeys(kinds, text),
    }
    return {
        "operationId": "export_batch",
        "summary": "Download the results of a batch that has ended as a table",
        "description": "An extension. CSV has an apostrophe before cells that a spreadsheet would take for formulas.",
        "parameters": [
            *_ASKED,
            _query("format", "jsonl", "csv", "parquet"),
            _query("with", "request"),
            {**_query("bom", "true", "false"), "description": "A byte order mark before CSV, for Excel."},
        ],
        "responses": {"200": answer, **_errors("400", "401", "404", "429", "500", "529")},
    }


def retry() -> Json:
    """POST /v1/overnight/batches/{batch_id}/retry."""
    answer: Json = {
        "description": "The new batch, in progress and durable.",
        "headers": {name: ref(name, "headers") for name in ("request-id", "anthropic-workspace-id")},
        "content": {"application/json": {"schema": ref("MessageBatch")}},
    }
    types: Json = {"type": "array", "minItems": 1, "items": {"enum": ["errored", "expired", "canceled"]}}
    body: Json = {"type": "object", "properties": {"types": types}, "additionalProperties": False}
    return {
        "operationId": "retry_batch",
        "summary": "Make a new batch of what failed",
        "description": "An extension. Without `types`: what is errored or expired. Same custom_ids, same params.",
        "parameters": [*_ASKED, _IDEMPOTENCY_KEY],
        "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
        "responses": {"200": answer, **_errors("400", "401", "404", "408", "409", "413", "429", "500")},
    }


_ASKED: list[Json] = [
    ref("version", "parameters"),
    ref("betas", "parameters"),
    {"name": "batch_id", "in": "path", "required": True, "schema": {"type": "string"}},
]
_IDEMPOTENCY_KEY: Json = {
    "name": "idempotency-key",
    "in": "header",
    "description": "The same key with the same types finds the batch that was made, instead of making another.",
    "schema": {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_LENGTH_MAX},
}
_NAMES = {
    "400": "InvalidRequest",
    "401": "NotAuthenticated",
    "404": "NotFound",
    "408": "BodyTimeout",
    "409": "Conflict",
    "413": "TooLarge",
    "429": "RateLimited",
    "500": "Failed",
    "529": "Overloaded",
}


def _query(name: str, *values: str) -> Json:
    return {"name": name, "in": "query", "schema": {"enum": list(values)}}


def _errors(*statuses: str) -> Json:
    return {status: ref(_NAMES[status], "responses") for status in statuses}
