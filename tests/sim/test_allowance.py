"""A client that sends as fast as `core.allowance` lets it, against a limiter like Claude's, under virtual time."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Literal, NamedTuple

import pytest

from overnight.core import allowance as allowances
from overnight.core.allowance import Allowance
from overnight.core.tokens import Tokens
from overnight.testing.ratelimited import RateLimiter
from overnight.testing.virtualtime import VirtualClock, run

REQUESTS, INPUT, OUTPUT = 500, 400_000, 80_000  # A minute.
PARTS = 4  # Of an answer: how finely output is counted.
WARM_MIN, MEASURED_MIN = 5, 5  # Growth from cold takes some minutes; it has tests of its own.


class Load(NamedTuple):
    """What is sent: the true mean of tokens, and what the client believes of a true number."""

    input: int
    output: int
    believes: Callable[[Random, int], int]
    told: Literal["early", "late"] = "late"  # Headers of the moment of arrival, or of the end of the answer.
    latency_s: tuple[float, float] = (1.0, 20.0)


class Night:
    """One client; `dispatched` are the times of what it sent and was answered, with the true tokens."""

    def __init__(self, load: Load, limiter: RateLimiter, *, in_flight_max: int = 600) -> None:
        self.load, self.limiter = load, limiter
        self.allowance: Allowance = allowances.EXPECTED
        self.answered: list[tuple[float, Tokens]] = []
        self.refused: list[float] = []
        self.random = Random(7)
        self.room = asyncio.Semaphore(in_flight_max)

    async def send(self, until_s: float) -> None:
        """Send until this time, and wait for the last answers."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while loop.time() < until_s:
                await self.room.acquire()
                true = Tokens(self._about(self.load.input), self._about(self.load.output))
                believed = Tokens(*(self.load.believes(self.random, one) for one in true))
                while wait_ms := allowances.wait_ms(self.allowance, believed, now_ms=loop.time() * 1000):  # noqa: ASYNC110
                    await asyncio.sleep(wait_ms / 1000)
                self.allowance = allowances.spent(self.allowance, believed, now_ms=loop.time() * 1000)
                group.create_task(self._answer(true))

    async def _answer(self, true: Tokens) -> None:
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        since = allowances.mark(self.allowance, now_ms=sent_s * 1000)
        await asyncio.sleep(0.05)
        status, headers = self.limiter.arrive(true.input, now_ms=loop.time() * 1000)
        if status == 200:
            latency_s = self.random.uniform(*self.load.latency_s)
            for part in range(PARTS):
                await asyncio.sleep(latency_s / PARTS)
                tokens = true.output * (part + 1) // PARTS - true.output * part // PARTS
                self.limiter.produce(tokens, now_ms=loop.time() * 1000)
            if self.load.told == "late":
                headers = self.limiter.headers(now_ms=loop.time() * 1000)
            self.answered.append((sent_s, true))
        else:
            self.refused.append(sent_s)
        self.allowance = allowances.heard(self.allowance, headers, since=since, now_ms=loop.time() * 1000)
        self.room.release()

    def _about(self, mean: int) -> int:
        return max(1, round(mean * self.random.uniform(0.5, 1.5)))

    def used(self, from_s: float, to_s: float) -> float:
        """What passed in this time as a share of the tightest limit."""
        passed = [tokens for at_s, tokens in self.answered if from_s <= at_s < to_s]
        minutes = (to_s - from_s) / 60
        taken = (len(passed), sum(one.input for one in passed), sum(one.output for one in passed))
        return max(one / limit for one, limit in zip(taken, (REQUESTS, INPUT, OUTPUT), strict=True)) / minutes

    def refused_share(self) -> float:
        """Of all requests."""
        return len(self.refused) / (len(self.refused) + len(self.answered))


def limiter(growth: float | None = None) -> RateLimiter:
    return RateLimiter(requests=REQUESTS, input_tokens=INPUT, output_tokens=OUTPUT, growth=growth)


