"""runner.pool under virtual time: full, never overfull, and interactive requests first (I10)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
from runs import begun, kinds, rows, run_of

from overnight import limits
from overnight.core.retry import Busy
from overnight.engines.engine import Call
from overnight.errors import Overloaded
from overnight.ports.marks import NoMarks
from overnight.runner.backlog import Backlog
from overnight.runner.pool import Pool
from overnight.runner.segmentrun import Work
from overnight.testing.engines import Fate, ScriptedEngine, answered, by_words
from overnight.testing.virtualtime import Deadlock, SeededEntropy, VirtualClock, run


class Case(Pool):
    """A pool with its own backlog."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.backlog = Backlog()
        super().__init__(engine, self.backlog, entropy=SeededEntropy(1), marks=NoMarks(), clock=VirtualClock())

    def add(self, works: list[Work]) -> None:
        """As the worker does."""
        self.backlog.add(works)
        self.wake()

    @property
    def waiting(self) -> int:
        return sum(self.backlog.waiting().values())


Drive = Callable[[Case], Awaitable[None]]


def with_pool(engine: ScriptedEngine, drive: Drive) -> None:
    """Run a pool while `drive` uses it."""

    async def main() -> None:
        pool = Case(engine)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pool.run())
            await drive(pool)
            running.cancel()

    run(main(), VirtualClock())


def test_an_engine_is_kept_full_and_never_overfull() -> None:
    engine = ScriptedEngine(by_words, in_flight_max=4)

    async def drive(pool: Case) -> None:
        segment = run_of(20)
        pool.add(begun(segment, [f"r{number} slow 1" for number in range(20)]))
        await asyncio.sleep(5.01)
        assert len(segment.lines) == 20
        assert pool.in_flight == pool.waiting == 0

    with_pool(engine, drive)
    assert engine.inside_max == 4


def test_an_interactive_request_does_not_wait_and_lanes_leave_it_room() -> None:
    """I10: it goes to the engine at once; while it is there, one lane less works."""
    engine = ScriptedEngine(by_words, in_flight_max=2)
    call = Call(
        params=b'{"messages":[{"role":"user","content":"now slow 10"}]}',
        model="m",
        api_version="",
        service_tier="standard",
        timeout_s=60,
    )

    async def interactive(pool: Case) -> float:
        with pool.interactive():
            await pool.engine.answer(call)
        return asyncio.get_running_loop().time()

    async def drive(pool: Case) -> None:
        pool.add(begun(run_of(100), [f"r{number} slow 1" for number in range(100)]))
        await asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(interactive(pool))
            await asyncio.sleep(1)
            assert engine.inside["now slow 10"] == 1
            for _ in range(8):
                assert pool.in_flight == 1
                await asyncio.sleep(1)
        assert asked.result() == 10.5
        await asyncio.sleep(1.9)
        assert pool.in_flight == 1, "somebody who just left may come back"
        await asyncio.sleep(1.2)
        assert pool.in_flight == 2

    with_pool(engine, drive)


def test_somebody_who_is_still_inside_when_the_lanes_end_is_not_disturbed() -> None:
    async def main() -> None:
        pool = Case(ScriptedEngine(by_words))
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        with pool.interactive():
            running.cancel()
            await asyncio.sleep(1)
        await asyncio.sleep(10)
        assert running.cancelled()

    run(main(), VirtualClock())


def test_more_interactive_requests_than_memory_allows_are_refused() -> None:
    async def drive(pool: Case) -> None:
        with ExitStack() as stack:
            for _ in range(limits.IN_FLIGHT_INTERACTIVE_MAX):
                stack.enter_context(pool.interactive())
            with pytest.raises(Overloaded), pool.interactive():
                pass

    with_pool(ScriptedEngine(by_words), drive)


def test_a_busy_engine_is_asked_by_one_request_and_the_others_keep_their_place() -> None:
    engine = ScriptedEngine(lambda text, call: Fate(Busy(reason="full", retry_after_ms=5_000), 0.1), in_flight_max=8)

    async def drive(pool: Case) -> None:
        segment = run_of(8)
        pool.add(begun(segment, [f"r{number}" for number in range(8)]))
        await asyncio.sleep(5.0)
        assert engine.calls.total() == 8, "all that were inside when it became busy"
        await asyncio.sleep(0.3)
        assert engine.calls.total() == 9, "one tries whether it is still busy"
        assert (pool.last_trouble, pool.waiting, len(segment.open)) == ("full", 8, 8)

    with_pool(engine, drive)


def test_an_engine_that_comes_back_is_full_at_once_and_nothing_is_held_against_the_requests() -> None:
    engine = ScriptedEngine(
        lambda text, call: Fate(Busy(reason="full")) if call <= 3 else Fate(answered(text), 1.0), in_flight_max=8
    )

    async def drive(pool: Case) -> None:
        segment = run_of(8)
        pool.add(begun(segment, [f"r{number}" for number in range(8)]))
        await asyncio.sleep(600)
        assert set(kinds(segment).values()) == {"succeeded"}
        assert pool.last_trouble == ""

    with_pool(engine, drive)


