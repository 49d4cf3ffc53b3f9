"""A server of a team as the tests of the browser find it: workspaces, keys, batches of every kind, a busy engine."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from ended import ended, errored, succeeded

from overnight.core.hook import EVENTS, Hook
from overnight.core.usage import Sums, Used
from overnight.core.workspace import Key, Role, Rules, Workspace
from overnight.ids import BatchId, WorkspaceId
from overnight.limits import DAY_MS
from overnight.ports.world import World
from overnight.store.store import Store, open_directory
from overnight.store.usage import Entry
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import WireClient, params
from overnight.wire import result
from overnight.wire.create import Request

T = TypeVar("T")
RESEARCH, SALES = WorkspaceId("wrkspc_01research"), WorkspaceId("wrkspc_01sales")
ADMIN, TEAM = "sk-an-admin-of-research", "sk-somebody-of-sales"
_LONG_AGO = 1_780_000_000_000  # 2026-05-28.
MODEL = "claude-haiku-4-5"
MIXED, FINE = 120, 12  # Requests of these batches.


@dataclass
class Scene:
    """A running server, and the ids of what is in it."""

    server: ObservedServer
    receiver: str  # Where hooks may lead: /broken is out of order, every other path takes what comes.
    numbers: "count[int]" = field(default_factory=lambda: count(1))
    made: dict[str, BatchId] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    def client(self, key: str = ADMIN) -> closing[WireClient]:
        """Somebody who uses the API."""
        return closing(WireClient(self.url, api_key=key))

    def name(self, what: str) -> str:
        """A name that nothing else here has."""
        return f"{what} {next(self.numbers)}"

    def batch(self, *texts: str, key: str = ADMIN, waits: bool = True) -> str:
        """The id of a new batch with a request for each text; ended, if it waits."""
        with self.client(key) as client:
            batch_id = str(client.create([asked(f"r{n}", text) for n, text in enumerate(texts)])["id"])
            if waits:
                self.server.wait_ended(client, batch_id)
            return batch_id


def asked(custom_id: str, text: str) -> dict[str, object]:
    """A request for a model that has a price."""
    return {"custom_id": custom_id, "params": params(text, model=MODEL, max_tokens=200)}


def run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The outcome of a coroutine. Playwright holds the loop of this thread, so it runs in another."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()


def key_of(text: str, workspace: WorkspaceId, name: str, role: Role = "workspace") -> Key:
    """A key that is not drawn, so that tests can type it."""
    return Key(
        id=f"apikey_{name}",
        sha256=sha256(text.encode()).hexdigest(),
        hint=f"{text[:5]}...{text[-4:]}",
        name=name,
        workspace=workspace,
        role=role,
        created_at_ms=_LONG_AGO,
    )


def ticket(item: Request) -> bytes:
    """By the number in its name: every 10th errored, and of others some canceled or expired."""
    number = int(item.custom_id.rpartition("-")[2])
    if number % 10 == 0:
        kind, said = ("rate_limit_error", "Slow down") if number % 20 else ("api_error", "The engine gave up")
        return errored(item, kind, said)
    if number % 40 == 1:
        return result.canceled(item.custom_id)
    if number % 40 == 2:
        return result.expired(item.custom_id)
    return succeeded(item, f"Ticket {number} is about billing. The customer asks for a copy of the invoice.")


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503 if self.path == "/broken" else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests are quiet."""


@contextmanager
def receiving() -> Iterator[str]:
    """The URL of a receiver of hooks, for the length of a block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def _use(store: Store) -> None:
    """Nights before this one, so that there is something to draw."""
    now_ms = World().clock.now_ms()
    for days in range(1, 7):
        for number, model in enumerate(("claude-opus-4-6", "claude-sonnet-4-6", MODEL)):
            usd_nano = (1 + (days * 7 + number * 5) % 6) * 900_000_000 // (number + 1)
            tokens = {"input_tokens": 40_000 * days, "output_tokens": 9_000 * days, "cache_read_tokens": 150_000}
            sums = Sums(requests=200, usd_nano=usd_nano, realtime_usd_nano=2 * usd_nano, **tokens)
            used = Used(model=model, engine="claude", service_tier="batch", sums=sums)
            entry = Entry(workspace=RESEARCH, api_key="apikey_Ada", used=used)
            await store.usage.note([entry], now_ms=now_ms - days * DAY_MS)


async def _fill(store: Store, receiver: str, made: dict[str, BatchId]) -> None:
    rules = Rules(requests_per_minute=5_000, usd_per_day=20.0, usd_per_month=250.0, models=["claude-*"])
    await store.access.add_workspace(Workspace(id=RESEARCH, name="Research", rules=rules))
    await store.access.add_workspace(Workspace(id=SALES, name="Sales", rules=Rules(usd_per_day=5.0)))
    await store.access.add_key(key_of(ADMIN, RESEARCH, "Ada", "admin"))
    await store.access.add_key(key_of(TEAM, SALES, "Sam"))
    for name in ("batches", "broken"):
        hook = Hook(
            id=f"hook_01{name}", workspace=RESEARCH, url=f"{receiver}/{name}", events=EVENTS, created_at_ms=_LONG_AGO
        )
        await store.hooks.add(hook, b"a secret of 24 bytes ...")
    await _use(store)
    tickets = [asked(f"ticket-{n:04}", f"What is ticket {n} about?") for n in range(MIXED)]
    made["mixed"] = await ended(store, tickets, ticket, workspace=RESEARCH)
    fine = [asked(f"review-{n}", f"Is review {n} kind?") for n in range(1, FINE + 1)]
    made["fine"] = await ended(store, fine, lambda item: succeeded(item, "It is kind."), workspace=RESEARCH)


@contextmanager
def served(folder: Path) -> Iterator[Scene]:
    """The scene for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, BatchId] = {}

    with ExitStack() as stack:
        receiver = stack.enter_context(receiving())

        async def make() -> None:
            async with open_directory(folder / "data", World()) as store:
                await _fill(store, receiver, made)

        run(make)
        engine = stack.enter_context(upstream_process())
        config = folder / "overnight.toml"
        config.write_text(f'hooks_to_private_addresses = true\n[[engines]]\nspec = "{engine}"\n')
        server = stack.enter_context(observed_server(folder / "data", "--config", str(config)))
        scene = Scene(server, receiver, made=made)
        for key in (ADMIN, TEAM):
            scene.batch(*(f"How long is a night? {number}" for number in range(6)), key=key)
        scene.made["running"] = BatchId(scene.batch("fine", "fine too", "[[hang]]", waits=False))
        with scene.client() as client:
            server.wait_counted(client, scene.made["running"], succeeded=2)
        yield scene
