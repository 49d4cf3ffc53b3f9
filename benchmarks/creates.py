"""How many small batches a second a server acknowledges, against what the disk allows one commit at a time.

Ours: clients on kept-alive connections, each creating batches of one request, one after the other; a 200 is said when
the batch is on disk. Limit: SQLite in the same mode (WAL, synchronous=FULL) on the same disk, one insert a commit.
Group commit is what beats it: creates that wait for the disk share its next fsync.

Judged: creates a second of wall time, because the limit is the disk's wait and not CPU. The clients and the server share
the cores: the server's CPU stands beside it, and `server_cpu_bound` says what a core of its own could do.

    python benchmarks/creates.py [--clients 64] [--seconds 4] [--rounds 5]
"""

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import httptools
import measure
import uvloop

from overnight.store.sqlite import connect
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
    commits: int | None


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
        commits=None,
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


def main() -> None:
    pass


if __name__ == "__main__":
    main()
