"""Results of an upstream's batch become result lines of ours, or requests that are asked again."""

import asyncio
from collections.abc import Collection
from contextlib import aclosing

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.core import retry
from overnight.core.handoff import Unasked, Verdict
from overnight.core.lease import SegmentRef
from overnight.core.retry import Again, Answered, Broken, Record, Refused
from overnight.core.tokens import of_usage
from overnight.engines.claudewire import Row, Stopped
from overnight.ports.world import World
from overnight.runner.held import Held
from overnight.runner.segmentrun import Work
from overnight.runner.source import Source
from overnight.runner.upstream import Upstream
from overnight.wire import message, problem, result

_ROOM_BYTES = limits.CHECKPOINT_BUFFER_BYTES_MAX // 2  # Of lines that are in no log yet; the rest is for the lanes.


class Collector:
    """Reads one batch at a time, so that results in memory stay few."""

    def __init__(self, engine: str, upstream: Upstream, source: Source, world: World) -> None:
        self._engine = engine
        self._upstream, self._source, self._world = upstream, source, world
        self._turn = asyncio.Lock()

    async def read(self, held: Held, segments: Collection[SegmentRef]) -> None:
        """Record the results of these segments, reading them as often as it takes; afterwards each of their requests
        has its line or is in `held.again`. Results that are refused for an hour are taken for lost."""
        loop = asyncio.get_running_loop()
        given_up_s = loop.time() + limits.HANDOFF_GONE_AFTER_MS / 1000
        async with self._turn:
            while True:
                try:
                    await self._apply_all(held, segments)
                    break
                except Stopped as stopped:
                    if isinstance(stopped.outcome, Refused) and loop.time() >= given_up_s:
                        break
                    await self._upstream.stand_back(stopped.outcome)
        for segment in segments:
            for work in held.works_in(segment):
                if work.is_open and work not in held.again:
                    self._settle(held, work, Broken(reason="the upstream has no result of it"))
            held.read.add(segment)

    def refuse(self, work: Work, refused: Refused) -> None:
        """The row of a request that will not be asked again."""
        self._source.settle(work, None)
        body = problem.encode(refused.type, refused.message, request_id=refused.request_id)
        work.run.record(work, "errored", result.errored(work.custom_id, body))

    async def _apply_all(self, held: Held, segments: Collection[SegmentRef]) -> None:
        unsaved_bytes = 0
        async with aclosing(self._upstream.batches.results(str(held.handoff.upstream_id))) as rows:
            async for row in rows:
                unsaved_bytes += self._apply(held, row, segments)
                if unsaved_bytes >= _ROOM_BYTES:
                    await _until_taken(held)
                    self._world.marks.reach("handoff.part-applied")
                    unsaved_bytes = 0
        self._upstream.be_well()

    def _apply(self, held: Held, row: Row, segments: Collection[SegmentRef]) -> int:
        """Record one row, if it is ours and wanted; the bytes of its line."""
        named = handoffs.read_name(row.custom_id)
        if named is None or named.handoff_id != held.handoff.id:
            return 0
        held.bills.settle(named.segment, named.ordinal, row.verdict)  # Whether or not anybody still wants it.
        if named.segment not in segments:
            return 0
        work = held.work_of(named.segment, named.ordinal)
        if work is None or not work.is_open or work in held.again:
            return 0
        return self._settle(held, work, row.verdict)

    def _settle(self, held: Held, work: Work, verdict: Verdict) -> int:
        if isinstance(verdict, Answered):
            try:
                answer, usage = message.as_batch(verdict.message)
            except message.NotAMessage as error:
                verdict = Broken(reason=str(error))
            else:
                line = result.succeeded(work.custom_id, answer)
                self._source.settle(work, of_usage(usage))
                work.run.record(work, "succeeded", line, work.run.charged(work, self._engine, usage))
                return len(line)
        if isinstance(verdict, Unasked):
            work.attempt -= 1
            _again(held, work, limits.RETRY_DELAY_MS_MAX)
            return 0
        dice = self._world.entropy.uniform()
        match retry.decide(verdict, attempt=work.attempt, budget=retry.Budget(), jitter=dice):
            case Again(delay_ms=delay_ms):
                _again(held, work, delay_ms)
            case Record(outcome=Refused() as refused):
                self.refuse(work, refused)
        return 0


async def are_saved(held: Held) -> bool:
    """Whether all lines of its runs are in a log. Not while one is being sealed: then its segment will be sealed."""
    for run in held.runs():
        async with run.saving:
            if run.lines or run.is_done or run.is_abandoned:
                return False
    return True


async def _until_taken(held: Held) -> None:
    while True:
        if not any(run.lines for run in held.runs() if not run.is_abandoned):
            return
        await asyncio.sleep(limits.CHECKPOINT_EVERY_MS / 1000)


def _again(held: Held, work: Work, delay_ms: int) -> None:
    if work.run.closing is not None:
        work.run.close_one(work)
    else:
        held.again[work] = delay_ms
