"""The little of a Message that we must read; everything else is carried as the bytes it came in.

Source: https://platform.claude.com/docs/en/api/messages/create (response).
"""

from contextlib import suppress

import msgspec

from overnight.wire import text


class CacheCreation(msgspec.Struct, gc=False, frozen=True):
    """Tokens written to a prompt cache, by how long they stay there."""

    ephemeral_5m_input_tokens: int | None = 0
    ephemeral_1h_input_tokens: int | None = 0


class ServerToolUse(msgspec.Struct, gc=False, frozen=True):
    """How often tools of the server were used that cost by the piece."""

    web_search_requests: int | None = 0


class Usage(msgspec.Struct, gc=False, frozen=True):
    """Tokens of one answer. `input_tokens` are the uncached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    service_tier: str | None = None
    cache_creation: CacheCreation | None = None  # Of `cache_creation_input_tokens`, if the server tells.
    server_tool_use: ServerToolUse | None = None


class NotAMessage(ValueError):
    """An engine answered 200 with something that is not a Message."""


class _Measured(msgspec.Struct, gc=False, frozen=True):
    usage: Usage | None = None


class _Event(msgspec.Struct, gc=False, frozen=True):
    message: _Measured | None = None  # Of message_start.
    usage: Usage | None = None  # Of message_delta.


_decode_measured = msgspec.json.Decoder(_Measured).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_usage = msgspec.json.Decoder(Usage).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
_BRACKET = ord("[")
_BATCH = msgspec.Raw(b'"batch"')


def as_batch(message: bytes) -> tuple[bytes, Usage]:
    """`message` on one line with `usage.service_tier` set to `batch`, and its usage as it came. The tier comes last
    in `usage`, or first if another one was told: `result.read_usage` knows by that, after a crash, what was paid.

    Costs one pass without building the content; every other value keeps its bytes. Raises NotAMessage if it is
    not valid JSON, not UTF-8 or lacks what clients rely on (`type`, `role`, `content`, `usage`).
    """
    try:
        fields = _decode_fields(text.on_one_line(message))
        kind, role = _decode_text(fields["type"]), _decode_text(fields["role"])
        content, usage = fields["content"], _decode_usage(fields["usage"])
        counters = _decode_fields(fields["usage"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAMessage(f"the engine's answer is not a Message: {error}") from error
    except KeyError as error:
        raise NotAMessage(f"the engine's answer is not a Message: it has no {error.args[0]!r}") from error
    if kind != "message" or role != "assistant" or memoryview(content)[0] != _BRACKET:
        raise NotAMessage(f"the engine's answer is not a Message: type {kind!r}, role {role!r}")
    # Joined from parts, never searched for: content may hold the very bytes of the usage.
    counters.pop("service_tier", None)
    tier = {"service_tier": _BATCH}
    is_other = usage.service_tier not in (None, "batch")
    fields["usage"] = msgspec.Raw(_encode(tier | counters if is_other else counters | tier))
    return _encode(fields), usage


def usage_of(message: bytes) -> Usage | None:
    """The usage of a whole Message; None if it tells none."""
    try:
        return _decode_measured(message).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class StreamedUsage:
    """The usage of a Message that comes as events, as far as they have come.

    Its counts are cumulative, and events that leave some out repeat none
    (https://platform.claude.com/docs/en/build-with-claude/streaming).
    """

    def __init__(self) -> None:
        self.usage = Usage()

    def read(self, piece: bytes) -> None:
        """Whole events, as `engine.Engine.stream` gives them. What is not JSON tells nothing."""
        if b'"usage"' not in piece:
            return
        for line in piece.split(b"\n"):
            if line.startswith(b"data:") and b'"usage"' in line:
                with suppress(msgspec.DecodeError, UnicodeDecodeError):
                    event = _decode_event(line[5:])
                    found = event.usage or (event.message and event.message.usage)
                    self.usage = _merged(self.usage, found) if found else self.usage


def _merged(before: Usage, after: Usage) -> Usage:
    return Usage(
        input_tokens=max(before.input_tokens, after.input_tokens),
        output_tokens=max(before.output_tokens, after.output_tokens),
        cache_creation_input_tokens=max(
            before.cache_creation_input_tokens or 0, after.cache_creation_input_tokens or 0
        ),
        cache_read_input_tokens=max(before.cache_read_input_tokens or 0, after.cache_read_input_tokens or 0),
        service_tier=after.service_tier or before.service_tier,
        cache_creation=after.cache_creation or before.cache_creation,
        server_tool_use=after.server_tool_use or before.server_tool_use,
    )
