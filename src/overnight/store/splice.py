"""Gzip members that can be joined into ONE member without recompressing.

A piece is raw deflate ended by a full flush, so it begins at a byte border and refers to nothing before it
(RFC 1951 3.2.4; zlib manual, Z_FULL_FLUSH). Each stored object is a valid .gz of its own: header, piece, an empty
final block, trailer. Joining takes the pieces out and writes one header before and one trailer behind them.

Why not simply concatenate members, which RFC 1952 allows: the official Python SDK and curl stop after the first
member and say nothing (docs/adr/0002: 669 of 100,000 results).
"""

from collections.abc import Iterable
from struct import Struct as Packing
from typing import NamedTuple

from isal import igzip_lib, isal_zlib
from isal.isal_zlib import crc32  # Four times the speed of zlib's.

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # RFC 1952: gzip, deflate, no name, no time, unknown system.
_FINAL_BLOCK = b"\x03\x00"  # An empty last block: closes the deflate stream.
_TRAILER = Packing("<II")
TAIL_BYTES = len(_FINAL_BLOCK) + _TRAILER.size
OVERHEAD_BYTES = len(HEADER) + TAIL_BYTES
_LEVEL = 1  # ISA-L: as fast as zstd 1, 4.5 times zlib 1, and half the size at most (benchmarks/results.py).


class Piece(NamedTuple):
    """A run of bytes, compressed. `crc` and `raw_bytes` are of what it inflates to."""

    deflate: bytes
    crc: int
    raw_bytes: int


def compress(raw: bytes) -> Piece:
    """`raw` as one piece. Releases the GIL while it works."""
    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
    deflate = compressor.compress(raw) + compressor.flush(isal_zlib.Z_FULL_FLUSH)
    return Piece(deflate, crc32(raw), len(raw))


class Damaged(ValueError):
    """Stored bytes are not what was written."""


def decompress(deflate: bytes, *, raw_bytes: int, crc: int | None = None) -> bytes:
    """What pieces inflate to. Raises Damaged unless it has this length and, if given, this checksum.

    And unless another piece could follow: the checksum says nothing of the flush that ends a piece.
    """
    inflater = isal_zlib.decompressobj(-15)
    try:
        raw = bytes(inflater.decompress(deflate + _FINAL_BLOCK, max_length=raw_bytes + 1))
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # Its stub has no base.
        raise Damaged(str(error)) from error
    if not inflater.eof or inflater.unused_data:
        raise Damaged("it does not end where it should")
    if len(raw) != raw_bytes or (crc is not None and crc32(raw) != crc):
        raise Damaged("length or checksum does not match")
    return raw


def crc_of(stored: bytes) -> int:
    """The checksum in the trailer of a member."""
    (crc, _) = _TRAILER.unpack(stored[-_TRAILER.size :])
    return int(crc)


def trailer(*, crc: int, raw_bytes: int) -> bytes:
    """What closes a member whose content has this checksum and length."""
    return _FINAL_BLOCK + _TRAILER.pack(crc, raw_bytes & 0xFFFF_FFFF)


def combined_crc(pieces: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The (crc, raw_bytes) of contents in a row, from the (crc, raw_bytes) of each."""
    crc = total = 0
    for piece_crc, piece_raw_bytes in pieces:
        crc = isal_zlib.crc32_combine(crc, piece_crc, piece_raw_bytes)
        total += piece_raw_bytes
    return crc, total


def member(pieces: Iterable[Piece]) -> bytes:
    """All pieces as one gzip member."""
    held = list(pieces)
    crc, raw_bytes = combined_crc((piece.crc, piece.raw_bytes) for piece in held)
    return b"".join((HEADER, *(piece.deflate for piece in held), trailer(crc=crc, raw_bytes=raw_bytes)))


def deflate_of(stored: bytes) -> bytes:
    """The joined pieces inside a member that `member` made, ready for splicing."""
    return stored[len(HEADER) : -TAIL_BYTES]