def night(load: Load, *, growth: float | None = None, other: float = 0.0) -> Night:
    """A night of this load; `other` is the share of the limits that another client takes."""

    async def main() -> Night:
        one = Night(load, limiter(growth))
        until_s = 60.0 * (WARM_MIN + MEASURED_MIN)
        async with asyncio.TaskGroup() as group:
            group.create_task(one.send(until_s))
            if other:
                group.create_task(_others(one.limiter, load, other, until_s))
        return one

    return run(main(), VirtualClock())


async def _others(shared: RateLimiter, load: Load, share: float, until_s: float) -> None:
    loop = asyncio.get_running_loop()
    per_minute = share * min(REQUESTS, INPUT / load.input, OUTPUT / load.output)
    while loop.time() < until_s:
        if shared.arrive(load.input, now_ms=loop.time() * 1000).status == 200:
            shared.produce(load.output, now_ms=loop.time() * 1000)
        await asyncio.sleep(60 / per_minute)


def right(random: Random, true: int) -> int:
    return true


def scattered(random: Random, true: int) -> int:
    return max(1, round(true * random.uniform(0.7, 1.3)))


def too_high(random: Random, true: int) -> int:
    return max(1, round(true * 1.3))


def too_low(random: Random, true: int) -> int:
    return max(1, round(true * 0.7))


LOADS = [
    pytest.param(Load(100, 20, right), id="requests-are-the-limit"),
    pytest.param(Load(2_000, 50, right), id="input-is-the-limit"),
    pytest.param(Load(2_000, 50, scattered), id="input-scattered"),
    pytest.param(Load(2_000, 50, too_high), id="input-too-high"),
    pytest.param(Load(2_000, 50, too_low), id="input-too-low"),
    pytest.param(Load(2_000, 50, too_low, told="early"), id="input-too-low-told-early"),
    pytest.param(Load(2_000, 50, too_high, told="early"), id="input-too-high-told-early"),
    pytest.param(Load(200, 300, too_low), id="output-too-low"),
    pytest.param(Load(200, 300, too_low, told="early"), id="output-too-low-told-early"),
    pytest.param(Load(200, 300, too_high, told="early", latency_s=(20.0, 90.0)), id="output-slow-answers"),
]


@pytest.mark.parametrize("load", LOADS)
def test_nearly_all_of_the_rate_is_used_and_nearly_nothing_refused(load: Load) -> None:
    seen = night(load)
    assert seen.used(60.0 * WARM_MIN, 60.0 * (WARM_MIN + MEASURED_MIN)) >= 0.95
    assert seen.refused_share() <= 0.01


@pytest.mark.parametrize("load", [Load(100, 20, scattered), Load(2_000, 50, too_high), Load(2_000, 50, too_low)])
def test_a_limit_of_growth_is_met_and_then_all_of_the_rate_used(load: Load) -> None:
    seen = night(load, growth=2.0)
    assert seen.used(60.0 * WARM_MIN, 60.0 * (WARM_MIN + MEASURED_MIN)) >= 0.95
    assert seen.refused_share() <= 0.01


def test_from_cold_the_rate_at_most_doubles_each_minute_and_is_there_after_four() -> None:
    seen = night(Load(2_000, 50, right))
    minutes = [seen.used(60.0 * minute, 60.0 * (minute + 1)) for minute in range(5)]
    assert minutes[0] <= 0.3
    assert all(later <= 2 * earlier for earlier, later in pairwise(minutes)), minutes
    assert minutes[4] >= 0.95


@pytest.mark.parametrize("load", [Load(100, 20, scattered), Load(2_000, 50, too_high), Load(2_000, 50, too_low)])
def test_beside_a_client_that_takes_half_the_other_half_is_used(load: Load) -> None:
    seen = night(load, other=0.5)
    share = seen.used(60.0 * (WARM_MIN + 1), 60.0 * (WARM_MIN + MEASURED_MIN))
    assert 0.95 * 0.5 <= share <= 1.05 * 0.5
    assert seen.refused_share() <= 0.01


def test_a_client_that_asks_nobody_is_refused_often() -> None:
    """What the tests above would see without pacing."""
    shared = limiter()
    statuses = [shared.arrive(2_000, now_ms=at_ms).status for at_ms in range(0, 120_000, 100)]
    assert statuses.count(429) > 0.4 * len(statuses)
