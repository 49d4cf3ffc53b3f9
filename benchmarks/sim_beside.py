"""Table `beside`: what people feel of a batch that shares their engine, and what the batch gets."""

from itertools import takewhile
from typing import NamedTuple

from msgspec.structs import replace

from overnight.core import window as windows
from overnight.core.beside import Beside
from overnight.testing import stepengine
from overnight.testing.stepdrive import Courteous, Drive, Policy, bursts, requests
from overnight.testing.stepengine import Sizes, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

PROFILE = replace(stepengine.MEDIUM, slots=256)
BATCH, INTERACTIVE, PER_S = Sizes(400, 30), Sizes(600, 150), 6.0
FLOOD = 2 * PROFILE.slots
WARM_S = 80.0  # One lull and one burst; what comes after is counted.
MOST = 4_096


class Bound(Courteous):
    """A fixed number of requests that are not prefilled."""

    def __init__(self, bound: int) -> None:
        super().__init__(windows.begun(most=PROFILE.slots, fixed=True), Beside(bound=float(bound)))
        self._bound = float(bound)

    def after_first_token(self, ttft_ms: float, now_ms: float) -> None:
        super().after_first_token(ttft_ms, now_ms)
        self.beside = replace(self.beside, bound=self._bound)


def ours(patience: float) -> Courteous:
    """From cold, with nothing known of the engine."""
    return Courteous(windows.begun(most=MOST), Beside(patience=patience))


class Met(NamedTuple):
    """What one policy did to people and batch, after the first lull and burst."""

    drive: Drive

    def ttft_ms(self, share: float) -> float:
        """That share of people waited no longer."""
        ttfts = sorted(ttft for came_s, ttft in self.drive.ttfts_ms if came_s >= WARM_S)
        return ttfts[min(len(ttfts) - 1, int(share * len(ttfts)))]

    def per_s(self, begin_s: float = WARM_S, end_s: float = float("inf")) -> float:
        """Batch answers a second."""
        marks = [mark for mark in self.drive.marks if begin_s <= mark.now_s <= end_s]
        return (marks[-1].answered - marks[0].answered) / (marks[-1].now_s - marks[0].now_s)


def meet(
    policy: Policy,
    for_s: float,
    *,
    seed: int,
    people_until_s: float = float("inf"),
    has_priority: bool = True,
    tells_load: bool = True,
    tells_first_token: bool = True,
) -> Met:
    """People in lulls and bursts of 40 s, and a batch without end."""
    arrivals = takewhile(lambda visit: visit[0] < people_until_s, bursts(INTERACTIVE, per_s=PER_S, seed=seed + 1))

    async def main() -> Met:
        engine = StepEngine(
            PROFILE, has_priority=has_priority, tells_load=tells_load, tells_first_token=tells_first_token
        )
        drive = Drive(engine, policy, requests(BATCH, seed=seed), arrivals)
        await drive.run(for_s)
        return Met(drive)

    return run(main(), VirtualClock())


def table(*, seed: int, is_full: bool) -> None:
    """Print it. `is_full`: 800 s of each instead of 400 s."""
    for_s = 800.0 if is_full else 400.0
    alone = meet(Policy(0), for_s, seed=seed).ttft_ms(0.99)
    flood = meet(Policy(FLOOD), for_s, seed=seed)
    rows = {
        "FCFS flood": meet(Policy(FLOOD), for_s, seed=seed, has_priority=False),
        "flood, priority": flood,
        **{f"at most {bound}": meet(Bound(bound), for_s, seed=seed) for bound in (1, 2, 4, 8)},
        **{
            f"ours, patience {patience}": meet(ours(patience), for_s, seed=seed)
            for patience in (1.25, 1.4, 2.0, 2.2, 3.0)
        },
        "ours, 1.4, no load": meet(ours(1.4), for_s, seed=seed, tells_load=False),
        "ours, 1.4, no first": meet(ours(1.4), for_s, seed=seed, tells_first_token=False),
    }
    print(f"time to first token alone: p99 {alone:.0f} ms; batch beside people, flood: {flood.per_s():.0f}/s")
    print(f"  {'':22} {'p50':>7} {'p99':>8} {'of alone':>8} {'batch/s':>8} {'of flood':>8}")
    for name, met in rows.items():
        print(
            f"  {name:22} {met.ttft_ms(0.5):4.0f} ms {met.ttft_ms(0.99):5.0f} ms {met.ttft_ms(0.99) / alone:7.2f}x"
            f" {met.per_s():8.1f} {met.per_s() / flood.per_s():8.1%}"
        )
    print(f"{len(flood.drive.ttfts_ms)} people")
