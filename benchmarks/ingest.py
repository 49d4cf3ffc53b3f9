"""How long a full batch takes to be acknowledged, and what memory it needs, against the least that it could take.

Ours: POST /v1/messages/batches to a real server, to the last byte of the 200, said when everything is on disk.
Limit: the same bytes from the same sender to `floor.py`: receive, write, fsync. Both are fresh processes each round.
The server's engine is an address where nobody listens: nothing is worked on beside the upload.

Judged: wall time, because the goal is the client's wait and part of it is the disk; CPU time stands beside it.

    python benchmarks/ingest.py [--requests 100000] [--megabytes 236] [--rounds 5]
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import measure
import prose
from overnight.testing.processes import running_server

NOBODY = "http://127.0.0.1:1"
ACK_RATIO_MAX = 4.0
MEMORY_ABOVE_BODY_MB_MAX = 100.0


class Taken(NamedTuple):
    """What one upload cost the process that took it."""

    wall_s: float
    cpu_s: float
    memory_mb: float  # The most it held, above what it held before.
    stored_mb: float
    answer: bytes


def upload(port: int, body: bytes) -> bytes:
    """Send one create request and return the body of its answer."""
    head = (
        f"POST /v1/messages/batches HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode())
        connection.sendall(body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head_of_answer, _, content = answer.partition(b"\r\n\r\n")
    assert head_of_answer.startswith(b"HTTP/1.1 200"), answer[:500]
    return content


def taken(process_id: int, port: int, body: bytes, directory: Path) -> Taken:
    idle_mb, cpu_before_s = measure.memory_mb(process_id, "VmRSS"), measure.cpu_s(process_id)
    begun_s = time.perf_counter()
    answer = upload(port, body)
    wall_s = time.perf_counter() - begun_s
    return Taken(
        wall_s=wall_s,
        cpu_s=measure.cpu_s(process_id) - cpu_before_s,
        memory_mb=measure.memory_mb(process_id, "VmHWM") - idle_mb,
        stored_mb=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6,
        answer=answer,
    )


@contextmanager
def floor(directory: Path) -> Iterator[tuple[int, int]]:
    """Process id and port of the limit."""
    directory.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("floor.py")), str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.terminate()


def one_round(body: bytes, requests: int, root: Path) -> tuple[Taken, Taken]:
    """Ours and the limit, one after the other."""
    data, bare = root / "data", root / "bare"
    with running_server(data, "--engine", NOBODY) as server:
        port = int(server.url.rpartition(":")[2])
        ours = taken(server.process.pid, port, body, data)
        assert json.loads(ours.answer)["request_counts"]["processing"] == requests
        server.kill()
    shutil.rmtree(data)
    with floor(bare) as (process_id, port):
        limit = taken(process_id, port, body, bare)
    shutil.rmtree(bare)
    return ours, limit


def main() -> None:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--megabytes", type=float, default=236.0)
    options = parser.parse_args()
    body = prose.batch_body(options.requests, int(options.megabytes * 1e6), seed=options.seed)
    with measure.scratch(options.on) as root:
        rounds = [one_round(body, options.requests, root) for _ in range(options.rounds)]
    ours, limit = [mine for mine, _ in rounds], [floor for _, floor in rounds]
    wall = measure.ratios([one.wall_s for one in ours], [one.wall_s for one in limit])
    above_body_mb = max(one.memory_mb for one in ours) - len(body) / 1e6
    measure.report(
        "ingest",
        seed=options.seed,
        workload={"requests": options.requests, "body_mb": round(len(body) / 1e6, 1), "rounds": options.rounds},
        ack_s=measure.spread([one.wall_s for one in ours]),
        limit_s=measure.spread([one.wall_s for one in limit]),
        ratio=wall,
        server_cpu_s=measure.spread([one.cpu_s for one in ours]),
        limit_cpu_s=measure.spread([one.cpu_s for one in limit]),
        memory_mb=measure.spread([one.memory_mb for one in ours], 1),
        stored_mb=measure.spread([one.stored_mb for one in ours], 1),
        goals={
            "ack_over_limit": measure.goal(wall["median"], at_most=ACK_RATIO_MAX),
            "memory_above_body_mb": measure.goal(above_body_mb, at_most=MEMORY_ABOVE_BODY_MB_MAX),
        },
    )


if __name__ == "__main__":
    main()
