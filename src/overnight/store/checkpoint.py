"""The checkpoint log of a leased segment: results so far, so that a crash repeats almost nothing.

A log is a file of frames, each a gzip member with its length and line count in the extra field (RFC 1952 2.3.1.1,
as bgzip does), so the file stays readable with `zcat` and replay can skip. One log per segment and epoch; the
holder of a new epoch first writes what older logs hold into its own, then removes them. A log is no promise to a
client: only a sealed segment is. So a damaged frame costs the attempts behind it, and nothing else.

    1f 8b 08 04 … | XLEN | 'O' 'N' len | member bytes | lines | raw bytes | check | deflate piece | 03 00 | crc | size
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct as Packing
from typing import NamedTuple

from isal.isal_zlib import crc32

from overnight.core.lease import SegmentRef
from overnight.errors import ObjectMissing
from overnight.ports.files import Files
from overnight.ports.offload import Offload
from overnight.store import splice

_MAGIC = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"
_EXTRA = Packing("<H2sHIIII")  # XLEN, subfield id, its length, member bytes, lines, raw bytes, check.
_COUNTS = Packing("<III")
_SUBFIELD = b"ON"
_HEADER_BYTES = len(_MAGIC) + _EXTRA.size


class Frame(NamedTuple):
    """Some result lines, compressed."""

    piece: splice.Piece
    lines: int


def frame(lines: Sequence[bytes]) -> Frame:
    """The lines (each ends in a newline) as one frame."""
    return Frame(splice.compress(b"".join(lines)), len(lines))


def encode(item: Frame) -> bytes:
    """A frame as it lies in the file."""
    deflate, crc, raw_bytes = item.piece
    member_bytes = _HEADER_BYTES + len(deflate) + splice.TAIL_BYTES
    check = _check(deflate, member_bytes, item.lines, raw_bytes)
    extra = _EXTRA.pack(_EXTRA.size - 2, _SUBFIELD, _EXTRA.size - 6, member_bytes, item.lines, raw_bytes, check)
    return b"".join((_MAGIC, extra, deflate, splice.trailer(crc=crc, raw_bytes=raw_bytes)))


def _check(deflate: bytes, *counts: int) -> int:
    """Of the compressed bytes, for they are served as they are: ISA-L inflates some that zlib refuses."""
    return crc32(deflate, crc32(_COUNTS.pack(*counts)))


def decode(log: bytes) -> Iterator[tuple[Frame, bytes]]:
    """Yield each good frame with its lines, up to the first that is torn or damaged.

    A torn tail is normal: that append never returned. Every frame that is yielded has passed its checksum.
    """
    start = 0
    while log[start : start + len(_MAGIC)] == _MAGIC:
        try:
            _, name, _, member_bytes, lines, raw_bytes, check = _EXTRA.unpack_from(log, start + len(_MAGIC))
        except struct.error:
            return
        member = log[start : start + member_bytes]
        if name != _SUBFIELD or len(member) < member_bytes or member_bytes < _HEADER_BYTES + splice.TAIL_BYTES:
            return
        deflate, crc = member[_HEADER_BYTES : -splice.TAIL_BYTES], splice.crc_of(member)
        if check != _check(deflate, member_bytes, lines, raw_bytes):
            return
        try:
            raw = splice.decompress(deflate, raw_bytes=raw_bytes, crc=crc)
        except splice.Damaged:
            return
        yield Frame(splice.Piece(deflate, crc, raw_bytes), lines), raw
        start += member_bytes


class Checkpoints:
    """The checkpoint logs below one directory: `<batch>-<index>-<epoch>.log`."""

    def __init__(self, root: Path, *, files: Files, offload: Offload) -> None:
        self._root, self._files, self._offload = root, files, offload

    async def append_durably(self, segment: SegmentRef, item: Frame, *, epoch: int) -> None:
        """Add a frame to the log of this epoch; on return it survives a power cut."""
        path, data = self._path(segment, epoch), encode(item)
        await self._offload.run(lambda: self._files.append_durably(path, data))

    async def read(self, segment: SegmentRef, *, epoch: int) -> list[tuple[Frame, bytes]]:
        """The good frames of one epoch's log with their lines; none if there is no such log."""
        return await self._offload.run(lambda: self._read(self._path(segment, epoch)))

    async def epochs(self, segment: SegmentRef) -> list[int]:
        """The epochs that left a log of this segment, oldest first."""
        found = (ref_epoch for ref, ref_epoch in await self.all() if ref == segment)
        return sorted(found)

    async def all(self) -> list[tuple[SegmentRef, int]]:
        """Every log there is, as (segment, epoch), sorted."""
        paths = await self._offload.run(lambda: self._files.list(self._root))
        return sorted(_parsed(path) for path in paths if path.suffix == ".log")

    async def remove(self, segment: SegmentRef, *, epoch: int) -> None:
        """Remove one epoch's log, if it is there."""
        await self._offload.run(lambda: self._files.remove(self._path(segment, epoch)))

    def _read(self, path: Path) -> list[tuple[Frame, bytes]]:
        try:
            return list(decode(self._files.read(path)))
        except ObjectMissing:
            return []

    def _path(self, segment: SegmentRef, epoch: int) -> Path:
        return self._root / f"{segment.batch_id}-{segment.index}-{epoch}.log"


def _parsed(path: Path) -> tuple[SegmentRef, int]:
    batch_id, index, epoch = path.stem.rsplit("-", 2)
    return SegmentRef(batch_id, int(index)), int(epoch)  # type: ignore[arg-type]
