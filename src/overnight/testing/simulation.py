"""A whole server in a simulated machine: the production app, worker, upkeep and store, under virtual time.

    machine = Machine(tmp_path)
    cut = machine.live(script, lambda life: drive(life.client))     # until it returns, or the power goes

What is real: ingest, store, recovery, runner, HTTP endpoints, SQLite. What is simulated: the disk below objects and
checkpoints (`testing.simdisk`), time and dice (`testing.virtualtime`), the engine (`testing.engines`), and HTTP,
which is a function call. The control database is a real SQLite file without fsync, and a commit is one write:
the power may go right before it or right after it, and SQLite's own pages are not modelled.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.types import ASGIApp, Message

from overnight.engines.engine import Engine
from overnight.engines.routing import Route
from overnight.ports.offload import InlineOffload, Offload
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.fleet import Fleet
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Doors
from overnight.server.app import app
from overnight.server.config import Settings
from overnight.server.context import Context
from overnight.store.checkpoint import Checkpoints
from overnight.store.committer import Committer, InlineCommitter, Operation
from overnight.store.objects import LocalObjects
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.sqliteaccess import SqliteAccess
from overnight.store.sqlitehooks import SqliteHooks
from overnight.store.sqliteusage import SqliteUsage
from overnight.store.store import Store, recover
from overnight.testing.simdisk import PowerCut, SimDisk
from overnight.testing.virtualtime import SeededEntropy, VirtualClock, run
from overnight.testing.wireclient import BATCHES, Answer

T = TypeVar("T")
Drive = Callable[["Life"], Awaitable[None]]


class AppClient:
    """HTTP as a function call."""

    def __init__(self, served: ASGIApp) -> None:
        self._served = served

    async def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One exchange."""
        sent = b"" if body is None else msgspec.json.encode(body)
        given = {"anthropic-version": "2023-06-01", "content-length": str(len(sent)), **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        incoming = [{"type": "http.request", "body": sent, "more_body": False}]
        outgoing: list[Message] = []

        async def receive() -> Message:
            return incoming.pop() if incoming else await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: Message) -> None:
            outgoing.append(message)

        await self._served(scope, receive, send)
        start, *bodies = outgoing
        shown = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], shown, b"".join(item.get("body", b"") for item in bodies))

    async def create(self, requests: list[dict[str, Any]], *, key: str) -> Answer:
        """Create a batch under this idempotency key."""
        return await self.call("POST", BATCHES, {"requests": requests}, headers={"idempotency-key": key})


@dataclass(frozen=True, kw_only=True)
class Life:
    """A server from its start to its end."""

    client: AppClient
    store: Store
    worker: Worker
    upkeep: Upkeep
    world: World


class CutCommitter:
    """Commits in the caller's turn; the power may go before or after each commit."""

    def __init__(self, inner: InlineCommitter, disk: SimDisk) -> None:
        self._inner, self._disk = inner, disk

    async def write(self, operation: Operation[T]) -> T:
        value = await self._inner.write(operation)
        self._disk.moment()
        return value

    async def read(self, operation: Operation[T]) -> T:
        return await self._inner.read(operation)

    async def close(self) -> None:
        await self._inner.close()


class Freezer:
    """Holds up whatever passes through it while it is frozen: a process that the system does not let run."""

    def __init__(self) -> None:
        self._runs = asyncio.Event()
        self._runs.set()

    def freeze(self) -> None:
        """Nothing passes from now on."""
        self._runs.clear()

    def thaw(self) -> None:
        """Everything goes on where it was."""
        self._runs.set()

    async def wait(self) -> None:
        """Return when it is not frozen."""
        await self._runs.wait()


class FrozenOffload:
    """Inline calls of a process that may freeze."""

    def __init__(self, freezer: Freezer) -> None:
        self._freezer = freezer

    async def run(self, call: Callable[[], T]) -> T:
        await self._freezer.wait()
        value = call()
        await self._freezer.wait()
        return value

    def close(self) -> None:
        pass


class FrozenCommitter:
    """A database connection of a process that may freeze."""

    def __init__(self, inner: Committer, freezer: Freezer) -> None:
        self._inner, self._freezer = inner, freezer

    async def write(self, operation: Operation[T]) -> T:
        await self._freezer.wait()
        value = await self._inner.write(operation)
        await self._freezer.wait()
        return value

    async def read(self, operation: Operation[T]) -> T:
        await self._freezer.wait()
        return await self._inner.read(operation)

    async def close(self) -> None:
        pass


class Machine:
    """What outlives a process: disk, clock, and the directory of the control database."""

    def __init__(self, root: Path, *, seed: int = 1, disk: SimDisk | None = None) -> None:
        self.root = root
        self.disk = disk or SimDisk()
        self.clock = VirtualClock()
        self.entropy = SeededEntropy(seed)

    def live(self, engine: Engine, drive: Drive) -> bool:
        """Start a server and let `drive` use it. Whether it returned; if not, the power went and is back now.

        Nothing is drained: a process that ends here has been killed.
        """

        async def main() -> None:
            async with self.started(engine) as life:
                await drive(life)

        try:
            run(main(), self.clock)
        except (PowerCut, BaseExceptionGroup) as error:
            if not self.disk.is_off or _others(error):
                raise
            self.disk.restore_power()
            return False
        self.disk.restore_power()
        return True

    @asynccontextmanager
    async def started(self, engine: Engine) -> AsyncIterator[Life]:
        """A running server; when the block ends it is killed."""
        async with self.opened() as committer:
            store = self.store(committer)
            await recover(store)
            async with self.working(store, engine) as life:
                yield life

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Committer]:
        """The control database of this machine."""
        connection = connect(self.root / "control.sqlite3")
        connection.execute("PRAGMA synchronous=OFF")
        try:
            yield CutCommitter(InlineCommitter(connection, before_commit=self.disk.moment), self.disk)
        finally:
            connection.close()

    def store(self, committer: Committer, offload: Offload | None = None) -> Store:
        """A store over this machine's disk."""
        inline = offload or InlineOffload()
        return Store(
            control=SqliteControl(committer),
            objects=LocalObjects(Path("/objects"), files=self.disk, offload=inline),
            checkpoints=Checkpoints(Path("/checkpoints"), files=self.disk, offload=inline),
            access=SqliteAccess(committer),
            usage=SqliteUsage(committer),
            hooks=SqliteHooks(committer),
        )

    @asynccontextmanager
    async def working(
        self, store: Store, engine: Engine, *, name: str = "worker", offload: Offload | None = None
    ) -> AsyncIterator[Life]:
        """An app, a worker and upkeep over a store that may be shared with others."""
        world = World(clock=self.clock, entropy=self.entropy, files=self.disk, offload=offload or InlineOffload())
        fleet = Fleet([Route(engine, ["*"])], world)
        live = await tallies.restored(store.checkpoints)
        worker, upkeep = Worker(store, fleet, world, live, name=name), Upkeep(store, world)
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
            running = [group.create_task(worker.run()), group.create_task(upkeep.run())]
            yield Life(client=AppClient(app(here)), store=store, worker=worker, upkeep=upkeep, world=world)
            for task in running:
                task.cancel()


def _others(error: BaseException) -> bool:
    """Whether something else went wrong than the power."""
    if isinstance(error, BaseExceptionGroup):
        return any(_others(inner) for inner in error.exceptions)
    return not isinstance(error, PowerCut)
