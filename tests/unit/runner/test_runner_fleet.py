"""runner.fleet: which of several engines takes what, and who helps when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

from runs import T0, begun, kinds, run_of

from overnight import limits
from overnight.core.retry import Busy
from overnight.engines.routing import Route
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.segmentrun import SegmentRun
from overnight.testing.engines import Fate, ScriptedEngine, answered
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run

AWAY = Fate(Busy(reason="connection refused", is_away=True))
Drive = Callable[[Fleet], Awaitable[None]]


def engine(name: str, *, slots: int = 2) -> ScriptedEngine:
    """Answers in a second; while it is not `is_up`, nobody is there."""

    def script(text: str, call: int) -> Fate:
        return Fate(answered(text), 1.0) if made.is_up else AWAY

    made = ScriptedEngine(script, in_flight_max=slots, name=name)
    return made


def with_fleet(routes: Sequence[Route], drive: Drive) -> None:
    clock = VirtualClock()
    world = World(clock=clock, entropy=SeededEntropy(1))

    async def main() -> None:
        fleet = Fleet(routes, world)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(fleet.run())
            await asyncio.sleep(0)
            await drive(fleet)
            running.cancel()

    run(main(), clock)


def add(fleet: Fleet, count: int) -> SegmentRun:
    segment = run_of(count)
    fleet.backlog.add(begun(segment, [f"r{number}" for number in range(count)]))
    for pool in fleet.pools:
        pool.wake()
    return segment


def test_a_later_engine_stands_by_while_the_first_one_is_there() -> None:
    own, spare = engine("own"), engine("spare")

    async def drive(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(60)

    with_fleet([Route(own, ["*"]), Route(spare, ["*"], rank=1)], drive)
    assert (own.calls.total(), spare.calls.total()) == (20, 0)


def test_a_shared_engine_takes_its_part() -> None:
    own, other = engine("own"), engine("other", slots=6)

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 80)
        await asyncio.sleep(10.5)
        assert len(kinds(segment)) == 80

    with_fleet([Route(own, ["*"]), Route(other, ["*"], rank=1, is_shared=True)], drive)
    assert (own.calls.total(), other.calls.total()) == (20, 60)


def test_a_spare_helps_once_the_first_engine_is_away_for_long() -> None:
    own, spare = engine("own"), engine("spare")
    own.is_up = False

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 8)
        await asyncio.sleep(limits.FALL_OVER_MS / 1000 - 1)
        assert spare.calls.total() == 0, "an engine that restarts is back by then"
        await asyncio.sleep(2)
        fleet.pools[1].wake()  # As the plan does every ten seconds.
        await asyncio.sleep(10)
        assert set(kinds(segment).values()) == {"succeeded"}

    with_fleet([Route(own, ["*"]), Route(spare, ["*"], rank=1)], drive)
    assert spare.calls.total() == 8


def test_a_spare_helps_while_a_deadline_is_in_danger() -> None:
    own, spare = engine("own"), engine("spare")

    async def drive(fleet: Fleet) -> None:
        add(fleet, 40)
        fleet.backlog.danger_ms = T0 + limits.BATCH_LIFETIME_MS
        fleet.pools[1].wake()
        await asyncio.sleep(5.5)
        fleet.backlog.danger_ms = None
        await asyncio.sleep(60)

    with_fleet([Route(own, ["*"]), Route(spare, ["*"], rank=1)], drive)
    assert own.calls.total() + spare.calls.total() == 40
    assert 10 <= spare.calls.total() <= 20, "what it took in that time, and the rest of its turns"


def test_a_replica_that_goes_away_leaves_its_work_to_the_other_and_comes_back_by_itself() -> None:
    first, second = engine("first"), engine("second")

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 200)
        await asyncio.sleep(10.5)
        first.is_up = False
        await asyncio.sleep(20)
        asked = first.calls.total()
        assert fleet.trouble() == {"first": "connection refused"}
        await asyncio.sleep(10)
        assert first.calls.total() == asked, "it is looked at, and not asked"
        first.is_up = True
        await asyncio.sleep(150)
        assert set(kinds(segment).values()) == {"succeeded"}
        assert first.calls.total() > asked + 20
        assert fleet.trouble() == {}

    with_fleet([Route(first, ["*"]), Route(second, ["*"])], drive)


def test_replicas_split_one_segment_and_each_half_stays_together() -> None:
    first, second = engine("first", slots=1), engine("second", slots=1)

    async def drive(fleet: Fleet) -> None:
        add(fleet, 64)
        await asyncio.sleep(100)

    with_fleet([Route(first, ["*"]), Route(second, ["*"])], drive)
    asked = [[int(text[1:]) for text, _ in made.begun] for made in (first, second)]
    assert [len(numbers) for numbers in asked] == [32, 32]
    breaks = [sum(after != before + 1 for before, after in pairwise(found)) for found in asked]
    assert sum(breaks) <= 8, "halves of halves at the end, no turns"


def test_an_alias_is_asked_under_the_name_that_the_engine_knows() -> None:
    named: list[str] = []

    class Noting(ScriptedEngine):
        async def answer(self, call):  # type: ignore[no-untyped-def]
            named.append(call.model)
            assert b'"model":"qwen"' in call.params
            return await super().answer(call)

    own = Noting(lambda text, call: Fate(answered(text)))

    async def drive(fleet: Fleet) -> None:
        add(fleet, 3)
        way = fleet.way_for("m", DEFAULT_WORKSPACE)
        assert way is not None
        assert (way.model, way.named(b'{"model": "m", "x": 1}')) == ("qwen", b'{"model":"qwen","x":1}')
        await asyncio.sleep(10)

    with_fleet([Route(own, [], aliases={"m": "qwen"})], drive)
    assert named == ["qwen"] * 3


def test_people_are_sent_to_the_engine_that_is_there_and_has_least_to_do() -> None:
    first, second, spare = engine("first"), engine("second"), engine("spare")

    async def drive(fleet: Fleet) -> None:
        def chosen() -> str:
            way = fleet.way_for("m", DEFAULT_WORKSPACE)
            assert way is not None
            return way.pool.engine.name

        with fleet.pools[0].interactive():
            assert chosen() == "second"
        first.is_up = second.is_up = False
        add(fleet, 4)
        await asyncio.sleep(1)
        assert chosen() == "spare"
        assert fleet.way_for("unknown", DEFAULT_WORKSPACE) is None

    with_fleet([Route(first, ["m"]), Route(second, ["m"]), Route(spare, ["m"], rank=1)], drive)


def test_outside_its_hours_an_engine_takes_nothing_and_the_part_that_a_deadline_needs() -> None:
    own = engine("own", slots=8)

    async def drive(fleet: Fleet) -> None:
        (pool,) = fleet.pools
        pool.admission.share = 0.0
        segment = add(fleet, 40)
        await asyncio.sleep(10)
        assert own.calls.total() == 0
        pool.admission.share = 0.2
        pool.wake()
        await asyncio.sleep(0.5)
        assert pool.in_flight == 2, "rounded up"
        pool.admission.share = 1.0
        pool.wake()
        await asyncio.sleep(10)
        assert len(kinds(segment)) == 40

    with_fleet([Route(own, ["*"])], drive)
