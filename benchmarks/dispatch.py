"""What one request of a batch costs the process that dispatches it: CPU, all included, with durable results.

Ours: a worker, its pool and a store on a real disk, in this process: lease, read, check, dispatch, read the answer,
write the line, checkpoint every 200 ms, seal. Limit: a bare epoll loop that sends the same size and parses nothing.
The engine is `overnight.testing.upstream`, a process of its own that answers at once.

Judged: CPU time of this process over the requests, because the engine and whatever else runs here share the cores;
with at most 64 in flight, which is what a server gets unless set otherwise: the pool finds its own number below it
(`core.window`). 256 stands beside it.

    python benchmarks/dispatch.py [--requests 20000] [--rounds 5]
"""

import asyncio
import gc
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import uvloop

import measure
import transports
from overnight.engines.messages import Messages
from overnight.engines.plain import PlainTransport
from overnight.engines.pooled import PooledTransport
from overnight.engines.routing import Route
from overnight.engines.transport import Transport
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.tallies import Tallies
from overnight.runner.worker import Worker
from overnight.server import allocator
from overnight.server.ingest import Origin, ingest
from overnight.store.store import Store, open_directory

TRANSPORTS: dict[str, Callable[[str], Transport]] = {"plain": PlainTransport, "aiohttp": PooledTransport}
IN_FLIGHT_USUAL = 64
IN_FLIGHT = (IN_FLIGHT_USUAL, 256)
PLAIN_CPU_US_MAX = 40.0
AIOHTTP_PER_CORE_MIN = 8_000.0


class Cost(NamedTuple):
    """Of one request."""

    cpu_us: float
    wall_us: float


def body(requests: int) -> bytearray:
    entries = []
    for index in range(requests):
        turn = {"role": "user", "content": f"{index}: {transports.TEXT}"}
        entries.append({"custom_id": f"request-{index}", "params": {**transports.PARAMS, "messages": [turn]}})
    return bytearray(json.dumps({"requests": entries}).encode())


async def work_off(store: Store, worker: Worker, batch_id: str, requests: int) -> None:
    """Run the worker until the batch has ended. Every request must have succeeded."""
    working = asyncio.create_task(worker.run())
    while True:
        batch = await store.control.batch(DEFAULT_WORKSPACE, batch_id)  # type: ignore[arg-type]
        assert batch is not None
        if batch.status == "ended":
            break
        await asyncio.sleep(0.02)
    worker.drain()
    await working
    assert batch.tally.succeeded == requests, batch.tally


async def ours(url: str, kind: str, in_flight: int, requests: int, root: Path) -> Cost:
    world = World()
    engine = Messages(url, transport=TRANSPORTS[kind](url), in_flight_max=in_flight)
    fleet = Fleet([Route(engine, ["*"])], world)
    origin = Origin(workspace=DEFAULT_WORKSPACE, api_version="2023-06-01", betas="", idempotency_key=None)
    async with open_directory(root, world) as store:
        created = await ingest(body(requests), origin, store=store, world=world)
        await fleet.start()
        worker = Worker(store, fleet, world, Tallies(), name="benchmark")
        begun_s, cpu_before_ns = time.perf_counter(), time.process_time_ns()
        await work_off(store, worker, created.batch.id, requests)
        cpu_ns, wall_s = time.process_time_ns() - cpu_before_ns, time.perf_counter() - begun_s
        await fleet.close()
    world.offload.close()
    return Cost(cpu_ns / 1000 / requests, wall_s * 1e6 / requests)


def bare(url: str, in_flight: int, requests: int) -> Cost:
    begun_s, cpu_before_ns = time.perf_counter(), time.process_time_ns()
    transports.bare(int(url.rpartition(":")[2]), requests, in_flight)
    return Cost(
        (time.process_time_ns() - cpu_before_ns) / 1000 / requests, (time.perf_counter() - begun_s) * 1e6 / requests
    )


def one_round(url: str, requests: int, root: Path) -> dict[str, Cost]:
    found = {}
    for in_flight in IN_FLIGHT:
        found[f"bare {in_flight}"] = bare(url, in_flight, requests)
        for kind in TRANSPORTS:
            gc.collect()
            found[f"{kind} {in_flight}"] = uvloop.run(ours(url, kind, in_flight, requests, root / "data"))
            shutil.rmtree(root / "data")
    return found


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    allocator.keep_freed_blocks()  # As the server does, and the next two lines.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with measure.scratch(options.on) as root, measure.upstream() as url:
        one_round(url, max(1, options.requests // 10), root)
        rounds = [one_round(url, options.requests, root) for _ in range(options.rounds)]
    cpu_us = {name: measure.spread([one[name].cpu_us for one in rounds], 1) for name in rounds[0]}
    ratio = {
        name: measure.ratios(
            [one[name].cpu_us for one in rounds], [one[f"bare {name.split()[1]}"].cpu_us for one in rounds]
        )
        for name in rounds[0]
        if not name.startswith("bare")
    }
    judged = {kind: cpu_us[f"{kind} {IN_FLIGHT_USUAL}"]["median"] for kind in TRANSPORTS}
    measure.report(
        "dispatch",
        seed=options.seed,
        workload={"requests": options.requests, "params_bytes": len(transports.BODY), "rounds": options.rounds},
        cpu_us=cpu_us,
        ratio_to_bare=ratio,
        requests_per_s={
            name: round(1e6 / measure.spread([one[name].wall_us for one in rounds])["median"]) for name in rounds[0]
        },
        goals={
            "plain_cpu_us": measure.goal(judged["plain"], at_most=PLAIN_CPU_US_MAX),
            "aiohttp_requests_per_s_a_core": measure.goal(1e6 / judged["aiohttp"], at_least=AIOHTTP_PER_CORE_MIN),
        },
    )


if __name__ == "__main__":
    main()
