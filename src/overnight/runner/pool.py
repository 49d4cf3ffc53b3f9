"""One engine kept exactly full, by lanes that take from the backlog while the engine has room.

A lane is a long-lived task, so a request costs no task of its own. Interactive requests do not queue here at all:
they enter the engine at once, and lanes stand back until there is room again (invariant I10). How much room there is
is the business of `runner.admission`.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from functools import partial

from overnight import limits
from overnight.core import gate as gates
from overnight.core import retry
from overnight.core.retry import Again, Alone, Answered, Broken, Busy, Outcome, Record, Refused
from overnight.core.tokens import Tokens, of_usage
from overnight.engines.engine import Call, Engine
from overnight.errors import Overloaded
from overnight.ports.clock import Clock
from overnight.ports.entropy import Entropy
from overnight.ports.logs import about, tell
from overnight.ports.marks import Marks
from overnight.ports.tracer import NO_TRACER, Tracer
from overnight.runner import tracing
from overnight.runner.admission import Admission, Guest, Visit
from overnight.runner.backlog import Backlog, Taker
from overnight.runner.handoff import HandOff
from overnight.runner.leaders import Leaders
from overnight.runner.segmentrun import Work
from overnight.runner.slot import Slot
from overnight.wire import message, params, problem, result
from overnight.wire.message import Usage

log = logging.getLogger("overnight.runner")
_NAMES: Mapping[type[Outcome], str] = {kind: kind.__name__.lower() for kind in (Answered, Refused, Busy, Broken)}

_TURN_MAX = 32


class Pool:
    """The lanes of one engine. Everything happens on one event loop, so no lock is needed."""

    def __init__(self, engine: Engine, backlog: Backlog, *, entropy: Entropy, marks: Marks, clock: Clock) -> None:
        self.engine = engine
        self.admission = Admission(engine, clock=clock)
        self.admission.wake = self.wake
        self.last_trouble = ""  # What the engine said when it was last busy; empty after a success. For health.
        self.outcomes = Counter[str]()  # Attempts that have ended, by kind of outcome.
        self.handoff: HandOff | None = None  # Who has the requests of batches, if the engine is a batch endpoint.
        self.tracer: Tracer = NO_TRACER  # Where attempts are told.
        self.name_of: Mapping[str, str] = {}  # What the engine calls models that callers call otherwise.
        self._backlog, self._entropy, self._marks = backlog, entropy, marks
        self._is_told_away = False
        self._takers: list[Taker] = [self]
        self._suspects: deque[Work] = deque()  # Each runs alone: see `core.retry.Alone`.
        self._is_alone = False
        self._leaders = Leaders() if engine.capabilities.charges_cache_writes else None
        self._idle: deque[asyncio.Future[None]] = deque()
        self._lanes = 0
        self._group: asyncio.TaskGroup | None = None
        self._budget = retry.Budget()
        self._may_start: Callable[[], bool] = lambda: True
        self.on_away: Callable[[], None] = lambda: None  # Told when its work is anybody's.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._interrupted: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Batch requests inside the engine."""
        return self.admission.in_flight if self.handoff is None else self.handoff.in_flight

    @property
    def interactive_in_flight(self) -> int:
        """Requests of people inside the engine."""
        return self.admission.interactive

    @property
    def limit(self) -> int:
        """How many batch requests are inside at once when nothing is in the way."""
        return self.admission.limit if self.handoff is None else self.handoff.limit

    @property
    def turn(self) -> int:
        """See `backlog.Taker`."""
        return min(_TURN_MAX, max(1, self.limit // 4))

    @property
    def is_away(self) -> bool:
        """Whether the engine was not reached, or broke, when it was last asked."""
        return self.admission.is_away

    @property
    def trouble(self) -> str:
        """What holds work up here, in words for health."""
        meter, purse = self.admission.meter, self.admission.purse
        others = (source.trouble for source in (self.handoff, meter, purse) if source is not None)
        return self.last_trouble or next(filter(None, others), "")

    @property
    def is_gone(self) -> bool:
        """Whether it is away for so long that others do its work, at their price."""
        return self.is_away and self.admission.away_ms >= limits.FALL_OVER_MS

    @property
    def speed_per_s(self) -> float | None:
        """Requests finished in a second at full speed; None if that is not known, 0 while it is away."""
        return 0.0 if self.is_away else self.admission.speed_per_s

    @property
    def is_by_deadline(self) -> bool:
        """See `backlog.Taker`: outside its hours an engine works for deadlines alone."""
        return self.admission.share < 1.0

    def attach(self, *, may_start: Callable[[], bool]) -> None:
        """Whom to ask before a request is started."""
        self._may_start = may_start

    def wake(self) -> None:
        """There may be work or room: let one lane look. It calls the next one as long as there is more."""
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                return
        if self._group is not None and self._lanes < self.engine.in_flight_max:
            self._lanes += 1
            self._group.create_task(self._lane(), context=Context())  # It outlives whoever has woken it.

    async def wait_quiet(self) -> None:
        """Return when no batch request is inside the engine."""
        await self._quiet.wait()

    @contextmanager
    def interactive(self, *, shows_first_token: bool = False) -> Iterator[Guest]:
        """Around an interactive request: lanes leave it room. `on_first_token` of what it gives is to be called when
        its first token is there, if that will be seen. Overloaded beyond `IN_FLIGHT_INTERACTIVE_MAX`."""
        if self.interactive_in_flight >= limits.IN_FLIGHT_INTERACTIVE_MAX:
            raise Overloaded("too many requests at once; try again shortly", retry_after_s=1)
        guest = self.admission.arrive(shows_first_token=shows_first_token)
        try:
            yield guest
        finally:
            guest.leave()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                group.create_task(self.admission.steer(self._on_closed))
                self.wake()
                await asyncio.Event().wait()
            finally:
                self._group = None  # Requests of people may outlive the lanes, and wake nobody then.

    def _on_closed(self) -> None:
        if self.is_away:
            if not self._is_told_away:
                self._is_told_away = True
                tell(log, logging.WARNING, "engine away", engine=self.engine.name)
            self._let_go()
            self.on_away()

    def _let_go(self) -> None:
        for taker in self._takers:
            self._backlog.release(taker)
        self._backlog.put_back(self._suspects)
        self._suspects.clear()
        if self._leaders is not None:
            self._give_back(self._leaders.give_back())

    async def _lane(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        stop = partial(self._interrupt, task)
        taker = self._taker()
        while True:
            work = self._take(taker) or await self._next(taker)
            work.stop = stop
            self._quiet.clear()
            visit = self.admission.enter(work.tokens, work.model)
            outcome: Outcome | None = None
            try:
                outcome = await self._attempt(work, partial(self.admission.prefilled, visit))
            except asyncio.CancelledError:
                if task not in self._interrupted:
                    raise
                self._interrupted.discard(task)
                task.uncancel()
                self._backlog.settle(work, None)
                if visit.bill is not None:
                    visit.bill.close(None)
                continue
            finally:
                work.stop = None
                was_alone, self._is_alone = self._is_alone, False
                self.admission.left(visit)
                if self._leaders is not None:
                    was_answered = isinstance(outcome, Answered)
                    self._leaders.ended(work, was_answered=was_answered, now_ms=self.admission.loop_ms())
                if self.admission.in_flight == 0:
                    self._quiet.set()
            assert outcome is not None, "it did not raise"
            took = self._settle(work, outcome, visit, was_alone=was_alone)
            if visit.bill is not None:
                visit.bill.close(outcome)
            self._backlog.settle(work, took)
            if took is not None:
                self.admission.finished(visit, took)

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        self._interrupted.add(task)
        task.cancel()

    def _taker(self) -> Taker:
        if not self.engine.capabilities.has_slots:
            return self
        slot = Slot(self)
        self._takers.append(slot)
        return slot

    async def _next(self, taker: Taker) -> Work:
        work = None
        while work is None:
            future = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            await future
            work = self._take(taker)
        return work

    def _take(self, taker: Taker) -> Work | None:
        if self.admission.is_spent:
            self._let_go()
        if self._is_alone or not self._may_start() or not self.admission.has_room():
            return None
        while self._suspects and not self._suspects[0].is_open:
            self._suspects.popleft()
        is_in_doubt = self.admission.gate != gates.OPEN  # It is tried with another request first, if there is one.
        work = None if self._suspects and not is_in_doubt else self._unsuspected(taker)
        if work is None and self._suspects:
            self._is_alone = not self.admission.in_flight
            return self._suspects.popleft() if self._is_alone else None
        if work is None:
            self.admission.starved()
            return None
        if self.admission.admits(work.tokens, work.model):
            if self.admission.in_flight + 1 < self.admission.window.limit:  # Else a lane would look in vain.
                self.wake()
            return work
        self._give_back([work])
        if self.admission.is_spent:
            self._let_go()
        return None

    def _unsuspected(self, taker: Taker) -> Work | None:
        """The next request that may run beside others. Suspects that another engine let go are put aside."""
        while True:
            work = self._next_to_ask(taker, self._leaders) if self._leaders is not None else self._backlog.take(taker)
            if work is None or work.deaths < limits.DEATHS_MAX:
                return work
            self._backlog.settle(work, None)
            self._suspects.append(work)

    def _next_to_ask(self, taker: Taker, leaders: Leaders) -> Work | None:
        now_ms = self.admission.loop_ms()
        while leaders.held < self.limit:
            work = leaders.next() or self._backlog.take(taker)
            if work is None or leaders.may_go(work, now_ms=now_ms):
                return work
        return None

    def _give_back(self, works: Iterable[Work]) -> None:
        for work in works:
            self._backlog.settle(work, None)
        self._backlog.put_back(works)

    async def _attempt(self, work: Work, on_first_token: Callable[[], None]) -> Outcome:
        work.attempt += 1
        spend = retry.after_first_attempt if work.attempt == 1 else retry.after_retry
        self._budget = spend(self._budget)
        batch, model = work.run.batch, self.name_of.get(work.model, work.model)
        call = Call(
            params=work.params if model == work.model else params.renamed(work.params, model),
            model=model,
            api_version=batch.api_version,
            betas=batch.betas,
            timeout_s=limits.ENGINE_TIMEOUT_S,
            on_first_token=on_first_token,
        )
        self._marks.reach("request.dispatched")
        try:
            if self.tracer.is_on:
                outcome = await tracing.attempt(self.tracer, self.engine, call, work)
            else:
                outcome = await self.engine.answer(call)
        except Exception as error:  # A bug in an engine costs the request it meets, not the night.
            with about(batch=batch.id, segment=work.run.lease.segment.index):
                log.exception("engine %s failed on a request", self.engine.name)
            outcome = Broken(reason=f"the engine failed: {type(error).__name__}")
        self._marks.reach("request.answered")
        return outcome

    def _settle(self, work: Work, outcome: Outcome, visit: Visit, *, was_alone: bool) -> Tokens | None:
        """Act on an outcome; what the request took, None if it was not worked on."""
        self.outcomes[_NAMES[type(outcome)]] += 1
        if isinstance(outcome, Busy):
            self._stand_back(work, outcome)
            return None
        if isinstance(outcome, Answered):
            try:
                line, usage = _row(work, outcome, visit)
            except message.NotAMessage as error:
                outcome = Broken(reason=str(error))
            else:
                self._note_health()
                took = work.run.charged(work, self.engine.name, usage, share_nano=visit.share_nano)
                work.run.record(work, "succeeded", line, took)
                return of_usage(usage)
        was_in_doubt = self.admission.gate != gates.OPEN
        if isinstance(outcome, Broken):
            self._note_broken(work, outcome)
        else:
            self._note_health()
        decision = retry.decide(
            outcome,
            attempt=work.attempt,
            budget=self._budget,
            jitter=self._entropy.uniform(),
            deaths=work.deaths,
            was_alone=was_alone,
            was_in_doubt=was_in_doubt,
        )
        match decision:
            case Again(delay_ms=delay_ms):
                self._again(work, delay_ms)
            case Alone():
                self._suspects.append(work)
                if work.run.closing is not None:
                    work.run.close_one(work)
            case Record(outcome=Refused() as refused):
                work.run.record(work, "errored", errored(work.custom_id, refused))
        return Tokens(0, 0)

    def _note_health(self) -> None:
        if self.admission.gate is not gates.OPEN:
            self.admission.recovered()
            self.last_trouble = ""
            if self._is_told_away:
                self._is_told_away = False
                tell(log, logging.INFO, "engine back", engine=self.engine.name)

    def _note_broken(self, work: Work, broken: Broken) -> None:
        work.deaths += broken.is_lost
        now_ms = asyncio.get_running_loop().time() * 1000
        self.admission.gate = gates.after_broken(self.admission.gate, now_ms=now_ms, jitter=self._entropy.uniform())
        if self.admission.gate.bursts:
            self.last_trouble = broken.reason
            self.admission.broke()

    def _again(self, work: Work, delay_ms: float) -> None:
        if work.run.closing is not None:
            work.run.close_one(work)
        elif work.is_open:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self._return, work)

    def _return(self, work: Work) -> None:
        self._backlog.put_last(work)
        self.wake()

    def _stand_back(self, work: Work, busy: Busy) -> None:
        self.last_trouble = busy.reason
        self.admission.refused(busy, jitter=self._entropy.uniform())
        work.attempt -= 1  # It says nothing about the request.
        if work.run.closing is not None:
            work.run.close_one(work)
        elif work.is_open:
            self._backlog.put_back([work])
        if self.is_away:
            self._backlog.release(self)


def _row(work: Work, outcome: Answered, visit: Visit) -> tuple[bytes, Usage]:
    """The row of an answer, which is paid for now, and its usage. NotAMessage if it is none."""
    answer, usage = message.as_batch(outcome.message)
    if visit.bill is not None:
        visit.bill.pay(usage)
    return result.succeeded(work.custom_id, answer), usage


def errored(custom_id: str, refused: Refused) -> bytes:
    """The row of a refusal."""
    body = problem.encode(refused.type, refused.message, request_id=refused.request_id)
    return result.errored(custom_id, body)
