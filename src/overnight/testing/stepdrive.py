"""A small runner for `stepengine`: keeps as many batch requests in flight as a policy says, beside people who come.

It does with an engine what `runner.pool` does, less storage, retries and turns of workspaces.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

from msgspec import Struct

from overnight.core import beside as besides
from overnight.core import window as windows
from overnight.core.beside import Beside, Pace
from overnight.core.retry import Answered, Busy
from overnight.core.window import Period, Window
from overnight.engines.engine import Call, Engine
from overnight.testing.stepengine import Sizes
from overnight.wire import message

PERIOD_S = 0.5


class Mark(Struct, frozen=True):
    """The state after one period."""

    now_s: float
    answered: int  # Batch requests so far.
    tokens: int  # Of those.
    in_flight: int
    limit: int
    people: int


class Policy:
    """How many batch requests may start. This one: a fixed number in flight."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def room(self, drive: "Drive") -> int:
        """How many may start now."""
        return self.limit - drive.in_flight

    def is_saturated(self, drive: "Drive") -> bool:
        """Whether it is `limit` that holds requests back."""
        return drive.in_flight >= self.limit

    def after_answer(self, latency_ms: float, output_tokens: int, in_flight: int) -> None:
        """A batch request was answered."""

    def after_refusal(self, now_ms: float) -> None:
        """The engine had no room for one."""

    def after_period(self, seen: Period, now_ms: float) -> None:
        """Half a second passed."""

    def after_arrival(self, now_ms: float) -> None:
        """Somebody came."""

    def after_first_token(self, ttft_ms: float, now_ms: float) -> None:
        """Somebody reads."""

    def after_end(self, now_ms: float) -> None:
        """Somebody left."""


class Steered(Policy):
    """`core.window`."""

    def __init__(self, window: Window) -> None:
        super().__init__(window.limit)
        self.window = window

    def room(self, drive: "Drive") -> int:
        tokens_limit = self.window.tokens_limit
        if tokens_limit is not None and drive.tokens_in_flight >= tokens_limit:
            return 0
        return self.limit - drive.in_flight

    def after_refusal(self, now_ms: float) -> None:
        self.window = windows.after_refusal(self.window, now_ms=now_ms)
        self.limit = self.window.limit

    def after_period(self, seen: Period, now_ms: float) -> None:
        self.window = windows.after_period(self.window, seen, now_ms=now_ms)
        self.limit = self.window.limit


class Courteous(Steered):
    """`core.window` and `core.beside`."""

    def __init__(self, window: Window, beside: Beside) -> None:
        super().__init__(window)
        self.beside, self.pace = beside, Pace()

    def room(self, drive: "Drive") -> int:
        room = super().room(drive)
        now_ms = asyncio.get_running_loop().time() * 1000
        return room and besides.room(
            self.beside,
            now_ms=now_ms,
            window=self.limit,
            in_flight=drive.in_flight,
            unprefilled=drive.unprefilled(besides.prefill_ms(self.pace)),
        )

    def is_saturated(self, drive: "Drive") -> bool:
        now_ms = asyncio.get_running_loop().time() * 1000
        kept = 0
        if not besides.is_idle(self.beside, now_ms=now_ms):
            kept = besides.reserved(self.beside, window=self.limit, now_ms=now_ms)
        return drive.in_flight + kept >= self.limit

    def after_answer(self, latency_ms: float, output_tokens: int, in_flight: int) -> None:
        self.pace = besides.after_answer(self.pace, latency_ms=latency_ms, output_tokens=output_tokens)

    def after_arrival(self, now_ms: float) -> None:
        self.beside = besides.after_arrival(self.beside, now_ms=now_ms)

    def after_first_token(self, ttft_ms: float, now_ms: float) -> None:
        self.beside = besides.after_first_token(self.beside, ttft_ms=ttft_ms, now_ms=now_ms)

    def after_end(self, now_ms: float) -> None:
        self.beside = besides.after_end(self.beside, now_ms=now_ms)


def call(sizes: Sizes, *, is_batch: bool = True, on_first_token: Callable[[], None] | None = None) -> Call:
    """A request that `stepengine` reads the sizes of."""
    text = b"in=%d out=%d" % (sizes.input, sizes.output)
    if sizes.prefix_tokens:
        text += b" prefix=%d/%d" % (sizes.prefix, sizes.prefix_tokens)
    return Call(
        params=text,
        model="m",
        api_version="2023-06-01",
        service_tier="batch" if is_batch else "standard",
        timeout_s=600.0,
        on_first_token=on_first_token,
    )


def requests(typical: Sizes, *, seed: int) -> Iterator[Sizes]:
    """Without end: inputs as they are, outputs exponential around the typical."""
    dice = Random(seed)  # noqa: S311  A replay, not a secret.
    while True:
        yield typical._replace(output=1 + int(dice.expovariate(1 / typical.output)))


def bursts(typical: Sizes, *, per_s: float, seed: int, long_s: float = 40.0) -> Iterator[tuple[float, Sizes]]:
    """People without end, and the second each comes: `long_s` at half of `per_s`, `long_s` at four times it."""
    dice, at_s = Random(seed), 0.0  # noqa: S311  A replay, not a secret.
    while True:
        rate = per_s * (0.5 if at_s % (2 * long_s) < long_s else 4.0)
        at_s += dice.expovariate(rate)
        yield at_s, typical._replace(output=1 + int(dice.expovariate(1 / typical.output)))


