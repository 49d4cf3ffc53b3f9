"""How many small batches a second a server acknowledges, against what the disk allows one commit at a time.

Ours: clients on kept-alive connections, each creating batches of one request, one after the other; a 200 is said when
the batch is on disk. Limit: SQLite in the same mode (WAL, synchronous=FULL) on the same disk, one insert a commit.
Group commit is what beats it: creates that wait for the disk share its next fsync.

Judged: creates a second of wall time, because the limit is the disk's wait and not CPU. Clients and server share the
cores: the server's CPU stands beside it, and `server_cpu_bound_per_s` says what it could do with a core of its own.
A disk whose flush takes a fraction of a millisecond (a write cache) makes single commits faster than any HTTP server:
there the goal cannot be met, and `without_http_per_s` says what the store does by itself. `--flush-ms 4` makes every
flush of both sides take that much longer (slowflush.c, by LD_PRELOAD; needs Linux and a C compiler), as on a network
disk.

    python benchmarks/creates.py [--clients 64] [--seconds 4] [--rounds 5] [--flush-ms 4]
"""

import asyncio
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import httptools
import uvloop

import measure
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.server.ingest import Origin, ingest
from overnight.store.store import open_directory
from overnight.testing.processes import running_server

SINGLE_COMMIT_RATIO_MIN = 20.0
_NOBODY = "http://127.0.0.1:1"
_TURN = {"role": "user", "content": "Is this review positive or negative? The parcel was late and the box was open."}
_PARAMS = {"model": "echo", "max_tokens": 16, "messages": [_TURN]}
_BODY = json.dumps({"requests": [{"custom_id": "only", "params": _PARAMS}]}).encode()
_REQUEST = (
    b"POST /v1/messages/batches HTTP/1.1\r\nhost: 127.0.0.1\r\nanthropic-version: 2023-06-01\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Client(asyncio.Protocol):
    """Creates one batch after the other until `deadline_s`, and notes how long each took."""

    def __init__(self, deadline_s: float) -> None:
        self.waits_ms: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self._deadline_s = deadline_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed a connection"))

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        now_s = time.perf_counter()
        self.waits_ms.append((now_s - self._begun_s) * 1000)
        if status != 200:
            self.done.set_exception(AssertionError(f"status {status}"))
        elif now_s < self._deadline_s:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        self._begun_s = time.perf_counter()
        self._transport.write(_REQUEST)


class Load(NamedTuple):
    """What some clients saw in a while."""

    per_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float  # Per create.


async def clients(port: int, count: int, seconds: float) -> tuple[float, list[float]]:
    loop, begun_s = asyncio.get_running_loop(), time.perf_counter()
    made = [await loop.create_connection(lambda: Client(begun_s + seconds), "127.0.0.1", port) for _ in range(count)]
    await asyncio.gather(*(client.done for _, client in made))
    return time.perf_counter() - begun_s, sorted(wait for _, client in made for wait in client.waits_ms)


def load(process_id: int, port: int, count: int, seconds: float) -> Load:
    cpu_before_s = measure.cpu_s(process_id)
    wall_s, waits_ms = uvloop.run(clients(port, count, seconds))
    return Load(
        per_s=len(waits_ms) / wall_s,
        p50_ms=waits_ms[len(waits_ms) // 2],
        p99_ms=waits_ms[len(waits_ms) * 99 // 100],
        server_cpu_ms=(measure.cpu_s(process_id) - cpu_before_s) * 1000 / len(waits_ms),
    )


def single_commits_per_s(directory: Path, seconds: float) -> float:
    """Rows a second with a commit each, in the mode of our control database, without our tables."""
    directory.mkdir(exist_ok=True)
    with closing(sqlite3.connect(directory / "single.sqlite", isolation_level=None)) as sql:
        sql.execute("PRAGMA journal_mode=WAL")
        sql.execute("PRAGMA synchronous=FULL")
        sql.execute("CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, body BLOB)")
        begun_s, count = time.perf_counter(), 0
        while time.perf_counter() - begun_s < seconds:
            sql.execute("INSERT INTO bodies (body) VALUES (?)", (_BODY,))
            count += 1
        return count / (time.perf_counter() - begun_s)


async def without_http(data: Path, count: int, seconds: float) -> float:
    """Creates a second of as many tasks in this process, straight into the store."""
    world, made, end_s = World(), 0, time.perf_counter() + seconds
    origin = Origin(workspace=DEFAULT_WORKSPACE, api_version="2023-06-01", betas="", idempotency_key=None)

    async def create() -> None:
        nonlocal made
        while time.perf_counter() < end_s:
            await ingest(bytearray(_BODY), origin, store=store, world=world)
            made += 1

    async with open_directory(data, world) as store, asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(create())
    world.offload.close()
    return made / seconds


class Round(NamedTuple):
    """One after the other, so that a disk that changes its speed hits all."""

    single_per_s: float
    many: Load
    one: Load
    store_per_s: float


def one_round(root: Path, count: int, seconds: float) -> Round:
    with running_server(root / "data", "--engine", _NOBODY) as server:
        port, process_id = int(server.url.rpartition(":")[2]), server.process.pid
        load(process_id, port, count, seconds / 10)
        before_per_s = single_commits_per_s(root / "single", seconds / 2)
        many = load(process_id, port, count, seconds)
        after_per_s = single_commits_per_s(root / "single", seconds / 2)
        one = load(process_id, port, 1, seconds / 2)
        server.kill()
    shutil.rmtree(root / "data")
    store_per_s = uvloop.run(without_http(root / "data", count, seconds / 2))
    shutil.rmtree(root / "data")
    return Round((before_per_s + after_per_s) / 2, many, one, store_per_s)


def figures(loads: Sequence[Load]) -> dict[str, Any]:
    return {name: measure.spread([getattr(one, name) for one in loads], 2) for name in Load._fields}


def slow_down_flushes(flush_ms: float) -> None:
    """Start this program again with slower flushes, unless it was."""
    if flush_ms == 0 or "SLOW_FLUSH_US" in os.environ:
        return
    library = Path(tempfile.mkdtemp(prefix="overnight-slowflush-")) / "slowflush.so"
    source = Path(__file__).with_name("slowflush.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    slow = {"LD_PRELOAD": str(library), "SLOW_FLUSH_US": str(round(flush_ms * 1000))}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **slow})


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each round")
    parser.add_argument("--flush-ms", type=float, default=0.0, help="added to every flush of both sides")
    options = parser.parse_args()
    slow_down_flushes(options.flush_ms)
    with measure.scratch(options.on) as root:
        rounds = [one_round(root, options.clients, options.seconds) for _ in range(options.rounds)]
    single = [one.single_per_s for one in rounds]
    ratio = measure.ratios([one.many.per_s for one in rounds], single)
    measure.report(
        "creates",
        seed=options.seed,
        workload={
            "clients": options.clients,
            "body_bytes": len(_BODY),
            "seconds": options.seconds,
            "rounds": len(rounds),
            "flush_ms_added": options.flush_ms,
        },
        clients_at_once=figures([one.many for one in rounds]),
        one_client=figures([one.one for one in rounds]),
        single_commits_per_s=measure.spread(single, 0),
        without_http_per_s=measure.spread([one.store_per_s for one in rounds], 0),
        server_cpu_bound_per_s=round(1000 / statistics.median(one.many.server_cpu_ms for one in rounds)),
        ratio=ratio,
        goals={"over_single_commits": measure.goal(ratio["median"], at_least=SINGLE_COMMIT_RATIO_MIN)},
    )


if __name__ == "__main__":
    main()
