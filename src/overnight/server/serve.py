"""A server from start to end: open the store (which is recovery), start engines, serve and work, drain, close."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

from overnight import limits
from overnight.core.budget import Which
from overnight.core.hook import budget_reached
from overnight.errors import UsageError
from overnight.ids import WorkspaceId, drawn
from overnight.ports.world import World
from overnight.runner import tallies
from overnight.runner.budgets import OnReached
from overnight.runner.fleet import Fleet
from overnight.runner.hooks import HookSender
from overnight.runner.outward import Outward
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server import allocator, build, config
from overnight.server.access import Doors, organization_id
from overnight.server.app import app
from overnight.server.config import Settings
from overnight.server.context import Context
from overnight.server.protocol import BoundedHttp
from overnight.store import layout
from overnight.store.store import Store, open_directory

log = logging.getLogger("overnight.server")
_KEEP_ALIVE_S = 75  # Longer than SDK connection pools keep a connection idle, so that they never race our close.
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(settings: Settings, world: World, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain within `limits.DRAIN_S_MAX`; a second signal exits at once.

    `on_ready` gets the URL once requests are answered. Raises UsageError or StoreError before that.
    """
    stopping = asyncio.Event()
    config.check_reachable(settings, has_key=_may_have_keys(settings))
    allocator.keep_freed_blocks()
    with _listening(settings) as listener:
        async with open_directory(Path(settings.data), world) as store, _composed(settings, store, world) as here:
            _handle_signals(stopping)
            gc.collect()
            gc.freeze()  # What lives as long as the process is not looked at again.
            gc.set_threshold(50_000, 20, 100)  # 37 % of the dispatch CPU at 1,024 in flight (docs/adr/0003).
            await _run(here, listener, stopping, on_ready)
    await world.offload.run(world.tracer.close)
    world.offload.close()


def _may_have_keys(settings: Settings) -> bool:
    """Before the store is open: one that exists may hold keys. One that cannot be looked at is told of later."""
    return Doors(settings).needs_key or os.path.exists(layout.DataDirectory(Path(settings.data)).database)


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {settings.listen}: {error.strerror}; choose another address with --listen"
        ) from error


@asynccontextmanager
async def _composed(settings: Settings, store: Store, world: World) -> AsyncIterator[Context]:
    doors = Doors(settings)
    await doors.refresh(store.access)
    config.check_reachable(settings, has_key=doors.needs_key)
    prices = build.price_list(settings)
    fleet = Fleet(
        build.routes(settings.engines, world=world),
        world,
        weights=doors.weights,
        rules_of=doors.rules_of,
        price_list=prices,
    )
    doors.on_rules += [lambda: fleet.backlog.weigh(doors.weights), fleet.budgets.look]
    await fleet.budgets.load(store.usage)
    await fleet.start()
    await world.offload.run(fleet.charges.warm)
    await fleet.charges.recall(store.usage)
    try:
        live = await tallies.restored(store.checkpoints)
        name = f"{socket.gethostname()}-{os.getpid()}-{drawn(world.entropy.bytes(6))}"
        worker = Worker(
            store,
            fleet,
            world,
            live,
            name=name,
            is_strict=settings.strict_params,
            deduplicates=settings.deduplicate,
        )
        fleet.charges.on_person = worker.recorder.journal.add
        hooks = _hook_sender(settings, store, world)
        fleet.budgets.on_reached.append(_telling_reached(hooks, world))
        yield Context(
            settings=settings,
            store=store,
            fleet=fleet,
            worker=worker,
            upkeep=Upkeep(store, world, lifetimes=lambda: {item.id: item.rules for item in doors.workspaces}),
            tallies=live,
            world=world,
            doors=doors,
            hooks=hooks,
            organization=organization_id(await store.access.secret("organization", world.entropy.bytes(32))),
        )
    finally:
        await fleet.close()


async def _run(
    here: Context, listener: socket.socket, stopping: asyncio.Event, on_ready: Callable[[str], None]
) -> None:
    http = _Http(
        uvicorn.Config(
            app(here),
            http=BoundedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `server.urls` decides whose forwarded headers count, and for what.
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(limits.DRAIN_S_MAX - 5),
        )
    )
    host, port = listener.getsockname()[:2]
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(http.serve(sockets=[listener]))
        upkeep = group.create_task(here.upkeep.run())
        doors = group.create_task(here.doors.run(here.store.access))
        hooks = group.create_task(_sending(here))
        lag = group.create_task(here.lag.run())
        working = group.create_task(here.worker.run())
        on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await stopping.wait()
        http.should_exit = True
        here.worker.drain()
        await asyncio.wait([working, serving], timeout=limits.DRAIN_S_MAX)
        for task in (working, serving, upkeep, doors, lag, hooks):
            task.cancel()


async def _sending(here: Context) -> None:
    if here.hooks is not None:
        await here.hooks.run()


def _telling_reached(hooks: HookSender, world: World) -> OnReached:
    def tell(workspace: WorkspaceId, which: Which, limit_usd: float, spent_usd: float) -> None:
        now_ms = world.clock.now_ms()
        hooks.tell(budget_reached(workspace, which, limit_usd=limit_usd, spent_usd=spent_usd, now_ms=now_ms))

    return tell


def _hook_sender(settings: Settings, store: Store, world: World) -> HookSender:
    outward = Outward(world.clock, to_private=settings.hooks_to_private_addresses)
    return HookSender(store.hooks, world, outward, public_url=settings.public_url)


class _Http(uvicorn.Server):
    """Uvicorn without its own signal handlers: one place decides what a signal means."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _handle_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)  # The store needs no goodbye: opening it is recovery.
        log.info("%s: finishing what is in flight; send it again to exit at once", number.name)
        stopping.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
