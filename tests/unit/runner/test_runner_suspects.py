"""Requests that were inside when an engine was lost: who they are tried with, and by whom."""

import asyncio

from runs import begun, kinds, run_of

from overnight import limits
from overnight.core.retry import Broken, Busy
from overnight.engines.engine import Capabilities
from overnight.ports.marks import NoMarks
from overnight.runner.backlog import Backlog
from overnight.runner.pool import Pool
from overnight.runner.segmentrun import SegmentRun
from overnight.testing.engines import Fate, ScriptedEngine, answered
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run

REQUESTS = 20


class Mortal(ScriptedEngine):
    """Dies of `poison` with all that is inside, and stays dead after `lives` times."""

    def __init__(self, *, lives: int) -> None:
        super().__init__(lambda text, call: self._fate(text), in_flight_max=4)
        self.lives = lives
        self._deaths = 0

    def _fate(self, text: str) -> Fate:
        if self._deaths >= self.lives:
            return Fate(Busy(reason="refused", is_away=True))
        if text == "poison":
            asyncio.get_running_loop().call_later(0.9, self._die)
            return Fate(Broken(reason="lost", is_lost=True), 1.0)
        if self.inside["poison"]:
            return Fate(Broken(reason="lost", is_lost=True), 1.0)
        return Fate(answered(text), 1.0)

    def _die(self) -> None:
        self._deaths += 1

    async def is_there(self) -> bool:
        return self._deaths < self.lives


def night(*engines: ScriptedEngine) -> SegmentRun:
    """A night over a segment whose eleventh request is poison. The second engine begins 120 s after the first."""
    segment = run_of(REQUESTS)

    async def main() -> None:
        backlog, entropy, clock = Backlog(), SeededEntropy(1), VirtualClock()
        pools = [Pool(engine, backlog, entropy=entropy, marks=NoMarks(), clock=clock) for engine in engines]
        backlog.add(begun(segment, [f"r{number}" if number != 10 else "poison" for number in range(REQUESTS)]))
        async with asyncio.TaskGroup() as group:
            running = []
            for pool in pools:
                running.append(group.create_task(pool.run()))
                await asyncio.sleep(120)
            await asyncio.sleep(120)
            for task in running:
                task.cancel()

    run(main(), VirtualClock())
    return segment


def expected() -> dict[str, str]:
    """Only the poison is errored."""
    return {f"r{number}": "succeeded" if number != 10 else "errored" for number in range(REQUESTS)}


def test_only_the_request_that_kills_its_engine_is_errored_after_two_losses_and_one_or_two_alone() -> None:
    """Two if there was nothing but suspects to try the engine with."""
    engine = Mortal(lives=99)
    assert kinds(night(engine)) == expected()
    assert limits.DEATHS_MAX + 1 <= engine.calls["poison"] <= limits.DEATHS_MAX + 2


def test_what_is_suspect_where_an_engine_died_for_good_is_found_out_by_another() -> None:
    first, second = Mortal(lives=2), Mortal(lives=99)
    assert kinds(night(first, second)) == expected()
    assert first.calls["poison"] + second.calls["poison"] <= limits.ATTEMPTS_MAX


def test_a_request_that_is_alone_with_an_engine_in_doubt_is_tried_as_often_as_any_that_breaks() -> None:
    """Nothing else is there to tell whose doing it is."""
    segment = run_of(1)
    engine = Mortal(lives=99)

    async def main() -> None:
        backlog = Backlog()
        pool = Pool(engine, backlog, entropy=SeededEntropy(1), marks=NoMarks(), clock=VirtualClock())
        backlog.add(begun(segment, ["poison"]))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pool.run())
            await asyncio.sleep(600)
            running.cancel()

    run(main(), VirtualClock())
    assert kinds(segment) == {"r0": "errored"}
    assert engine.calls["poison"] == limits.ATTEMPTS_MAX


def test_an_answer_that_comes_after_a_refused_connection_opens_every_door() -> None:
    """Else the engine would be away for ever, for nobody knocks at an open gate."""
    segment = run_of(9)
    engine = ScriptedEngine(
        lambda text, call: (
            Fate(Busy(reason="refused", is_away=True), 0.1)
            if text == "r1" and call == 1
            else Fate(answered(text), 0.2)
        ),
        in_flight_max=2,
        capabilities=Capabilities(),  # It is looked at twice a second, and a look hides what happens meanwhile.
    )

    async def main() -> None:
        backlog = Backlog()
        pool = Pool(engine, backlog, entropy=SeededEntropy(1), marks=NoMarks(), clock=VirtualClock())
        backlog.add(begun(segment, [f"r{number}" for number in range(9)]))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(pool.run())
            await asyncio.sleep(60)
            running.cancel()

    run(main(), VirtualClock())
    assert set(kinds(segment).values()) == {"succeeded"}
    assert len(kinds(segment)) == 9
