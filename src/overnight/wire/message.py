"""The little of a Message that we must read; everything else is carried as the bytes it came in.

Source: https://platform.claude.com/docs/en/api/messages/create (response), contract.md 4.6 and 7.1.
"""

import msgspec

from overnight.wire import text


class Usage(msgspec.Struct, gc=False, frozen=True):
    """Tokens of one answer. `input_tokens` are the uncached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    service_tier: str | None = None


class _Head(msgspec.Struct, gc=False):
    type: str
    role: str
    content: msgspec.Raw
    usage: msgspec.Raw


class NotAMessage(ValueError):
    """An engine answered 200 with something that is not a Message."""


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_usage = msgspec.json.Decoder(Usage).decode
_BRACKET = ord("[")
_STANDARD = b'"service_tier":"standard"'
_BATCH = b'"service_tier":"batch"'


def as_batch(message: bytes) -> tuple[bytes, Usage]:
    """`message` on one line with `usage.service_tier` set to `batch`, and its usage.

    Costs one pass without building the content. Raises NotAMessage if it is not valid JSON, not UTF-8 or
    lacks what clients rely on (`type`, `role`, `content`, `usage`).
    """
    try:
        message = text.on_one_line(message)
        head = _decode_head(message)
        usage = _decode_usage(head.usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAMessage(f"the engine's answer is not a Message: {error}") from error
    if head.type != "message" or head.role != "assistant" or memoryview(head.content)[0] != _BRACKET:
        raise NotAMessage(f"the engine's answer is not a Message: type {head.type!r}, role {head.role!r}")
    if usage.service_tier == "batch":
        return message, usage
    old = bytes(head.usage)
    start = message.rfind(old)
    new = old.replace(_STANDARD, _BATCH)
    if new is old or new == old:
        fields = msgspec.json.decode(old, type=dict[str, msgspec.Raw])
        fields["service_tier"] = msgspec.Raw(b'"batch"')
        new = msgspec.json.encode(fields)
    return message[:start] + new + message[start + len(old) :], usage
