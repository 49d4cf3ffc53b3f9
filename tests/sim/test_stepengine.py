"""testing.stepengine: it does what its model says, to the millisecond, so that tables made with it mean something."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Call
from overnight.testing import stepengine
from overnight.testing.stepdrive import call
from overnight.testing.stepengine import Profile, Sizes, StepEngine
from overnight.testing.virtualtime import VirtualClock, run

PLAIN = Profile(
    name="plain", step_ms=10, running_us=1_000, prefill_us=10, slots=4, step_tokens=1_000, kv_tokens=10_000
)


async def _timed(asking: Coroutine[Any, Any, Outcome]) -> tuple[Outcome, int]:
    outcome = await asking
    return outcome, round(asyncio.get_running_loop().time() * 1000)


def _ends_ms(engine: StepEngine, calls: list[Call]) -> list[int]:
    """When each of these calls, made at once, was answered."""

    async def main() -> list[int]:
        return [end for _, end in await asyncio.gather(*(_timed(engine.answer(one)) for one in calls))]

    return run(main(), VirtualClock())


@pytest.mark.parametrize(
    ("sizes", "end_ms"),
    [
        pytest.param([Sizes(500, 1)], [10 + 1 + 5], id="one step"),
        pytest.param([Sizes(500, 3)], [16 + 11 + 11], id="one step a token"),
        pytest.param([Sizes(2_500, 1)], [21 + 21 + 16], id="a prompt over three steps"),
        pytest.param([Sizes(500, 2), Sizes(500, 1)], [22 + 11, 22], id="two together"),
        pytest.param([Sizes(800, 1), Sizes(800, 1)], [22, 22 + 17], id="a prompt beside the rest of another"),
    ],
)
def test_steps_take_what_the_model_says(sizes: list[Sizes], end_ms: list[int]) -> None:
    assert _ends_ms(StepEngine(PLAIN), [call(each) for each in sizes]) == end_ms


def test_a_slow_engine_takes_its_time_with_everything() -> None:
    engine = StepEngine(PLAIN)
    engine.slow_down(3.0)
    assert _ends_ms(engine, [call(Sizes(500, 3))]) == [3 * 38]


@pytest.mark.parametrize("has_priority", [True, False])
def test_people_overtake_who_waits_and_nobody_who_runs(has_priority: bool) -> None:
    async def main() -> list[int]:
        engine = StepEngine(PLAIN, has_priority=has_priority)
        async with asyncio.TaskGroup() as group:
            batch = [group.create_task(_timed(engine.answer(call(Sizes(100, 9))))) for _ in range(8)]
            await asyncio.sleep(0.005)
            person = group.create_task(_timed(engine.answer(call(Sizes(100, 9), is_batch=False))))
        return [task.result()[1] for task in (*batch, person)]

    ends = run(main(), VirtualClock())
    assert ends[8] > ends[3]
    assert (ends[8] < ends[7]) == has_priority


def test_memory_that_overflows_throws_the_youngest_out_and_all_are_answered() -> None:
    engine, told = StepEngine(replace(PLAIN, kv_tokens=1_000)), [0] * 4

    def tell(number: int) -> None:
        told[number] += 1

    calls = [call(Sizes(240, 300), on_first_token=partial(tell, number)) for number in range(4)]
    ends = _ends_ms(engine, calls)
    assert engine.preemptions > 0
    assert told == [1, 1, 1, 1], "who begins again has no second first token"
    assert ends[0] == min(ends)
    assert engine.answers == 4


@pytest.mark.parametrize(("cache_tokens", "prefilled"), [(0, 3 * 500), (4_000, 500 + 2 * 100), (320, 3 * 500)])
def test_a_prefix_that_is_still_held_is_not_computed_again(cache_tokens: int, prefilled: int) -> None:
    engine = StepEngine(PLAIN, cache_tokens=cache_tokens)

    async def main() -> None:
        for prefix in (7, 7, 7):
            await engine.answer(call(Sizes(500, 1, prefix, 400)))
            if cache_tokens == 320:  # Another prefix takes its place.
                await engine.answer(call(Sizes(320, 1, 8, 320)))

    run(main(), VirtualClock())
    others = 3 * 320 if cache_tokens == 320 else 0
    assert engine.prefilled_tokens - others == prefilled


def test_first_tokens_are_told_once_when_the_prompt_is_done() -> None:
    told: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        engine = StepEngine(PLAIN)
        await engine.answer(call(Sizes(500, 5), on_first_token=lambda: told.append(round(loop.time() * 1000))))

    run(main(), VirtualClock())
    assert told == [16]


def test_a_cancelled_call_gives_back_what_it_held() -> None:
    async def main() -> None:
        engine = StepEngine(PLAIN)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(call(Sizes(400, 50)))) for _ in range(9)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
        assert isinstance(await engine.answer(call(Sizes(400, 1))), Answered)
        load = await engine.load()
        assert load is not None
        assert (load.running, load.waiting, load.kv_share) == (0, 0, 0.0)

    run(main(), VirtualClock())


def test_a_server_that_breaks_down_loses_what_is_inside_and_is_away() -> None:
    async def main() -> None:
        engine = StepEngine(PLAIN)
        asyncio.get_running_loop().call_later(0.1, engine.break_down)
        outcomes = await asyncio.gather(*(engine.answer(call(Sizes(400, 50))) for _ in range(9)))
        assert all(isinstance(outcome, Broken) for outcome in outcomes)
        assert isinstance(await engine.answer(call(Sizes(400, 1))), Busy)
        assert not await engine.is_there()
        engine.is_down = False
        assert isinstance(await engine.answer(call(Sizes(400, 1))), Answered)

    run(main(), VirtualClock())


def test_beyond_its_rate_it_refuses_and_says_when_to_come_again() -> None:
    async def main() -> None:
        engine = StepEngine(PLAIN, requests_per_minute=60)
        outcomes = await asyncio.gather(*(engine.answer(call(Sizes(10, 1))) for _ in range(61)))
        busy = [outcome for outcome in outcomes if isinstance(outcome, Busy)]
        assert [(one.status, one.retry_after_ms) for one in busy] == [(429, 1_000)]

    run(main(), VirtualClock())


@pytest.mark.parametrize("params", [b"no sizes", b"in=9999 out=2"])
def test_what_it_cannot_hold_or_read_it_refuses(params: bytes) -> None:
    asked = replace(call(Sizes(1, 1)), params=params)
    outcome = run(StepEngine(PLAIN).answer(asked), VirtualClock())
    assert isinstance(outcome, Refused)


@pytest.mark.parametrize("profile", stepengine.PROFILES, ids=lambda profile: profile.name)
def test_its_load_counts_everybody(profile: Profile) -> None:
    async def main() -> None:
        engine = StepEngine(profile)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(call(profile.typical))) for _ in range(1_100)]
            await asyncio.sleep(2.0)
            load = await engine.load()
            assert load is not None
            assert load.running + load.waiting == 1_100 - engine.answers
            assert load.running <= profile.slots
            for task in tasks:
                task.cancel()

    run(main(), VirtualClock())
