"""All hand-offs of one worker: one for each engine that is a batch endpoint."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from overnight import limits
from overnight.engines.claudebatch import ClaudeBatch
from overnight.errors import StoreError
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.handoff import HandOff
from overnight.runner.recorder import Recorder
from overnight.runner.segmentrun import SegmentRun, Work
from overnight.store.store import Store


class HandOffs:
    """`recover` before anything is leased, then `run`."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        world: World,
        recorder: Recorder,
        *,
        worker: str,
        on_given_back: Callable[[SegmentRun], None],
    ) -> None:
        """`on_given_back` is told of a segment that has to be leased anew."""
        self._store, self._recorder, self._worker, self._on_given_back = store, recorder, worker, on_given_back
        self._group = asyncio.TaskGroup()
        self._all: list[HandOff] = []
        for pool in fleet.pools:
            if isinstance(pool.engine, ClaudeBatch):
                handoff = HandOff(
                    pool.engine,
                    fleet.backlog,
                    store.control,
                    world,
                    on_reread=self._reread_soon,
                    purse=pool.admission.purse,
                )
                handoff.name_of = pool.name_of
                pool.handoff = handoff
                self._all.append(handoff)

    async def recover(self) -> None:
        """Read what an earlier process left. StoreError if the store cannot be read."""
        for handoff in self._all:
            await handoff.recover()

    def claim(self, run: SegmentRun, works: Iterable[Work]) -> list[Work]:
        """The requests of a segment that was just leased, without those that are at an upstream already."""
        left = list(works)
        for handoff in self._all:
            left = handoff.claim(run, left)
        return left

    def look(self) -> None:
        """Segments are closing."""
        for handoff in self._all:
            handoff.look()

    def drain(self) -> None:
        """Hand over nothing more."""
        for handoff in self._all:
            handoff.drain()

    async def wait_quiet(self) -> None:
        """Return when nothing is being handed over."""
        for handoff in self._all:
            await handoff.wait_quiet()

    async def run(self) -> None:
        """Work until cancelled."""
        async with self._group:
            for handoff in self._all:
                self._group.create_task(handoff.run())
            await asyncio.Event().wait()

    def _reread_soon(self, run: SegmentRun) -> None:
        self._group.create_task(self._reread(run))

    async def _reread(self, run: SegmentRun) -> None:
        """Give back one segment, once its results are durable: it is leased anew, and its requests are read."""
        while run.lines and not run.is_abandoned:
            await self._recorder.checkpoint([run])
            if run.lines:
                await asyncio.sleep(limits.CHECKPOINT_EVERY_MS / 1000)
        if run.is_done or run.is_abandoned:
            return
        run.abandon()
        with suppress(StoreError):  # Its lease will run out.
            await self._store.control.give_back(self._worker, only=run.lease.segment)
        self._on_given_back(run)
