"""runner.handoff within a budget: a day's runs end where its money does, and what is at the upstream is counted."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hostedinside import HostedInside
from runs import begun, run_of
from skies import A_DOLLAR, HOUR_S, MODEL, Sky, answers, echo, echoes, nothing_is_left, requests, said

from overnight.core import schedule
from overnight.core.batch import Batch
from overnight.core.retry import Answered
from overnight.core.tokens import Tokens
from overnight.engines.claudebatch import ClaudeBatch
from overnight.engines.routing import Route
from overnight.errors import StoreError
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.bills import Bills
from overnight.runner.fleet import Fleet
from overnight.runner.purse import Purse
from overnight.runner.segmentrun import Work
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server import build
from overnight.server.access import Doors
from overnight.server.app import app
from overnight.server.config import EngineSettings, PriceSettings, Settings
from overnight.server.context import Context
from overnight.store.control import Control
from overnight.store.store import recover
from overnight.testing import hosted as double
from overnight.testing.handingover import Night
from overnight.testing.hosted import HostedApi, Outcome
from overnight.testing.simulation import AppClient, Machine
from overnight.testing.virtualtime import VirtualClock, run

BUDGET = 5.0
COUNT = 12
TO_EVENING_MS = 150 * 60_000  # From where the clock of a machine begins to 22:56 UTC.


def paid(tmp_path: Path, script: double.Script = echo, *, usd: float = BUDGET, tokens: int = 1, **bounds: int) -> Sky:
    """An upstream with a budget; a request is estimated at a dollar, and costs one for each of `tokens`."""
    sky = Sky(tmp_path, script, **bounds)
    sky.usd_per_day = usd
    sky.hosted.usage(1, tokens)
    return sky


def cheap(count: int = COUNT, name: str = "r") -> list[tuple[str, dict[str, Any]]]:
    """Requests that are estimated at one token each."""
    return requests(count, name, max_tokens=4)


def purse_of(night: Night) -> Purse:
    assert night.purse is not None
    return night.purse


def dollars(night: Night) -> tuple[int, int]:
    """Spent and reserved."""
    purse = purse_of(night)
    return int(purse.spent_usd), int(purse.reserved_usd)


def days(sky: Sky) -> list[int]:
    """How many requests were sent on each day of UTC, first day first."""
    found = Counter[str]()
    for batch, size in zip(sky.hosted.batches, sky.sizes(), strict=True):
        found[batch.created_at[:10]] += size
    return [found[day] for day in sorted(found)]


# --- Within a day -------------------------------------------------------------------------------------------------


def test_a_run_is_cut_at_the_budget_and_the_rest_goes_on_the_next_day_in_order(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.machine.clock.jump(TO_EVENING_MS)

    async def drive(night: Night) -> None:
        batch = await night.create(cheap(9))
        await asyncio.sleep(HOUR_S)
        assert (sky.sizes(), dollars(night)) == ([5], (5, 0))
        assert purse_of(night).trouble == "budget of 5.00 USD for today is spent; opens 00:00 UTC"
        await night.until_ended(batch)
        assert answers(await night.results(batch)) == echoes(9)
        await nothing_is_left(night)
        assert dollars(night) == (4, 0)

    sky.live(drive)
    assert days(sky) == [5, 4]
    assert [said(params) for create in sky.hosted.creates for params in create.params] == list(echoes(9))


def test_what_is_at_the_upstream_is_reserved_at_the_price_of_a_batch(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.create(cheap())
        await asyncio.sleep(60)
        assert (sky.sizes(), dollars(night)) == ([5], (0, 5))
        assert purse_of(night).trouble == "budget of 5.00 USD for today is reserved for the requests inside"
        works = [work for run in night.runs.values() for work in run.open.values()]
        assert [work.tokens.output for work in works] == [1] * 5 + [0] * 7
        assert sum(night.backlog.served.values()) == pytest.approx(
            sum(schedule.cost(work.tokens) for work in works[:5])
        )

    sky.live(drive)


def test_a_long_run_stays_one_batch_and_little_of_it_is_taken_in_vain(tmp_path: Path) -> None:
    sky = paid(tmp_path, usd=1_100.0)
    sky.hosted.hold()
    in_vain: list[Work] = []

    async def drive(night: Night) -> None:
        put_back = night.backlog.put_back

        def counting(works: Iterable[Work]) -> None:
            found = list(works)
            in_vain.extend(found)
            put_back(found)

        night.backlog.put_back = counting  # type: ignore[method-assign]
        await night.create(cheap(3_000), segment_requests=1_000)
        await asyncio.sleep(60)
        assert (sky.sizes(), dollars(night)) == ([1_100], (0, 1_100))

    sky.live(drive)
    assert len(in_vain) == 900, "the rest of the second thousand"
    assert [said(params) for params in sky.hosted.creates[0].params] == list(echoes(1_100))


def test_requests_of_other_betas_are_sent_apart_and_billed_once(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        for betas in ("", "one"):
            await night.create(cheap(3, betas or "r"), betas=betas)
        await asyncio.sleep(60)
        assert (sorted(sky.sizes()), dollars(night)) == ([2, 3], (0, 5))

    sky.live(drive)


def test_a_request_larger_than_a_whole_batch_costs_nothing(tmp_path: Path) -> None:
    sky = paid(tmp_path, bytes_max=3_000)

    async def drive(night: Night) -> None:
        await night.until_ended(await night.create(requests(1, max_tokens=4, system="x" * 4_000)))
        assert dollars(night) == (0, 0)

    sky.live(drive)
    assert sky.sizes() == []


@pytest.mark.parametrize(
    ("tokens", "today", "spent"),
    [
        pytest.param(0, COUNT, 0, id="free answers let all the others go today"),
        pytest.param(3, 5, 15, id="dear answers bring the day above its budget once"),
    ],
)
def test_results_replace_estimates(tokens: int, today: int, spent: int, tmp_path: Path) -> None:
    sky = paid(tmp_path, tokens=tokens)

    async def drive(night: Night) -> None:
        await night.create(cheap())
        await asyncio.sleep(HOUR_S)
        assert (sky.asked().total(), dollars(night)) == (today, (spent, 0))
        assert set(sky.asked().values()) == {1}

    sky.live(drive)


def test_nothing_goes_before_it_is_known_what_earlier_processes_spent_today(tmp_path: Path) -> None:
    sky = paid(tmp_path)

    async def fail(control: Control) -> None:
        raise StoreError("the disk is full")

    async def drive(night: Night) -> None:
        purse = purse_of(night)
        recall, purse.recall = purse.recall, fail  # type: ignore[method-assign]
        await night.create(cheap())
        await asyncio.sleep(60)
        assert (sky.sizes(), purse.trouble) == ([], "spending: the disk is full")
        purse.recall = recall  # type: ignore[method-assign]
        await asyncio.sleep(60)
        assert sky.sizes() == [5]

    sky.live(drive)


def test_a_request_larger_than_the_budget_holds_up_those_behind_it_and_nobody_keeps_asking(tmp_path: Path) -> None:
    sky = paid(tmp_path, usd=0.5)
    asked: list[Tokens] = []

    async def drive(night: Night) -> None:
        purse = purse_of(night)
        admits = purse.admits

        def counting(model: str, tokens: Tokens) -> bool:
            asked.append(tokens)
            return admits(model, tokens)

        purse.admits = counting  # type: ignore[method-assign]
        await night.create(cheap())
        await asyncio.sleep(HOUR_S)
        assert purse.trouble == "a request of about 1.00 USD is more than the budget of 0.50 USD a day"

    sky.live(drive)
    assert sky.sizes() == []
    assert 1 <= len(asked) <= 3, "once for each time that something came"


def test_a_batch_that_is_refused_costs_nothing(tmp_path: Path) -> None:
    sky = paid(tmp_path)

    async def drive(night: Night) -> None:
        await night.until_ended(await night.create(cheap(3), api_version="1999-01-01"))
        await nothing_is_left(night)
        assert dollars(night) == (0, 0)

    sky.live(drive)


def test_the_halves_of_a_batch_that_was_too_large_are_reserved_once(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.next_create("413", times=2)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.create(cheap())
        await asyncio.sleep(60)
        assert (sorted(sky.sizes()), dollars(night)) == ([1, 1, 3], (0, 5))
        sky.hosted.release()
        await asyncio.sleep(HOUR_S)
        assert (sky.asked().total(), dollars(night)) == (5, (5, 0))

    sky.live(drive)


# --- Rows without an answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        pytest.param(double.failed("invalid_request_error", "no"), 2, id="an error of its own"),
        pytest.param(double.failed("timeout_error", "slow"), 3, id="bad luck once"),
        pytest.param(double.expired(), 3, id="expired once"),
    ],
)
def test_rows_without_an_answer_cost_nothing(outcome: Outcome, spent: int, tmp_path: Path) -> None:
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        return outcome if said(params) == "r1" and tries["r1"] == 1 else echo(custom_id, params)

    sky = paid(tmp_path, script)

    async def drive(night: Night) -> None:
        await night.until_ended(await night.create(cheap(3)))
        await nothing_is_left(night)
        assert dollars(night) == (spent, 0)

    sky.live(drive)


@pytest.mark.parametrize(("fault", "spent"), [("lose_rows", 4), ("duplicate_rows", 3), ("extra_rows", 3)])
def test_a_lost_row_counts_as_estimated_and_a_second_one_not_at_all(fault: str, spent: int, tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(cheap(3))
        await asyncio.sleep(20)
        first = "somebody-elses" if fault == "extra_rows" else sky.hosted.creates[0].custom_ids[0]
        getattr(sky.hosted, fault)([first])
        sky.hosted.release()
        await night.until_ended(batch)
        await nothing_is_left(night)
        assert dollars(night) == (spent, 0)

    sky.live(drive)


def test_results_that_are_read_twice_are_paid_once(tmp_path: Path) -> None:
    sky = paid(tmp_path, usd=50.0)
    sky.hosted.next_results("cut", 2_000, times=2)

    async def drive(night: Night) -> None:
        await night.until_ended(await night.create(cheap(40)))
        await nothing_is_left(night)
        assert dollars(night) == (40, 0)

    sky.live(drive)
    assert len([path for _, _, path in sky.wire.paths if path.endswith("/results")]) == 3


def test_a_row_that_is_read_again_under_another_lease_is_paid_once() -> None:
    """The lease was lost between the reading of the row and the writing of its line."""
    purse = Purse("paid", BUDGET, clock=VirtualClock(), prices={MODEL: A_DOLLAR}, is_batched=True)
    answered = Answered(b'{"usage":{"output_tokens":2,"service_tier":"batch"}}')
    bills = Bills(purse)
    for _ in range(2):
        (work,) = begun(run_of(1), ["a"])
        work.model = MODEL
        bills.owe([work], lambda model, *, size_bytes, max_tokens: Tokens(1, 1))
        bills.settle(work.run.lease.segment, work.ordinal, answered)
        assert (purse.spent_usd, purse.reserved_usd) == (2, 0)


def test_an_answer_that_tells_no_usage_counts_as_estimated() -> None:
    purse = Purse("paid", BUDGET, clock=VirtualClock(), prices={MODEL: A_DOLLAR}, is_batched=True)
    bills = Bills(purse)
    (work,) = begun(run_of(1), ["a"])
    work.model = MODEL
    bills.owe([work], lambda model, *, size_bytes, max_tokens: Tokens(1, 3))
    bills.settle(work.run.lease.segment, work.ordinal, Answered(b'{"usage":"lots"}'))
    assert (purse.spent_usd, purse.reserved_usd) == (3, 0)


# --- What ends early ----------------------------------------------------------------------------------------------


def test_a_canceled_batch_costs_what_was_done_and_gives_the_rest_back(tmp_path: Path) -> None:
    sky = paid(tmp_path, usd=50.0)
    sky.hosted.hold()
    sky.hosted.progress(4)

    async def drive(night: Night) -> None:
        batch = await night.create(cheap())
        await asyncio.sleep(600)
        assert dollars(night) == (0, COUNT)
        await night.cancel(batch)
        await night.until_ended(batch)
        await nothing_is_left(night)
        assert dollars(night) == (4, 0)

    sky.live(drive)


def test_a_batch_that_is_canceled_before_it_was_made_gives_all_back(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.next_create("busy", 3000)

    async def drive(night: Night) -> None:
        batch = await night.create(cheap())
        await asyncio.sleep(60)
        assert dollars(night) == (0, 5)
        await night.cancel(batch)
        await asyncio.sleep(2 * HOUR_S)
        await nothing_is_left(night)
        assert dollars(night) == (0, 0)

    sky.live(drive)
    assert sky.sizes() == []


def test_what_nobody_waits_for_any_more_counts_as_estimated(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.until_ended(await night.create(cheap(3), lifetime_ms=600_000))
        await nothing_is_left(night)
        assert dollars(night) == (3, 0)

    sky.live(drive)


def test_a_canceled_part_of_a_batch_that_goes_on_is_paid_as_it_came_out(tmp_path: Path) -> None:
    sky = paid(tmp_path, usd=50.0, tokens=3)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        gone, kept = await night.create(cheap(5, "gone")), await night.create(cheap(5, "kept"))
        await asyncio.sleep(60)
        assert (sky.sizes(), dollars(night)) == ([10], (0, 10))
        await night.cancel(gone)
        await night.until_ended(gone)
        sky.hosted.release()
        await night.until_ended(kept)
        await nothing_is_left(night)
        assert dollars(night) == (30, 0)

    sky.live(drive)


def test_a_create_that_was_not_made_is_counted_once_it_is_made(tmp_path: Path) -> None:
    sky = paid(tmp_path)
    sky.hosted.next_create("500-nothing")

    async def drive(night: Night) -> None:
        await night.create(cheap())
        await asyncio.sleep(HOUR_S)
        assert (sky.asked().total(), dollars(night)) == (5, (5, 0))

    sky.live(drive)


# --- Deaths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["handoff.intended", "handoff.posted", "handoff.submitted", "handoff.ended"])
def test_a_restart_counts_what_is_at_the_upstream(mark: str, tmp_path: Path) -> None:
    sky = paid(tmp_path)

    async def begin(night: Night) -> None:
        await night.create(cheap())
        await asyncio.sleep(HOUR_S)

    async def end(night: Night) -> None:
        await asyncio.sleep(HOUR_S)
        assert (sky.asked().total(), dollars(night)) == (5, (5, 0))

    sky.die_at(mark, begin)
    sky.live(end)
    assert set(sky.asked().values()) == {1}


def test_after_a_restart_what_is_held_there_leaves_no_room_until_its_results_are_read(tmp_path: Path) -> None:
    sky = paid(tmp_path, tokens=0)
    sky.hosted.hold()
    made: list[Batch] = []

    async def begin(night: Night) -> None:
        made.append(await night.create(cheap()))
        await asyncio.sleep(30)

    async def end(night: Night) -> None:
        await asyncio.sleep(HOUR_S)
        assert (sky.sizes(), dollars(night)) == ([5], (0, 5))
        sky.hosted.release()
        await night.until_ended(made[0])
        assert dollars(night) == (0, 0)

    sky.live(begin)
    sky.live(end)
    assert days(sky) == [COUNT], "its answers were free, so the rest went on the same day"


def test_a_segment_that_is_leased_anew_is_billed_once(tmp_path: Path) -> None:
    """Two batches share a segment. The first brings bad luck, so the segment is read anew while the second runs."""
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        is_unlucky = said(params) == "r0" and tries["r0"] == 1
        return double.failed("api_error", "try later") if is_unlucky else echo(custom_id, params)

    sky = paid(tmp_path, script, usd=50.0, requests_max=5)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(cheap(10))
        await asyncio.sleep(100)
        assert (sky.sizes(), dollars(night)) == ([5, 5], (0, 10))
        sky.hosted.release()
        sky.wire.after_call = sky.hosted.hold  # One look ends the one, and the other is held again.
        await asyncio.sleep(600)
        assert (night.rereads, dollars(night)) == (1, (4, 6)), "five of the second, and r0 once more"
        sky.wire.after_call = lambda: None
        sky.hosted.release()
        await night.until_ended(batch)
        await nothing_is_left(night)
        assert dollars(night) == (10, 0)

    sky.live(drive)


# --- A whole server -----------------------------------------------------------------------------------------------


def test_an_engine_that_is_a_batch_endpoint_gets_its_budget_from_the_settings_at_half_price() -> None:
    price = {MODEL: PriceSettings(input=0.0, output=2_000_000.0)}
    found = build.routes(
        [
            EngineSettings(spec=f"{kind}http://127.0.0.1:1", budget_usd_per_day=BUDGET, prices=price)
            for kind in ("claude-batch+", "")
        ],
        world=World(),
        environment={},
    )
    fleet = Fleet(found, World())
    for purse in fleet.purses:
        purse.take(MODEL, Tokens(1, 1))
    assert [purse.reserved_usd for purse in fleet.purses] == [1, 2]


def test_a_server_hands_over_what_a_day_allows_and_the_rest_on_the_next(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.clock.jump(TO_EVENING_MS)
    hosted = HostedApi(echo, now_ms=machine.clock.now_ms)
    hosted.usage(1, 1)

    async def life() -> None:
        async with machine.opened() as committer:
            store = machine.store(committer)
            await recover(store)
            world = World(clock=machine.clock, entropy=machine.entropy, files=machine.disk, offload=InlineOffload())
            engine = ClaudeBatch("https://api.anthropic.com", wire=HostedInside(hosted), clock=machine.clock)
            fleet = Fleet([Route(engine, ["*"], budget_usd_per_day=BUDGET, prices={MODEL: A_DOLLAR})], world)
            live = await tallies.restored(store.checkpoints)
            worker, upkeep = Worker(store, fleet, world, live, name="worker"), Upkeep(store, world)
            here = Context(
                settings=Settings(),
                store=store,
                fleet=fleet,
                worker=worker,
                upkeep=upkeep,
                tallies=live,
                world=world,
                doors=Doors(Settings()),
            )
            client = AppClient(app(here))
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run())
                sent = [{"custom_id": name, "params": params} for name, params in cheap(8)]
                assert (await client.create(sent, key="a")).status == 200
                await asyncio.sleep(HOUR_S)
                assert len(hosted.creates) == 1
                health = msgspec.json.decode((await client.call("GET", "/health")).body)
                spent = "budget of 5.00 USD for today is spent; opens 00:00 UTC"
                assert health["trouble"] == {f"engine {engine.name}": spent}
                await asyncio.sleep(HOUR_S)
                worker.drain()

    run(life(), machine.clock)
    assert [len(create.custom_ids) for create in hosted.creates] == [5, 3]
    first, second = [batch.created_at[:10] for batch in hosted.batches]
    assert (first, second) == ("2026-05-28", "2026-05-29")