def test_being_refused_by_a_busy_engine_is_no_attempt() -> None:
    """After ten times busy it may still break as often as any request, and then be answered."""
    engine = ScriptedEngine(by_words, in_flight_max=1)

    async def drive(pool: Case) -> None:
        segment = run_of(1)
        pool.add(begun(segment, [f"busy 10 broken {limits.ATTEMPTS_MAX - 1}"]))
        await asyncio.sleep(3600)
        assert kinds(segment) == {"r0": "succeeded"}

    with_pool(engine, drive)


def test_a_request_that_breaks_its_engine_is_given_up_and_the_others_are_not() -> None:
    engine = ScriptedEngine(by_words, in_flight_max=2)

    async def drive(pool: Case) -> None:
        segment = run_of(3)
        pool.add(begun(segment, ["poison broken 99", "r1", "r2"]))
        await asyncio.sleep(120)
        assert kinds(segment) == {"r0": "errored", "r1": "succeeded", "r2": "succeeded"}
        assert rows(segment)["r0"]["error"]["error"]["type"] == "api_error"

    with_pool(engine, drive)
    assert engine.calls["poison broken 99"] == limits.ATTEMPTS_MAX


def test_a_bug_in_an_engine_costs_the_request_not_the_lane() -> None:
    def script(text: str, call: int) -> Fate:
        if text == "bug":
            raise ZeroDivisionError
        return Fate(answered(text))

    async def drive(pool: Case) -> None:
        segment = run_of(2)
        pool.add(begun(segment, ["bug", "fine"]))
        await asyncio.sleep(120)
        assert kinds(segment) == {"r0": "errored", "r1": "succeeded"}

    with_pool(ScriptedEngine(script, in_flight_max=1), drive)


def test_an_interrupted_request_leaves_its_lane_to_the_next() -> None:
    engine = ScriptedEngine(by_words, in_flight_max=1)

    async def drive(pool: Case) -> None:
        first, second = run_of(1), run_of(1)
        pool.add(begun(first, ["hung"]))
        await asyncio.sleep(1)
        first.close_all("expired")
        pool.add(begun(second, ["next slow 1"]))
        await asyncio.sleep(1.5)
        assert (kinds(first), kinds(second)) == ({"r0": "expired"}, {"r0": "succeeded"})
        await pool.wait_quiet()

    with_pool(engine, drive)
    assert engine.inside.total() == 0


def test_an_interrupt_at_the_moment_of_the_answer_changes_no_row() -> None:
    engine = ScriptedEngine(by_words, in_flight_max=1)

    async def drive(pool: Case) -> None:
        segment, later = run_of(1), run_of(1)
        pool.add(begun(segment, ["slow 1"]))
        asyncio.get_running_loop().call_at(1.0, segment.close_all, "canceled")
        await asyncio.sleep(2)
        assert list(kinds(segment)) == ["r0"]
        pool.add(begun(later, ["after"]))
        await asyncio.sleep(1)
        assert kinds(later) == {"r0": "succeeded"}, "the lane lives"

    with_pool(engine, drive)


def test_a_closing_run_lets_what_is_inside_finish_and_tries_nothing_again() -> None:
    engine = ScriptedEngine(by_words, in_flight_max=3)

    async def drive(pool: Case) -> None:
        segment = run_of(4)
        pool.add(begun(segment, ["r0 slow 2", "r1 slow 2 broken 1", "r2 slow 2 busy 1", "r3"]))
        await asyncio.sleep(1)
        segment.close_waiting("canceled")
        await asyncio.sleep(60)
        assert kinds(segment) == {"r0": "succeeded", "r1": "canceled", "r2": "canceled", "r3": "canceled"}

    with_pool(engine, drive)
    assert engine.calls.total() == 3


def test_nothing_starts_that_may_not_and_a_low_queue_is_told() -> None:
    engine, told = ScriptedEngine(by_words, in_flight_max=2), []

    async def drive(pool: Case) -> None:
        allowed: list[bool] = []
        pool.attach(may_start=lambda: bool(allowed))
        pool.backlog.on_low = lambda: told.append(pool.waiting)
        pool.add(begun(run_of(4), [f"r{number} slow 1" for number in range(4)]))
        await asyncio.sleep(10)
        assert (engine.calls.total(), told) == (0, [])
        allowed.append(True)
        pool.wake()
        await asyncio.sleep(10)
        assert engine.calls.total() == 4

    with_pool(engine, drive)
    assert told[0] > 0, "while there is something left to do"


def test_a_hang_is_an_error_under_virtual_time() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(hang(), VirtualClock())
