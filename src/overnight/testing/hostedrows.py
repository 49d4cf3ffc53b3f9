"""What a request of `testing.hosted` may come to, and the JSON that says so."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from overnight.errors import InvalidRequest
from overnight.wire import params as wire_params
from overnight.wire.problem import Detail
from overnight.wire.result import Kind

NEWEST_VERSION = "2026-10-21"
VERSIONS = frozenset({"2023-01-01", "2023-06-01", NEWEST_VERSION})
_GONE_SINCE_NEWEST = ("temperature", "top_p", "top_k")
_DATED = {"claude-haiku-4-5": "claude-haiku-4-5-20251001"}  # Answers name the model that an alias stood for.


class Outcome(NamedTuple):
    """What one request came to. Made by the functions below."""

    kind: Kind
    content: Sequence[Mapping[str, Any]] = ()
    stop_reason: str = "end_turn"
    error: Detail | None = None


class Usage(NamedTuple):
    """The tokens of an answer."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0  # For an hour.


Params: TypeAlias = dict[str, Any]
Script: TypeAlias = Callable[[str, Params], Outcome]  # From `custom_id` ("" in real time) and `params`.


def message(content: Sequence[Mapping[str, Any]], *, stop_reason: str = "end_turn") -> Outcome:
    """An answer of these content blocks."""
    return Outcome("succeeded", content, stop_reason)


def text(said: str, *, stop_reason: str = "end_turn") -> Outcome:
    """An answer of one text; of no block at all if it is empty."""
    return message([{"type": "text", "text": said}] if said else [], stop_reason=stop_reason)


def failed(error_type: str, said: str) -> Outcome:
    """An errored row; in real time an error of the status that belongs to `error_type`."""
    return Outcome("errored", error=Detail(error_type, said))


def expired() -> Outcome:
    """A row that the 24 hours were too short for. Not for real time."""
    return Outcome("expired")


def canceled() -> Outcome:
    """A row that a cancel came before. Not for real time."""
    return Outcome("canceled")


def refusal_of(params: Params, *, version: str, is_batched: bool) -> str | None:
    """Why the hosted API refuses these params under this `anthropic-version`; None if it takes them."""
    read = wire_params.read_batched if is_batched else wire_params.read_interactive
    try:
        read(msgspec.json.encode(params), is_strict=True)
    except InvalidRequest as error:
        return str(error)
    gone = [name for name in _GONE_SINCE_NEWEST if name in params and version == NEWEST_VERSION]
    return f"{gone[0]}: Extra inputs are not permitted" if gone else None


def message_json(outcome: Outcome, params: Params, *, message_id: str, usage: Usage | None, tier: str) -> bytes:
    """The Message of an answer. Without `usage` its tokens are the words of the request and of the answer."""
    said = sum(len(str(block.get("text", "")).split()) for block in outcome.content)
    used = usage or Usage(len(msgspec.json.encode(params).split()), said)
    counted = {
        "input_tokens": used.input,
        "cache_creation_input_tokens": used.cache_write,
        "cache_read_input_tokens": used.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": used.cache_write},
        "output_tokens": used.output,
        "service_tier": tier,
        "inference_geo": "not_available",
    }
    built = {
        "model": _DATED.get(params["model"], params["model"]),
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": outcome.content,
        "stop_reason": outcome.stop_reason,
        "stop_sequence": None,
        "usage": counted,
    }
    return msgspec.json.encode(built)
