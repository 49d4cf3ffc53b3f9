"""runner.status through GET /v1/overnight/status and the header of a batch: who is held back, by what, and who may
know. The clock begins on 2026-05-28 at 20:26:40 UTC."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from statusworld import BLUE, RED, Case, Led, serving

from overnight.core import offpeak
from overnight.core.offpeak import Signal
from overnight.core.retry import Broken, Busy
from overnight.engines.engine import Capabilities, Load
from overnight.engines.routing import Route
from overnight.errors import StoreError
from overnight.runner.signal import Meter
from overnight.runner.status import DOORS
from overnight.server.status import as_header
from overnight.testing.engines import Fate, answered
from overnight.testing.virtualtime import VirtualClock
from overnight.testing.wireclient import BATCHES

NIGHT = offpeak.parse(["22:00-06:00"], "UTC")
_SIGNAL = Signal(url="http://127.0.0.1:9/now?key=secret", at_most=100)


class _Dear(Meter):
    """A signal that was read once, and was high."""

    @property
    def value(self) -> float:
        return 250.5

    @property
    def is_cheap(self) -> bool:
        return False


def _always(outcome: Any) -> Any:
    return lambda text, call: Fate(outcome)


# --- Doors ----------------------------------------------------------------------------------------------------------


async def _away(case: Case, engine: Led, stack: ExitStack) -> None:
    engine.is_up = False
    engine._script = _always(Busy(reason="connection refused", is_away=True))
    await case.batch("a")


async def _gate(case: Case, engine: Led, stack: ExitStack) -> None:
    engine._script = _always(Busy(reason="HTTP 429: slow down", retry_after_ms=30_000))
    await case.batch("a")


async def _hours(case: Case, engine: Led, stack: ExitStack) -> None:
    case.pool.admission.hours = NIGHT
    case.pool.admission.consider([])
    await case.batch("a")


async def _signal(case: Case, engine: Led, stack: ExitStack) -> None:
    case.pool.admission.meter = _Dear(_SIGNAL)
    case.pool.admission.consider([])
    await case.batch("a")


async def _window(case: Case, engine: Led, stack: ExitStack) -> None:
    await case.batch("a slow 100", "b slow 100", "c slow 100")


async def _people(case: Case, engine: Led, stack: ExitStack) -> None:
    stack.enter_context(case.pool.interactive())
    stack.enter_context(case.pool.interactive())
    await case.batch("a slow 100", "b slow 100")


async def _rate(case: Case, engine: Led, stack: ExitStack) -> None:
    engine.waits_ms = 7_000
    await case.batch("a")


async def _memory(case: Case, engine: Led, stack: ExitStack) -> None:
    case.pool.admission.window = replace(case.pool.admission.window, tokens_limit=4.0)
    await case.batch("a slow 100", "b slow 100")


async def _nothing(case: Case, engine: Led, stack: ExitStack) -> None:
    await case.batch("a")


@pytest.mark.parametrize(
    ("begin", "door", "said"),
    [
        pytest.param(_away, "away", "is away since 20:26 UTC: connection refused", id="away"),
        pytest.param(_gate, "gate", "is asked again in 30 s: HTTP 429: slow down", id="gate"),
        pytest.param(_hours, "hours", "opens today 22:00 UTC", id="hours"),
        pytest.param(_signal, "signal", "waits until its signal is at most 100; it is 250.5", id="signal"),
        pytest.param(_window, "window", "is full: 2 requests are inside", id="window"),
        pytest.param(_people, "people", "leaves room for people: 2 requests of theirs are inside", id="people"),
        pytest.param(_rate, "rate", "waits 7 s for the limits of its rate", id="rate"),
        pytest.param(_memory, "memory", "has its memory full: 22 of 4 tokens", id="memory"),
        pytest.param(_nothing, "nothing", "has room", id="nothing"),
    ],
)
def test_the_narrowest_door_is_named(begin: Any, door: str, said: str, tmp_path: Path) -> None:
    engine = Led(in_flight_max=2)

    async def drive(case: Case) -> None:
        with ExitStack() as stack:
            await begin(case, engine, stack)
            found = await case.engine()
            assert (found["held_by"], found["held"]) == (door, said)
            assert door in DOORS

    serving(tmp_path, engine, drive)


def test_the_state_of_an_engine_is_shown_as_it_is(tmp_path: Path) -> None:
    engine = Led("one", in_flight_max=64)
    engine.capabilities = Capabilities(tells_load=True)
    engine.told = Load(running=3, waiting=0, kv_share=0.5, preemptions=0)

    async def drive(case: Case) -> None:
        await case.batch(*(f"r{number} slow 2" for number in range(3)))
        with case.pool.interactive():
            await asyncio.sleep(0.6)
            found = await case.engine()
        assert (found["name"], found["rank"], found["is_replica"]) == ("one", 0, False)
        assert (found["in_flight"], found["interactive"], found["window"], found["window_max"]) == (3, 1, 32, 64)
        assert (found["running"], found["waiting"], found["kv_share"]) == (3, 0, 0.5)
        assert (found["ceiling"], found["speed_per_s"], found["signal"]) == (None, None, None)
        assert found["tokens_in_flight"] == case.pool.admission.tokens_in_flight > 0
        assert (found["share"], found["hours"], found["trouble"]) == (1.0, "always open", "")
        await asyncio.sleep(5)
        assert (await case.engine())["in_flight"] == 0

    serving(tmp_path, engine, drive)


def test_a_refused_height_is_remembered_as_the_ceiling(tmp_path: Path) -> None:
    engine = Led(script=_always(Busy(reason="HTTP 429: no", retry_after_ms=1_000)), in_flight_max=64)
    engine.capabilities = Capabilities()

    async def drive(case: Case) -> None:
        await case.batch("a")
        found = await case.engine()
        assert (found["ceiling"], found["window"]) == (32, 24)

    serving(tmp_path, engine, drive)


def test_an_engine_that_comes_back_is_away_no_more(tmp_path: Path) -> None:
    engine = Led(script=lambda text, call: Fate(Busy(reason="gone", is_away=True) if call == 1 else answered(text)))
    engine.is_up = False

    async def drive(case: Case) -> None:
        batch = await case.batch("a")
        found = await case.engine()
        assert found["is_away"]
        assert found["away_since"] == "2026-05-28T20:26:40.000000Z"
        engine.is_up = True
        await asyncio.sleep(60)
        found = await case.engine()
        assert (found["is_away"], found["away_since"], found["trouble"]) == (False, None, "")
        assert await case.why(batch) is None

    serving(tmp_path, engine, drive)


def test_two_engines_of_one_name_are_told_apart_and_replicas_share_a_rank(tmp_path: Path) -> None:
    routes = [Route(Led("same"), ["*"]), Route(Led("same"), ["*"]), Route(Led("other"), ["*"], rank=1)]

    async def drive(case: Case) -> None:
        found = (await case.status())["engines"]
        shown = [(one["name"], one["rank"], one["is_replica"]) for one in found]
        assert shown == [("same", 0, True), ("same (2)", 0, True), ("other", 1, False)]

    serving(tmp_path, routes, drive)


# --- Why a batch waits ----------------------------------------------------------------------------------------------


def test_a_batch_outside_the_hours_is_told_when_they_begin_and_nothing_once_it_runs(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        batch = await case.batch("a slow 60")
        assert await case.why(batch) == "engine led opens today 22:00 UTC"
        await asyncio.sleep(94 * 60)  # It is 22:00:40.
        assert case.pool.in_flight == 1
        assert await case.why(batch) is None
        await asyncio.sleep(60)
        assert await case.why(batch) is None

    serving(tmp_path, [Route(Led(), ["*"], hours=NIGHT)], drive)


def test_the_body_is_that_of_the_list_whatever_the_header_says(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        batch = await case.batch("a")
        shown = await case.get(f"{BATCHES}/{batch}")
        assert "overnight-waiting" in shown.headers
        assert shown.json == (await case.get(BATCHES)).json["data"][0]

    serving(tmp_path, [Route(Led(), ["*"], hours=NIGHT)], drive)


def test_a_batch_on_disk_is_told_of_the_engine_of_its_own_model(tmp_path: Path) -> None:
    routes = [Route(Led("open"), ["a*"]), Route(Led("closed"), ["b*"], rank=1, hours=NIGHT)]

    async def drive(case: Case) -> None:
        await case.batch("x", model="b1")
        batch = await case.batch("y", model="b1")
        assert batch not in {run.batch.id for run in case.here.worker.runs}
        assert await case.why(batch) == "engine closed opens today 22:00 UTC"

    serving(tmp_path, routes, drive)


def test_an_engine_that_only_stands_in_is_no_answer_while_the_preferred_one_rests(tmp_path: Path) -> None:
    routes = [Route(Led("ours"), ["*"], hours=NIGHT), Route(Led("dear"), ["*"], rank=1, hours=NIGHT)]

    async def drive(case: Case) -> None:
        assert await case.why(await case.batch("a")) == "engine ours opens today 22:00 UTC"

    serving(tmp_path, routes, drive)


def test_all_engines_that_could_do_it_are_named_up_to_three(tmp_path: Path) -> None:
    routes = [Route(Led(f"e{number}"), ["*"], hours=NIGHT) for number in range(5)]

    async def drive(case: Case) -> None:
        closed = [f"engine e{number} opens today 22:00 UTC" for number in range(3)]
        assert await case.why(await case.batch("a")) == "; ".join([*closed, "2 more engines wait too"])

    serving(tmp_path, routes, drive)


def test_requests_of_other_batches_are_counted_exactly_if_it_is_leased_and_at_least_if_not(tmp_path: Path) -> None:
    engine = Led(in_flight_max=2)

    async def drive(case: Case) -> None:
        first = await case.batch("a slow 100", "b slow 100", "c slow 100")
        second = await case.batch("d")
        third = await case.batch(*(f"e{number}" for number in range(50)))
        fourth = await case.batch("f")
        assert await case.why(first) is None
        assert await case.why(second) == "1 request of other batches is before it"
        leased = {run.batch.id for run in case.here.worker.runs}
        assert (third in leased, fourth in leased) == (True, False)
        assert await case.why(fourth) == "at least 52 requests of other batches are before it"

    serving(tmp_path, engine, drive)


def test_a_batch_whose_engines_are_full_with_nothing_waiting_before_it_hears_that(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        await case.batch("a slow 100", "b slow 100")
        assert await case.why(await case.batch("c")) == "engine led is full: 2 requests are inside"

    serving(tmp_path, Led(in_flight_max=2), drive)


def test_trouble_with_its_own_segment_comes_first(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        async def damaged(*_: Any, **__: Any) -> bytes:
            raise StoreError("its disk is not mounted")

        case.here.worker._read = damaged  # type: ignore[method-assign]
        batch = await case.batch("a")
        assert await case.why(batch) == f"segment 0 of {batch}: cannot be read: its disk is not mounted"

    serving(tmp_path, Led(), drive)


def test_what_an_engine_says_cannot_leave_its_header(tmp_path: Path) -> None:
    engine = Led(script=_always(Broken(reason="no")), in_flight_max=1)
    engine._script = _always(Busy(reason="bad\r\nset-cookie: a=b \x1b[31mé" + "x" * 1000, retry_after_ms=9_000))

    async def drive(case: Case) -> None:
        said = await case.why(await case.batch("a"))
        assert said is not None
        assert said.startswith("engine led is asked again in 9 s: bad??set-cookie: a=b ?[31m?xxx")
        assert (len(said), said[-3:]) == (400, "...")

    serving(tmp_path, engine, drive)


@pytest.mark.parametrize(("length", "shown"), [(400, 400), (401, 400), (5000, 400)])
def test_a_header_has_at_most_400_characters(length: int, shown: int) -> None:
    said = as_header("x" * length)
    assert len(said) == shown
    assert said.endswith("...") == (length > shown)


# --- Who may know ---------------------------------------------------------------------------------------------------


def test_without_keys_all_of_the_backlog_is_shown(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        await case.batch(*(f"{letter} slow 100" for letter in "abcde"))
        await case.batch("f", model="n")
        await asyncio.sleep(10)  # The next plan.
        backlog = (await case.status())["backlog"]
        assert backlog["waiting"] == {"m": 3, "n": 1}
        assert (backlog["segments"], backlog["unfinished"], backlog["danger_until"]) == (2, 6, None)

    serving(tmp_path, Led(), drive)


async def _until_the_last_hour(case: Case) -> None:
    clock = case.here.world.clock
    assert isinstance(clock, VirtualClock)
    clock.jump(23 * 3_600_000)
    await asyncio.sleep(20)  # A renewal and a plan.


def test_a_deadline_in_danger_is_shown(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        await case.batch("a slow 100000")
        await _until_the_last_hour(case)
        assert (await case.status())["backlog"]["danger_until"] == "2026-05-29T20:26:40.000000Z"

    serving(tmp_path, Led(), drive)


def test_a_key_sees_nothing_of_another_workspace(tmp_path: Path) -> None:
    """I7."""

    async def drive(case: Case) -> None:
        await case.batch(*(f"{letter} slow 100" for letter in "abcde"), model="secret-project", key="blue-key")
        assert (await case.status(key="blue-key"))["backlog"]["waiting"] == {"secret-project": 3}
        red = await case.status(key="red-key")
        assert red["backlog"] == {"waiting": {}, "segments": 0, "danger_until": None, "unfinished": None}
        assert "secret" not in str(red)
        assert "wrkspc" not in str(red)
        own = await case.batch("x", key="red-key")
        assert await case.why(own, key="red-key") == "engine led is full: 2 requests are inside"
        assert (await case.status(key="red-key"))["backlog"]["waiting"] == {"m": 1}

    serving(tmp_path, Led(), drive, keys={"blue-key": BLUE, "red-key": RED})


def test_another_workspaces_danger_is_not_shown(tmp_path: Path) -> None:
    """I7."""

    async def drive(case: Case) -> None:
        await case.batch("a slow 100000", key="blue-key")
        await _until_the_last_hour(case)
        shown = {key: (await case.status(key=key))["backlog"]["danger_until"] for key in ("blue-key", "red-key")}
        assert shown == {"blue-key": "2026-05-29T20:26:40.000000Z", "red-key": None}

    serving(tmp_path, Led(), drive, keys={"blue-key": BLUE, "red-key": RED})


def test_a_server_with_keys_tells_nobody_without_one(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        for key in ("", "wrong"):
            answer = await case.get("/v1/overnight/status", key=key)
            assert answer.status == 401

    serving(tmp_path, Led(), drive, keys={"blue-key": BLUE})


def test_the_key_in_the_address_of_a_signal_is_nowhere(tmp_path: Path) -> None:
    """I12."""

    async def drive(case: Case) -> None:
        await _signal(case, Led(), ExitStack())
        assert "secret" not in str(await case.status())
        assert "secret" not in (await case.get("/metrics")).body.decode()

    serving(tmp_path, Led(), drive)


def test_metrics_count_what_was_done_and_name_no_workspace(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        await case.batch("a", "b refused", "c broken 1", key="blue-key")
        await asyncio.sleep(10)
        text = (await case.get("/metrics", host="127.0.0.1:8642")).body.decode()
        for line in (
            'overnight_requests_total{outcome="succeeded"} 2.0',
            'overnight_requests_total{outcome="errored"} 1.0',
            'overnight_engine_attempts_total{engine="led",outcome="answered"} 2.0',
            'overnight_engine_attempts_total{engine="led",outcome="refused"} 1.0',
            'overnight_engine_attempts_total{engine="led",outcome="broken"} 1.0',
            'overnight_engine_tokens_total{engine="led",kind="output"} 2.0',
        ):
            assert line in text.splitlines()
        assert "wrkspc" not in text

    serving(tmp_path, Led(), drive, keys={"blue-key": BLUE})


def test_metrics_need_a_key_unless_asked_on_the_machine_itself(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        far = {"host": "batches.example.com"}
        assert (await case.get("/metrics", **far)).status == 401
        assert (await case.get("/metrics", key="wrong", **far)).status == 401
        assert (await case.get("/metrics", key="blue-key", **far)).status == 200
        near = await case.get("/metrics", host="127.0.0.1:8642")
        assert near.status == 200
        assert near.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"

    serving(tmp_path, Led(), drive, keys={"blue-key": BLUE})


def test_without_keys_anybody_on_this_machine_may_read_the_metrics(tmp_path: Path) -> None:
    async def drive(case: Case) -> None:
        through = {"host": "127.0.0.1:8642", "x-forwarded-for": "10.0.0.9"}
        assert (await case.get("/metrics", **through)).status == 200
        assert (await case.get("/metrics", host="anything.example.com")).status == 403

    serving(tmp_path, Led(), drive)
