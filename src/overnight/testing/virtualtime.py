"""Time that jumps: unmodified asyncio code, a simulated day in seconds, a hang that raises instead of hanging.

    clock = VirtualClock(epoch_ms=0)
    run(main(), clock)

Only what waits by the event loop is simulated. Threads have no place here: use `ports.offload.InlineOffload`.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits and no timer is set: in production this is a hang."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs unmodified asyncio code; when every task waits, time jumps to the next timer."""

    def __init__(self, *, now_s: float = 0.0) -> None:
        self.now_s = now_s
        super().__init__(selector=_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock
        if not ready and timeout is not None:
            self._loop.now_s += max(timeout, 0.0)
        return ready


class VirtualClock:
    """The wall clock of one machine. It runs with the loop of `run`, and `jump` sets it."""

    def __init__(self, *, epoch_ms: int = 1_780_000_000_000) -> None:
        """`epoch_ms` is the wall time at loop time 0."""
        self.now_s = 0.0  # Loop time at which the next `run` begins.
        self._epoch_ms = epoch_ms
        self._loop: VirtualTimeLoop | None = None

    def now_ms(self) -> int:
        now_s = self.now_s if self._loop is None else self._loop.now_s
        return self._epoch_ms + round(now_s * 1000)

    def jump(self, by_ms: int) -> None:
        """Set the clock: somebody corrected it, or the machine slept. Waiting tasks do not notice."""
        self._epoch_ms += by_ms

    def enter(self, loop: VirtualTimeLoop) -> None:
        """Follow this loop's time until `leave`."""
        self._loop = loop

    def leave(self) -> None:
        """Stand still where the loop has stopped."""
        if self._loop is not None:
            self.now_s, self._loop = self._loop.now_s, None


class SeededEntropy:
    """Dice that a seed replays."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  A replay, not a secret.

    def bytes(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def uniform(self) -> float:
        return self._random.random()

    def below(self, limit: int) -> int:
        """A whole number from 0 up to but not including `limit`."""
        return self._random.randrange(limit)


def run(main: Coroutine[Any, Any, T], clock: VirtualClock) -> T:
    """The value of `main` under virtual time, which goes on where the last run with this clock stopped."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(now_s=clock.now_s)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualTimeLoop), "the factory made it"
        clock.enter(loop)
        try:
            return runner.run(main)
        finally:
            clock.leave()
