"""GET /openapi.json: the interface as a document, from the same structs that answer."""

from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import __version__, limits
from overnight.server import answers
from overnight.server.health import Health
from overnight.server.models import ModelInfo
from overnight.wire.batch import BatchPage, DeletedBatch, MessageBatch
from overnight.wire.create import CUSTOM_ID_PATTERN
from overnight.wire.problem import Problem


async def document(http_request: HttpRequest) -> Response:
    """The document; needs no key."""
    return answers.json(_document())


@cache
def _document() -> dict[str, Any]:
    kinds = (MessageBatch, BatchPage, DeletedBatch, Problem, ModelInfo, Health)
    (batch, page, deleted, problem, model, health), components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    errors = {code: _answer(problem, said) for code, said in _ERRORS.items()}

    def answering(schema: dict[str, Any], said: str, **more: Any) -> dict[str, Any]:
        return {**more, "responses": {"200": _answer(schema, said), **errors}}

    listing = {"parameters": [*_HEADERS, *_PAGING]}
    one = {"parameters": [*_HEADERS, _BATCH_ID]}
    prompt = {"requestBody": _body({"$ref": "#/components/schemas/MessagesParams"}), "parameters": _HEADERS}
    components |= {"CreateBody": _CREATE_BODY, "MessagesParams": _MESSAGES_PARAMS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "overnight", "version": __version__},
        "paths": {
            "/v1/messages/batches": {
                "post": answering(
                    batch,
                    "The batch, in progress.",
                    requestBody=_body({"$ref": "#/components/schemas/CreateBody"}),
                    parameters=_HEADERS,
                ),
                "get": answering(page, "Batches, newest first.", **listing),
            },
            "/v1/messages/batches/{batch_id}": {
                "get": answering(batch, "The batch.", **one),
                "delete": answering(deleted, "It is gone.", **one),
            },
            "/v1/messages/batches/{batch_id}/cancel": {"post": answering(batch, "The batch, canceling.", **one)},
            "/v1/messages/batches/{batch_id}/results": {
                "get": {
                    **one,
                    "responses": {
                        "200": {
                            "description": "One JSON object a line.",
                            "content": {"application/x-jsonl": {"schema": {"type": "string"}}},
                        },
                        **errors,
                    },
                }
            },
            "/v1/messages": {"post": answering({"type": "object"}, "A Message.", **prompt)},
            "/v1/messages/count_tokens": {"post": answering({"type": "object"}, "A count.", **prompt)},
            "/v1/models": {"get": answering({"type": "object"}, "Models.", parameters=_HEADERS)},
            "/v1/models/{model_id}": {"get": answering(model, "The model.", parameters=[*_HEADERS, _MODEL_ID])},
            "/health": {"get": answering(health, "It works.")},
        },
        "components": {"schemas": components},
    }


_ERRORS = {
    "400": "The request is wrong.",
    "401": "No key, or an unknown one.",
    "404": "No such thing.",
    "405": "Another method.",
    "408": "The body stopped arriving.",
    "409": "The idempotency key has another body.",
    "413": "The body is too large.",
    "429": "Too many requests.",
    "500": "Our fault.",
    "503": "Not able to work.",
    "504": "The engine did not answer in time.",
    "529": "No room at the moment.",
}
_HEADERS: list[dict[str, Any]] = [
    {
        "name": "anthropic-version",
        "in": "header",
        "required": True,
        "schema": {"enum": ["2023-01-01", "2023-06-01", "2026-10-21"]},
    }
]
_PAGING: list[dict[str, Any]] = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": limits.LIST_LIMIT_MAX},
    },
    {"name": "after_id", "in": "query", "schema": {"type": "string"}},
    {"name": "before_id", "in": "query", "schema": {"type": "string"}},
]
_BATCH_ID: dict[str, Any] = {"name": "batch_id", "in": "path", "required": True, "schema": {"type": "string"}}
_MODEL_ID: dict[str, Any] = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string"}}
_MESSAGES_PARAMS: dict[str, Any] = {
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "properties": {
        "model": {"type": "string"},
        "max_tokens": {"type": "integer", "minimum": 1},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}},
            },
        },
    },
}
_CREATE_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["requests"],
    "properties": {
        "requests": {
            "type": "array",
            "minItems": 1,
            "maxItems": limits.BATCH_REQUESTS_MAX,
            "items": {
                "type": "object",
                "required": ["custom_id", "params"],
                "properties": {
                    "custom_id": {"type": "string", "pattern": CUSTOM_ID_PATTERN},
                    "params": {"type": "object"},
                },
            },
        }
    },
}


def _answer(schema: dict[str, Any], said: str) -> dict[str, Any]:
    return {"description": said, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}
