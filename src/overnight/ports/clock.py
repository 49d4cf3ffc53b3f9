"""The one door to wall-clock time. Waiting and measuring use the event loop's time instead."""

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
