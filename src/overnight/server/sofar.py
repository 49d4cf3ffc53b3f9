"""The results of a batch that are durable by now, while it runs or after, each line once: `results?so_far=true`.

The lines of a segment have an order that only grows: that of its log, which a later epoch's log begins with and which
the sealed results keep (`runner.recorder`). So a reader that sends back how many lines it was given of each segment
gets the others, whatever happened to the server between two reads.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from isal.isal_zlib import crc32
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.lease import SegmentRef
from overnight.errors import Conflict, NoResults, ObjectMissing
from overnight.ids import BatchId, WorkspaceId
from overnight.server import batches, context, cursor, download
from overnight.server.context import Context
from overnight.server.cursor import NOTHING, Given
from overnight.store import splice
from overnight.store.checkpoint import Frame
from overnight.store.control import StoredSegment
from overnight.store.splice import Piece


async def results_so_far(
    http_request: HttpRequest, workspace: WorkspaceId, batch_id: BatchId, *, is_gzip: bool
) -> Response:
    """The lines that were not given before the cursor `after`, with the cursor that comes after them. It is known
    before the first line: an answer that broke off is asked for again with the same `after`.

    NotFound if the workspace has no such batch, NoResults once it is archived, InvalidRequest if `after` is no cursor
    of it, Conflict if the lines that were given are not those that are stored.
    """
    here = context.of(http_request)
    batch = await here.store.control.batch(workspace, batch_id)
    if batch is None:
        raise batches.not_found(batch_id)
    stored = await here.store.control.stored(batch_id)  # After the batch: what has ended has all its results.
    if stored is None or not stored.segments:  # Archived, or deleted a moment ago.
        raise NoResults(f"Message Batch {batch_id} has no available results.")
    requests = [item.requests for item in stored.segments]
    after = http_request.query_params.get("after")
    before = cursor.decode(after, batch_id, requests) if after else [NOTHING] * len(requests)
    so_far = SoFar(here, batch_id, stored.segments)
    now = await so_far.there_is(before)
    headers = {
        "overnight-cursor": cursor.encode(batch_id, now, requests),
        "overnight-processing-status": batch.status,
        "vary": "accept-encoding",
    }
    if now == before:
        return Response(headers=headers, media_type=download.MEDIA_TYPE)
    if not is_gzip:
        return download.Download(so_far.lines(before, now), headers=headers)
    return download.Download(so_far.member(before, now), headers={**headers, "content-encoding": "gzip"})


class Found(NamedTuple):
    """The lines of a segment in their order, each with its newline, and how many of them survive a power cut."""

    lines: list[bytes]
    durable: int


class SoFar:
    """Reads a batch that others work on; holds one segment at a time, and no lock."""

    def __init__(self, here: Context, batch_id: BatchId, segments: Sequence[StoredSegment]) -> None:
        """`segments` are those of the batch, in order, as of a moment ago."""
        self._here, self._batch_id, self._segments = here, batch_id, list(segments)
        self._epochs: dict[int, list[int]] = {}  # Of logs, by segment, as of a moment ago.

    async def there_is(self, before: Sequence[Given]) -> list[Given]:
        """How many lines are durable now, in each segment; Conflict if `before` is not how they begin."""
        for segment, epoch in await self._here.store.checkpoints.all():
            if segment.batch_id == self._batch_id:
                self._epochs.setdefault(segment.index, []).append(epoch)
        return [await self._there_is(index, given) for index, given in enumerate(before)]

    async def _there_is(self, index: int, before: Given) -> Given:
        item = self._segments[index]
        if before.lines == item.requests or (item.results is not None and not before.lines):
            return Given(item.requests)
        if item.results is None and not before.lines and index not in self._epochs:
            return NOTHING
        found = await self._find(index)
        if before.lines > len(found.lines) or before.crc != crc32(b"".join(found.lines[: before.lines])):
            raise Conflict(
                f"after: results of Message Batch {self._batch_id} that this cursor follows are no longer stored, as "
                "after a backup was restored; read again without `after`"
            )
        lines = max(before.lines, found.durable)
        if lines == item.requests:
            return Given(lines)
        return Given(lines, crc32(b"".join(found.lines[:lines])) if lines else 0)

    async def lines(self, before: Sequence[Given], now: Sequence[Given]) -> AsyncIterator[bytes]:
        """The lines between two cursors. NotFound or ObjectMissing if the batch was deleted meanwhile."""
        for index, span in _spans(before, now):
            for chunk in download.chunks(await self._cut(index, span)):
                yield chunk

    async def member(self, before: Sequence[Given], now: Sequence[Given]) -> AsyncIterator[bytes]:
        """The same as one gzip member."""
        crc = raw_bytes = 0
        yield splice.HEADER
        for index, span in _spans(before, now):
            piece = await self._piece(index, span)
            crc, raw_bytes = splice.combined_crc(((crc, raw_bytes), (piece.crc, piece.raw_bytes)))
            for chunk in download.chunks(piece.deflate):
                yield chunk
        yield splice.trailer(crc=crc, raw_bytes=raw_bytes)

    async def _piece(self, index: int, span: range) -> Piece:
        item = self._segments[index]
        if item.results is not None and span == range(item.requests):  # As it is stored: nothing is compressed again.
            deflate = await download.deflate_of(self._here, self._ref(index), item.results)
            return Piece(deflate, item.results.crc, item.results.raw_bytes)
        raw = await self._cut(index, span)
        return await self._here.world.offload.run(lambda: splice.compress(raw))

    async def _cut(self, index: int, span: range) -> bytes:
        lines = (await self._find(index)).lines[span.start : span.stop]
        if len(lines) < len(span):
            raise ObjectMissing(f"the log of segment {index} of {self._batch_id} has lost lines")
        return b"".join(lines)

    async def _find(self, index: int) -> Found:
        """What a segment has by now: it may be sealed since it was looked at, and its log removed."""
        ref, sealed = self._ref(index), self._segments[index].results
        if sealed is None:
            frames = await self._logged(ref)
            if frames:
                lines = _split(b"".join(raw for _, raw in frames))
                return Found(lines, len(lines) - (frames[-1][0].lines if self._is_saving(ref) else 0))
            sealed = (await self._look_again(index)).results
        if sealed is None:
            return Found([], 0)
        try:
            lines = _split(await download.lines_of(self._here, ref, sealed))
        except ObjectMissing:
            await self._look_again(index)
            raise
        return Found(lines, len(lines))

    async def _logged(self, segment: SegmentRef) -> list[tuple[Frame, bytes]]:
        """The newest log of a segment that holds anything: while it begins, the one before still does."""
        logs, epochs = self._here.store.checkpoints, self._epochs.get(segment.index, [])
        while True:
            for epoch in reversed(epochs):
                if frames := await logs.read(segment, epoch=epoch):
                    return frames
            newer = await logs.epochs(segment)
            if newer == epochs:
                return []
            epochs = newer

    def _is_saving(self, segment: SegmentRef) -> bool:
        """Whether the last frame of its log may not be on the medium yet: one that is being appended is seen before
        it is durable. Asked after the log was read, it is never wrong in the dangerous way."""
        return any(run.lease.segment == segment and run.saving.locked() for run in self._here.worker.runs)

    async def _look_again(self, index: int) -> StoredSegment:
        """A segment as it is now; NotFound if its batch was deleted or archived meanwhile."""
        found = await self._here.store.control.stored(self._batch_id)
        if found is None or not found.segments:
            raise batches.not_found(self._batch_id)
        self._segments[index] = found.segments[index]
        return self._segments[index]

    def _ref(self, index: int) -> SegmentRef:
        return SegmentRef(self._batch_id, index)


def _spans(before: Sequence[Given], now: Sequence[Given]) -> Iterator[tuple[int, range]]:
    """The lines to give, by segment."""
    for index, (given, there) in enumerate(zip(before, now, strict=True)):
        if given.lines < there.lines:
            yield index, range(given.lines, there.lines)


def _split(raw: bytes) -> list[bytes]:
    """The lines with their newlines. Not `splitlines`, which would also split at a carriage return."""
    return [line + b"\n" for line in raw.split(b"\n")[:-1]]
