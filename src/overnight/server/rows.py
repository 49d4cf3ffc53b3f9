"""Single requests of a batch beside their results: read segment by segment, one in memory at a time.

While a batch runs, its results are those that are sealed and those in checkpoint logs. A segment that is sealed
between our look at the control store and our look at its log shows no results this time, and all of them the next.
"""

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple, Self

from msgspec import Raw

from overnight import limits
from overnight.core.lease import SegmentRef
from overnight.errors import ObjectMissing, StoreError
from overnight.ids import BatchId
from overnight.ports.world import World
from overnight.store import segments, splice
from overnight.store.control import SealedResults, Stored, StoredSegment
from overnight.store.store import Store
from overnight.wire import reading, result
from overnight.wire.create import Request
from overnight.wire.reading import Answer

_PLACE = re.compile(r"(\d{1,6})\.(\d{1,9})")

UNFINISHED: Final = "unfinished"


class Place(NamedTuple):
    """Where a row is: its segment, and its number in there. As text `3.17`."""

    segment: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The place that a text names; None if it names none."""
        found = _PLACE.fullmatch(text) if text.isascii() else None
        return cls(int(found[1]), int(found[2])) if found else None

    def __str__(self) -> str:
        return f"{self.segment}.{self.number}"


BEGINNING = Place(0, 0)


class Row(NamedTuple):
    """One request and its result line."""

    place: Place
    custom_id: str
    params: Raw | None  # None: not asked for, or no longer kept. A view of its whole segment: copy what is to stay.
    line: bytes | None  # Without its newline; None: there is no result yet.

    @property
    def type(self) -> str:
        """The kind of its result, or `unfinished`."""
        return UNFINISHED if self.line is None else result.parts(self.line)[1]

    def answer(self) -> Answer | None:
        """What its line says; None if there is none."""
        return None if self.line is None else reading.answer(self.line)


class Rows:
    """The rows of one batch. Rows are in the order of the requests, or of the results where no request is kept."""

    def __init__(self, batch_id: BatchId, stored: Stored, *, store: Store, world: World) -> None:
        self.segments: Sequence[StoredSegment] = stored.segments
        self.batch_id, self.world = batch_id, world
        self._requests_key, self._store = stored.requests_key, store
        self._epochs: Mapping[int, list[int]] | None = None  # Of the logs, by segment; listed once.

    async def has_requests(self) -> bool:
        """Whether the requests are still kept: all of them are, or none."""
        if self._requests_key is not None or not self.segments:
            return self._requests_key is not None
        inline, _ = await self._store.control.inline(self.batch_id, self.segments[0].position)
        return inline is not None

    async def read(self, segment: StoredSegment, *, with_requests: bool = True) -> list[Row]:
        """The rows of a segment. StoreError if it is damaged, or gone since."""
        inline_requests, inline_results = await self._store.control.inline(self.batch_id, segment.position)
        member = await self._requests(segment, inline_requests) if with_requests else None
        if segment.results is not None:
            stored = await self._results(segment.results, inline_results)
            sealed = segment.results
            return await self.world.offload.run(lambda: _sealed_rows(segment, member, stored, sealed))
        lines = await self._logged(segment.position)
        return await self.world.offload.run(lambda: _joined(segment, member, lines))

    async def _requests(self, segment: StoredSegment, inline: bytes | None) -> bytes | None:
        if inline is not None or self._requests_key is None:
            return inline
        return await self._store.objects.get(self._requests_key, offset=segment.offset, length=segment.length)

    async def _results(self, sealed: SealedResults, inline: bytes | None) -> bytes:
        if sealed.key is not None:
            return await self._store.objects.get(sealed.key)
        if inline is None:
            raise ObjectMissing(f"results of {self.batch_id} were removed while they were read")
        return inline

    async def _logged(self, position: int) -> list[bytes]:
        """The result lines in the logs of an unsealed segment, the newest epoch's last."""
        if self._epochs is None:
            found: dict[int, list[int]] = {}
            for ref, epoch in await self._store.checkpoints.all():
                if ref.batch_id == self.batch_id:
                    found.setdefault(ref.index, []).append(epoch)
            self._epochs = found
        lines: list[bytes] = []
        for epoch in sorted(self._epochs.get(position, ())):
            frames = await self._store.checkpoints.read(SegmentRef(self.batch_id, position), epoch=epoch)
            lines += [line for _, raw in frames for line in _lines(raw)]
        return lines


async def open_rows(batch_id: BatchId, *, store: Store, world: World) -> Rows | None:
    """The rows of a batch; None if it is gone. Whose batch it is must have been checked (I7)."""
    stored = await store.control.stored(batch_id)
    return None if stored is None else Rows(batch_id, stored, store=store, world=world)


