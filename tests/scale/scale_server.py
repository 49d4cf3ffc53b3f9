"""A server under hostile clients, and what an outsider can measure of it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from overnight import limits
from overnight.testing import crashpoint
from overnight.testing.processes import ServerProcess
from overnight.testing.wireclient import WireClient

MIB = limits.MIB
PATIENCE_S = 20


@contextmanager
def hosting(
    data: Path, engine_url: str, changed_limits: Mapping[str, float] | None = None
) -> Iterator[ServerProcess]:
    """A server for the length of a block, with some limits changed; killed at its end."""
    server = ServerProcess(
        data,
        "--engine",
        engine_url,
        module="overnight.testing.crashpoint",
        environment=crashpoint.settings(changed_limits=changed_limits),
    )
    try:
        yield server
    finally:
        server.kill()


def memory_bytes(server: ServerProcess) -> int:
    """What the server has in RAM now."""
    command = ["ps", "-o", "rss=", "-p", str(server.process.pid)]
    return int(subprocess.check_output(command)) * 1024


@contextmanager
def peak_memory(server: ServerProcess) -> Iterator[Callable[[], int]]:
    """In the block: a call that tells how much more memory the server has had at most since its beginning.

    Only Linux keeps a peak; elsewhere it is what the server has at the moment of the call.
    """
    if sys.platform != "linux":
        before = memory_bytes(server)
        yield lambda: memory_bytes(server) - before
        return
    process = Path(f"/proc/{server.process.pid}")
    (process / "clear_refs").write_text("5")  # Resets VmHWM (proc_pid_clear_refs(5)).

    def now() -> int:
        (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    before = now()
    yield lambda: now() - before


def open_sockets(server: ServerProcess) -> int:
    """How many connections of clients the server has not let go: open, or closed by the other end only."""
    port = int(server.url.rpartition(":")[2])
    if sys.platform == "linux":
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        held = ("01", "08")  # ESTABLISHED and CLOSE_WAIT, include/net/tcp_states.h.
        return sum(row[1].endswith(f":{port:04X}") and row[3] in held for row in rows)
    states = f"-iTCP:{port}", "-sTCP:ESTABLISHED,CLOSE_WAIT"
    listed = subprocess.run(
        ["lsof", "-a", "-p", str(server.process.pid), *states], capture_output=True, text=True, check=False
    )
    return max(0, len(listed.stdout.splitlines()) - 1)


def asked_until(client: WireClient, is_so: Callable[[], bool], *, what: str) -> None:
    """Ask the server for its health until something is so: each answer means it went around its loop."""
    until_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert client.call("GET", "/health").status == 200
        assert time.monotonic() < until_s, f"never {what}"


def traces(server: ServerProcess, data: Path) -> tuple[list[str], list[Path]]:
    """The batches and the files there are: what a refused request must not change. The server must be well."""
    with closing(WireClient(server.url)) as client:
        health = client.call("GET", "/health")
        assert health.json["status"] == "ok", health
        ids = client.ids()
    found = (path for part in ("objects", "checkpoints") for path in (data / part).rglob("*"))
    return ids, sorted(path for path in found if path.is_file())


def left_alone(server: ServerProcess, data: Path, before: tuple[list[str], list[Path]]) -> None:
    """There is again what there was before. A deleted batch's objects are removed after the answer, so it may take a
    moment."""
    with closing(WireClient(server.url)) as client:
        asked_until(client, lambda: traces(server, data) == before, what=f"left with no more than {before}")
