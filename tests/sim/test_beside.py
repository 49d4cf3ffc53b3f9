"""core.beside on whole engines: people in lulls and bursts of 40 s, and a batch without end beside them.

Quick versions of `benchmarks/simulate.py beside`, which prints the peers too.
"""

from functools import cache
from itertools import takewhile

import pytest
from msgspec.structs import replace

from overnight.core import window as windows
from overnight.core.beside import IDLE_MS, Beside
from overnight.testing import stepengine
from overnight.testing.stepdrive import Courteous, Drive, Policy, bursts, requests
from overnight.testing.stepengine import Sizes, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

PROFILE = replace(stepengine.MEDIUM, slots=256)
WARM_S = 80.0  # One lull and one burst.
LONG_S = 240.0


def _ours(patience: float) -> Courteous:
    return Courteous(windows.begun(most=4_096), Beside(patience=patience))


def _meet(policy: Policy, for_s: float = LONG_S, *, people_until_s: float = LONG_S, **what: bool) -> Drive:
    arrivals = takewhile(lambda visit: visit[0] < people_until_s, bursts(Sizes(600, 150), per_s=6.0, seed=8))

    async def main() -> Drive:
        engine = StepEngine(PROFILE, has_priority=True, **what)  # type: ignore[arg-type]
        drive = Drive(engine, policy, requests(Sizes(400, 30), seed=7), arrivals)
        await drive.run(for_s)
        return drive

    return run(main(), VirtualClock())


def _p99_ms(drive: Drive) -> float:
    ttfts = sorted(ttft_ms for came_s, ttft_ms in drive.ttfts_ms if came_s >= WARM_S)
    assert len(ttfts) > 1_000
    return ttfts[int(0.99 * len(ttfts))]


def _per_s(drive: Drive, begin_s: float = WARM_S, end_s: float = LONG_S) -> float:
    marks = [mark for mark in drive.marks if begin_s <= mark.now_s <= end_s]
    return (marks[-1].answered - marks[0].answered) / (marks[-1].now_s - marks[0].now_s)


@cache
def _alone() -> Drive:
    return _meet(Policy(0))


@cache
def _flood() -> Drive:
    return _meet(Policy(2 * PROFILE.slots))


def test_a_flag_of_priority_does_not_protect_people() -> None:
    assert _p99_ms(_flood()) > 2.5 * _p99_ms(_alone())


@pytest.mark.parametrize(
    ("patience", "waits", "share", "told"),
    [
        pytest.param(1.4, 1.5, 0.5, {}, id="people first"),
        pytest.param(2.0, 2.3, 0.85, {}, id="batch first"),
        pytest.param(1.4, 1.5, 0.4, {"tells_first_token": False}, id="no first token told"),
    ],
)
def test_people_hardly_wait_and_the_batch_goes_on(
    patience: float, waits: float, share: float, told: dict[str, bool]
) -> None:
    drive = _meet(_ours(patience), **told)
    assert _p99_ms(drive) <= waits * _p99_ms(_alone())
    assert _per_s(drive) >= share * _per_s(_flood())


def test_two_seconds_after_the_last_one_left_the_engine_is_the_batchs() -> None:
    drive = _meet(_ours(1.4), 180.0, people_until_s=100.0)
    gone_s = next(mark.now_s for mark in drive.marks if mark.now_s > 100.0 and mark.people == 0)
    only = _meet(Policy(2 * PROFILE.slots), 60.0, people_until_s=0.0)
    assert _per_s(drive, gone_s + IDLE_MS / 1000 + 2.0, gone_s + 20.0) >= 0.97 * _per_s(only, 20.0, 60.0)


def test_without_people_the_batch_is_as_fast_as_alone() -> None:
    drive = _meet(_ours(1.4), 60.0, people_until_s=0.0)
    only = _meet(Policy(2 * PROFILE.slots), 60.0, people_until_s=0.0)
    assert _per_s(drive, 20.0, 60.0) >= 0.97 * _per_s(only, 20.0, 60.0)
