"""A whole server over engines that a test leads, under virtual time, for questions about what it says of itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from overnight.core.tokens import Tokens
from overnight.engines.engine import Load
from overnight.engines.routing import Route
from overnight.ids import WorkspaceId
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.fleet import Fleet
from overnight.runner.pool import Pool
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Doors
from overnight.server.app import app
from overnight.server.config import KeySettings, Settings
from overnight.server.context import Context
from overnight.store.store import recover
from overnight.testing.engines import ScriptedEngine, by_words
from overnight.testing.simulation import AppClient, Machine
from overnight.testing.virtualtime import run
from overnight.testing.wireclient import BATCHES, Answer

BLUE, RED = WorkspaceId("wrkspc_blue"), WorkspaceId("wrkspc_red")


class Led(ScriptedEngine):
    """A scripted engine with a name, that is away, or holds requests back, when a test says so."""

    def __init__(self, name: str = "led", script: Any = by_words, *, in_flight_max: int = 2) -> None:
        super().__init__(script, in_flight_max=in_flight_max)
        self.name = name
        self.is_up = True
        self.waits_ms = 0
        self.told: Load | None = None

    async def load(self) -> Load | None:
        return self.told

    async def is_there(self) -> bool:
        return self.is_up

    def wait_ms(self, tokens: Tokens) -> int:
        return self.waits_ms


class Case(NamedTuple):
    """A running server."""

    here: Context
    client: AppClient

    @property
    def pool(self) -> Pool:
        """Of the preferred engine."""
        return self.here.fleet.pools[0]

    async def get(self, path: str, *, key: str = "", **headers: str) -> Answer:
        """One exchange; header names with underscores for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.call("GET", path, headers=sent | ({"x-api-key": key} if key else {}))

    async def status(self, *, key: str = "") -> Any:
        """What the server says of itself."""
        answer = await self.get("/v1/overnight/status", key=key)
        assert answer.status == 200, answer
        return answer.json

    async def engine(self) -> Any:
        """What it says of the preferred engine."""
        return (await self.status())["engines"][0]

    async def batch(self, *texts: str, model: str = "m", key: str = "") -> str:
        """The id of a new batch that asks these texts, a moment after it was created."""
        requests = [
            {
                "custom_id": f"r{number}",
                "params": {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": text}]},
            }
            for number, text in enumerate(texts)
        ]
        headers = {"x-api-key": key} if key else {}
        created = await self.client.call("POST", BATCHES, {"requests": requests}, headers=headers)
        assert created.status == 200, created
        await asyncio.sleep(0.5)
        return str(created.json["id"])

    async def why(self, batch_id: str, *, key: str = "") -> str | None:
        """What the header of a batch says; None if there is none."""
        answer = await self.get(f"{BATCHES}/{batch_id}", key=key)
        assert answer.status == 200, answer
        return answer.headers.get("overnight-waiting")


Drive = Callable[[Case], Awaitable[None]]


def serving(
    tmp_path: Path,
    routes: Sequence[Route] | ScriptedEngine,
    drive: Drive,
    *,
    keys: Mapping[str, WorkspaceId] | None = None,
) -> None:
    """Run a server over these routes while `drive` uses it."""
    if isinstance(routes, ScriptedEngine):
        routes = [Route(routes, ["*"])]
    opened = {sha256(key.encode()).hexdigest(): name for key, name in (keys or {}).items()}
    settings = Settings(keys=[KeySettings(sha256=digest, workspace=name) for digest, name in opened.items()])
    machine = Machine(tmp_path)

    async def main() -> None:
        world = World(clock=machine.clock, entropy=machine.entropy, files=machine.disk, offload=InlineOffload())
        async with machine.opened() as committer:
            store = machine.store(committer)
            await recover(store)
            fleet, live = Fleet(routes, world), await tallies.restored(store.checkpoints)
            worker = Worker(store, fleet, world, live, name="w")
            here = Context(
                settings=settings,
                store=store,
                fleet=fleet,
                worker=worker,
                upkeep=Upkeep(store, world),
                tallies=live,
                world=world,
                doors=Doors(settings),
            )
            async with asyncio.TaskGroup() as group:
                running = group.create_task(worker.run())
                await drive(Case(here, AppClient(app(here))))
                running.cancel()

    run(main(), machine.clock)
