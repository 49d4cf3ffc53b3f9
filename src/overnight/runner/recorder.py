"""Makes result lines durable: a checkpoint frame every 200 ms, and the sealed object at the end of a segment.

A segment that is done before its first checkpoint is due never gets a log: it goes straight to its seal.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from overnight import limits
from overnight.core.batch import Batch, Tally
from overnight.errors import LeaseLost, StoreError
from overnight.ports.world import World
from overnight.runner.journal import Journal
from overnight.runner.segmentrun import SegmentRun, Took, Work
from overnight.store import checkpoint, splice
from overnight.store.control import SealedResults
from overnight.store.objects import results_key
from overnight.store.store import Store
from overnight.wire import result
from overnight.wire.result import Kind

T = TypeVar("T")
_RETRY_S = 2.0  # A full disk is looked at again this often; the results wait in memory meanwhile.


def _lines(raw: bytes) -> list[bytes]:
    """The lines with their newlines. Not `splitlines`, which would also split at a carriage return."""
    return [line + b"\n" for line in raw.split(b"\n")[:-1]]


class Recorder:
    """The disk side of the runs of one worker."""

    def __init__(
        self,
        store: Store,
        world: World,
        *,
        took: Callable[[Work, Kind, bytes], Took | None] = lambda work, kind, line: None,
    ) -> None:
        """`took`: what a line took that an earlier process has written."""
        self._took = took
        self.trouble = ""  # Why results cannot be saved at the moment; empty if they can. For health.
        self.journal = Journal(world.tracer)
        self._store, self._world = store, world

    async def carry_over(self, run: SegmentRun) -> None:
        """Continue from the logs of earlier epochs: their lines enter this epoch's log, then they are removed."""
        self.journal.leased(run)
        segment, epoch = run.lease.segment, run.lease.epoch
        if epoch == 1:
            return
        logs = self._store.checkpoints
        older = [found for found in await logs.epochs(segment) if found < epoch]
        raws = [raw for found in older for _, raw in await logs.read(segment, epoch=found)]
        rows = run.restore(pair for raw in raws for pair in zip(result.read_lines(raw), _lines(raw), strict=True))
        for work, kind, line in rows:
            run.note(work, kind, line, self._took(work, kind, line))
        if rows:
            lines = [line for _, _, line in rows]
            frame = await self._world.offload.run(lambda: checkpoint.frame(lines))
            await self._saved(lambda: logs.append_durably(segment, frame, epoch=epoch))
            run.has_log = True
        for found in older:
            await logs.remove(segment, epoch=found)

    async def checkpoint(self, runs: Iterable[SegmentRun]) -> None:
        """Append what these runs have in memory to their logs, all at once."""
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(self._checkpoint(run))

    async def _checkpoint(self, run: SegmentRun) -> None:
        async with run.saving:
            if not run.lines or not run.open or run.is_abandoned:
                return
            lines = run.take_lines()
            try:
                frame = await self._world.offload.run(lambda: checkpoint.frame(lines))
                await self._store.checkpoints.append_durably(run.lease.segment, frame, epoch=run.lease.epoch)
            except StoreError as error:
                self.trouble = str(error)
                run.put_back(lines)
                return
            self.trouble = ""
            run.has_log = True
            self._world.marks.reach("checkpoint.durable")

    async def seal(self, run: SegmentRun) -> Batch | None:
        """Record the whole segment; the batch afterwards, or None if the segment is no longer ours."""
        async with run.saving:
            lease = run.lease
            tally, results, member = await self._assembled(run)
            bill = run.bill()
            if results.key is not None:
                key = results.key
                await self._saved(lambda: self._store.objects.put_new(key, [member]))
            self._world.marks.reach("seal.object-durable")
            try:
                batch = await self._saved(
                    lambda: self._store.control.seal(
                        lease, tally, results, now_ms=self._world.clock.now_ms(), bill=bill
                    )
                )
            except LeaseLost:
                self.journal.lost(run)
                if results.key is not None:
                    await self._store.objects.remove(results.key)  # Bears our epoch: nobody else names it.
                return None
            self._world.marks.reach("seal.committed")
            self.journal.sealed(run, batch, bill)
            if run.has_log:
                await self._store.checkpoints.remove(lease.segment, epoch=lease.epoch)
            return batch

    async def _assembled(self, run: SegmentRun) -> tuple[Tally, SealedResults, bytes]:
        lease = run.lease
        frames = []
        if run.has_log:
            frames = [frame for frame, _ in await self._store.checkpoints.read(lease.segment, epoch=lease.epoch)]
        lines = run.take_lines()

        def assemble() -> tuple[int, bytes, int, int]:
            held = [*frames, checkpoint.frame(lines)] if lines else frames
            crc, raw_bytes = splice.combined_crc((frame.piece.crc, frame.piece.raw_bytes) for frame in held)
            return sum(frame.lines for frame in held), splice.member(frame.piece for frame in held), crc, raw_bytes

        count, member, crc, raw_bytes = await self._world.offload.run(assemble)
        if count != run.leased.source.requests:
            raise StoreError(f"checkpoint log of {lease.segment} has lost lines; restart to run them again")
        is_small = len(member) <= limits.INLINE_BYTES_MAX
        results = SealedResults(
            length=len(member),
            raw_bytes=raw_bytes,
            crc=crc,
            key=None if is_small else results_key(lease.segment, epoch=lease.epoch),
            inline=member if is_small else None,
        )
        return run.tally(), results, member

    async def _saved(self, save: Callable[[], Awaitable[T]]) -> T:
        """Try until the disk takes it: results that were paid for are not given up for a full disk."""
        while True:
            try:
                value = await save()
            except LeaseLost:
                raise
            except StoreError as error:
                self.trouble = str(error)
                await asyncio.sleep(_RETRY_S)
            else:
                self.trouble = ""
                return value
