"""runner.leaders: where a prompt cache has its price, one request writes a prefix and the others read it."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from runs import kinds, run_of

from overnight.core.retry import Answered, Broken
from overnight.engines.engine import Capabilities
from overnight.ports.marks import NoMarks
from overnight.runner import leaders
from overnight.runner.backlog import Backlog
from overnight.runner.pool import Pool
from overnight.runner.segmentrun import SegmentRun
from overnight.testing.engines import Fate, Script, ScriptedEngine, answered
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run
from overnight.wire import params
from overnight.wire.create import Request

Drive = Callable[[Pool, Callable[..., SegmentRun]], Awaitable[None]]


def begun(prefixes: str, *, is_cached: bool = True) -> tuple[SegmentRun, list[Request]]:
    mark = {"cache_control": {"type": "ephemeral"}} if is_cached else {}
    requests = [
        Request(
            f"r{index}",
            msgspec.Raw(
                msgspec.json.encode(
                    {
                        "model": "m",
                        "max_tokens": 9,
                        "system": [{"type": "text", "text": prefix, **mark}],
                        "messages": [{"role": "user", "content": f"{prefix}{index}"}],
                    }
                )
            ),
        )
        for index, prefix in enumerate(prefixes)
    ]
    return run_of(len(requests)), requests


def with_pool(script: Script, drive: Drive, *, in_flight_max: int = 8) -> ScriptedEngine:
    engine = ScriptedEngine(
        script,
        in_flight_max=in_flight_max,
        capabilities=Capabilities(has_slots=True, charges_cache_writes=True),
    )

    async def main() -> None:
        backlog = Backlog()
        pool = Pool(engine, backlog, entropy=SeededEntropy(1), marks=NoMarks(), clock=VirtualClock())

        def add(prefixes: str, *, is_cached: bool = True) -> SegmentRun:
            segment, requests = begun(prefixes, is_cached=is_cached)
            works = segment.start(requests)
            segment.is_started = True
            for work in works:
                work.know(params.read_batched(work.params))
            backlog.add(works)
            pool.wake()
            return segment

        async with asyncio.TaskGroup() as group:
            running = group.create_task(pool.run())
            await drive(pool, add)
            running.cancel()

    run(main(), VirtualClock())
    return engine


def second(text: str, call: int) -> Fate:
    return Fate(answered(text), 1.0)


def began(engine: ScriptedEngine) -> dict[str, float]:
    return {text: round(at_s, 3) for text, at_s in engine.begun}


def test_the_first_with_a_prefix_goes_alone_and_the_others_follow_its_answer() -> None:
    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        segment = add("aaaabb")
        await asyncio.sleep(5)
        assert set(kinds(segment).values()) == {"succeeded"}

    assert began(with_pool(second, drive)) == {"a0": 0, "b4": 0, "a1": 1, "a2": 1, "a3": 1, "b5": 1}


def test_without_a_mark_for_the_cache_nobody_waits() -> None:
    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        add("aaaa", is_cached=False)
        await asyncio.sleep(5)

    assert set(began(with_pool(second, drive)).values()) == {0}


def test_a_warm_prefix_needs_no_leader_and_a_cold_one_does_again() -> None:
    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        add("a")
        await asyncio.sleep(100)
        add("aa")
        await asyncio.sleep(leaders.WARM_MS / 1000 + 2)
        add("aaa")
        await asyncio.sleep(5)

    times = [round(at_s) for _, at_s in with_pool(second, drive).begun]
    cold = 100 + leaders.WARM_MS // 1000 + 2
    assert times == [0, 100, 100, cold, cold + 1, cold + 1]


def test_a_leader_that_breaks_hands_over_to_one_of_those_that_waited() -> None:
    def script(text: str, call: int) -> Fate:
        return Fate(Broken(reason="as scripted") if text == "a0" and call == 1 else answered(text), 1.0)

    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        segment = add("aaa")
        await asyncio.sleep(1.5)
        assert pool.in_flight == 1, "the next one leads"
        await asyncio.sleep(60)
        assert set(kinds(segment).values()) == {"succeeded"}

    assert with_pool(script, drive).calls == {"a0": 2, "a1": 1, "a2": 1}


def test_no_more_wait_for_a_leader_than_fit_into_the_window() -> None:
    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        add("a" * 50)
        await asyncio.sleep(0.5)
        assert pool._leaders is not None
        assert (pool._leaders.held, pool.in_flight) == (4, 1)
        await asyncio.sleep(60)

    engine = with_pool(second, drive, in_flight_max=4)
    assert sum(isinstance(asked.outcome, Answered) for asked in engine.log) == 50


def test_a_leader_that_is_canceled_while_its_followers_wait_holds_nobody_up() -> None:
    async def drive(pool: Pool, add: Callable[..., SegmentRun]) -> None:
        first, others = add("a"), add("aa")
        await asyncio.sleep(0.5)
        first.close_all("canceled")
        await asyncio.sleep(10)
        assert (kinds(first), kinds(others)) == ({"r0": "canceled"}, {"r0": "succeeded", "r1": "succeeded"})

    with_pool(second, drive)
