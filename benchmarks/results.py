"""What it costs the server to hand out the results of a full batch, against sending a file of the same content.

Ours: GET …/results of a real server with `accept-encoding: gzip`, as both official SDKs ask: stored pieces, spliced
into one gzip member. Limit: a process that sends the same lines, uncompressed, from one file with sendfile(2), and
does nothing else. For comparison also without gzip, where we have to inflate. The results come from a real run.

Judged: CPU time of the serving process. The client throws away what it reads, and shares the cores.

    python benchmarks/results.py [--requests 100000] [--line-bytes 1530] [--rounds 5] [--downloads 8]
"""

import gzip
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

import dispatch
import measure
import prose
from overnight.engines.messages import Messages
from overnight.engines.plain import PlainTransport
from overnight.engines.routing import Route
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.tallies import Tallies
from overnight.runner.worker import Worker
from overnight.server.ingest import Origin, ingest
from overnight.store.store import open_directory
from overnight.testing.processes import running_server

SENDFILE_RATIO_MAX = 1.5
_ENVELOPE_BYTES = 300  # Of a result line, around the text of the answer.
_NOBODY = "http://127.0.0.1:1"


class Served(NamedTuple):
    """What one download cost the process that served it."""

    cpu_s: float
    wall_s: float
    wire_mb: float


async def make_results(url: str, data: Path, requests: int, line_bytes: int, seed: int) -> str:
    """Run a whole batch on the engine at `url`; its id."""
    text = prose.Prose(seed, corpus_bytes=min(prose.CORPUS_BYTES, requests * line_bytes))
    passages = (text.passage(text.length(line_bytes - _ENVELOPE_BYTES)) for _ in range(requests))
    entries = ",".join(
        f'{{"custom_id":"request-{index}","params":{prose.params(passage)}}}'
        for index, passage in enumerate(passages)
    )
    world = World()
    fleet = Fleet([Route(Messages(url, transport=PlainTransport(url)), ["*"])], world)
    origin = Origin(workspace=DEFAULT_WORKSPACE, api_version="2023-06-01", betas="", idempotency_key=None)
    async with open_directory(data, world) as store:
        created = await ingest(bytearray(f'{{"requests":[{entries}]}}'.encode()), origin, store=store, world=world)
        await dispatch.work_off(
            store, Worker(store, fleet, world, Tallies(), name="benchmark"), created.batch.id, requests
        )
        await fleet.close()
    world.offload.close()
    return created.batch.id


def download(port: int, path: str, *, coding: str, keep: bool = False) -> tuple[int, bytes]:
    """GET and read to the end. Size of the answer's body, and with `keep` the body."""
    wants = f"accept-encoding: {coding}\r\nanthropic-version: 2023-06-01"
    head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{wants}\r\n\r\n"
    buffer, kept = bytearray(1024 * 1024), bytearray()
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(head.encode())
        first = b""
        while b"\r\n\r\n" not in first:
            first += connection.recv(65536)
        answer_head, _, body = first.partition(b"\r\n\r\n")
        assert answer_head.startswith(b"HTTP/1.1 200"), answer_head
        length = int(answer_head.lower().partition(b"content-length:")[2].split()[0])
        held = len(body)
        kept += body if keep else b""
        while held < length:
            got = connection.recv_into(buffer)
            assert got, "the answer ended early"
            held += got
            if keep:
                kept += buffer[:got]
    return held, bytes(kept)


def served(process_id: int, port: int, path: str, downloads: int, *, coding: str) -> Served:
    cpu_before_s, begun_s, size = measure.cpu_s(process_id), time.perf_counter(), 0
    for _ in range(downloads):
        size, _ = download(port, path, coding=coding)
    wall_s = time.perf_counter() - begun_s
    return Served((measure.cpu_s(process_id) - cpu_before_s) / downloads, wall_s / downloads, size / 1e6)


def sendfile_server(path: Path) -> None:
    """The limit: answer every request with the file, for ever."""
    size = path.stat().st_size
    with socket.create_server(("127.0.0.1", 0)) as listener, path.open("rb") as file:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
                sent = 0
                while sent < size:
                    sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)


@contextmanager
def sendfile(path: Path) -> Iterator[tuple[int, int]]:
    """Process id and port of the limit."""
    command = [sys.executable, __file__, "--sendfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def check(lines: bytes, requests: int) -> None:
    """Every request has exactly one line."""
    found = {line.partition(b'","result"')[0] for line in lines.splitlines()}
    assert len(found) == lines.count(b"\n") == requests, (len(found), requests)


def measured(data: Path, batch_id: str, requests: int, rounds: int, downloads: int) -> list[dict[str, Served]]:
    path, raw = f"/v1/messages/batches/{batch_id}/results", data.with_name("raw")
    with running_server(data, "--engine", _NOBODY) as server:
        port, process_id = int(server.url.rpartition(":")[2]), server.process.pid
        lines = gzip.decompress(download(port, path, coding="gzip", keep=True)[1])
        check(lines, requests)
        raw.write_bytes(lines)
        with sendfile(raw) as (bare_id, bare_port):
            download(bare_port, "/", coding="identity")
            return [
                {
                    "gzip": served(process_id, port, path, downloads, coding="gzip"),
                    "sendfile": served(bare_id, bare_port, "/", downloads, coding="identity"),
                    "inflated": served(process_id, port, path, max(1, downloads // 4), coding="identity"),
                }
                for _ in range(rounds)
            ]


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--line-bytes", type=int, default=1_530)
    parser.add_argument("--downloads", type=int, default=8, help="of each kind, per round")
    parser.add_argument("--sendfile", type=Path, help="be the limit: serve this file (internal)")
    options = parser.parse_args()
    if options.sendfile is not None:
        sendfile_server(options.sendfile)
    with measure.scratch(options.on) as root:
        data = root / "data"
        with measure.upstream() as url:
            batch_id = uvloop.run(make_results(url, data, options.requests, options.line_bytes, options.seed))
        rounds = measured(data, batch_id, options.requests, options.rounds, options.downloads)
    cpu_s = {name: [one[name].cpu_s for one in rounds] for name in rounds[0]}
    ratio = {name: measure.ratios(cpu_s[name], cpu_s["sendfile"]) for name in ("gzip", "inflated")}
    measure.report(
        "results",
        seed=options.seed,
        workload={"requests": options.requests, "rounds": options.rounds, "downloads_per_round": options.downloads},
        cpu_s={name: measure.spread(values, 4) for name, values in cpu_s.items()},
        wall_s={name: measure.spread([one[name].wall_s for one in rounds]) for name in rounds[0]},
        wire_mb={name: round(rounds[0][name].wire_mb, 1) for name in rounds[0]},
        ratio=ratio,
        goals={"cpu_over_sendfile": measure.goal(ratio["gzip"]["median"], at_most=SENDFILE_RATIO_MAX)},
    )


if __name__ == "__main__":
    main()