class Drive:
    """One engine under one policy. `marks` has an entry per period, `ttfts_ms` one per
    person who was served: when they came, in seconds, and how long they waited."""

    def __init__(
        self, engine: Engine, policy: Policy, work: Iterator[Sizes], people: Iterable[tuple[float, Sizes]] = ()
    ) -> None:
        self.engine, self.policy = engine, policy
        self.marks: list[Mark] = []
        self.ttfts_ms: list[tuple[float, float]] = []
        self.answered = self.tokens = self.in_flight = self.tokens_in_flight = self.people = 0
        self._work, self._arrivals = work, people
        self._all_answered = self._all_tokens = 0  # Of this period, people's included.
        self._unprefilled, self._closed_until_s = 0, 0.0
        self._starts: deque[float] = deque()  # Of batch requests, if the engine does not tell the first token.
        self._idle: list[asyncio.Future[None]] = []
        self._lanes: list[asyncio.Task[None]] = []
        self._visits: set[asyncio.Task[None]] = set()

    async def run(self, for_s: float) -> list[Mark]:
        """Keep it full for so long; what is in flight at the end is given up."""
        async with asyncio.TaskGroup() as group:
            arrivals = group.create_task(self._people(group))
            for _ in range(round(for_s / PERIOD_S)):
                self._fill(group)
                await self._period()
            arrivals.cancel()
            for task in (*self._lanes, *self._visits):
                task.cancel()
        return self.marks

    def unprefilled(self, prefill_ms: float) -> int:
        """Batch requests inside that are not prefilled, as told, or as young as that."""
        if self.engine.capabilities.tells_first_token:
            return self._unprefilled
        now_s = asyncio.get_running_loop().time()
        while self._starts and self._starts[0] + prefill_ms / 1000 < now_s:
            self._starts.popleft()
        return min(len(self._starts), self.in_flight)

    def _room(self) -> int:
        return 0 if asyncio.get_running_loop().time() < self._closed_until_s else self.policy.room(self)

    def _wake(self) -> None:
        for _ in range(min(len(self._idle), self._room())):
            future = self._idle.pop()
            if not future.done():
                future.set_result(None)

    def _fill(self, group: asyncio.TaskGroup) -> None:
        wanted = min(self.policy.limit, self.engine.in_flight_max)
        self._lanes += [group.create_task(self._lane()) for _ in range(wanted - len(self._lanes))]
        self._wake()

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._room() <= 0:
                future = loop.create_future()
                self._idle.append(future)
                await future
            await self._ask(next(self._work))

    async def _ask(self, sizes: Sizes) -> None:
        loop = asyncio.get_running_loop()
        tokens, began_s, is_prefilled = sizes.input + sizes.output, loop.time(), False

        def on_first_token() -> None:
            nonlocal is_prefilled
            is_prefilled = True
            self._unprefilled -= 1
            self._wake()

        self.in_flight += 1
        self._unprefilled += 1
        self._starts.append(began_s)
        self.tokens_in_flight += tokens
        outcome = await self.engine.answer(call(sizes, on_first_token=on_first_token))
        self.in_flight -= 1
        self._unprefilled -= not is_prefilled
        self.tokens_in_flight -= tokens
        if isinstance(outcome, Answered):
            _, usage = message.as_batch(outcome.message)
            self.answered += 1
            self._all_answered += 1
            self._all_tokens += usage.input_tokens + usage.output_tokens
            self.tokens += usage.input_tokens + usage.output_tokens
            self.policy.after_answer((loop.time() - began_s) * 1000, usage.output_tokens, self.in_flight + 1)
        elif isinstance(outcome, Busy):
            self.policy.after_refusal(loop.time() * 1000)
            self._closed_until_s = loop.time() + (outcome.retry_after_ms or 1_000) / 1000
            loop.call_at(self._closed_until_s, self._wake)

    async def _people(self, group: asyncio.TaskGroup) -> None:
        for at_s, sizes in self._arrivals:
            await asyncio.sleep(max(0.0, at_s - asyncio.get_running_loop().time()))
            self._visits.add(visit := group.create_task(self._person(sizes)))
            visit.add_done_callback(self._visits.discard)

    async def _person(self, sizes: Sizes) -> None:
        loop = asyncio.get_running_loop()
        came_s = loop.time()

        def on_first_token() -> None:
            ttft_ms = (loop.time() - came_s) * 1000
            self.ttfts_ms.append((came_s, ttft_ms))
            self.policy.after_first_token(ttft_ms, loop.time() * 1000)
            self._wake()

        self.people += 1
        self.policy.after_arrival(came_s * 1000)
        outcome = await self.engine.answer(call(sizes, is_batch=False, on_first_token=on_first_token))
        self.people -= 1
        if isinstance(outcome, Answered):
            self._all_answered += 1
            self._all_tokens += sizes.input + sizes.output
        self.policy.after_end(loop.time() * 1000)
        self._wake()

    async def _period(self) -> None:
        await asyncio.sleep(PERIOD_S)
        load, now_s = await self.engine.load(), asyncio.get_running_loop().time()
        seen = Period(
            ms=PERIOD_S * 1000,
            completed=self._all_answered,
            tokens=self._all_tokens,
            in_flight=self.in_flight + self.people,
            tokens_in_flight=self.tokens_in_flight,
            is_saturated=self.policy.is_saturated(self),
            running=0 if load is None else load.running,
            waiting=None if load is None else load.waiting,
            kv_share=None if load is None else load.kv_share,
            preemptions=None if load is None else load.preemptions,
        )
        self._all_answered = self._all_tokens = 0
        self.policy.after_period(seen, now_s * 1000)
        self.marks.append(Mark(now_s, self.answered, self.tokens, self.in_flight, self.policy.limit, self.people))
