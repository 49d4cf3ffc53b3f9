"""Table `window`: how full each way of finding a number in flight keeps an engine, and with how many requests."""

from collections.abc import Iterator
from typing import NamedTuple

import sim_limiters
from overnight.core import window as windows
from overnight.testing import stepengine
from overnight.testing.stepdrive import PERIOD_S, Drive, Mark, Policy, Steered, requests
from overnight.testing.stepengine import Profile, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

SWEEP = (4, 6, 7, 8, 9, 10, 16, 32, 64, 128, 181, 256, 320, 380, 430, 470, 512, 580, 640, 724, 860, 1_024)
SUFFICIENT = (0.97, 0.99)  # Of the best.
MOST = 4_096


class Found(NamedTuple):
    """One policy on one engine."""

    marks: list[Mark]
    preemptions: int

    def rate(self, begin_s: float, end_s: float = float("inf")) -> float:
        """Tokens a second."""
        marks = [mark for mark in self.marks if begin_s <= mark.now_s <= end_s]
        return (marks[-1].tokens - marks[0].tokens) / (marks[-1].now_s - marks[0].now_s)

    def in_flight(self, begin_s: float) -> float:
        """On average."""
        counts = [mark.in_flight for mark in self.marks if mark.now_s >= begin_s]
        return sum(counts) / len(counts)

    def reaches_s(self, rate: float, *, from_s: float = 0.0, over_s: float = 5.0) -> float:
        """How long after `from_s` it first had `rate` over some seconds; infinite if never."""
        step = round(over_s / PERIOD_S)
        for earlier, later in zip(self.marks, self.marks[step:], strict=False):
            if earlier.now_s >= from_s and (later.tokens - earlier.tokens) / over_s >= rate:
                return later.now_s - from_s
        return float("inf")


class Oracle(NamedTuple):
    """The best of the fixed numbers, and the smallest that are nearly as good."""

    rate: float
    smallest: dict[float, int]


def drive(
    profile: Profile, policy: Policy, for_s: float, *, seed: int, tells_load: bool = True, per_minute: int = 0
) -> Found:
    """A policy on an engine from cold."""

    async def main() -> Found:
        engine = StepEngine(profile, tells_load=tells_load, requests_per_minute=per_minute)
        marks = await Drive(engine, policy, requests(profile.typical, seed=seed)).run(for_s)
        return Found(marks, engine.preemptions)

    return run(main(), VirtualClock())


def oracle(profile: Profile, *, for_s: float, seed: int) -> Oracle:
    """By trying them all."""
    rates = {limit: drive(profile, Policy(limit), for_s, seed=seed).rate(for_s / 2) for limit in SWEEP}
    best = max(rates.values())
    return Oracle(best, {share: min(n for n, rate in rates.items() if rate >= share * best) for share in SUFFICIENT})


def policies(profile: Profile) -> Iterator[tuple[str, Policy, bool]]:
    """Names, policies, and whether the engine tells its load."""
    yield "fixed 10", Policy(10), False
    yield "fixed 64", Policy(64), False
    yield "2 x slots", Policy(2 * profile.slots), False
    yield "AIMD", sim_limiters.Aimd(), False
    yield "gradient2", sim_limiters.Gradient2(), False
    yield "Vegas", sim_limiters.Vegas(), False
    yield "ours, queue", Steered(windows.begun(most=MOST)), True
    yield "ours, goodput", Steered(windows.begun(most=MOST)), False


def table(*, seed: int, is_full: bool) -> None:
    """Print it. `is_full`: 500 s of each instead of 200 s."""
    for_s = 500.0 if is_full else 200.0
    steady_s = for_s * 0.4
    for profile in stepengine.PROFILES:
        best = oracle(profile, for_s=100.0 if is_full else 60.0, seed=seed)
        small = ", ".join(f"{number} for {share:.0%}" for share, number in best.smallest.items())
        print(f"\n{profile.name}: best {best.rate:.0f} tokens/s; smallest fixed window: {small}")
        print(f"  {'':14} {'steady':>7} {'from cold':>9} {'90 % after':>10} {'in flight':>9} {'thrown out':>10}")
        for name, policy, tells_load in policies(profile):
            found = drive(profile, policy, for_s, seed=seed, tells_load=tells_load)
            print(
                f"  {name:14} {found.rate(steady_s) / best.rate:7.1%} {found.rate(0) / best.rate:9.1%}"
                f" {found.reaches_s(0.9 * best.rate):8.1f} s {found.in_flight(steady_s):9.0f} {found.preemptions:10}",
                flush=True,
            )
