"""A real server that dies, or whose disk fails, exactly where a test says: `overnight serve` with test doors.

server = ServerProcess(data, module="overnight.testing.crashpoint", environment=settings(crash_at="seal.committed:2"))

As a module it takes `serve` and the flags of `overnight serve`; where it fails comes from the environment:

    OVERNIGHT_CRASH_AT     MARK:N, of `ports.marks.MARKS` or DISK_MARKS: SIGKILL when it is reached the N-th time
    OVERNIGHT_MARKS_LOG    a file; "MARK SECONDS" (monotonic clock) is appended whenever a mark is reached
    OVERNIGHT_FULL_FLAG    a path; while it exists, objects and logs cannot be written, as on a full disk
    OVERNIGHT_LIMITS       "NAME=NUMBER ...": other values for `overnight.limits`, so that nobody waits 30 seconds
"""

import argparse
import asyncio
import errno
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import uvloop

from overnight import limits
from overnight.errors import DiskFull, StoreError, UsageError
from overnight.ports.files import OsFiles
from overnight.ports.world import World

DISK_MARKS: Final = (
    "disk.piece",  # A piece of a new object is in its .part file; the object has no name yet.
    "disk.created",
    "disk.torn",  # Half of an append is in the file.
    "disk.appended",
    "disk.removed",
)


def settings(
    *,
    crash_at: str | None = None,
    marks_log: Path | None = None,
    full_flag: Path | None = None,
    changed_limits: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """The environment that asks this module for these failures."""
    given = {
        "OVERNIGHT_CRASH_AT": crash_at or "",
        "OVERNIGHT_MARKS_LOG": "" if marks_log is None else str(marks_log),
        "OVERNIGHT_FULL_FLAG": "" if full_flag is None else str(full_flag),
        "OVERNIGHT_LIMITS": " ".join(f"{name}={value}" for name, value in (changed_limits or {}).items()),
    }
    return {name: value for name, value in given.items() if value}


class CrashingMarks:
    """Counts marks and kills this process at one of them. Used from several threads."""

    def __init__(self, *, crash_at: str, log: str) -> None:
        mark, _, count = crash_at.partition(":")
        self._crash_at = (mark, int(count or 1))
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log else None
        self._reached = Counter[str]()
        self._lock = threading.Lock()

    def reach(self, mark: str) -> None:
        with self._lock:
            self._reached[mark] += 1
            if self._log is not None:
                os.write(self._log, f"{mark} {time.monotonic():.6f}\n".encode())
            if (mark, self._reached[mark]) == self._crash_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def is_next(self, mark: str) -> bool:
        """Whether the next reach of `mark` is the last."""
        with self._lock:
            return (mark, self._reached[mark] + 1) == self._crash_at


class CrashingFiles(OsFiles):
    """The operating system's files, with a mark after every change and a disk that can be full."""

    def __init__(self, marks: CrashingMarks, *, full_flag: str) -> None:
        self._marks = marks
        self._full_flag = Path(full_flag) if full_flag else None

    def write_new_durably(self, path: Path, pieces: Iterable[bytes]) -> None:
        super().write_new_durably(path, self._marked(pieces))
        self._marks.reach("disk.created")

    def append_durably(self, path: Path, data: bytes) -> None:
        if self._is_full():
            raise DiskFull(os.strerror(errno.ENOSPC))
        if self._marks.is_next("disk.torn"):
            super().append_durably(path, data[: len(data) // 2])
        self._marks.reach("disk.torn")
        super().append_durably(path, data)
        self._marks.reach("disk.appended")

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._marks.reach("disk.removed")

    def _marked(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield piece
            self._marks.reach("disk.piece")

    def _is_full(self) -> bool:
        return self._full_flag is not None and self._full_flag.exists()


def change_limits(text: str) -> None:
    """Set limits, each to a number of the type it has. Before other modules of ours are imported: some copy them."""
    for item in text.split():
        name, _, value = item.partition("=")
        setattr(limits, name, type(getattr(limits, name))(float(value)))


def main() -> None:
    """Serve until a signal, or until the mark."""
    change_limits(os.environ.get("OVERNIGHT_LIMITS", ""))
    from overnight.server.config import load  # noqa: PLC0415  After the limits were changed.
    from overnight.server.serve import serve  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    found = load(None, os.environ, _flags()).settings
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(found, _world(), on_ready=lambda url: _say(f"overnight is ready on {url}")))


def _flags() -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m overnight.testing.crashpoint", description=__doc__)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--listen")
    parser.add_argument("--data")
    parser.add_argument("--engine", dest="engines", action="append")
    flags = vars(parser.parse_args())
    del flags["command"]
    given = {name: value for name, value in flags.items() if value is not None}
    if "engines" in given:
        given["engines"] = [{"spec": spec} for spec in given["engines"]]
    return given


def _world() -> World:
    crashing = CrashingMarks(
        crash_at=os.environ.get("OVERNIGHT_CRASH_AT", ""), log=os.environ.get("OVERNIGHT_MARKS_LOG", "")
    )
    return World(marks=crashing, files=CrashingFiles(crashing, full_flag=os.environ.get("OVERNIGHT_FULL_FLAG", "")))


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


if __name__ == "__main__":
    try:
        main()
    except (UsageError, StoreError) as error:
        sys.exit(f"overnight: {error}")
