"""The one door to wall-clock time, and to waiting outside of an event loop, whose own time the server uses."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the runner and the server ask for the time of day."""

    def now_ms(self) -> int:
        """Wall clock, ms since the Unix epoch, UTC. May jump: for persisted instants only."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Pause(Protocol):
    """How a thread waits."""

    def wait_s(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as somebody asks to stop."""
        ...


class SystemPause:
    """Real waiting. `stop` ends it, now and from then on."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def wait_s(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """End the waiting; callable from a signal handler."""
        self._stopped.set()
