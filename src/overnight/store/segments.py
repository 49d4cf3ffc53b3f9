"""The request segments of a batch: JSON lines in gzip members, all members of a batch in one object.

Each member can be read alone with one range get; the whole object is readable with `zcat`.
A line is `{"custom_id":"…","params":{…}}`, `params` as the client sent it.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from overnight.core import segment
from overnight.errors import StoreError
from overnight.store import splice
from overnight.wire.create import Request
from overnight.wire.params import decode_parts

_MODEL_BYTES_MAX = 256  # A longer name is not worth a column; its segments count as those of several models.
_decode_text = msgspec.json.Decoder(str).decode
_read_lines = msgspec.json.Decoder(Request).decode_lines


class Packed(NamedTuple):
    """One segment, ready to be stored."""

    member: bytes
    requests: int
    raw_bytes: int
    model: str  # Of all its requests; empty if they name several, or none that can be read.


def sorted_by_prefix(requests: Sequence[Request]) -> list[Request]:
    """The requests in the order in which engines should see them; equal prompts keep the client's order."""
    keys = list(segment.sort_keys(decode_parts(request.params) for request in requests))
    return [requests[index] for index in sorted(range(len(requests)), key=keys.__getitem__)]


def cuts(requests: Sequence[Request]) -> Iterator[segment.Cut]:
    """Where to cut the sorted requests."""
    return segment.cut(len(request.params) + len(request.custom_id) for request in requests)


def pack(requests: Sequence[Request]) -> Packed:
    """One segment as a gzip member. Copies the requests once; releases the GIL while it compresses."""
    parts: list[bytes | msgspec.Raw] = []
    for request in requests:
        parts += (b'{"custom_id":"', request.custom_id.encode(), b'","params":', request.params, b"}\n")
    raw = b"".join(parts)
    return Packed(splice.member([splice.compress(raw)]), len(requests), len(raw), _model_of(requests))


def _model_of(requests: Sequence[Request]) -> str:
    first, last = (decode_parts(request.params).model for request in (requests[0], requests[-1]))
    if first != last or len(first) > _MODEL_BYTES_MAX:  # Sorted: what is equal at both ends is equal between.
        return ""
    try:
        return _decode_text(first)
    except msgspec.DecodeError:
        return ""  # The request will be an errored row.


def unpack(stored: bytes, *, raw_bytes: int) -> list[Request]:
    """The requests of a stored segment; raises StoreError if the member is damaged."""
    try:
        raw = splice.decompress(splice.deflate_of(stored), raw_bytes=raw_bytes, crc=splice.crc_of(stored))
        return _read_lines(raw)
    except (splice.Damaged, struct.error, msgspec.DecodeError) as error:
        raise StoreError(f"a request segment is damaged: {error}") from error
