"""A result line and a request as people look at them. What they hold came from engines and clients and may be
anything: what cannot be read is left out, and nothing here raises.

Source: https://platform.claude.com/docs/en/api/messages/create (content blocks, usage, stop reasons).
"""

import json
from typing import Any

import msgspec

from overnight.wire import result
from overnight.wire.result import Kind

_COUNT_MAX = 2**63 - 1  # What a column of numbers holds.


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One result line. Texts hold no lone surrogates; a count that is missing, or no count, is None."""

    custom_id: str
    type: Kind
    text: str = ""  # Its text blocks, joined.
    stop_reason: str = ""
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    error_type: str = ""
    error_message: str = ""
    message: bytes = b""  # The JSON of the message, to the byte; empty if there is none.


def answer(line: bytes) -> Answer:
    """What a line of ours says, without its newline. Raises ValueError only if it is not ours."""
    custom_id, kind, inner = result.parts(line)
    if kind == "succeeded":
        return _of_message(custom_id, inner)
    if kind == "errored":
        error = _dict(_dict(lenient(inner)).get("error"))
        return Answer(
            custom_id=custom_id,
            type=kind,
            error_type=_text(error.get("type")),
            error_message=_text(error.get("message")),
        )
    return Answer(custom_id=custom_id, type=kind)


def _of_message(custom_id: str, message: bytes) -> Answer:
    found = _dict(lenient(message))
    usage = _dict(found.get("usage"))
    return Answer(
        custom_id=custom_id,
        type="succeeded",
        text="".join(
            _text(block.get("text")) for block in blocks(found.get("content")) if block.get("type") == "text"
        ),
        stop_reason=_text(found.get("stop_reason")),
        model=_text(found.get("model")),
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cache_read=_count(usage.get("cache_read_input_tokens")),
        cache_write=_count(usage.get("cache_creation_input_tokens")),
        message=message,
    )


def blocks(content: Any) -> list[dict[str, Any]]:
    """Content blocks: those of a list that are objects; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def lenient(raw: bytes) -> Any:
    """JSON as Python values; None if it cannot be read. Escapes of lone surrogates, which msgspec refuses, are legal
    JSON (RFC 8259 8.2) and stay in the strings: see `whole`."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def whole(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, so that it can be written as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return whole(value) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_MAX else None
