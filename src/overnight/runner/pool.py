"""One engine kept exactly full: as many lanes as it takes requests at once, fed from one queue.

A lane is a long-lived task, so a request costs no task of its own. Interactive requests do not queue here at all:
they enter the engine at once, and lanes stand back until there is room again (invariant I10).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from overnight import limits
from overnight.core import gate as gates
from overnight.core import retry
from overnight.core.retry import Again, Answered, Broken, Busy, Outcome, Record, Refused
from overnight.engines.engine import Call, Engine
from overnight.errors import Overloaded
from overnight.ports.entropy import Entropy
from overnight.ports.marks import Marks
from overnight.runner.segmentrun import Work
from overnight.wire import message, problem, result

log = logging.getLogger("overnight.runner")


class Pool:
    """The lanes of one engine. Everything happens on one event loop, so no lock is needed."""

    def __init__(self, engine: Engine, *, entropy: Entropy, marks: Marks) -> None:
        self.engine = engine
        self.last_trouble = ""  # What the engine said when it was last busy; empty after a success. For health.
        self._entropy, self._marks = entropy, marks
        self._ready: deque[Work] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._gate = gates.OPEN
        self._budget = retry.Budget()
        self._in_flight = 0
        self._interactive = 0
        self._may_start: Callable[[], bool] = lambda: True
        self._on_low: Callable[[], None] = lambda: None
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def waiting(self) -> int:
        """Requests that are ready and not inside the engine."""
        return len(self._ready)

    @property
    def in_flight(self) -> int:
        """Batch requests inside the engine."""
        return self._in_flight

    def attach(self, *, may_start: Callable[[], bool], on_low: Callable[[], None]) -> None:
        """Whom to ask before a request is started, and whom to tell when the queue runs low."""
        self._may_start, self._on_low = may_start, on_low

    def add(self, works: Iterable[Work]) -> None:
        """Queue work behind what is there."""
        self._ready.extend(works)
        self.wake()

    def clear(self) -> None:
        """Forget what is queued; requests inside the engine go on."""
        self._ready.clear()

    def wake(self) -> None:
        """Let idle lanes look again."""
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)

    async def wait_quiet(self) -> None:
        """Return when no batch request is inside the engine."""
        await self._quiet.wait()

    @contextmanager
    def interactive(self) -> Iterator[None]:
        """Around an interactive request: lanes leave it room. Overloaded beyond `IN_FLIGHT_INTERACTIVE_MAX`."""
        if self._interactive >= limits.IN_FLIGHT_INTERACTIVE_MAX:
            raise Overloaded("too many requests at once; try again shortly", retry_after_s=1)
        self._interactive += 1
        try:
            yield
        finally:
            self._interactive -= 1
            self.wake()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.engine.in_flight_max):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while True:
            work = await self._next()
            self._in_flight += 1
            self._quiet.clear()
            work.lane = task
            try:
                outcome = await self._attempt(work)
            except asyncio.CancelledError:
                if not work.is_interrupted:
                    raise
                task.uncancel()
                continue
            finally:
                work.lane = None
                self._in_flight -= 1
                if self._in_flight == 0:
                    self._quiet.set()
                if self._idle and self._ready:
                    self.wake()
            self._settle(work, outcome)

    async def _next(self) -> Work:
        while True:
            while self._ready and self._has_room():
                work = self._ready.popleft()
                if work.is_open:
                    if len(self._ready) < self.engine.in_flight_max:
                        self._on_low()
                    return work
            future = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            await future

    def _has_room(self) -> bool:
        now_ms = asyncio.get_running_loop().time() * 1000
        room = gates.room(self._gate, now_ms=now_ms, in_flight_max=self.engine.in_flight_max)
        return self._in_flight + self._interactive < room and self._may_start()

    async def _attempt(self, work: Work) -> Outcome:
        work.attempt += 1
        spend = retry.after_first_attempt if work.attempt == 1 else retry.after_retry
        self._budget = spend(self._budget)
        batch = work.run.batch
        call = Call(
            params=work.params,
            model=work.model,
            api_version=batch.api_version,
            betas=batch.betas,
            timeout_s=limits.ENGINE_TIMEOUT_S,
        )
        self._marks.reach("request.dispatched")
        try:
            outcome = await self.engine.answer(call)
        except Exception as error:  # A bug in an engine costs the request it meets, not the night.
            log.exception("engine %s failed on a request", self.engine.name)
            outcome = Broken(reason=f"the engine failed: {type(error).__name__}")
        self._marks.reach("request.answered")
        return outcome

    def _settle(self, work: Work, outcome: Outcome) -> None:
        if isinstance(outcome, Busy):
            self._stand_back(work, outcome)
            return
        if self._gate is not gates.OPEN:
            self._gate, self.last_trouble = gates.OPEN, ""
            self.wake()
        line = b""
        if isinstance(outcome, Answered):
            try:
                line = result.succeeded(work.custom_id, message.as_batch(outcome.message)[0])
            except message.NotAMessage as error:
                outcome = Broken(reason=str(error))
        decision = retry.decide(outcome, attempt=work.attempt, budget=self._budget, jitter=self._entropy.uniform())
        match decision:
            case Again(delay_ms=delay_ms):
                self._again(work, delay_ms)
            case Record(outcome=Refused() as refused):
                work.run.record(work, "errored", errored(work.custom_id, refused))
            case Record():
                work.run.record(work, "succeeded", line)

    def _again(self, work: Work, delay_ms: float) -> None:
        if work.run.closing is not None:
            work.run.close_one(work)
        elif work.is_open:
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.add, (work,))

    def _stand_back(self, work: Work, busy: Busy) -> None:
        loop = asyncio.get_running_loop()
        self.last_trouble = busy.reason
        self._gate = gates.after_busy(
            self._gate, now_ms=loop.time() * 1000, asked_ms=busy.retry_after_ms, jitter=self._entropy.uniform()
        )
        work.attempt -= 1  # It says nothing about the request.
        if work.run.closing is not None:
            work.run.close_one(work)
        elif work.is_open:
            self._ready.appendleft(work)
        loop.call_at(self._gate.closed_until_ms / 1000 + 0.001, self.wake)


def errored(custom_id: str, refused: Refused) -> bytes:
    """The row of a refusal."""
    body = problem.encode(refused.type, refused.message, request_id=refused.request_id)
    return result.errored(custom_id, body)
