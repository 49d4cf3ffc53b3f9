"""What prompt order is worth on a real engine: one batch with more shared prefixes than the engine has slots.

Three orders in the same run, in turn: ours (sorted by prefix when the batch is stored), the client's (round robin
over the prefixes, the worst case), and shuffled. Everything else is the server's own: store, worker, pool, and
llama.cpp with the small model in this process. The order is switched where it is made, in `store.segments`.

Cached tokens do not depend on the machine; wall time does, and CPU less so.

    python benchmarks/prefix.py [--prefixes 40] [--each 25] [--prefix-bytes 550] [--rounds 5]
"""

import asyncio
import gc
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dispatch
import embedded
import measure
import prose
from overnight.core.retry import Answered, Outcome
from overnight.engines.embedded import Embedded, tiny_weights
from overnight.engines.engine import Call
from overnight.engines.routing import Route
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.tallies import Tallies
from overnight.runner.worker import Worker
from overnight.server.ingest import Origin, ingest
from overnight.store import segments
from overnight.store.store import open_directory
from overnight.wire import message
from overnight.wire.create import Request

WALL_RATIO_MIN = 2.0
_OUTPUT_TOKENS = 4  # One word.

Order = Callable[[Sequence[Request]], list[Request]]


class Cost(NamedTuple):
    """Of a whole batch."""

    wall_s: float
    cpu_s: float
    input_tokens: int  # Cached or not.
    cached_tokens: int


class Counted(Embedded):
    """The embedded engine, which also adds up what its answers say of the cache."""

    cached_tokens = 0

    async def answer(self, call: Call) -> Outcome:
        outcome = await super().answer(call)
        assert isinstance(outcome, Answered), outcome
        self.cached_tokens += message.as_batch(outcome.message)[1].cache_read_input_tokens or 0
        return outcome


def body(prefixes: int, each: int, prefix_bytes: int, seed: int) -> bytes:
    """A create body in which neighbours never share a prefix."""
    text = prose.Prose(seed, corpus_bytes=max(100_000, 2 * prefixes * prefix_bytes))
    systems = [f"{embedded.REVIEW} Rules of team {team}: {text.passage(prefix_bytes)}" for team in range(prefixes)]
    entries = []
    for number in range(each):
        for team, system in enumerate(systems):
            content = f"Order {number}: the {embedded.THINGS[number % len(embedded.THINGS)]} broke after {team} days."
            params = {"model": "overnight-tiny", "max_tokens": _OUTPUT_TOKENS, "temperature": 0, "system": system}
            turns = [{"role": "user", "content": content}]
            entries.append({"custom_id": f"{team}-{number}", "params": params | {"messages": turns}})
    return json.dumps({"requests": entries}).encode()


def shuffled(seed: int) -> Order:
    def order(requests: Sequence[Request]) -> list[Request]:
        return random.Random(seed).sample(requests, len(requests))

    return order


@contextmanager
def stored_in(order: Order) -> Iterator[None]:
    """Batches that are created meanwhile are stored, and so worked on, in this order."""
    before = segments.sorted_by_prefix
    segments.sorted_by_prefix = order
    try:
        yield
    finally:
        segments.sorted_by_prefix = before


async def cost(requests: bytes, count: int, order: Order, root: Path) -> Cost:
    world = World()
    engine = Counted(tiny_weights(), entropy=world.entropy)
    fleet = Fleet([Route(engine, ["*"])], world)
    origin = Origin(workspace=DEFAULT_WORKSPACE, api_version="2023-06-01", betas="", idempotency_key=None)
    async with open_directory(root, world) as store:
        with stored_in(order):
            created = await ingest(bytearray(requests), origin, store=store, world=world)
        await fleet.start()
        worker = Worker(store, fleet, world, Tallies(), name="benchmark")
        begun_s, cpu_before_s = time.perf_counter(), time.process_time()
        await dispatch.work_off(store, worker, created.batch.id, count)
        wall_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_before_s
        took = fleet.pools[0].admission.took
        await fleet.close()
    world.offload.close()
    return Cost(wall_s, cpu_s, took.input, engine.cached_tokens)


def one_round(requests: bytes, count: int, seed: int, root: Path) -> dict[str, Cost]:
    orders: dict[str, Order] = {"ours": segments.sorted_by_prefix, "submitted": list, "shuffled": shuffled(seed)}
    found = {}
    for name, order in orders.items():
        gc.collect()
        found[name] = asyncio.run(cost(requests, count, order, root / "data"))
        shutil.rmtree(root / "data")
    return found


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--prefixes", type=int, default=40)
    parser.add_argument("--each", type=int, default=25, help="requests with each prefix")
    parser.add_argument("--prefix-bytes", type=int, default=550, help="about 400 tokens")
    options = parser.parse_args()
    count = options.prefixes * options.each
    requests = body(options.prefixes, options.each, options.prefix_bytes, options.seed)
    with measure.scratch(options.on) as root:
        rounds = [one_round(requests, count, options.seed + number, root) for number in range(options.rounds)]
    ours = [one["ours"] for one in rounds]
    figures, wall_ratio = {}, {}
    for name in rounds[0]:
        costs = [one[name] for one in rounds]
        wall_ratio[name] = measure.ratios([one.wall_s for one in costs], [one.wall_s for one in ours])
        figures[name] = {
            "wall_s": measure.spread([one.wall_s for one in costs]),
            "cpu_s": measure.spread([one.cpu_s for one in costs]),
            "cached_share": measure.spread([one.cached_tokens / one.input_tokens for one in costs]),
            "cached_tokens": measure.spread([one.cached_tokens for one in costs]),
            "wall_over_ours": wall_ratio[name],
            "cpu_over_ours": measure.ratios([one.cpu_s for one in costs], [one.cpu_s for one in ours]),
        }
    measure.report(
        "prefix",
        seed=options.seed,
        workload={
            "requests": count,
            "prefixes": options.prefixes,
            "tokens_a_request": round(ours[0].input_tokens / count),
            "rounds": options.rounds,
        },
        goals={"submitted_over_ours": measure.goal(wall_ratio["submitted"]["median"], at_least=WALL_RATIO_MIN)},
        **figures,
    )


if __name__ == "__main__":
    main()
