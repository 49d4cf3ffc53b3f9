"""The schemas of GET /openapi.json: what is sent and answered."""

from typing import Any, TypeAlias

import msgspec

from overnight import limits
from overnight.runner.status import Status
from overnight.server.health import Health, Ready
from overnight.server.models import ModelInfo, ModelPage
from overnight.server.ratelimits import RateLimitPage
from overnight.server.usagereport import CostReport, UsageReport
from overnight.server.usages import BatchUsage, UsageTable
from overnight.wire.batch import BatchPage, DeletedBatch, MessageBatch
from overnight.wire.create import CUSTOM_ID_PATTERN
from overnight.wire.problem import Problem

Json: TypeAlias = dict[str, Any]


def ref(name: str, kind: str = "schemas") -> Json:
    """A reference to a part of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def schemas() -> dict[str, Json]:
    """All of them by name: of what we answer from its structs, of the rest written by hand."""
    _, found = msgspec.json.schema_components(
        (
            *(MessageBatch, BatchPage, DeletedBatch, Problem, ModelInfo, ModelPage, RateLimitPage),
            *(Health, Ready, Status, UsageReport, CostReport, UsageTable, BatchUsage),
        ),
        ref_template="#/components/schemas/{name}",
    )
    for schema in found.values():
        # Defaults are written like any other value; only the details of an error are left out.
        schema["required"] = [name for name in schema["properties"] if name != "details"]
        for value in schema["properties"].values():
            value.pop("default", None)
    return {**found, **_REQUEST_SCHEMAS, **_ANSWER_SCHEMAS}


def _object(required: dict[str, Json], optional: dict[str, Json] | None = None) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_BLOCKS: Json = {"type": "array", "items": _object({"type": _TEXT})}
_TURN: Json = {
    "description": "An assistant's turn may be empty only if it is the last.",
    "oneOf": [
        _object(
            {
                "role": {"const": "user"},
                "content": {"anyOf": [{**_TEXT, "minLength": 1}, {**_BLOCKS, "minItems": 1}]},
            }
        ),
        _object({"role": {"const": "assistant"}, "content": {"anyOf": [_TEXT, _BLOCKS]}}),
    ],
}
_SYSTEM: Json = {"anyOf": [_TEXT, {"type": "array", "items": _object({"type": {"const": "text"}})}, {"type": "null"}]}
_PROMPT: dict[str, Json] = {"model": _TEXT, "messages": {"type": "array", "minItems": 1, "items": _TURN}}
_STREAM: Json = {"type": ["boolean", "null"]}

_REQUEST_SCHEMAS: dict[str, Json] = {
    "CreateBody": _object(
        {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": limits.BATCH_REQUESTS_MAX,
                "description": "No two of them have the same `custom_id`.",
                "items": _object(
                    {
                        "custom_id": {
                            "type": "string",
                            "pattern": CUSTOM_ID_PATTERN,
                            "minLength": 1,
                            "maxLength": limits.CUSTOM_ID_LENGTH_MAX,
                        },
                        "params": {"type": "object", "description": "A MessagesBody without `stream`."},
                    }
                ),
            }
        }
    ),
    "MessagesBody": _object(
        {**_PROMPT, "max_tokens": {"type": "integer", "minimum": 1}}, {"system": _SYSTEM, "stream": _STREAM}
    ),
    "CountBody": _object(_PROMPT, {"system": _SYSTEM, "stream": _STREAM}),
}

_ANSWER_SCHEMAS: dict[str, Json] = {
    "Message": _object(
        {
            "id": _TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": _TEXT,
            "content": _BLOCKS,
            "stop_reason": {"type": ["string", "null"]},
            "stop_sequence": {"type": ["string", "null"]},
            "usage": _object({"input_tokens": _COUNT, "output_tokens": _COUNT}),
        }
    ),
    "TokenCount": _object({"input_tokens": _COUNT}),
    "ResultLine": _object(
        {
            "custom_id": _TEXT,
            "result": {
                "oneOf": [
                    _object({"type": {"const": "succeeded"}, "message": ref("Message")}),
                    _object({"type": {"const": "errored"}, "error": ref("Problem")}),
                    _object({"type": {"enum": ["canceled", "expired"]}}),
                ]
            },
        }
    ),
}
