"""What a workspace may spend, over days of virtual time: a whole server, one engine with a price, two workspaces."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from starlette.types import ASGIApp

from overnight.core.prices import told
from overnight.core.retry import Answered, Outcome
from overnight.core.workspace import NO_RULES, Rules
from overnight.engines.engine import Call
from overnight.engines.routing import Route
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.fleet import Fleet
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Doors, digest_of
from overnight.server.app import app
from overnight.server.config import KeySettings, Settings
from overnight.server.context import Context
from overnight.store.store import recover
from overnight.testing.engines import Fate, ScriptedEngine
from overnight.testing.simulation import Answer, AppClient, Machine
from overnight.testing.virtualtime import run

PRICE = {"m": told(input=0.0, output=2_000_000.0)}  # A token of output is a dollar in a batch, two for people.
OTHER = WorkspaceId("wrkspc_other")
SETTINGS = Settings(api_key="own", keys=[KeySettings(sha256=digest_of("other"), workspace=OTHER)])
PARAMS = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "now"}]}


class Paid(ScriptedEngine):
    """Every answer is one token, and takes a second."""

    def __init__(self, in_flight_max: int) -> None:
        super().__init__(lambda text, call: Fate(None), in_flight_max=in_flight_max)

    async def answer(self, call: Call) -> Outcome:
        self.calls[call.service_tier] += 1
        await asyncio.sleep(1)
        usage = {"input_tokens": 1, "output_tokens": 1}
        return Answered(msgspec.json.encode({"type": "message", "role": "assistant", "content": [], "usage": usage}))


class Keyed(AppClient):
    """A client with a key."""

    def __init__(self, served: ASGIApp, key: str) -> None:
        super().__init__(served)
        self._key = key

    async def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await super().call(method, path, body, headers={"x-api-key": self._key, **(headers or {})})


class Here(NamedTuple):
    """A running server, and what its default workspace may do."""

    context: Context
    rules: dict[WorkspaceId, Rules]
    engine: Paid
    told: list[tuple[str, str, float, float]]

    def client(self, key: str = "own") -> AppClient:
        """Somebody with a key."""
        return Keyed(app(self.context), key)


Drive = Callable[[Here], Awaitable[None]]


@asynccontextmanager
async def serving(machine: Machine, rules: Rules, *, in_flight_max: int) -> AsyncIterator[Here]:
    """A server whose default workspace has these rules; when the block ends it has drained."""
    own = {DEFAULT_WORKSPACE: rules}
    async with machine.opened() as committer:
        store = machine.store(committer)
        await recover(store)
        world = World(clock=machine.clock, entropy=machine.entropy, files=machine.disk, offload=InlineOffload())
        engine, told_of = Paid(in_flight_max), list[tuple[str, str, float, float]]()
        fleet = Fleet([Route(engine, ["*"], prices=PRICE)], world, rules_of=lambda name: own.get(name, NO_RULES))
        fleet.budgets.on_reached.append(lambda *told: told_of.append(told))
        await fleet.budgets.load(store.usage)
        live = await tallies.restored(store.checkpoints)
        worker = Worker(store, fleet, world, live, name="worker")
        context = Context(
            settings=SETTINGS,
            store=store,
            fleet=fleet,
            worker=worker,
            upkeep=Upkeep(store, world),
            tallies=live,
            world=world,
            doors=Doors(SETTINGS),
        )
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(worker.run()), group.create_task(context.upkeep.run())]
            yield Here(context, own, engine, told_of)
            worker.drain()
            await loops[0]
            loops[1].cancel()


def simulated(machine: Machine, rules: Rules, *lives: Drive, in_flight_max: int = 2) -> None:
    """Let each of `lives` use a server, one after another, on one machine."""

    async def main(drive: Drive) -> None:
        async with serving(machine, rules, in_flight_max=in_flight_max) as here:
            await drive(here)

    for drive in lives:
        run(main(drive), machine.clock)


async def ask(here: Here, count: int, *, key: str = "own", named: str = "") -> str:
    requests = [{"custom_id": f"r{number}", "params": PARAMS} for number in range(count)]
    answer = await here.client(key).create(requests, key=f"{key}-{count}-{named}")
    assert answer.status == 200, answer
    batch_id: str = msgspec.json.decode(answer.body)["id"]
    return batch_id


async def counts(here: Here, batch_id: str, *, key: str = "own") -> dict[str, int]:
    """What is not 0."""
    answer = await here.client(key).call("GET", f"/v1/messages/batches/{batch_id}")
    found: dict[str, int] = msgspec.json.decode(answer.body)["request_counts"]
    return {name: count for name, count in found.items() if count}


def set_clock(machine: Machine, text: str) -> None:
    """The machine slept until then; what waits does not notice."""
    at = datetime.fromisoformat(text).replace(tzinfo=UTC)
    machine.clock.jump(round(at.timestamp() * 1000) - machine.clock.now_ms())


def test_a_day_opens_at_midnight_of_utc_and_what_is_left_of_it_expires(tmp_path: Path) -> None:
    """A batch sees two days. Two requests are inside when a limit is reached."""
    machine = Machine(tmp_path)

    async def drive(here: Here) -> None:
        batch_id = await ask(here, 30)
        await asyncio.sleep(60)
        assert await counts(here, batch_id) == {"succeeded": 6, "processing": 24}
        assert here.told == [(DEFAULT_WORKSPACE, "day", 5.0, 5.0)]
        set_clock(machine, "2026-05-28T23:57:00")
        await asyncio.sleep(179)
        assert await counts(here, batch_id) == {"succeeded": 6, "processing": 24}
        await asyncio.sleep(15)
        assert await counts(here, batch_id) == {"succeeded": 12, "processing": 18}
        assert [found[1:3] for found in here.told] == [("day", 5.0)] * 2
        set_clock(machine, "2026-05-29T20:30:00")
        await asyncio.sleep(60)
        assert await counts(here, batch_id) == {"succeeded": 12, "expired": 18}

    simulated(machine, Rules(usd_per_day=5.0), drive)


def test_a_month_goes_on_over_days_and_restarts_and_opens_on_the_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def spends(here: Here) -> None:
        await ask(here, 6)
        await asyncio.sleep(60)
        assert here.told == [(DEFAULT_WORKSPACE, "month", 6.0, 6.0)]

    async def waits(here: Here) -> None:
        for now in ("2026-05-29T01:00:00", "2026-05-31T23:57:30"):
            set_clock(machine, now)
            await asyncio.sleep(90)
            refused = await here.client().call("POST", "/v1/messages", PARAMS)
            assert refused.status == 400
            assert b"You will regain access on 2026-06-01 at 00:00 UTC." in refused.body
        assert here.engine.calls.total() == 0
        assert here.told == [], "it was told before the restart"
        await asyncio.sleep(61)
        assert (await here.client().call("POST", "/v1/messages", PARAMS)).status == 200

    simulated(machine, Rules(usd_per_month=6.0), spends, waits)


def test_work_that_waits_for_a_budget_takes_no_place_from_others(tmp_path: Path) -> None:
    """What is inside is paid; what else was leased is given back, so that others are leased instead."""

    async def drive(here: Here) -> None:
        waiting = [await ask(here, 40, key="own"), *[await ask(here, 1, named=f"{number}") for number in range(60)]]
        await asyncio.sleep(60)
        assert here.engine.calls.total() == 33, "one more was taken between the first answer and the second"
        assert [run.batch.id for run in here.context.worker.runs] == waiting[:1], "only what is begun stays"
        assert here.context.fleet.backlog.waiting() == {}
        other = await ask(here, 500, key="other")
        await asyncio.sleep(60)
        assert await counts(here, other, key="other") == {"succeeded": 500}
        here.rules[DEFAULT_WORKSPACE] = NO_RULES
        here.context.fleet.budgets.look()
        await asyncio.sleep(60)
        assert [await counts(here, batch_id) for batch_id in waiting] == [{"succeeded": 40}, *[{"succeeded": 1}] * 60]

    simulated(Machine(tmp_path), Rules(usd_per_day=2.0), drive, in_flight_max=32)


def test_a_workspace_saves_up_no_turns_while_its_budget_is_spent(tmp_path: Path) -> None:
    """When it opens, both are served alike: 400 requests of one are done while the other has had as many turns."""

    async def drive(here: Here) -> None:
        await ask(here, 2000)
        await asyncio.sleep(10)
        other = await ask(here, 2000, key="other")
        await asyncio.sleep(40)
        here.rules[DEFAULT_WORKSPACE] = NO_RULES
        before = await counts(here, other, key="other")
        here.context.fleet.budgets.look()
        await asyncio.sleep(20)
        after = await counts(here, other, key="other")
        assert 240 <= after["succeeded"] - before["succeeded"] <= 400, "640 are done in that time"

    simulated(Machine(tmp_path), Rules(usd_per_day=2.0), drive, in_flight_max=32)


def test_what_cost_nothing_reaches_no_limit(tmp_path: Path) -> None:
    """Without a price nothing is counted, and a limit is none."""

    async def drive(here: Here) -> None:
        requests = [{"custom_id": f"r{number}", "params": {**PARAMS, "model": "own"}} for number in range(9)]
        answer = await here.client().create(requests, key="a")
        await asyncio.sleep(60)
        assert await counts(here, msgspec.json.decode(answer.body)["id"]) == {"succeeded": 9}
        assert here.told == []

    simulated(Machine(tmp_path), Rules(usd_per_day=0.01), drive)
