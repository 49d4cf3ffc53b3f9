"""Requests handed over to an upstream's batch endpoint in large runs, so that none is paid twice and none is lost.

The way of a handoff: taken, written down, posted, its batch written down, looked at until it ends, results recorded,
and, once these are durable, forgotten. After a crash it goes on where it was, and `claim` tells what belongs to it
before anybody else can ask it. A create that was never confirmed is looked for at the upstream
(`core.handoff.choose`) before its requests are handed over anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.core.handoff import Handoff, Part, Prove, Shown, Unmade, Wait
from overnight.core.lease import SegmentRef
from overnight.core.retry import Broken, Busy, Refused
from overnight.engines.claudebatch import ClaudeBatch
from overnight.errors import StoreError
from overnight.ports.world import World
from overnight.runner.bills import Bills
from overnight.runner.collector import Collector, are_saved
from overnight.runner.held import Held
from overnight.runner.purse import Purse
from overnight.runner.segmentrun import SegmentRun, Work
from overnight.runner.source import Source, put_back, take_run
from overnight.runner.upstream import Upstream
from overnight.store.control import Control

T = TypeVar("T")
_RETRY_S = 2.0  # A full disk is looked at again this often.


class HandOff:
    """The handoffs of one engine. `recover` before anything is leased, then `run`; all on one event loop."""

    def __init__(
        self,
        engine: ClaudeBatch,
        source: Source,
        control: Control,
        world: World,
        *,
        on_reread: Callable[[SegmentRun], None],
        purse: Purse | None = None,
    ) -> None:
        """`on_reread` gives a segment back and leases it anew, since we no longer hold what its requests say.
        `purse`: what the engine may cost."""
        self.engine = engine
        self.name_of: Mapping[str, str] = {}  # Models that the upstream knows by another name than requests.
        self._source, self._control, self._world, self._on_reread = source, control, world, on_reread
        self._upstream = Upstream(engine.batches, world)
        self._collector, self._purse = Collector(engine.name, self._upstream, source, world), purse
        self._held: dict[str, Held] = {}
        self._attempts: dict[tuple[SegmentRef, int], int] = {}  # Of requests whose segments are read anew.
        self._ready, self._drain, self._quiet = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._quiet.set()
        self._group = asyncio.TaskGroup()

    @property
    def trouble(self) -> str:
        """What the upstream said when it was last busy or away; empty after a success. For health."""
        return self._upstream.last_trouble

    @property
    def limit(self) -> int:
        """How many requests it wants to find waiting: a whole batch."""
        return self.engine.requests_max

    @property
    def turn(self) -> int:
        """All of it."""
        return self.limit

    @property
    def is_by_deadline(self) -> bool:
        """It keeps to prompt order: whatever is there goes into the next batch anyway."""
        return False

    @property
    def in_flight(self) -> int:
        """Requests that are at the upstream, or about to be, and still wanted."""
        return sum(work.is_open for held in self._held.values() for work in held.works())

    async def recover(self) -> None:
        """Read what an earlier process left. StoreError if the store cannot be read."""
        for found in await self._control.outstanding(self.engine.name):
            self._held[found.handoff.id] = Held(found.handoff, found.parts, Bills(self._purse))

    def claim(self, run: SegmentRun, works: Iterable[Work]) -> list[Work]:
        """The requests of a segment that was just leased, without those that are handed over already."""
        left = list(works)
        for work in left:
            work.attempt = self._attempts.pop((run.lease.segment, work.ordinal), work.attempt)
        for held in self._held.values():
            left = held.join(run, left)
            held.bills.owe(held.works_in(run.lease.segment), self._source.estimated)
        return left

    def look(self) -> None:
        """Segments are closing: what nobody wants any more is canceled now, not at the end of the grace."""
        for held in self._held.values():
            held.look()

    def drain(self) -> None:
        """Hand over nothing more."""
        self._drain.set()

    async def wait_quiet(self) -> None:
        """Return when nothing is being handed over: stopping then leaves no create whose outcome is unknown."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        self._source.on_ready(self._ready.set)
        if self._purse is not None:
            self._purse.on_open.append(self._ready.set)
        self._ready.set()
        async with self._group:
            for held in self._held.values():
                self._group.create_task(self._follow(held))
            while True:
                await self._ready.wait()
                await asyncio.sleep(limits.HANDOFF_GATHER_MS / 1000)
                self._ready.clear()
                await self._take()

    # --- Handing over -----------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        most = self.engine.bytes_max
        while not self._drain.is_set() and len(self._held) < limits.HANDOFFS_MAX and not self._is_spent:
            bills = Bills(self._purse)
            works = take_run(self._source, self, bills, requests_max=self.engine.requests_max, bytes_max=most)
            if not works:
                self._ready.clear()  # What was put back is no news.
                return
            count = handoffs.fitting((work.size_bytes for work in works), bytes_max=most)
            if count == 0:
                self._collector.refuse(works[0], _TOO_LARGE)
            chosen = [work for work in works[:count] if _headers(work) == _headers(works[0])]
            sent = set(chosen)
            put_back(self._source, [work for work in works if work not in sent])
            bills.keep(chosen)
            if chosen:
                await self._hand_over(chosen, bills)

    async def _hand_over(self, works: Sequence[Work], bills: Bills) -> None:
        """Make one batch of the upstream of these requests, which share version and betas."""
        ordinals: dict[SegmentRef, list[int]] = {}
        for work in works:
            ordinals.setdefault(work.run.lease.segment, []).append(work.ordinal)
        parts = [Part(segment, handoffs.packed(found)) for segment, found in ordinals.items()]
        handoff = Handoff(
            id=handoffs.new_id(self._world.entropy.bytes(handoffs.HANDOFF_ID_ENTROPY_BYTES)),
            engine=self.engine.name,
            requests=len(works),
            created_at_ms=self._world.clock.now_ms(),
        )
        held = self._held[handoff.id] = Held(handoff, parts, bills)
        for run in dict.fromkeys(work.run for work in works):
            held.join(run, [work for work in works if work.run is run])
        self._quiet.clear()
        try:
            await self._kept(lambda: self._control.intend(handoff, parts))
            self._world.marks.reach("handoff.intended")
            if await self._post(held):
                self._group.create_task(self._follow(held))
        finally:
            self._quiet.set()

    async def _post(self, held: Held) -> bool:
        """Create a batch that was never asked for; waits while the upstream takes none. False if it was let go."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._upstream.pause_s()):
                    await self._drain.wait()
            if self._drain.is_set() or not held.is_whole:
                await self._end(held, was_made=False)
                return False
            outcome = await self._created(held)
            if isinstance(outcome, Refused):
                await self._refused(held, outcome)
                return False
            if not isinstance(outcome, Busy):
                return True

    async def _created(self, held: Held) -> Shown | Refused | Busy | Broken:
        """The outcome of one create. Shown: its batch is written down."""
        batch = next(held.works()).run.batch
        outcome = await self.engine.batches.create(
            held.body(self.name_of), key=held.handoff.id, api_version=batch.api_version, betas=batch.betas
        )
        self._world.marks.reach("handoff.posted")
        if isinstance(outcome, Shown):
            self._upstream.be_well()
            await self._submitted(held, outcome.id)
        elif not isinstance(outcome, Refused):
            self._upstream.note(outcome)
        return outcome

    async def _submitted(self, held: Held, upstream_id: str) -> None:
        await self._kept(lambda: self._control.submitted(held.handoff.id, upstream_id))
        held.submitted(upstream_id)
        self._world.marks.reach("handoff.submitted")

    async def _refused(self, held: Held, refused: Refused) -> None:
        """The upstream has made nothing: halves if it was too large, else a row for each request."""
        works = [work for work in held.works() if work.is_open]
        if refused.status != 413 or len(works) < 2:
            for work in works:
                self._collector.refuse(work, refused)
            await self._end(held, was_made=False)
            return
        halves = [(half, held.bills.part(half)) for half in (works[: len(works) // 2], works[len(works) // 2 :])]
        await self._forget(held, was_made=False)
        held.leave()
        for half, bills in halves:
            await self._hand_over(half, bills)

    # --- Following --------------------------------------------------------------------------------------------------

    async def _follow(self, held: Held) -> None:
        if held.handoff.upstream_id is None:
            await self._find(held)
        upstream_id = held.handoff.upstream_id
        if upstream_id is not None and await self._has_ended(held, upstream_id):
            self._world.marks.reach("handoff.ended")
            await self._collect(held)
        if held.handoff.id in self._held:
            await self._end(held, was_made=True)

    async def _find(self, held: Held) -> None:
        """Find out what became of a create that was never confirmed; returns when it is known, or does not matter."""
        began_s, strangers, posts_left = asyncio.get_running_loop().time(), set[str](), limits.ATTEMPTS_MAX
        while held.is_open:
            newest = await self._upstream.newest(held.handoff)
            if newest.has_keys and posts_left and held.is_whole:
                posts_left -= 1
                outcome = await self._created(held)
                if isinstance(outcome, Refused):
                    await self._refused(held, outcome)
                if isinstance(outcome, Refused | Shown):
                    return
            choice = handoffs.choose(
                held.handoff,
                newest.shown,
                known=strangers.union(other.handoff.upstream_id or "" for other in self._held.values()),
                ahead_ms=newest.ahead_ms,
                searched_ms=int((asyncio.get_running_loop().time() - began_s) * 1000),
            )
            match choice:
                case Prove(ids):
                    if (proven := await self._proven(held, ids, strangers)) is not None:
                        await self._submitted(held, proven)
                        return
                case Wait(ms):
                    may_post = newest.has_keys and posts_left > 0
                    await held.pause(ms / 1000, stays=_is_waiting(held, may_post=may_post))
                case Unmade():
                    held.bills.close(was_made=False)
                    return
            await self._refresh(held)

    async def _proven(self, held: Held, ids: Iterable[str], strangers: set[str]) -> str | None:
        """Which of these ended batches is it; those that are not become strangers."""
        for upstream_id in ids:
            is_ours = await self._upstream.is_batch_of(held.handoff, upstream_id)
            if is_ours:
                return upstream_id
            if is_ours is False:
                strangers.add(upstream_id)
        return None

    async def _has_ended(self, held: Held, upstream_id: str) -> bool:
        """Wait for the end. False if there is nothing to collect: nobody wants it, or the upstream lost it."""
        loop = asyncio.get_running_loop()
        looks, is_canceled, seen_s = 0, False, loop.time()
        while True:
            await self._refresh(held)
            if not held.is_wanted and not is_canceled:
                await self._upstream.cancel(upstream_id)
                is_canceled, looks = True, 0
            if not held.is_open:
                return False
            look = await self._upstream.retrieve(upstream_id)
            asked_ms = None
            if isinstance(look, Refused):
                if (loop.time() - seen_s) * 1000 >= limits.HANDOFF_GONE_AFTER_MS:
                    return False
            elif look.shown.has_ended:
                return True
            else:
                seen_s, asked_ms = loop.time(), look.retry_after_ms
            looks += 1
            seconds = handoffs.poll_ms(looks, asked_ms=asked_ms) / 1000
            await held.pause(seconds, stays=_is_open(held) if is_canceled else _is_wanted(held))

    async def _collect(self, held: Held) -> None:
        """Record all results; returns when they are durable. Segments that are leased late are waited for, then those
        that are here are read, so that they make room for the others."""
        settle_s = limits.HANDOFF_SETTLE_MS / 1000
        while True:
            await self._refresh(held)
            if not held.unread:
                if await are_saved(held):
                    self._world.marks.reach("handoff.part-applied")
                    return
                await asyncio.sleep(limits.CHECKPOINT_EVERY_MS / 1000)
                continue
            leased = held.unread - held.unleased
            waited_s = asyncio.get_running_loop().time() - held.joined_at_s
            if leased and (not held.unleased or waited_s >= settle_s):
                await self._collector.read(held, leased)
            else:
                await held.pause(settle_s, stays=_lacks_leases(held))

    # --- Letting go -------------------------------------------------------------------------------------------------

    async def _end(self, held: Held, *, was_made: bool) -> None:
        """Forget the handoff; what of it is still wanted waits again. `was_made`: the upstream may charge for it."""
        await self._forget(held, was_made=was_made)
        if wanted := held.leave():
            delay_ms = max(held.again.get(work, 0) for work in wanted)
            self._group.create_task(self._give_back(wanted, delay_ms))

    async def _forget(self, held: Held, *, was_made: bool) -> None:
        await self._kept(lambda: self._control.forget_handoff(held.handoff.id))
        self._world.marks.reach("handoff.collected")
        del self._held[held.handoff.id]
        held.bills.close(was_made=was_made)
        self._ready.set()  # There is room for another.

    async def _give_back(self, works: Sequence[Work], delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        unread = dict[SegmentRun, None]()
        for work in reversed(works):
            if not work.is_open:
                continue
            self._source.settle(work, None)
            if work.run.closing is not None:
                work.run.close_one(work)
            elif work.params:
                self._source.put_back([work])
            else:
                self._attempts[work.run.lease.segment, work.ordinal] = work.attempt
                unread[work.run] = None
        self._ready.set()
        for run in unread:
            self._on_reread(run)

    @property
    def _is_spent(self) -> bool:
        return self._purse is not None and self._purse.is_shut

    # --- The store --------------------------------------------------------------------------------------------------

    async def _refresh(self, held: Held) -> None:
        held.keep_only(await self._kept(lambda: self._control.open_parts(held.handoff.id)))

    async def _kept(self, use: Callable[[], Awaitable[T]]) -> T:
        """What the store says, tried until it can: a full disk must not make anything be paid twice."""
        while True:
            try:
                return await use()
            except StoreError as error:
                self._upstream.last_trouble = str(error)
                await asyncio.sleep(_RETRY_S)


_TOO_LARGE = Refused(
    status=413, type="request_too_large", message="The request is larger than a batch of this engine may be."
)


def _headers(work: Work) -> tuple[str, str]:
    return work.run.batch.api_version, work.run.batch.betas


def _is_open(held: Held) -> Callable[[], bool]:
    return lambda: held.is_open


def _is_wanted(held: Held) -> Callable[[], bool]:
    return lambda: held.is_wanted


def _lacks_leases(held: Held) -> Callable[[], bool]:
    return lambda: bool(held.unleased)


def _is_waiting(held: Held, *, may_post: bool) -> Callable[[], bool]:
    return lambda: held.is_open and not (may_post and held.is_whole)
