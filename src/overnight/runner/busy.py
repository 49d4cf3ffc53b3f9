"""What the requests inside a machine cost that is paid by the hour: each its share of the time it was busy.

Processor sharing: while n requests are inside, each of them pays for 1/n of the time. A clock V with dV = dt / n
tells it in two readings, however many come and go meanwhile: V at the end less V at the beginning (the virtual time
of fair queueing; Demers, Keshav and Shenker, SIGCOMM 1989). Hours in which nobody is inside cost nobody anything.
"""

from decimal import Decimal
from typing import Final

from overnight.core.usage import NANO

_HOUR_NS: Final = 3_600 * 10**9


class BusyClock:
    """The clock of one machine. Whole numbers throughout, and remainders go on to the next: what all requests pay is
    the busy time at the hourly price, to less than one nano USD."""

    def __init__(self, usd_per_hour: float) -> None:
        """Nobody is inside yet."""
        self.inside = 0
        self._nano_per_hour = int(Decimal(str(usd_per_hour)) * NANO)
        self._at_ns = 0
        self._virtual = 0  # Nano USD times the nanoseconds of an hour, for each request inside.
        self._undivided = 0  # What n requests could not share evenly.
        self._unpaid = 0  # What was less than one nano USD.

    def enter(self, *, now_s: float) -> int:
        """A request goes in; what `leave` wants to know. `now_s` is any clock that does not go back."""
        self._advance(now_s)
        self.inside += 1
        return self._virtual

    def leave(self, entered: int, *, now_s: float) -> int:
        """It came out; its share in nano USD."""
        self._advance(now_s)
        self.inside -= 1
        usd_nano, self._unpaid = divmod(self._virtual - entered + self._unpaid, _HOUR_NS)
        return usd_nano

    def _advance(self, now_s: float) -> None:
        now_ns = round(now_s * 10**9)
        if self.inside:
            owed = (now_ns - self._at_ns) * self._nano_per_hour + self._undivided
            each, self._undivided = divmod(owed, self.inside)
            self._virtual += each
        self._at_ns = now_ns
