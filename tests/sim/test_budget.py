"""A whole server with an engine that costs money: batches, people, streams and restarts draw on one budget."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from overnight.core.prices import told
from overnight.core.retry import Answered, Outcome
from overnight.engines.engine import Call
from overnight.engines.routing import Route
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.fleet import Fleet
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Doors
from overnight.server.app import app
from overnight.server.config import Settings
from overnight.server.context import Context
from overnight.store.store import recover
from overnight.testing.engines import Fate, ScriptedEngine
from overnight.testing.simulation import AppClient, Life, Machine
from overnight.testing.virtualtime import run

A_DOLLAR = {"m": told(input=0.0, output=1_000_000.0)}  # For each token of output.
TODAY = "2026-05-28"  # Where the clock of a machine begins.
PEOPLE = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "now"}]}


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode({"type": name, **fields}) + b"\n\n"


class Paid(ScriptedEngine):
    """Every answer is one token."""

    def __init__(self) -> None:
        super().__init__(lambda text, call: Fate(None), in_flight_max=2)
        self.asked = asyncio.Event()

    async def answer(self, call: Call) -> Outcome:
        self.calls[call.service_tier] += 1
        self.asked.set()
        await asyncio.sleep(1)
        usage = {"input_tokens": 1, "output_tokens": 1}
        return Answered(msgspec.json.encode({"type": "message", "role": "assistant", "content": [], "usage": usage}))

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        yield event("message_start", message={"usage": {"input_tokens": 1, "output_tokens": 1}})
        yield event("message_delta", delta={}, usage={"output_tokens": 2})
        yield event("message_stop")


@asynccontextmanager
async def serving(machine: Machine, engine: Paid) -> AsyncIterator[Life]:
    """A server whose only engine has 5 USD a day; when the block ends it has drained."""
    async with machine.opened() as committer:
        store = machine.store(committer)
        await recover(store)
        world = World(clock=machine.clock, entropy=machine.entropy, files=machine.disk, offload=InlineOffload())
        fleet = Fleet([Route(engine, ["*"], budget_usd_per_day=5.0, prices=A_DOLLAR)], world)
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
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            yield Life(client=AppClient(app(here)), store=store, worker=worker, upkeep=upkeep, world=world)
            worker.drain()


async def ask(client: AppClient, count: int, *, key: str) -> None:
    requests = [{"custom_id": f"r{number}", "params": PEOPLE} for number in range(count)]
    assert (await client.create(requests, key=key)).status == 200


async def trouble(client: AppClient) -> dict[str, str]:
    health = msgspec.json.decode((await client.call("GET", "/health")).body)
    found: dict[str, str] = health["trouble"]
    return found


def test_a_restart_goes_on_with_what_is_left_and_people_are_counted_but_served(tmp_path: Path) -> None:
    machine, first, second = Machine(tmp_path), Paid(), Paid()

    async def first_life() -> None:
        async with serving(machine, first) as life:
            await ask(life.client, 2, key="a")
            await asyncio.sleep(10)

    async def second_life() -> None:
        async with serving(machine, second) as life:
            await ask(life.client, 6, key="b")
            await asyncio.sleep(0.5)
            assert (await life.client.call("POST", "/v1/messages", {**PEOPLE, "stream": True})).status == 200
            await asyncio.sleep(60)
            spent = "budget of 5.00 USD for today is spent; opens 00:00 UTC"
            assert await trouble(life.client) == {"engine scripted": spent}
            for _ in range(3):
                assert (await life.client.call("POST", "/v1/messages", PEOPLE)).status == 200
            await asyncio.sleep(2)
            assert await life.store.control.spent("scripted", TODAY) == 9_000_000

    run(first_life(), machine.clock)
    run(second_life(), machine.clock)
    assert first.calls == {"batch": 2}
    assert second.calls == {"batch": 2, "standard": 3}, "2 + 2 are spent, and the stream took the last one"


def test_what_was_paid_just_before_a_drain_is_written_before_it_ends(tmp_path: Path) -> None:
    machine, paid = Machine(tmp_path), Paid()

    async def life() -> None:
        async with serving(machine, paid) as here:
            await ask(here.client, 2, key="a")
            await paid.asked.wait()

    async def look() -> int:
        async with machine.opened() as committer:
            return await machine.store(committer).control.spent("scripted", TODAY)

    run(life(), machine.clock)
    assert run(look(), machine.clock) == 2_000_000
