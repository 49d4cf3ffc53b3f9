"""A console in this process: the real app, store and worker, a clock that a test sets, and browsers to look at it.

async with desk(tmp_path) as here:
    page = await here.browser().get("/console/batches")
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import msgspec
from visitor import Page

from overnight.core.workspace import Key, Role, Workspace
from overnight.engines.engine import Engine
from overnight.engines.routing import Route
from overnight.ids import DEFAULT_WORKSPACE, BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.fleet import Fleet
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Doors
from overnight.server.app import app
from overnight.server.config import KeySettings, Settings
from overnight.server.context import Context
from overnight.server.ingest import Origin, ingest
from overnight.store.store import Store, open_directory
from overnight.testing.engines import ScriptedEngine, by_words
from overnight.testing.wireclient import Answer

OURS, THEIRS = WorkspaceId("wrkspc_ours"), WorkspaceId("wrkspc_theirs")
T0 = 1_780_000_000_000  # 2026-05-28 20:26:40 UTC
URL = "http://127.0.0.1:8642"


@dataclass
class SetClock:
    """A wall clock that stands where it is set."""

    at_ms: int = T0

    def now_ms(self) -> int:
        return self.at_ms


class Browser:
    """Cookies, pages, forms; redirects are followed unless a test looks at them."""

    def __init__(self, served: Any, *, url: str = URL, address: str = "127.0.0.1") -> None:
        transport = httpx2.ASGITransport(served, client=(address, 50_000))
        self.client = httpx2.AsyncClient(transport=transport, base_url=url)

    async def send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Answer:
        """One exchange. Several cookies of one answer are one header here."""
        sent = {} if fields is None else {"content-type": "application/x-www-form-urlencoded"}
        body = None if fields is None else urlencode(fields).encode()
        answer = await self.client.request(method, path, content=body, headers={**sent, **(headers or {})})
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    async def get(self, path: str, **headers: str) -> Page:
        """The page that a path leads to."""
        answer = await self.send("GET", path, headers=headers)
        while answer.status == 303:
            answer = await self.send("GET", answer.headers["location"])
        return Page(answer)

    async def token(self, path: str = "/console/login") -> str:
        """The token that forms of this session carry."""
        page = await self.get(path)
        return page.attributes("input", name="token")[0]["value"]

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Send a form as a page of ours would."""
        token = await self.token("/console/login" if path == "/console/login" else await self._a_form())
        return await self.send("POST", path, {"token": token, **(fields or {})}, headers=headers)

    async def log_in(self, key: str) -> None:
        """Begin a session."""
        answer = await self.post("/console/login", {"key": key})
        assert answer.status == 303, answer

    async def _a_form(self) -> str:
        """A page with a form that posts: with keys each has one to log out."""
        return "/console/batches"


@dataclass
class Desk:
    """A running console."""

    here: Context
    clock: SetClock
    served: Any

    @property
    def store(self) -> Store:
        """Its store."""
        return self.here.store

    def browser(self, **what: str) -> Browser:
        """Somebody new."""
        return Browser(self.served, **what)

    async def logged_in(self, key: str) -> Browser:
        """Somebody with a key."""
        browser = self.browser()
        await browser.log_in(key)
        return browser

    async def batch(
        self,
        texts: Sequence[str] = ("hello",),
        *,
        workspace: WorkspaceId = DEFAULT_WORKSPACE,
        model: str = "scripted",
    ) -> BatchId:
        """A new batch with a request for each text."""
        requests = [
            {
                "custom_id": f"r{number}",
                "params": {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": text}]},
            }
            for number, text in enumerate(texts)
        ]
        origin = Origin(workspace=workspace, api_version="2023-06-01", betas="", idempotency_key=None)
        body = bytearray(msgspec.json.encode({"requests": requests}))
        created = await ingest(body, origin, store=self.store, world=self.here.world)
        return created.batch.id

    async def work_until_idle(self) -> None:
        """Let the worker run until no batch is unfinished; once in the life of a desk."""
        async with asyncio.TaskGroup() as group:
            working = group.create_task(self.here.worker.run())
            while (await self.store.control.counts())["batches_open"]:  # noqa: ASYNC110  Nobody else tells.
                await asyncio.sleep(0)
            working.cancel()

    async def add_key(self, key: str, workspace: WorkspaceId, *, role: Role = "workspace") -> Key:
        """A key in the store that opens already, and its workspace."""
        made = Key(
            id=f"key_{key}",
            sha256=sha256(key.encode()).hexdigest(),
            hint="...",
            name=f"the key {key}",
            workspace=workspace,
            role=role,
        )
        await self.store.access.add_workspace(Workspace(id=workspace, name=f"team {workspace[-4:]}"))
        await self.store.access.add_key(made)
        await self.here.doors.refresh(self.store.access)
        return made


def keys(**workspaces: WorkspaceId) -> list[KeySettings]:
    """Keys of the settings, by what is typed."""
    return [
        KeySettings(sha256=sha256(key.encode()).hexdigest(), workspace=workspace)
        for key, workspace in workspaces.items()
    ]


@asynccontextmanager
async def desk(tmp_path: Path, settings: Settings | None = None, *engines: Engine) -> AsyncIterator[Desk]:
    """A console for the length of a block. Without settings it needs no key; its worker runs only when asked to."""
    settings, clock = settings or Settings(), SetClock()
    world = World(clock=clock)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_directory(tmp_path / "data", world))
        doors = Doors(settings)
        await doors.refresh(store.access)
        routes = [Route(engine, ["*"]) for engine in engines or (ScriptedEngine(by_words),)]
        fleet = Fleet(routes, world)
        await fleet.start()
        stack.push_async_callback(fleet.close)
        live = await tallies.restored(store.checkpoints)
        here = Context(
            settings=settings,
            store=store,
            fleet=fleet,
            worker=Worker(store, fleet, world, live, name="worker"),
            upkeep=Upkeep(store, world),
            tallies=live,
            world=world,
            doors=doors,
        )
        yield Desk(here, clock, app(here))
    world.offload.close()


def on_desk(
    body: Callable[[Desk], Awaitable[None]], tmp_path: Path, settings: Settings | None = None, *engines: Engine
) -> None:
    """Run a test's body with a desk."""

    async def hold() -> None:
        async with desk(tmp_path, settings, *engines) as here:
            await body(here)

    asyncio.run(hold())
