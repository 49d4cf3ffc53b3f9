"""Segments leased, handed over and sealed, without a server: what `runner.worker` does around `runner.handoff`.

night = Night(store, engine, world)
async with night.working():
    batch = await night.create([("a", {...}), ...])
    await night.until_ended(batch)
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import msgspec

from overnight import ids, limits
from overnight.core.batch import Batch, kind_of_unfinished
from overnight.core.handoff import Outstanding
from overnight.core.lease import SegmentRef
from overnight.engines.claudebatch import ClaudeBatch
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.backlog import Backlog
from overnight.runner.handoff import HandOff
from overnight.runner.purse import Purse
from overnight.runner.recorder import Recorder
from overnight.runner.segmentrun import SegmentRun, Unsaved
from overnight.store import segments, splice
from overnight.store.control import LeasedSegment, NewBatch, NewSegment, Wanted
from overnight.store.objects import requests_key
from overnight.store.store import Store
from overnight.wire import params
from overnight.wire.create import Request
from overnight.wire.result import Kind

_LOOK_S = 1.0  # What nothing else wakes is looked at this often.


class Night:
    """One process. `runs` are the segments it has, `rereads` counts those that were read anew."""

    def __init__(
        self,
        store: Store,
        engine: ClaudeBatch,
        world: World,
        *,
        segments_max: int = 1_000,
        purse: Purse | None = None,
    ) -> None:
        """`purse`: what the engine may cost; it is kept while the night works."""
        self.runs: dict[SegmentRef, SegmentRun] = {}
        self.backlog = Backlog()
        self.handoff = HandOff(engine, self.backlog, store.control, world, on_reread=self._reread, purse=purse)
        self.purse, self.rereads = purse, 0
        self._store, self._world, self._segments_max = store, world, segments_max
        self._recorder, self._unsaved = Recorder(store, world), Unsaved()
        self._workers: dict[SegmentRef, str] = {}  # One name each, so that each can be given back alone.
        self._names = count()
        self._group = asyncio.TaskGroup()
        self._sealed = asyncio.Condition()
        self._wake = asyncio.Event()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Until the block ends; then it stops as if it were killed, but for what is being written."""
        await self.handoff.recover()
        async with self._group:
            loops = (self.handoff.run(), self._save(), self._lease(), self._renew())
            tasks = [self._group.create_task(loop) for loop in loops]
            if self.purse is not None:
                tasks.append(self._group.create_task(self.purse.run(self._store.control)))
            yield
            for task in tasks:
                task.cancel()

    async def create(
        self,
        requests: Sequence[tuple[str, dict[str, Any]]],
        *,
        segment_requests: int = 10,
        api_version: str = "2023-06-01",
        betas: str = "",
        lifetime_ms: int = limits.BATCH_LIFETIME_MS,
    ) -> Batch:
        """A durable batch, cut into segments of so many requests."""
        clock, entropy = self._world.clock, self._world.entropy
        batch_id = ids.batch_id(clock.now_ms(), entropy.bytes(ids.BATCH_ID_ENTROPY_BYTES))
        found = [Request(name, msgspec.Raw(msgspec.json.encode(body))) for name, body in requests]
        packed = [
            segments.pack(found[start : start + segment_requests]) for start in range(0, len(found), segment_requests)
        ]
        offsets = [sum(len(before.member) for before in packed[:index]) for index in range(len(packed))]
        await self._store.objects.put_new(requests_key(batch_id), [one.member for one in packed])
        batch = Batch(
            id=batch_id,
            workspace=DEFAULT_WORKSPACE,
            api_version=api_version,
            betas=betas,
            requests=len(found),
            segments_open=len(packed),
            created_at_ms=clock.now_ms(),
            expires_at_ms=clock.now_ms() + lifetime_ms,
        )
        new = [
            NewSegment(
                requests=one.requests, raw_bytes=one.raw_bytes, offset=offset, length=len(one.member), model=one.model
            )
            for one, offset in zip(packed, offsets, strict=True)
        ]
        await self._store.control.create(NewBatch(batch=batch, segments=new, requests_key=requests_key(batch_id)))
        self._wake.set()
        return batch

    async def until_ended(self, batch: Batch) -> Batch:
        """The batch when all its segments are sealed."""
        async with self._sealed:
            while True:
                found = await self._store.control.batch(batch.workspace, batch.id)
                assert found is not None, "nobody deletes it"
                if found.status == "ended":
                    return found
                await self._sealed.wait()

    async def results(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """The results of an ended batch by `custom_id`; each must be there once."""
        inline = await self._store.control.inline_results(batch.id)
        lines: list[bytes] = []
        for index, found in enumerate(await self._store.control.results(batch.id)):
            member = inline[index] if found.key is None else await self._store.objects.get(found.key)
            lines += splice.decompress(
                splice.deflate_of(member), raw_bytes=found.raw_bytes, crc=found.crc
            ).splitlines()
        rows = [msgspec.json.decode(line) for line in lines]
        assert len({row["custom_id"] for row in rows}) == len(rows), "a custom_id came twice"
        return {row["custom_id"]: row["result"] for row in rows}

    async def cancel(self, batch: Batch) -> None:
        """As a client's cancel: what is at the upstream may finish within the grace."""
        await self._store.control.cancel(batch.workspace, batch.id, now_ms=self._world.clock.now_ms())
        for run in [run for run in self.runs.values() if run.batch.id == batch.id]:
            run.close_waiting("canceled")
            if run.open:
                grace_s = limits.CANCEL_GRACE_MS / 1000
                run.timers.append(asyncio.get_running_loop().call_later(grace_s, run.close_all, "canceled"))
        self.handoff.look()

    async def outstanding(self) -> list[Outstanding]:
        """The handoffs that are written down."""
        return await self._store.control.outstanding(self.handoff.engine.name)

    async def until_nothing_is_left(self) -> None:
        """Return when no handoff is written down."""
        while True:
            if not await self.outstanding():
                return
            await asyncio.sleep(limits.CHECKPOINT_EVERY_MS / 1000)

    # --- Segments ---------------------------------------------------------------------------------------------------

    async def _lease(self) -> None:
        wanted = Wanted(requests=10**9, segments=1)
        while True:
            while len(self.runs) < self._segments_max:
                name = f"night-{next(self._names)}"
                taken = await self._store.control.lease(name, wanted=wanted, now_ms=self._world.clock.now_ms())
                if not taken:
                    break
                await self._open(name, taken[0])
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            self._wake.clear()

    async def _renew(self) -> None:
        while True:
            for name in list(self._workers.values()):
                await self._store.control.renew(name, now_ms=self._world.clock.now_ms())
            await asyncio.sleep(limits.LEASE_RENEW_MS / 1000)

    async def _open(self, name: str, leased: LeasedSegment) -> None:
        run = SegmentRun(leased, counter=Counter(), unsaved=self._unsaved, on_done=self._seal_soon)
        segment, source = run.lease.segment, leased.source
        self.runs[segment], self._workers[segment] = run, name
        assert leased.requests_key is not None, "`create` puts everything into an object"
        stored = await self._store.objects.get(leased.requests_key, offset=source.offset, length=source.length)
        works = run.start(segments.unpack(stored, raw_bytes=source.raw_bytes))
        await self._recorder.carry_over(run)
        run.is_started = True
        now_ms = self._world.clock.now_ms()
        kind: Kind | None = kind_of_unfinished(run.batch, now_ms=now_ms)
        if kind is not None:
            run.close_all(kind)
        else:
            delay_s = (run.batch.expires_at_ms - now_ms) / 1000
            run.timers.append(asyncio.get_running_loop().call_later(delay_s, run.close_all, "expired"))
            works = [work for work in works if work.is_open]
            for work in works:
                work.know(params.read_batched(work.params))
            self.backlog.add(self.handoff.claim(run, works))
        run.check_done()

    def _seal_soon(self, run: SegmentRun) -> None:
        self._group.create_task(self._seal(run))

    async def _seal(self, run: SegmentRun) -> None:
        await self._recorder.seal(run)
        self._forget(run)
        async with self._sealed:
            self._sealed.notify_all()

    def _reread(self, run: SegmentRun) -> None:
        self.rereads += 1
        self._group.create_task(self._give_up(run))

    async def _give_up(self, run: SegmentRun) -> None:
        if run.is_done or run.is_abandoned:
            return
        await self._recorder.checkpoint([run])
        name = self._workers[run.lease.segment]
        run.abandon()
        self._forget(run)
        await self._store.control.give_back(name)
        self._wake.set()

    def _forget(self, run: SegmentRun) -> None:
        run.cancel_timers()
        self.backlog.forget(run)
        self.runs.pop(run.lease.segment, None)
        self._workers.pop(run.lease.segment, None)
        self._wake.set()

    async def _save(self) -> None:
        while True:
            is_idle = not any(run.lines for run in self.runs.values())
            await asyncio.sleep(_LOOK_S if is_idle else limits.CHECKPOINT_EVERY_MS / 1000)
            await self._recorder.checkpoint([run for run in self.runs.values() if run.lines and run.open])
