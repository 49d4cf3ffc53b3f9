"""core.window on whole engines, under virtual time: throughput against the best fixed window, and what it costs.

Quick versions of `benchmarks/simulate.py window`, which prints the peers too.
"""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from overnight.core import window as windows
from overnight.testing import stepengine
from overnight.testing.stepdrive import Drive, Mark, Policy, Steered, requests
from overnight.testing.stepengine import Profile, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

# Of each profile the best fixed window, and the smallest with 99 % of its throughput, by `simulate.py window`.
BEST = {"8B-like": 640, "decode-heavy": 640, "llama.cpp": 10}
SMALLEST = {"8B-like": 512, "decode-heavy": 580, "llama.cpp": 8}
QUICK = [stepengine.MEDIUM, stepengine.DECODING, stepengine.SLOTS]  # 0.6B-like costs 10 s of CPU.
BY_NAME = [pytest.param(profile, id=profile.name) for profile in QUICK]

Change = Callable[[StepEngine], None]


def _drive(
    profile: Profile, policy: Policy, for_s: float, *, change: Change | None = None, at_s: float = 0.0, **what: object
) -> list[Mark]:
    async def main() -> list[Mark]:
        engine = StepEngine(profile, **what)  # type: ignore[arg-type]
        if change is not None:
            asyncio.get_running_loop().call_later(at_s, change, engine)
        return await Drive(engine, policy, requests(profile.typical, seed=5)).run(for_s)

    return run(main(), VirtualClock())


def _steered() -> Steered:
    return Steered(windows.begun(most=4_096))


def _rate(marks: list[Mark], begin_s: float, end_s: float) -> float:
    inside = [mark for mark in marks if begin_s <= mark.now_s <= end_s]
    return (inside[-1].tokens - inside[0].tokens) / (inside[-1].now_s - inside[0].now_s)


def _best(profile: Profile, for_s: float = 80.0, *, change: Change | None = None) -> float:
    return _rate(_drive(profile, Policy(BEST[profile.name]), for_s, change=change), for_s / 2, for_s)


def _in_flight(marks: list[Mark], begin_s: float) -> float:
    counts = [mark.in_flight for mark in marks if mark.now_s >= begin_s]
    return sum(counts) / len(counts)


@pytest.mark.parametrize("profile", BY_NAME)
def test_by_the_queue_an_engine_is_full_within_15_seconds_and_stays_so(profile: Profile) -> None:
    marks, best = _drive(profile, _steered(), 120.0), _best(profile)
    assert _rate(marks, 15.0, 25.0) >= 0.9 * best
    assert _rate(marks, 40.0, 120.0) >= 0.97 * best
    assert _in_flight(marks, 40.0) <= 1.3 * SMALLEST[profile.name]


@pytest.mark.parametrize("profile", BY_NAME)
def test_by_goodput_an_engine_is_full_within_60_seconds_and_stays_so(profile: Profile) -> None:
    marks, best = _drive(profile, _steered(), 360.0, tells_load=False), _best(profile)
    assert _rate(marks, 60.0, 90.0) >= 0.9 * best
    assert _rate(marks, 160.0, 360.0) >= 0.95 * best


def _scaled(factor: float) -> Change:
    def change(engine: StepEngine) -> None:
        whole = engine.profile
        engine.profile = replace(
            whole,
            slots=int(whole.slots * factor),
            step_tokens=int(whole.step_tokens * factor),
            kv_tokens=int(whole.kv_tokens * factor),
        )

    return change


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        pytest.param(_scaled(0.5), 320, id="half as wide"),
        pytest.param(_scaled(2.0), 1_280, id="twice as wide"),
        pytest.param(lambda engine: engine.slow_down(2.0), 640, id="half as fast"),
        pytest.param(lambda engine: engine.slow_down(0.5), 640, id="twice as fast"),
    ],
)
def test_a_change_of_capacity_is_followed_within_a_minute(change: Change, limit: int) -> None:
    fixed = _drive(stepengine.MEDIUM, Policy(limit), 60.0, change=change)
    marks = _drive(stepengine.MEDIUM, _steered(), 150.0, change=change, at_s=60.0)
    assert _rate(marks, 120.0, 150.0) >= 0.95 * _rate(fixed, 30.0, 60.0)
    assert 0.8 * limit <= _in_flight(marks, 120.0) <= 1.3 * limit


def test_no_request_is_thrown_out_for_want_of_memory() -> None:
    thrown_out = []
    for policy in (_steered(), Policy(1_024)):

        async def main(policy: Policy = policy) -> int:
            engine = StepEngine(stepengine.DECODING)
            await Drive(engine, policy, requests(stepengine.DECODING.typical, seed=5)).run(80.0)
            return engine.preemptions

        thrown_out.append(run(main(), VirtualClock()))
    assert thrown_out[0] == 0
    assert thrown_out[1] > 50, "the engine would throw out"


def test_an_engine_that_refuses_is_not_asked_in_vain_for_long() -> None:
    async def main() -> StepEngine:
        engine = StepEngine(stepengine.MEDIUM, tells_load=False, requests_per_minute=1_200)
        await Drive(engine, _steered(), requests(stepengine.MEDIUM.typical, seed=5)).run(180.0)
        return engine

    engine = run(main(), VirtualClock())
    assert engine.answers >= 0.95 * 1_200 * 3
    assert engine.refusals <= 0.2 * engine.answers


def test_the_same_seed_gives_the_same_night() -> None:
    nights = [_drive(stepengine.SLOTS, _steered(), 60.0, tells_load=False) for _ in range(2)]
    assert nights[0] == nights[1]
