"""runner.purse: an engine that costs money takes what its budget allows, and what it spent is not forgotten."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from runs import begun, kinds, run_of

from overnight.core import schedule
from overnight.core.prices import Rate, told
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.core.schedule import Demand
from overnight.core.tokens import Tokens
from overnight.engines.engine import Capabilities
from overnight.engines.routing import Route
from overnight.errors import StoreError
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.plan import Plan
from overnight.runner.purse import Purse
from overnight.runner.segmentrun import SegmentRun
from overnight.runner.status import engines
from overnight.store.committer import InlineCommitter
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.store import Store
from overnight.testing.engines import Fate, ScriptedEngine
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run
from overnight.wire.message import Usage

NOON = 1_780_056_000_000  # 2026-05-29 12:00 UTC.
TO_MIDNIGHT_S = 12 * 3600
A_DOLLAR = {"m": told(input=0.0, output=1_000_000.0)}  # For each token of output: a request is estimated at one.
ROUTE = Route(ScriptedEngine(lambda text, call: Fate(None)), ["*"], budget_usd_per_day=5.0, prices=A_DOLLAR)
Drive = Callable[[Fleet], Awaitable[None]]


class Noted(SqliteControl):
    """A store in memory that remembers what was written, and fails as often as it is told."""

    def __init__(self) -> None:
        super().__init__(InlineCommitter(connect(Path(":memory:")), before_commit=lambda: None))
        self.written: list[tuple[str, int]] = []
        self.failures = 0
        self.on_write: Callable[[], None] = lambda: None

    async def spent(self, engine: str, day: str) -> int:
        self._fail()
        return await super().spent(engine, day)

    async def note_spent(self, engine: str, day: str, usd_micro: int) -> None:
        self._fail()
        self.written.append((day, usd_micro))
        self.on_write()
        await super().note_spent(engine, day, usd_micro)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")


def message(tokens: int) -> Answered:
    """An answer of so many tokens of output."""
    usage = {"input_tokens": 1, "output_tokens": tokens}
    return Answered(msgspec.json.encode({"type": "message", "role": "assistant", "content": [], "usage": usage}))


def engine(
    outcome: Outcome | None = None, *, slots: int = 8, name: str = "paid", capabilities: Capabilities | None = None
) -> ScriptedEngine:
    """Ends every request with `outcome` after a second; without one it costs a dollar."""
    return ScriptedEngine(
        lambda text, call: Fate(outcome or message(1), 1.0),
        in_flight_max=slots,
        name=name,
        capabilities=capabilities or Capabilities(has_slots=True),
    )


def with_fleet(routes: Sequence[Route], drive: Drive, *, control: Noted | None = None, clock: VirtualClock) -> None:
    """Run a fleet and its purses while `drive` uses it."""
    store = control or Noted()

    async def main() -> None:
        fleet = Fleet(routes, World(clock=clock, entropy=SeededEntropy(1)))
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(loop) for loop in (fleet.run(), *(one.run(store) for one in fleet.purses))]
            await asyncio.sleep(0)
            await drive(fleet)
            for task in running:
                task.cancel()

    run(main(), clock)


def noon() -> VirtualClock:
    return VirtualClock(epoch_ms=NOON)


def add(fleet: Fleet, count: int, *, model: str = "m") -> SegmentRun:
    segment = run_of(count)
    works = begun(segment, [f"{model}{number}" for number in range(count)])
    for work in works:
        work.model = model
    fleet.backlog.add(works)
    for pool in fleet.pools:
        pool.wake()
    return segment


# --- Within a day -------------------------------------------------------------------------------------------------


def test_an_engine_takes_no_more_than_its_budget_and_goes_on_at_midnight_utc() -> None:
    paid = engine(slots=2)

    async def drive(fleet: Fleet) -> None:
        add(fleet, 12)
        await asyncio.sleep(TO_MIDNIGHT_S - 1)
        assert paid.calls.total() == 5
        assert fleet.trouble() == {"paid": "budget of 5.00 USD for today is spent; opens 00:00 UTC"}
        (state,) = engines(fleet, now_ms=NOON)
        assert (state.held_by, state.held) == (
            "budget",
            "waits: budget of 5.00 USD for today is spent; opens 00:00 UTC",
        )
        await asyncio.sleep(60)
        assert paid.calls.total() == 10
        await asyncio.sleep(24 * 3600)
        assert paid.calls.total() == 12
        assert fleet.trouble() == {}

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


def test_what_is_inside_is_reserved_and_what_it_did_not_cost_is_there_again() -> None:
    cheap = engine(message(0))

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 20)
        await asyncio.sleep(0.5)
        (purse,) = fleet.purses
        assert (purse.reserved_usd, purse.is_shut) == (5, True)
        assert purse.trouble == "budget of 5.00 USD for today is reserved for the requests inside"
        await asyncio.sleep(10)
        assert len(kinds(segment)) == 20
        assert (purse.spent_usd, purse.reserved_usd, purse.trouble) == (0, 0, "")

    with_fleet([ROUTE._replace(engine=cheap)], drive, clock=noon())
    assert cheap.inside_max == 5


def test_an_answer_that_was_dearer_than_estimated_counts_as_what_it_was() -> None:
    dear = engine(message(4), slots=1)

    async def drive(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(60)
        assert fleet.purses[0].spent_usd == 8

    with_fleet([ROUTE._replace(engine=dear)], drive, clock=noon())
    assert dear.calls.total() == 2, "the second one still fitted as it was estimated"


def test_replicas_share_one_budget() -> None:
    first, second = engine(name="first"), engine(name="second")

    async def drive(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(60)
        assert len(fleet.purses) == 1

    with_fleet([ROUTE._replace(engine=first), ROUTE._replace(engine=second)], drive, clock=noon())
    assert first.calls.total() + second.calls.total() == 5
    assert min(first.calls.total(), second.calls.total()) > 0


def test_who_waits_for_reserved_money_is_woken_when_it_comes_back() -> None:
    paid = engine(message(0))

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        held = [purse.take("m", Tokens(1, 1)) for _ in range(5)]
        segment = add(fleet, 4)
        await asyncio.sleep(60)
        assert paid.calls.total() == 0
        held[0].close(Busy(reason="full"))
        await asyncio.sleep(10)
        assert len(kinds(segment)) == 4

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


def test_engines_of_two_ranks_have_a_budget_each_and_spending_under_names_of_their_own() -> None:
    control = Noted()
    routes = [ROUTE._replace(engine=engine()), ROUTE._replace(engine=engine(), rank=1, budget_usd_per_day=2.0)]

    async def drive(fleet: Fleet) -> None:
        assert [(one.name, one.usd_per_day) for one in fleet.purses] == [("paid", 5.0), ("paid (2)", 2.0)]

    with_fleet(routes, drive, control=control, clock=noon())


def test_others_do_the_work_of_an_engine_whose_budget_is_spent() -> None:
    paid, own = engine(slots=8), engine(slots=1, name="own")

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 40)
        await asyncio.sleep(60)
        assert len(kinds(segment)) == 40

    with_fleet([Route(own, ["*"]), ROUTE._replace(engine=paid, rank=1, is_shared=True)], drive, clock=noon())
    assert (paid.calls.total(), own.calls.total()) == (5, 35)


@pytest.mark.parametrize(
    ("budget", "people"),
    [
        pytest.param(1.0, 0, id="by the leader"),
        pytest.param(9.0, 10, id="by people while the leader is inside"),
    ],
)
def test_what_waits_behind_a_leader_is_anybodys_once_the_budget_is_spent(budget: float, people: int) -> None:
    paid = engine(capabilities=Capabilities(has_slots=True, charges_cache_writes=True))
    own = engine(slots=1, name="own")

    async def drive(fleet: Fleet) -> None:
        segment = run_of(20)
        works = begun(segment, ["the same"] * 20)
        for work in works:
            work.is_cached = True
        fleet.backlog.add(works)
        for pool in fleet.pools:
            pool.wake()
        await asyncio.sleep(0.5)
        fleet.purses[0].count("m", Usage(output_tokens=people))
        await asyncio.sleep(60)
        assert len(kinds(segment)) == 20

    route = ROUTE._replace(engine=paid, rank=1, is_shared=True, budget_usd_per_day=budget)
    with_fleet([Route(own, ["*"]), route], drive, clock=noon())
    assert paid.calls.total() == 1


def test_a_spent_engine_wants_no_more_leases_and_its_speed_saves_no_deadline() -> None:
    paid = engine(slots=1)

    async def drive(fleet: Fleet) -> None:
        plan = Plan(cast(Store, SimpleNamespace(control=Noted())), fleet, World(clock=VirtualClock(epoch_ms=NOON)))
        (pool,) = fleet.pools
        pool.admission.speed_per_s = 100.0
        due_ms = NOON + schedule.URGENT_MS
        plan.demands = [Demand(due_ms, 1)]
        await asyncio.sleep(1)
        plan._consider()
        assert (plan.requests_wanted([]), fleet.backlog.danger_ms) == (2, None)
        fleet.purses[0].count("m", Usage(output_tokens=6))
        plan._consider()
        assert (plan.requests_wanted([]), fleet.backlog.danger_ms) == (0, due_ms)
        assert not pool.admission.has_room()

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


def test_a_model_without_a_price_is_leased_no_further() -> None:
    async def drive(fleet: Fleet) -> None:
        plan = Plan(cast(Store, SimpleNamespace(control=Noted())), fleet, World(clock=VirtualClock(epoch_ms=NOON)))
        await asyncio.sleep(1)
        add(fleet, 50, model="nobody-knows-it")
        wanted = plan.wanted([], segments=1, is_closing_only=False)
        assert (wanted.requests, wanted.closed) == (16, {"nobody-knows-it"})

    with_fleet([ROUTE._replace(engine=engine())], drive, clock=noon())


def test_a_request_larger_than_the_budget_waits_for_another_engine_and_health_says_so() -> None:
    paid, own = engine(), engine(slots=1, name="own")
    dear = {"m": told(input=0.0, output=6_000_000.0)}

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 3)
        await asyncio.sleep(0.5)
        assert fleet.trouble() == {"paid": "a request of about 6.00 USD is more than the budget of 5.00 USD a day"}
        await asyncio.sleep(10)
        assert len(kinds(segment)) == 3

    with_fleet(
        [Route(own, ["*"]), ROUTE._replace(engine=paid, is_shared=True, rank=1, prices=dear)], drive, clock=noon()
    )
    assert paid.calls.total() == 0


# --- Prices -------------------------------------------------------------------------------------------------------


def test_a_model_whose_price_nobody_knows_is_not_asked_for_and_holds_up_no_other() -> None:
    paid = engine(slots=4)

    async def drive(fleet: Fleet) -> None:
        add(fleet, 10, model="nobody-knows-it")
        known = add(fleet, 4)
        await asyncio.sleep(5)
        assert (len(kinds(known)), paid.calls.total()) == (4, 4)
        assert fleet.trouble() == {
            "paid": "nobody knows what 'nobody-knows-it' costs, so no batch may ask for it: set its price in prices"
        }

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


def test_an_alias_has_the_price_of_the_name_that_the_engine_knows() -> None:
    paid = engine()

    async def drive(fleet: Fleet) -> None:
        add(fleet, 20, model="cheap-one")
        await asyncio.sleep(60)

    with_fleet([ROUTE._replace(engine=paid, aliases={"cheap-one": "m"})], drive, clock=noon())
    assert paid.calls.total() == 5


def test_a_price_that_is_known_needs_not_be_told() -> None:
    purse = Purse("paid", 1.0, clock=noon())
    purse.count("claude-haiku-4-5", Usage(input_tokens=1_000, output_tokens=100))
    assert purse.spent_usd == Decimal("0.0015")


def test_more_models_than_are_remembered_are_looked_up_again() -> None:
    purse = Purse("paid", 1.0, clock=noon(), prices={"m": A_DOLLAR["m"]})
    assert not any(purse.knows(f"nobody's {number}") for number in range(1_500))
    assert purse.knows("m")


# --- Attempts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "dollars"),
    [
        pytest.param(Busy(reason="full"), 0, id="busy"),
        pytest.param(Refused(status=400, type="invalid_request_error", message="no"), 0, id="refused"),
        pytest.param(Broken(reason="500"), 0, id="a failure of the server"),
        pytest.param(Broken(reason="lost", is_lost=True), 1, id="lost, perhaps after it was worked on"),
        pytest.param(Broken(reason="late", type="timeout_error"), 1, id="given up while it was worked on"),
        pytest.param(Answered(b"no Message"), 1, id="an answer that tells no tokens"),
        pytest.param(None, 1, id="stopped"),
    ],
)
def test_what_may_have_been_worked_on_counts_as_it_was_estimated(outcome: Outcome | None, dollars: int) -> None:
    purse = Purse("paid", 5.0, clock=noon(), prices=A_DOLLAR)
    bill = purse.take("m", Tokens(10, 1))
    assert purse.reserved_usd == 1
    bill.close(outcome)
    assert (purse.reserved_usd, purse.spent_usd) == (0, dollars)
    bill.close(outcome)
    assert (purse.reserved_usd, purse.spent_usd) == (0, dollars), "once"


def test_a_request_that_is_stopped_inside_counts() -> None:
    paid = ScriptedEngine(lambda text, call: Fate(None), in_flight_max=4)

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 2)
        await asyncio.sleep(1)
        segment.close_all("canceled")
        await asyncio.sleep(1)
        assert (fleet.purses[0].spent_usd, fleet.purses[0].reserved_usd) == (2, 0)

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


def test_a_busy_engine_costs_nothing() -> None:
    busy = engine(Busy(reason="full"))

    async def drive(fleet: Fleet) -> None:
        add(fleet, 4)
        await asyncio.sleep(600)
        assert (fleet.purses[0].spent_usd, fleet.purses[0].reserved_usd) == (0, 0)

    with_fleet([ROUTE._replace(engine=busy)], drive, clock=noon())
    assert busy.calls.total() > 4


# --- People -------------------------------------------------------------------------------------------------------


def test_people_are_counted_and_never_refused() -> None:
    paid = engine()

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        await asyncio.sleep(1)
        purse.count("m", Usage(output_tokens=7))
        assert purse.spent_usd == 7
        add(fleet, 3)
        await asyncio.sleep(10)
        assert paid.calls.total() == 0
        way = fleet.way_for("m", DEFAULT_WORKSPACE)
        assert way is not None
        with way.pool.interactive():
            assert way.pool.interactive_in_flight == 1

    with_fleet([ROUTE._replace(engine=paid)], drive, clock=noon())


# --- Keeping ------------------------------------------------------------------------------------------------------


def test_spending_is_written_once_a_second_at_most_however_many_requests_there_are() -> None:
    control = Noted()
    quick = ScriptedEngine(lambda text, call: Fate(message(1), 0.05), in_flight_max=5)
    cent: dict[str, Rate] = {"m": told(input=0.0, output=10_000.0)}

    async def drive(fleet: Fleet) -> None:
        segment = add(fleet, 1_000)
        await asyncio.sleep(15)
        assert len(kinds(segment)) == 1_000

    route = ROUTE._replace(engine=quick, prices=cent, budget_usd_per_day=100.0)
    with_fleet([route], drive, control=control, clock=noon())
    assert 9 <= len(control.written) <= 12, "1,000 answers in 10 s"
    assert control.written[-1] == ("2026-05-29", 10_000_000)


def test_a_restart_on_the_same_day_has_what_is_left_and_a_crash_forgets_one_second() -> None:
    control, clock = Noted(), noon()
    first, second = engine(slots=1), engine(slots=1)

    async def until_crash(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(3.5)

    async def all_day(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(600)

    with_fleet([ROUTE._replace(engine=first)], until_crash, control=control, clock=clock)
    saved = control.written[-1][1]
    assert saved >= 2_000_000, "three answers, the last of them within a second of the crash"
    with_fleet([ROUTE._replace(engine=second)], all_day, control=control, clock=clock)
    assert second.calls.total() == 5 - saved // 1_000_000
    assert control.written[-1] == ("2026-05-29", 5_000_000)


def test_a_restart_on_the_next_day_has_the_whole_budget() -> None:
    control = Noted()
    paid = engine()

    async def drive(fleet: Fleet) -> None:
        add(fleet, 20)
        await asyncio.sleep(60)

    asyncio.run(control.note_spent("paid", "2026-05-28", 5_000_000))
    with_fleet([ROUTE._replace(engine=paid)], drive, control=control, clock=noon())
    assert paid.calls.total() == 5


def test_the_last_second_of_a_day_is_written_to_that_day() -> None:
    control, clock = Noted(), VirtualClock(epoch_ms=NOON + TO_MIDNIGHT_S * 1000 - 1_500)

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        await asyncio.sleep(1.2)
        purse.count("m", Usage(output_tokens=1))
        await asyncio.sleep(1)
        purse.count("m", Usage(output_tokens=2))
        await asyncio.sleep(5)

    with_fleet([ROUTE], drive, control=control, clock=clock)
    assert set(control.written) == {("2026-05-29", 1_000_000), ("2026-05-30", 2_000_000)}


def test_nothing_is_taken_before_the_store_has_said_what_is_spent() -> None:
    control, paid = Noted(), engine()
    control.failures = 3

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        add(fleet, 4)
        purse.count("m", Usage(output_tokens=1))
        await asyncio.sleep(2.5)
        assert (paid.calls.total(), purse.trouble) == (0, "spending: the disk is full")
        await purse.save(control)
        assert control.written == [], "it would replace what it does not know"
        await asyncio.sleep(10)
        assert (paid.calls.total(), purse.trouble) == (2, "budget of 5.00 USD for today is spent; opens 00:00 UTC")

    asyncio.run(_noted(control, 2_000_000))
    with_fleet([ROUTE._replace(engine=paid)], drive, control=control, clock=noon())
    assert control.written[-1] == ("2026-05-29", 5_000_000)


async def _noted(control: Noted, usd_micro: int) -> None:
    """What an earlier process wrote."""
    await SqliteControl.note_spent(control, "paid", "2026-05-29", usd_micro)


def test_a_server_that_tells_nonsense_spends_the_budget_and_stops_nothing_else() -> None:
    control = Noted()

    async def drive(fleet: Fleet) -> None:
        fleet.purses[0].count("m", Usage(output_tokens=2**62))
        await asyncio.sleep(5)
        assert fleet.purses[0].is_shut

    with_fleet([ROUTE], drive, control=control, clock=noon())
    assert 5_000_000 < control.written[0][1] < 2**63


def test_what_could_not_be_written_is_written_later() -> None:
    control = Noted()

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        await asyncio.sleep(1.5)
        control.failures = 3
        purse.count("m", Usage(output_tokens=1))
        await asyncio.sleep(1.5)
        assert (purse.trouble, control.written) == ("spending: the disk is full", [])
        await asyncio.sleep(5)
        assert (purse.trouble, control.written) == ("", [("2026-05-29", 1_000_000)])

    with_fleet([ROUTE], drive, control=control, clock=noon())


def test_what_is_paid_while_it_is_written_is_written_next() -> None:
    control = Noted()

    async def drive(fleet: Fleet) -> None:
        (purse,) = fleet.purses
        purse.count("m", Usage(output_tokens=1))

        def once_more() -> None:
            control.on_write = lambda: None
            purse.count("m", Usage(output_tokens=1))

        control.on_write = once_more
        await asyncio.sleep(5)

    with_fleet([ROUTE], drive, control=control, clock=noon())
    assert control.written == [("2026-05-29", 1_000_000), ("2026-05-29", 2_000_000)]
