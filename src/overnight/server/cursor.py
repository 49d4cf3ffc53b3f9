"""How far a reader of unfinished results has come, as text that it sends back. Pure.

A cursor says for each segment of its batch how many lines were given, and for those that were not given to the end
a checksum of these lines: so lines that changed since, because a backup was restored or a disk failed, are noticed
instead of skipped. It is no secret and no permission: whoever forges one changes only what they are given of their
own batch. A checksum tells cursors from nonsense.

    check | a bit a segment: given to the end | a bit a segment: begun | lines and checksum of each that is begun
"""

import struct
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from struct import Struct as Packing
from typing import Final, NamedTuple

from overnight import limits
from overnight.errors import InvalidRequest
from overnight.ids import BatchId

_CHECK_BYTES = 8
_BEGUN = Packing("<HI")


class Given(NamedTuple):
    """The lines of a segment that were given: how many, and their CRC-32 unless they are all."""

    lines: int
    crc: int = 0


NOTHING: Final = Given(0)


def encode(batch_id: BatchId, given: Sequence[Given], requests: Sequence[int]) -> str:
    """The cursor of a batch whose segments hold so many requests: letters, digits, `-` and `_`."""
    is_whole = [item.lines == most for item, most in zip(given, requests, strict=True)]
    begun = [item if item.lines and not whole else None for item, whole in zip(given, is_whole, strict=True)]
    payload = b"".join(
        (_bits(is_whole), _bits(item is not None for item in begun), *(_BEGUN.pack(*item) for item in begun if item))
    )
    return urlsafe_b64encode(_check(batch_id, payload) + payload).decode().rstrip("=")


def decode(text: str, batch_id: BatchId, requests: Sequence[int]) -> list[Given]:
    """What a cursor says; InvalidRequest if it is none of this batch."""
    try:
        if len(text) > limits.CURSOR_LENGTH_MAX:
            raise ValueError("it is too long")
        stored = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        check, payload = stored[:_CHECK_BYTES], stored[_CHECK_BYTES:]
        if check != _check(batch_id, payload):
            raise ValueError("its checksum is wrong")
        given = list(_given(payload, requests))
        if encode(batch_id, given, requests) != text:
            raise ValueError("it says the same in another way")
    except (ValueError, struct.error) as error:
        raise InvalidRequest(f"after: this is no `overnight-cursor` of Message Batch {batch_id}") from error
    return given


def _given(payload: bytes, requests: Sequence[int]) -> Iterable[Given]:
    size = -(-len(requests) // 8)
    whole, begun = (int.from_bytes(payload[start : start + size], "little") for start in (0, size))
    parts = _BEGUN.iter_unpack(payload[2 * size :])
    for index, most in enumerate(requests):
        if whole >> index & 1:
            yield Given(most)
        elif begun >> index & 1:
            lines, crc = next(parts, (0, 0))
            if not 0 < lines < most:
                raise ValueError(f"segment {index} has {most} requests")
            yield Given(lines, crc)
        else:
            yield NOTHING


def _bits(flags: Iterable[bool]) -> bytes:
    held = list(flags)
    return sum(1 << index for index, flag in enumerate(held) if flag).to_bytes(-(-len(held) // 8), "little")


def _check(batch_id: BatchId, payload: bytes) -> bytes:
    return sha256(b"overnight cursor 1 %b %b" % (batch_id.encode(), payload)).digest()[:_CHECK_BYTES]
