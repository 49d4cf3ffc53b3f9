"""The worker: leases segments while its engines have room, runs them, checkpoints, seals.

Its loops share one event loop: lanes (in the pools), leasing, checkpoints, renewal, and the seals they cause.
State that matters is in the store; killing this process at any point costs what was in flight and at most one
checkpoint interval of results.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from overnight import limits
from overnight.core import lease as leases
from overnight.core.batch import kind_of_unfinished
from overnight.core.lease import SegmentRef
from overnight.core.retry import Refused
from overnight.errors import InvalidRequest, StoreError
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.handoffs import HandOffs
from overnight.runner.order import longest_first
from overnight.runner.plan import Plan
from overnight.runner.pool import errored
from overnight.runner.recorder import Recorder
from overnight.runner.segmentrun import SegmentRun, Took, Unsaved, Work
from overnight.runner.tallies import Tallies
from overnight.runner.twins import Twins
from overnight.store import segments
from overnight.store.control import LeasedSegment
from overnight.store.store import Store
from overnight.wire import params
from overnight.wire.create import Request
from overnight.wire.result import Kind, read_usage

_IDLE_POLL_S = 5.0  # How late a lease that ran out elsewhere, or an expired batch nobody holds, may be noticed.
_CLOSING_SEGMENTS = 16  # Of LEASED_SEGMENTS_MAX, kept for what was canceled or expired while the engine is away.
_READ_AGAIN_S = 30.0  # A segment whose requests could not be read is looked at again this often.
_LAST_SEGMENTS = 2  # Of a batch: from here on a long answer that begins late would be waited for.
_GIVE_BACK_S = 5.0  # Of DRAIN_S_MAX, kept for the last checkpoint and for giving leases back.


class Worker:
    """One per process: `run` until drained or cancelled."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        world: World,
        tallies: Tallies,
        *,
        name: str,
        is_strict: bool = False,
        deduplicates: bool = False,
    ) -> None:
        """`deduplicates`: requests that are the same to the byte, at temperature 0, are asked once."""
        self.name = name
        self.troubles: dict[str, str] = {}  # What holds work up, in words for health, by what it is.
        self.recorder = Recorder(store, world, took=self._took)
        self._store, self._fleet, self._world, self._tallies = store, fleet, world, tallies
        self._is_strict = is_strict
        self._twins = Twins(self._queue_orphans) if deduplicates else None
        self._runs: dict[SegmentRef, SegmentRun] = {}
        self._parked: dict[SegmentRef, str] = {}  # The key of its trouble, by segment.
        self._seen: set[SegmentRef] = set()  # Whose rows were counted for budgets, and not sealed by us.
        self._unsaved = Unsaved()
        self._trusted_until_ms = 0
        self._wake = asyncio.Event()
        self._drain_asked = asyncio.Event()
        self._group = asyncio.TaskGroup()
        for pool in fleet.pools:
            pool.attach(may_start=self._may_start)
        fleet.backlog.on_low = self._wake.set
        fleet.budgets.on_open.append(self._reopen)
        self._plan = Plan(store, fleet, world)
        self._handoffs = HandOffs(store, fleet, world, self.recorder, worker=name, on_given_back=self._forget)

    @property
    def runs(self) -> Collection[SegmentRun]:
        """The segments it has leased."""
        return self._runs.values()

    @property
    def rows(self) -> Mapping[str, int]:
        """How many rows it has recorded, by kind."""
        return self._unsaved.rows

    @property
    def unfinished(self) -> int:
        """Requests of all unfinished batches, as of the last plan."""
        return sum(demand.requests for demand in self._plan.demands)

    def ring(self, workspace: WorkspaceId) -> None:
        """There may be new work: a batch was created. Not heard while there is enough here, unless it is the only one
        of its workspace; otherwise `on_low` will ring."""
        if workspace not in self._fleet.backlog.workspaces() or self._plan.requests_wanted(self._runs.values()) > 0:
            self._wake.set()

    def cancel(self, batch_id: BatchId) -> None:
        """A batch was canceled: its waiting requests stop now, those in flight may finish within the grace."""
        for run in self._runs.values():
            if run.batch.id == batch_id:
                self._close(run, "canceled")
        self._handoffs.look()
        self._wake.set()

    def drain(self) -> None:
        """Start leaving: nothing new is started, what is in flight may finish; then `run` returns."""
        self._fleet.backlog.clear()
        self._handoffs.drain()
        self._drain_asked.set()

    async def run(self) -> None:
        """Work until drained (returns within `limits.DRAIN_S_MAX`) or cancelled. StoreError if the store cannot tell
        what was handed over."""
        await self._handoffs.recover()
        async with self._group:
            loops = [
                self._group.create_task(loop)
                for loop in (
                    self._lease_loop(),
                    self._checkpoint_loop(),
                    self._renew_loop(),
                    self._plan.run(self._wake.set),
                    self._fleet.run(),
                    self._fleet.budgets.run(),
                    self._handoffs.run(),
                    *(purse.run(self._store.control) for purse in self._fleet.purses),
                    self._fleet.charges.run(self._store.usage),
                )
            ]
            await self._drain_asked.wait()
            await self._finish_in_flight()
            for loop in loops:
                loop.cancel()
        with suppress(StoreError):  # A full disk: the leases run out by themselves, and opening the store frees them.
            await self._store.control.give_back(self.name)
            for purse in self._fleet.purses:
                await purse.save(self._store.control)
            await self._fleet.charges.save(self._store.usage)

    async def _finish_in_flight(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_S_MAX - _GIVE_BACK_S):
                for pool in self._fleet.pools:
                    await pool.wait_quiet()
                await self._handoffs.wait_quiet()
        for run in self._runs.values():
            for work in run.open.values():
                work.interrupt()
        await self.recorder.checkpoint(list(self._runs.values()))

    # --- Leasing ----------------------------------------------------------------------------------------------------

    async def _lease_loop(self) -> None:
        while True:
            self._wake.clear()
            if not self._drain_asked.is_set() and await self._lease():
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_POLL_S):
                    await self._wake.wait()

    async def _lease(self) -> bool:
        """Take what there is room for; whether anything was taken."""
        for run in self._plan.given_up(self._runs.values()):
            run.abandon()
            self._group.create_task(self._give_back(run))
        began_ms = self._world.clock.now_ms()
        room = limits.LEASED_SEGMENTS_MAX - _CLOSING_SEGMENTS - len(self._runs)
        try:
            segments = room if room > 0 else room + _CLOSING_SEGMENTS
            wanted = self._plan.wanted(self._runs.values(), segments=segments, is_closing_only=room <= 0)
            taken = await self._store.control.lease(self.name, wanted=wanted, now_ms=began_ms)
        except StoreError as error:
            self.troubles["leases"] = str(error)
            return False
        self.troubles.pop("leases", None)
        if taken and not self._runs:
            self._trusted_until_ms = leases.trusted_until_ms(now_ms=began_ms)
        for leased in taken:
            self._begin(leased)
        if taken:
            self._world.marks.reach("lease.committed")
        return bool(taken)

    async def _give_back(self, run: SegmentRun) -> None:
        while not self._drain_asked.is_set():
            try:
                await self._store.control.give_back(self.name, only=run.lease.segment)
            except StoreError:  # A full disk. Until then it is leased, and renewed like the others.
                await asyncio.sleep(_IDLE_POLL_S)
            else:
                break
        self._forget(run)

    def _reopen(self, workspaces: Collection[WorkspaceId]) -> None:
        self._fleet.backlog.reopen(workspaces)
        self._wake.set()
        self._wake_pools()

    def _begin(self, leased: LeasedSegment) -> None:
        segment = leased.lease.segment
        run = SegmentRun(
            leased,
            counter=self._tallies.counter(segment),
            unsaved=self._unsaved,
            on_done=self._seal_soon,
            charges=self._fleet.charges,
        )
        self._runs[segment] = run
        self._group.create_task(self._open(run))

    async def _open(self, run: SegmentRun) -> None:
        requests = await self._read_patiently(run)
        if requests is None:
            return
        works = run.start(requests)
        try:
            await self.recorder.carry_over(run)
        except StoreError as error:
            self._park(run, f"waits for a restart: {error}")
            return  # It stays leased by us: taking it again would end the same way.
        run.is_started = True
        self._seen.add(run.lease.segment)
        now_ms = self._world.clock.now_ms()
        kind = run.closing or kind_of_unfinished(run.batch, now_ms=now_ms)
        if kind is not None:
            run.close_all(kind)
        else:
            delay_s = max(0, run.batch.expires_at_ms - now_ms) / 1000
            run.timers.append(asyncio.get_running_loop().call_later(delay_s, self._close, run, "expired"))
            self._dispatch(run, (work for work in works if work.is_open))
        run.check_done()
        self._wake.set()

    async def _read_patiently(self, run: SegmentRun) -> list[Request] | None:
        """The requests of a run, read again until they can be read: too many open files is over in a moment, a disk
        that was not mounted in a while. None if the run is given up before."""
        while not run.is_abandoned and not self._drain_asked.is_set():
            try:
                requests = await self._read(run.leased)
            except StoreError as error:
                self._park(run, f"cannot be read: {error}")
            else:
                self.troubles.pop(self._parked.pop(run.lease.segment, ""), None)
                return requests
            with suppress(TimeoutError):
                async with asyncio.timeout(_READ_AGAIN_S):
                    await self._drain_asked.wait()
        return None

    async def _read(self, leased: LeasedSegment) -> list[Request]:
        source = leased.source
        stored = source.inline
        if stored is None:
            assert leased.requests_key is not None, "a segment is inline or in an object"
            stored = await self._store.objects.get(leased.requests_key, offset=source.offset, length=source.length)
        return await self._world.offload.run(lambda: segments.unpack(stored, raw_bytes=source.raw_bytes))

    def _dispatch(self, run: SegmentRun, works: Iterable[Work]) -> None:
        ready, workspace = list[Work](), run.batch.workspace
        for work in works:
            try:
                work.know(params.read_batched(work.params, is_strict=self._is_strict))
            except InvalidRequest as error:
                self._refuse(work, Refused(status=400, type=error.type, message=str(error)))
                continue
            if not self._fleet.rules_of(workspace).allows_model(work.model):
                said = f"model: {work.model} is not allowed in this workspace"
                self._refuse(work, Refused(status=403, type="permission_error", message=said))
            elif self._fleet.knows(work.model, workspace):
                ready.append(work)
            else:
                self._refuse(work, Refused(status=404, type="not_found_error", message=f"model: {work.model}"))
        unasked = self._handoffs.claim(run, ready if self._twins is None else self._twins.unasked(ready))
        is_last = run.batch.segments_open <= _LAST_SEGMENTS
        self._queue(longest_first(unasked) if is_last else unasked)

    def _took(self, work: Work, kind: Kind, line: bytes) -> Took | None:
        """What a line took that an earlier process has written: nobody noted who answered, so it is counted as an
        answer of the engine that is preferred."""
        usage = read_usage(line) if kind == "succeeded" else None
        if usage is None:
            return None
        work.know(params.read_batched(work.params))
        routes = self._fleet.routes_for(work.model, work.run.batch.workspace)
        is_told = work.run.lease.segment in self._seen  # By an earlier lease of ours.
        return work.run.charged(work, routes[0].engine.name if routes else "", usage, is_told=is_told)

    def _queue(self, works: list[Work]) -> None:
        self._fleet.backlog.add(works)
        self._wake_pools()

    def _queue_orphans(self, works: list[Work]) -> None:
        assert self._twins is not None, "only twins have orphans"
        self._queue(self._twins.unasked(works))

    def _refuse(self, work: Work, refused: Refused) -> None:
        work.run.record(work, "errored", errored(work.custom_id, refused))

    def _may_start(self) -> bool:
        return (
            not self._drain_asked.is_set()
            and self._unsaved.bytes < limits.CHECKPOINT_BUFFER_BYTES_MAX
            and self._world.clock.now_ms() < self._trusted_until_ms
        )

    # --- Ending -----------------------------------------------------------------------------------------------------

    def _close(self, run: SegmentRun, kind: Kind) -> None:
        if run.is_done or run.is_abandoned or run.closing == kind:
            return
        if not run.is_started:
            run.closing = kind  # `_open` will see it.
        elif kind == "expired":
            run.close_all(kind)
        else:
            run.close_waiting(kind)
            if run.open:
                grace_s = limits.CANCEL_GRACE_MS / 1000
                run.timers.append(asyncio.get_running_loop().call_later(grace_s, run.close_all, kind))

    def _seal_soon(self, run: SegmentRun) -> None:
        sealing = self._seal(run)
        try:
            self._group.create_task(sealing)
        except RuntimeError:  # `run` is being cancelled: this answer is lost, as any that is in flight then.
            sealing.close()

    async def _seal(self, run: SegmentRun) -> None:
        try:
            await self.recorder.seal(run)
        except StoreError as error:
            self._park(run, f"waits for a restart: {error}")
            return
        self._seen.discard(run.lease.segment)
        self._forget(run)

    def _park(self, run: SegmentRun, trouble: str) -> None:
        segment = run.lease.segment
        self._parked[segment] = f"segment {segment.index} of {segment.batch_id}"
        self.troubles[self._parked[segment]] = trouble

    def _forget(self, run: SegmentRun) -> None:
        run.cancel_timers()
        self._runs.pop(run.lease.segment, None)
        self.troubles.pop(self._parked.pop(run.lease.segment, ""), None)
        self._tallies.forget(run.lease.segment)
        self._fleet.backlog.forget(run)
        self._wake.set()

    # --- Keeping ----------------------------------------------------------------------------------------------------

    async def _checkpoint_loop(self) -> None:
        while True:
            await self._unsaved.some.wait()
            await asyncio.sleep(limits.CHECKPOINT_EVERY_MS / 1000)
            was_full = self._unsaved.bytes >= limits.CHECKPOINT_BUFFER_BYTES_MAX
            await self.recorder.checkpoint([run for run in self._runs.values() if run.lines and run.open])
            if was_full:
                self._wake_pools()

    async def _renew_loop(self) -> None:
        while True:
            await asyncio.sleep(limits.LEASE_RENEW_MS / 1000)
            if self._runs:
                await self._renew()

    async def _renew(self) -> None:
        began_ms, before = self._world.clock.now_ms(), list(self._runs.values())
        try:
            renewal = await self._store.control.renew(self.name, now_ms=began_ms)
        except StoreError as error:
            self.troubles["renewal"] = str(error)
            return
        self.troubles.pop("renewal", None)
        self._trusted_until_ms = leases.trusted_until_ms(now_ms=began_ms)
        held = set(renewal.held)
        for run in before:
            is_idle = not run.is_done or run.lease.segment in self._parked  # Not being sealed at this moment.
            if (run.lease.segment, run.lease.epoch) not in held and is_idle:
                run.abandon()
                self._forget(run)
            elif kind_of_unfinished(run.batch, now_ms=began_ms) == "expired":
                self._close(run, "expired")  # The timer does this too, unless the wall clock jumped.
        for batch_id in renewal.canceling:
            self.cancel(batch_id)
        self._wake_pools()

    def _wake_pools(self) -> None:
        for pool in self._fleet.pools:
            pool.wake()