def _sealed_rows(segment: StoredSegment, member: bytes | None, stored: bytes, sealed: SealedResults) -> list[Row]:
    try:
        raw = splice.decompress(splice.deflate_of(stored), raw_bytes=sealed.raw_bytes, crc=sealed.crc)
    except splice.Damaged as error:
        raise StoreError(f"the results of segment {segment.position} are damaged: {error}") from error
    return _joined(segment, member, _lines(raw))


def _joined(segment: StoredSegment, member: bytes | None, lines: Sequence[bytes]) -> list[Row]:
    by_id = {result.parts(line)[0]: line for line in lines}
    asked: Sequence[Request] = segments.unpack(member, raw_bytes=segment.raw_bytes) if member is not None else ()
    pairs: list[tuple[str, Raw | None]] = [(request.custom_id, request.params) for request in asked]
    pairs = pairs or [(custom_id, None) for custom_id in by_id]
    return [
        Row(Place(segment.position, number), custom_id, params, by_id.get(custom_id))
        for number, (custom_id, params) in enumerate(pairs)
    ]


def _lines(raw: bytes) -> list[bytes]:
    return raw.split(b"\n")[:-1]


# --- Searching ------------------------------------------------------------------------------------------------------


class Sought(NamedTuple):
    """What rows are looked for: all that is not empty must hold."""

    type: str = ""  # A kind of result, or `unfinished`.
    error_type: str = ""
    custom_id: str = ""
    text: str = ""  # Somewhere in the text of the answer or of the error, in whatever case.


class Hit(NamedTuple):
    """A row that was looked for."""

    row: Row
    answer: Answer | None


class Found(NamedTuple):
    """What a search has found so far."""

    hits: list[Hit]
    next: Place | None  # Where more may be; None: that was all.
    is_cut: bool  # It stopped because it had looked at enough, not because it had found enough.


async def search(
    rows: Rows,
    sought: Sought,
    *,
    start: Place = BEGINNING,
    hits_max: int,
    s_max: float = limits.SEARCH_S_MAX,
    bytes_max: int = limits.SEARCH_BYTES_MAX,
) -> Found:
    """The first rows from `start` on that are looked for. Stops after `s_max` seconds or `bytes_max` inflated bytes,
    at the end of a segment, and never before it has looked at one. StoreError as `Rows.read`."""
    clock = asyncio.get_running_loop().time
    end_s, bytes_left = clock() + s_max, bytes_max
    hits: list[Hit] = []
    for segment in rows.segments:
        if segment.position < start.segment:
            continue
        if segment.position > start.segment and (bytes_left <= 0 or clock() >= end_s):
            return Found(hits, Place(segment.position, 0), is_cut=True)
        bytes_left -= segment.raw_bytes + (segment.results.raw_bytes if segment.results else 0)
        hits += await _hits(rows, segment, sought, start=start, hits_max=hits_max + 1 - len(hits))
        if len(hits) > hits_max:
            return Found(hits[:hits_max], hits[hits_max].row.place, is_cut=False)
    return Found(hits, None, is_cut=False)


async def _hits(rows: Rows, segment: StoredSegment, sought: Sought, *, start: Place, hits_max: int) -> list[Hit]:
    found = await rows.read(segment)
    matching = (hit for row in found if row.place >= start and (hit := _hit(row, sought)) is not None)
    return await rows.world.offload.run(lambda: list(islice(matching, hits_max)))


def _hit(row: Row, sought: Sought) -> Hit | None:
    if sought.custom_id not in ("", row.custom_id) or sought.type not in ("", row.type):
        return None
    answer = row.answer()
    if sought.error_type and (answer is None or answer.error_type != sought.error_type):
        return None
    if sought.text:
        text = "" if answer is None else answer.text or answer.error_message
        if sought.text.casefold() not in text.casefold():
            return None
    return Hit(row, answer)


async def find(rows: Rows, custom_id: str, *, hint: Place | None) -> tuple[list[Row], int] | None:
    """The rows of the segment that holds a request, and its number in there; None if no row has this custom_id, or it
    was not found within `limits.LOOKUP_S_MAX`. `hint` is a place in the segment that is tried first."""
    by_position = {segment.position: segment for segment in rows.segments}
    if hint is not None and hint.segment in by_position:
        found = await rows.read(by_position[hint.segment])
        for row in found:
            if row.custom_id == custom_id:
                return found, row.place.number
    hits = await search(
        rows, Sought(custom_id=custom_id), hits_max=1, s_max=limits.LOOKUP_S_MAX, bytes_max=sys.maxsize
    )
    if not hits.hits:
        return None
    place = hits.hits[0].row.place
    return await rows.read(by_position[place.segment]), place.number
