"""A real server that a test can watch, and whose clock a test sets: `overnight serve` with test doors.

with observed_server(tmp_path / "data", "--engine", url) as server, closing(WireClient(server.url)) as client:
    batch = server.wait_ended(client, client.create(requests)["id"])

As a module it takes the flags of `overnight serve`, prints the marks it reaches to stdout, and `--ahead-s` sets its
clock that much ahead: a restart a day later takes a second. Marks of single requests are not printed.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from overnight.ports.clock import SystemClock
from overnight.ports.marks import MARKS
from overnight.ports.world import World
from overnight.server import logs
from overnight.server.config import load
from overnight.server.serve import serve
from overnight.testing.processes import ServerProcess
from overnight.testing.wireclient import WireClient

_PATIENCE_S = 60.0
_PRINTED = frozenset(mark for mark in MARKS if not mark.startswith("request."))
_MARK = re.compile(r"mark (\S+)\n")


class Patience(Exception):
    """A mark did not come in time. The message says which, and what did come."""


class ObservedServer(ServerProcess):
    """A `ServerProcess` that runs this module and counts its marks."""

    def __init__(self, data: Path, *flags: str, ahead_s: int = 0) -> None:
        """`ahead_s` seconds after now, by its clock."""
        super().__init__(data, *flags, "--ahead-s", str(ahead_s), module="overnight.testing.observed")
        self._seen = Counter[str]()
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> int:
        self.process.wait(timeout=_PATIENCE_S)
        self._reader.join()
        return super().wait()

    def seen(self, mark: str) -> int:
        """How often this process has reached `mark`."""
        with self._changed:
            return self._seen[mark]

    def wait_mark(self, mark: str, *, beyond: int) -> None:
        """Return when `mark` was reached more than `beyond` times. Patience after a minute."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._seen[mark] > beyond, _PATIENCE_S):
                raise Patience(f"{mark} was not reached more than {beyond} times: {dict(self._seen)}\n{self.log()}")

    def wait_ended(self, client: WireClient, batch_id: str) -> Any:
        """The MessageBatch once it has ended: looks again whenever a segment was sealed."""
        while True:
            sealed = self.seen("seal.committed")
            batch = client.retrieve(batch_id)
            if batch["processing_status"] == "ended":
                return batch
            self.wait_mark("seal.committed", beyond=sealed)

    def wait_counted(self, client: WireClient, batch_id: str, **counts: int) -> Any:
        """The MessageBatch once these counters are what they should be: looks again at every checkpoint."""
        while True:
            saved = self.seen("checkpoint.durable")
            batch = client.retrieve(batch_id)
            if counts.items() <= batch["request_counts"].items():
                return batch
            self.wait_mark("checkpoint.durable", beyond=saved)

    def rss_bytes(self) -> int:
        """How much memory the process has in RAM now."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.check_output(command)) * 1024  # noqa: S603  Our own process id.

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if (found := _MARK.fullmatch(line)) is not None:
                with self._changed:
                    self._seen[found[1]] += 1
                    self._changed.notify_all()


@contextmanager
def observed_server(data: Path, *flags: str, ahead_s: int = 0) -> Iterator[ObservedServer]:
    """A server for the length of a block; killed at its end if it still runs."""
    server = ObservedServer(data, *flags, ahead_s=ahead_s)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def upstream_process(*flags: str) -> Iterator[str]:
    """The URL of a `testing.upstream` in a process of its own, for the length of a block."""
    command = [sys.executable, "-m", "overnight.testing.upstream", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  Our own module.
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


class _Ahead(SystemClock):
    def __init__(self, *, ahead_s: int) -> None:
        self._ahead_ms = ahead_s * 1000

    def now_ms(self) -> int:
        return super().now_ms() + self._ahead_ms


class _Printed:
    def reach(self, mark: str) -> None:
        if mark in _PRINTED:
            _say(f"mark {mark}")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # In one piece, from whatever thread.


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(prog="python -m overnight.testing.observed", description=__doc__)
    parser.add_argument("command", choices=["serve"])
    for name in ("listen", "data", "public-url", "request-counts"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--engine", dest="engines", action="append")
    parser.add_argument("--ahead-s", type=int, default=0)
    flags = vars(parser.parse_args())
    file, ahead_s, _ = flags.pop("config"), flags.pop("ahead_s"), flags.pop("command")
    given = {name: value for name, value in flags.items() if value is not None}
    if "engines" in given:
        given["engines"] = [{"spec": spec} for spec in given["engines"]]
    world = World(clock=_Ahead(ahead_s=ahead_s), marks=_Printed())
    settings = load(file, os.environ, given).settings
    logs.set_up(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, world, on_ready=lambda url: _say(f"overnight is ready on {url}")))


if __name__ == "__main__":
    main()
