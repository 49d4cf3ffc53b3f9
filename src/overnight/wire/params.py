"""The little of a request's `params` that we must read: enough to route, to refuse early, and to sort.

Everything else is the engine's to judge, and stays bytes. The messages are those of the hosted API where they
were captured. Source: https://platform.claude.com/docs/en/api/messages/create.
"""

from typing import Literal, NamedTuple

import msgspec
from isal.isal_zlib import crc32

from overnight.errors import InvalidRequest
from overnight.wire import complaint


class _Block(msgspec.Struct, gc=False):
    type: str


class _Turn(msgspec.Struct, gc=False):
    role: Literal["user", "assistant"]
    content: str | list[_Block]


class Prompt(msgspec.Struct, gc=False):
    """A well-formed body of POST /v1/messages/count_tokens: who is asked, and what."""

    model: str
    messages: list[_Turn]
    system: str | list[_Block] | None = None
    stream: bool | None = None


class Batched(NamedTuple):
    """What the runner must know of one request of a batch."""

    model: str
    max_tokens: int
    is_greedy: bool  # Temperature 0: asking twice is asking once.
    has_cache_control: bool


class _Params(msgspec.Struct, gc=False):
    messages: list[_Turn]
    model: str
    max_tokens: int
    temperature: msgspec.Raw = msgspec.Raw(b"")
    system: str | list[_Block] | None = None
    stream: bool | None = None
    speed: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    store: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    previous_thread_event_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    cache_hint: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    context_hint: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fallbacks: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    research_preview_2026_02: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Parts(msgspec.Struct, gc=False):
    """The parts of a prompt in template order, as bytes: what requests may have in common."""

    model: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")
    system: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")


# Refused in a batch although legal elsewhere, or unknown to any engine here
# (https://platform.claude.com/docs/en/build-with-claude/batch-processing, "What can be batched").
_NOT_IN_A_BATCH = (
    "speed",
    "store",
    "previous_thread_event_id",
    "cache_hint",
    "context_hint",
    "fallbacks",
    "research_preview_2026_02",
)
_KNOWN = frozenset(
    (
        *("model", "max_tokens", "messages", "system", "stop_sequences", "temperature", "top_k", "top_p", "stream"),
        *("tools", "tool_choice", "thinking", "output_config", "output_format", "metadata", "service_tier"),
        *("cache_control", "container", "context_management", "diagnostics", "inference_geo", "mcp_servers"),
        "user_profile_id",
    )
)

_ZEROS = (b"0", b"0.0", b"0.00")

_decode_prompt = msgspec.json.Decoder(Prompt).decode
_decode_params = msgspec.json.Decoder(_Params).decode
_decode_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_parts = msgspec.json.Decoder(Parts).decode


def read_batched(params: bytes, *, is_strict: bool = False) -> Batched:
    """What the runner must know of one request of a batch, once everything we can judge is right.

    Raises InvalidRequest whose text becomes the errored row. `is_strict` refuses unknown fields too.
    """
    checked = _read_params(params)
    if checked.stream:
        raise InvalidRequest('"stream=True" is not supported in the Message Batches API')
    for field in _NOT_IN_A_BATCH:
        if getattr(checked, field) is not msgspec.UNSET:
            raise InvalidRequest(f'"{field}" is not supported in the Message Batches API')
    if is_strict:
        _refuse_unknown(params)
    return Batched(
        model=checked.model,
        max_tokens=checked.max_tokens,
        is_greedy=bytes(checked.temperature) in _ZEROS,
        has_cache_control=b'"cache_control"' in params,
    )


def read_interactive(params: bytes, *, is_strict: bool = False) -> Prompt:
    """The head of a POST /v1/messages body. Raises InvalidRequest."""
    checked = _read_params(params)
    if is_strict:
        _refuse_unknown(params)
    return Prompt(model=checked.model, messages=checked.messages, system=checked.system, stream=checked.stream)


def read_countable(params: bytes) -> Prompt:
    """The head of a POST /v1/messages/count_tokens body, which needs no max_tokens. Raises InvalidRequest."""
    try:
        prompt = _decode_prompt(params)
    except msgspec.ValidationError as error:
        raise InvalidRequest(complaint.of_validation(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(complaint.of_syntax(error)) from error
    _check_messages(prompt.messages, prompt.system)
    return prompt


def _read_params(params: bytes) -> _Params:
    try:
        checked = _decode_params(params)
    except msgspec.ValidationError as error:
        raise InvalidRequest(complaint.of_validation(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(complaint.of_syntax(error)) from error
    if checked.max_tokens < 1:
        raise InvalidRequest("max_tokens: must be greater than or equal to 1")
    _check_messages(checked.messages, checked.system)
    return checked


def _check_messages(messages: list[_Turn], system: str | list[_Block] | None) -> None:
    if not messages:
        raise InvalidRequest("messages: at least one message is required")
    for index, turn in enumerate(messages):
        is_prefill = turn.role == "assistant" and index == len(messages) - 1
        if not turn.content and not is_prefill:
            raise InvalidRequest(f"messages.{index}: all messages must have non-empty content")
    if isinstance(system, list):
        for index, block in enumerate(system):
            if block.type != "text":
                raise InvalidRequest(f"system.{index}.type: Input should be 'text'")


def _refuse_unknown(params: bytes) -> None:
    for field in _decode_keys(params):
        if field not in _KNOWN:
            raise InvalidRequest(f"{field}: Extra inputs are not permitted")


def renamed(params: bytes, model: str) -> bytes:
    """`params`, which were read before, naming another model; every other value keeps its bytes."""
    fields = _decode_keys(params)
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def prefix_of(params: bytes) -> int:
    """A checksum of what comes before the messages (model, tools, system): equal for requests that share it."""
    parts = decode_parts(params)
    return crc32(parts.system, crc32(parts.tools, crc32(parts.model)))
