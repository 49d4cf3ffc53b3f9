"""Batches of several workspaces over the real fleet, backlog, pools, plan and leases, under virtual time.

What is left out: the bodies of requests, and results on disk. The control store is the real one, in memory. A `Rule`
other than `OURS` is the same code that is told something else: who is to be first, or what counts as service.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from msgspec import Raw, Struct

from overnight.core import schedule, segment
from overnight.core import window as windows
from overnight.core.batch import Batch, kind_of_unfinished
from overnight.core.retry import Answered, Outcome
from overnight.core.segment import Cut
from overnight.core.tokens import Tokens
from overnight.engines.engine import Call
from overnight.engines.routing import Route
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.plan import Plan
from overnight.runner.segmentrun import SegmentRun, Unsaved, Work
from overnight.store.committer import InlineCommitter
from overnight.store.control import LeasedSegment, NewBatch, NewSegment, SealedResults
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.store import Store
from overnight.testing import stepdrive
from overnight.testing.stepengine import PrefixCache, Profile, Sizes, StepEngine
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run
from overnight.wire.create import Request

_SEGMENTS = 240  # As `runner.worker` leases them.
_FAR_MS = 10**10
_BYTES_PER_TOKEN = 4
_WORKER = "simulated"
_NO_RESULTS = SealedResults(length=0, raw_bytes=0, crc=0)
_MUTE = b'{"type":"message","role":"assistant","content":[],"usage":{"input_tokens":1,"output_tokens":1}}'


class Submitted(Struct, frozen=True, kw_only=True):
    """A batch that is created at `at_s`. What has no answer `lasts_s` later is missed."""

    name: str
    workspace: WorkspaceId
    requests: int
    sizes: Callable[[int], Sizes]  # Of each request, by its place in the order in which they are stored.
    at_s: float = 0.0
    lasts_s: float = 86_400.0
    max_tokens: int = 256


class Ended(Struct, frozen=True, kw_only=True):
    """What became of it. `took_s` is from its creation to its end."""

    submitted: Submitted
    took_s: float
    missed: int


class Rule(Struct, frozen=True, kw_only=True):
    """What is different from ours. `deal` says to which engine a request belongs for good."""

    name: str
    has_guard: bool = True
    is_by_deadline: bool = False
    is_by_age: bool = False
    is_in_requests: bool = False  # A request is a request, whatever tokens it takes.
    is_by_batch: bool = False  # Every batch is a workspace of its own.
    deal: Callable[[Submitted, int], int] | None = None  # Of a request of this batch, by its place.


OURS = Rule(name="ours")
PLAIN = Rule(name="fair in tokens", has_guard=False)
IN_REQUESTS = Rule(name="fair in requests", has_guard=False, is_in_requests=True)
BY_BATCH = Rule(name="round robin of batches", has_guard=False, is_in_requests=True, is_by_batch=True)
EDF = Rule(name="EDF", is_by_deadline=True)
FIFO = Rule(name="FIFO", is_by_deadline=True, is_by_age=True)


class _Shared(PrefixCache):
    """A block is shared from the step on in which it is scheduled (vLLM design: "Automatic prefix caching")."""

    def hit(self, sizes: Sizes) -> int:
        tokens = super().hit(sizes)
        super().enter(sizes)
        return tokens

    def enter(self, sizes: Sizes) -> None:
        """It has entered."""


class Replica(StepEngine):
    """A step engine that counts: tokens of prompts asked for, and what each workspace got (`schedule.cost`).

    Its window is fixed, so that what is measured is the order of requests and nothing else.
    """

    def __init__(self, profile: Profile, *, name: str = "replica", cache_tokens: int = 0, window: int = 64) -> None:
        super().__init__(profile, name=name, in_flight_max=window, has_slots=profile.slots == window)
        self.input_tokens = 0
        self.cost_of: Counter[str] = Counter()
        self.is_mute = False  # It tells no usage that anything could be learnt from.
        self._cache = _Shared(cache_tokens)

    async def answer(self, call: Call) -> Outcome:
        outcome = await super().answer(call)
        sizes = self._sizes(call.params)
        if sizes is None or not isinstance(outcome, Answered):
            return outcome
        self.input_tokens += sizes.input
        workspace = call.params.rpartition(b" of=")[2].decode()
        self.cost_of[workspace] += round(schedule.cost(Tokens(sizes.input, sizes.output)))
        return Answered(_MUTE) if self.is_mute else outcome


class Part(Replica):
    """A fixed part of the window of another: what a workspace has that shares an engine with nobody."""

    def __init__(self, whole: Replica, *, window: int) -> None:
        super().__init__(whole.profile, name="part", window=window)
        self._whole = whole

    async def answer(self, call: Call) -> Outcome:
        return await self._whole.answer(call)


class _Watch:
    """Marks that call somebody at every dispatch."""

    def __init__(self, on_dispatched: Callable[[], None]) -> None:
        self._on_dispatched = on_dispatched

    def reach(self, mark: str) -> None:
        if mark == "request.dispatched":
            self._on_dispatched()


class Drive:
    """Creates `batches` at their times and works until all have ended.

    `gap_max` is the largest difference of service, by weight, between two workspaces while both waited;
    `cost_of` is what each had got when they last waited all. `holes` counts the seconds, of `samples`, in
    which an engine was not full while requests waited.
    """

    def __init__(
        self,
        engines: Sequence[Replica],
        batches: Iterable[Submitted],
        *,
        rule: Rule = OURS,
        weights: Mapping[WorkspaceId, float] | None = None,
        seed: int = 1,
    ) -> None:
        self.engines, self.rule = engines, rule
        self.batches = sorted(batches, key=lambda item: item.at_s)
        self.ended: list[Ended] = []
        self.gap_max = 0.0
        self.cost_of: Counter[str] = Counter()
        self.samples = self.holes = 0
        self.clock = VirtualClock()
        world = World(
            clock=self.clock, entropy=SeededEntropy(seed), marks=_Watch(self._note), offload=InlineOffload()
        )
        routes = [Route(engine, [f"m{place}" if rule.deal else "m"]) for place, engine in enumerate(engines)]
        for engine in engines:
            engine.is_mute = rule.is_in_requests
        self.fleet = Fleet(routes, world, weights=weights)
        for pool in self.fleet.pools:
            pool.admission.window = windows.begun(most=pool.engine.in_flight_max, fixed=True)
        self._open: dict[BatchId, tuple[Submitted, list[Cut]]] = {}
        self._unleased = 0  # Segments.
        self._runs: set[SegmentRun] = set()
        self._low, self._all_ended = asyncio.Event(), asyncio.Event()
        self.fleet.backlog.on_low = self._low.set
        self._sql = connect(Path(":memory:"))
        self._control = SqliteControl(InlineCommitter(self._sql, before_commit=lambda: None))
        self._plan = Plan(cast(Store, SimpleNamespace(control=self._control)), self.fleet, world)

    @property
    def took_s(self) -> float:
        """Until the last batch ended."""
        return max(item.submitted.at_s + item.took_s for item in self.ended)

    def run(self) -> list[Ended]:
        """What became of all of them, in the order in which they ended."""
        try:
            run(self._main(), self.clock)
        finally:
            self._sql.close()
        return self.ended

    async def _main(self) -> None:
        loops = (self.fleet.run(), self._plan.run(self._planned), self._lease_loop(), self._sample())
        async with asyncio.TaskGroup() as self._group:
            tasks = [self._group.create_task(loop) for loop in loops]
            for item in self.batches:
                await asyncio.sleep(max(0.0, item.at_s - _now_s()))
                await self._create(item)
            await self._all_ended.wait()
            for task in tasks:
                task.cancel()

    async def _create(self, item: Submitted) -> None:
        now_ms = self.clock.now_ms()
        sizes_bytes = [item.sizes(place).input * _BYTES_PER_TOKEN for place in range(item.requests)]
        cuts = list(segment.cut(sizes_bytes))
        rule, number = self.rule, len(self._open) + len(self.ended)
        batch = Batch(
            id=BatchId(f"msgbatch_{number:010d}"),
            workspace=WorkspaceId(f"{item.workspace}-{number}") if rule.is_by_batch else item.workspace,
            api_version="2023-06-01",
            betas="",
            requests=item.requests,
            segments_open=len(cuts),
            created_at_ms=now_ms,
            expires_at_ms=now_ms + (_FAR_MS if rule.is_by_age else round(item.lasts_s * 1000)),
        )
        new = [
            NewSegment(
                requests=part.stop - part.start,
                raw_bytes=sum(sizes_bytes[part.start : part.stop]),
                offset=0,
                length=0,
                model="" if rule.deal else "m",
            )
            for part in cuts
        ]
        self._open[batch.id] = (item, cuts)
        self._unleased += len(cuts)
        await self._control.create(NewBatch(batch=batch, segments=new, requests_key="simulated"))
        asyncio.get_running_loop().call_later(item.lasts_s, self._expire, batch)
        self._low.set()

    # --- As runner.worker -------------------------------------------------------------------------------------------

    async def _lease_loop(self) -> None:
        while True:
            self._low.clear()
            wanted = self._plan.wanted(self._runs, segments=_SEGMENTS, is_closing_only=False)
            leased = await self._control.lease(_WORKER, wanted=wanted, now_ms=self.clock.now_ms())
            for item in leased:
                self._begin(item)
            if not leased:
                await self._low.wait()

    def _begin(self, leased: LeasedSegment) -> None:
        counter = Counter[str]()
        segment_run = SegmentRun(leased, counter=counter, unsaved=Unsaved(), on_done=self._seal_soon)
        item, cuts = self._open[leased.batch.id]
        part = cuts[leased.lease.segment.index]
        given = [(place, item.sizes(place)) for place in range(part.start, part.stop)]
        of = b" of=" + item.workspace.encode()
        works = segment_run.start(
            Request(str(place), Raw(stepdrive.call(sizes).params + of)) for place, sizes in given
        )
        self._runs.add(segment_run)
        self._unleased -= 1
        segment_run.is_started = True
        if (kind := kind_of_unfinished(leased.batch, now_ms=self.clock.now_ms())) is not None:
            segment_run.close_all(kind)
            return
        deal = self.rule.deal
        for work, (place, sizes) in zip(works, given, strict=True):
            work.size_bytes, work.max_tokens = sizes.input * _BYTES_PER_TOKEN, item.max_tokens
            work.model = "m" if deal is None else f"m{deal(item, place) % len(self.engines)}"
            if self.rule.is_in_requests:
                work.size_bytes = work.max_tokens = 1
        self.fleet.backlog.add(sorted(works, key=_model))
        self._wake()

    def _seal_soon(self, segment_run: SegmentRun) -> None:
        self._group.create_task(self._seal(segment_run))

    async def _seal(self, segment_run: SegmentRun) -> None:
        self._runs.discard(segment_run)
        self.fleet.backlog.forget(segment_run)
        now_ms = self.clock.now_ms()
        batch = await self._control.seal(segment_run.lease, segment_run.tally(), _NO_RESULTS, now_ms=now_ms)
        self._low.set()
        if batch.status != "ended":
            return
        item, _ = self._open.pop(batch.id)
        missed = batch.requests - batch.tally.succeeded
        self.ended.append(Ended(submitted=item, took_s=_now_s() - item.at_s, missed=missed))
        if len(self.ended) == len(self.batches):
            self._all_ended.set()

    def _expire(self, batch: Batch) -> None:
        if batch.id in self._open:
            self._group.create_task(self._cancel(batch))

    async def _cancel(self, batch: Batch) -> None:
        await self._control.cancel(batch.workspace, batch.id, now_ms=self.clock.now_ms())
        for segment_run in [item for item in self._runs if item.batch.id == batch.id]:
            segment_run.close_all("expired")
        self._low.set()

    # --- As told otherwise, and seen --------------------------------------------------------------------------------

    def _planned(self) -> None:
        if self.rule.is_by_deadline:
            self.fleet.backlog.danger_ms = 10 * _FAR_MS + self.clock.now_ms()
        elif not self.rule.has_guard:
            self.fleet.backlog.danger_ms = None
        self._low.set()

    def _wake(self) -> None:
        for pool in self.fleet.pools:
            pool.wake()

    def _note(self) -> None:
        served = self.fleet.backlog.served
        waiting = [served[workspace] for workspace in self.fleet.backlog.workspaces() if workspace in served]
        if len(waiting) > 1:
            self.gap_max = max(self.gap_max, max(waiting) - min(waiting))

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            waiting = self.fleet.backlog.waiting()
            if len(self.fleet.backlog.workspaces()) == len({item.workspace for item in self.batches}):
                self.cost_of = sum((engine.cost_of for engine in self.engines), Counter())
            is_waiting = self._unleased > 0 or any(waiting.values())
            self.samples += 1
            self.holes += is_waiting and any(pool.in_flight < pool.limit for pool in self.fleet.pools)


def _model(work: Work) -> str:
    return work.model


def _now_s() -> float:
    return asyncio.get_running_loop().time()
