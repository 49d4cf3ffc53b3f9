"""A small runner for `stepengine`: keeps as many requests in flight as a limiter says, and measures.

It does with an engine what `runner.pool` does, less storage, retries and turns of workspaces.
"""

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Protocol

from msgspec import Struct

from overnight.core import window as windows
from overnight.core.retry import Answered, Busy
from overnight.core.window import Period, Window
from overnight.engines.engine import Call, Engine
from overnight.testing.stepengine import Sizes
from overnight.wire import message

PERIOD_S = 0.5


class Limiter(Protocol):
    """Whatever says how many requests may be in flight."""

    @property
    def limit(self) -> int:
        """Requests."""
        ...

    def has_room(self, in_flight: int, tokens_in_flight: int) -> bool:
        """Whether one more may start."""
        ...

    def after_answer(self, latency_ms: float, in_flight: int) -> None:
        """One request was answered."""
        ...

    def after_refusal(self, now_ms: float) -> None:
        """One was refused, as the engine had no room."""
        ...

    def after_period(self, seen: Period, now_ms: float) -> None:
        """Half a second passed."""
        ...


class Fixed:
    """A number."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def has_room(self, in_flight: int, tokens_in_flight: int) -> bool:
        return in_flight < self.limit

    def after_answer(self, latency_ms: float, in_flight: int) -> None:
        """It does not care."""

    def after_refusal(self, now_ms: float) -> None:
        """It does not care."""

    def after_period(self, seen: Period, now_ms: float) -> None:
        """It does not care."""


class Steered(Fixed):
    """`core.window`."""

    def __init__(self, window: Window) -> None:
        super().__init__(window.limit)
        self.window = window

    def has_room(self, in_flight: int, tokens_in_flight: int) -> bool:
        tokens_limit = self.window.tokens_limit
        return in_flight < self.limit and (tokens_limit is None or tokens_in_flight < tokens_limit)

    def after_refusal(self, now_ms: float) -> None:
        self.window = windows.after_refusal(self.window, now_ms=now_ms)
        self.limit = self.window.limit

    def after_period(self, seen: Period, now_ms: float) -> None:
        self.window = windows.after_period(self.window, seen, now_ms=now_ms)
        self.limit = self.window.limit


class Mark(Struct, frozen=True):
    """The state after one period."""

    now_s: float
    answered: int  # So far.
    tokens: int  # So far.
    in_flight: int
    limit: int


def call(sizes: Sizes, *, tier: str = "batch", on_first_token: Callable[[], None] | None = None) -> Call:
    """A request that `stepengine` reads the sizes of."""
    text = b"in=%d out=%d" % (sizes.input, sizes.output)
    if sizes.prefix_tokens:
        text += b" prefix=%d/%d" % (sizes.prefix, sizes.prefix_tokens)
    return Call(
        params=text,
        model="m",
        api_version="2023-06-01",
        service_tier="standard" if tier == "standard" else "batch",
        timeout_s=600.0,
        on_first_token=on_first_token,
    )


def requests(typical: Sizes, *, seed: int) -> Iterator[Sizes]:
    """Without end: inputs as they are, outputs exponential around the typical."""
    dice = Random(seed)  # noqa: S311  A replay, not a secret.
    while True:
        yield typical._replace(output=1 + int(dice.expovariate(1 / typical.output)))


class Drive:
    """One engine under one limiter. `marks` has an entry per period."""

    def __init__(self, engine: Engine, limiter: Limiter, work: Iterator[Sizes]) -> None:
        self.engine, self.limiter = engine, limiter
        self.marks: list[Mark] = []
        self.answered = self.tokens = self.in_flight = self.tokens_in_flight = 0
        self._work = work
        self._idle: list[asyncio.Future[None]] = []
        self._lanes: list[asyncio.Task[None]] = []

    async def run(self, for_s: float) -> list[Mark]:
        """Keep it full for so long; what is in flight at the end is given up."""
        async with asyncio.TaskGroup() as group:
            for _ in range(round(for_s / PERIOD_S)):
                self._fill(group)
                await self._period()
            for lane in self._lanes:
                lane.cancel()
        return self.marks

    def wake(self) -> None:
        """There may be room again."""
        while self._idle and self._has_room():
            self._idle.pop().set_result(None)

    def _has_room(self) -> bool:
        return self.limiter.has_room(self.in_flight, self.tokens_in_flight)

    def _fill(self, group: asyncio.TaskGroup) -> None:
        self.wake()
        wanted = min(self.limiter.limit, self.engine.in_flight_max)
        self._lanes += [group.create_task(self._lane()) for _ in range(wanted - len(self._lanes))]

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._has_room():
                future = loop.create_future()
                self._idle.append(future)
                await future
            await self._ask(next(self._work))

    async def _ask(self, sizes: Sizes) -> None:
        loop = asyncio.get_running_loop()
        tokens, began_s = sizes.input + sizes.output, loop.time()
        self.in_flight += 1
        self.tokens_in_flight += tokens
        outcome = await self.engine.answer(call(sizes))
        self.in_flight -= 1
        self.tokens_in_flight -= tokens
        if isinstance(outcome, Answered):
            _, usage = message.as_batch(outcome.message)
            self.answered += 1
            self.tokens += usage.input_tokens + usage.output_tokens
            self.limiter.after_answer((loop.time() - began_s) * 1000, self.in_flight + 1)
        elif isinstance(outcome, Busy):
            self.limiter.after_refusal(loop.time() * 1000)
            await asyncio.sleep((outcome.retry_after_ms or 1_000) / 1000)

    async def _period(self) -> None:
        answered, tokens = self.answered, self.tokens
        await asyncio.sleep(PERIOD_S)
        load, now_s = await self.engine.load(), asyncio.get_running_loop().time()
        seen = Period(
            ms=PERIOD_S * 1000,
            completed=self.answered - answered,
            tokens=self.tokens - tokens,
            in_flight=self.in_flight,
            tokens_in_flight=self.tokens_in_flight,
            is_saturated=self.in_flight >= self.limiter.limit,
            running=0 if load is None else load.running,
            waiting=None if load is None else load.waiting,
            kv_share=None if load is None else load.kv_share,
            preemptions=None if load is None else load.preemptions,
        )
        self.limiter.after_period(seen, now_s * 1000)
        self.marks.append(Mark(now_s, self.answered, self.tokens, self.in_flight, self.limiter.limit))
