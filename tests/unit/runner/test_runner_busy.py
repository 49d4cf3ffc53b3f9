"""runner.busy: requests share the hours of a machine, and nothing of them is lost or paid twice."""

import asyncio
from random import Random

import pytest

from overnight.runner.busy import BusyClock
from overnight.testing import virtualtime
from overnight.testing.virtualtime import VirtualClock

HOUR_S = 3_600.0
_HOUR_NS = 3_600 * 10**9
_REQUESTS = 50


def test_one_request_alone_pays_for_its_time() -> None:
    clock = BusyClock(2.0)
    entered = clock.enter(now_s=0.0)
    assert clock.leave(entered, now_s=HOUR_S / 2) == 1_000_000_000


def test_two_at_once_pay_half_each_and_idle_hours_nobody() -> None:
    """At 3.6 USD an hour a second costs a million nano. A is inside from 0 to 4, B 2 to 10, C 100 to 101."""
    clock = BusyClock(3.6)
    a = clock.enter(now_s=0.0)
    b = clock.enter(now_s=2.0)
    assert clock.leave(a, now_s=4.0) == 3_000_000  # Two seconds alone, two shared.
    assert clock.leave(b, now_s=10.0) == 7_000_000  # Two shared, six alone.
    assert clock.inside == 0
    c = clock.enter(now_s=100.0)
    assert clock.leave(c, now_s=101.0) == 1_000_000


@pytest.mark.parametrize("seed", range(20))
def test_what_all_pay_is_the_busy_time_at_the_price(seed: int) -> None:
    """Requests of any length, in virtual time, with waits in between: the sum is exact to one nano USD."""
    random = Random(seed)
    usd_per_hour = random.choice([0.01, 1.0, 2.49, 98.32])
    paid: list[int] = []
    busy_ns = 0

    async def scene() -> None:
        nonlocal busy_ns
        loop, clock = asyncio.get_running_loop(), BusyClock(usd_per_hour)
        began_ns = 0

        async def one() -> None:
            nonlocal began_ns, busy_ns
            await asyncio.sleep(random.expovariate(0.05))
            if clock.inside == 0:
                began_ns = round(loop.time() * 10**9)
            entered = clock.enter(now_s=loop.time())
            await asyncio.sleep(random.expovariate(0.3))
            paid.append(clock.leave(entered, now_s=loop.time()))
            if clock.inside == 0:
                busy_ns += round(loop.time() * 10**9) - began_ns

        await asyncio.gather(*(one() for _ in range(_REQUESTS)))

    virtualtime.run(scene(), VirtualClock())
    owed = busy_ns * round(usd_per_hour * 10**9) - sum(paid) * _HOUR_NS
    assert busy_ns > 0
    assert len(paid) == _REQUESTS
    assert 0 <= owed < _HOUR_NS + _REQUESTS, "a nano USD, and what so many could not divide"
    assert len(set(paid)) > 10, "shares follow the stay"
