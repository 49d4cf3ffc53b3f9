"""An engine that outlives the server under test: `testing.upstream` in a thread, with the time of every call."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from overnight.testing.upstream import Upstream


class TimedUpstream(Upstream):
    """Knows when each prompt was asked, by the prompt's first word."""

    def __init__(self, *, delay_s: float) -> None:
        super().__init__(delay_s=delay_s)
        self.asked_at_s = defaultdict[str, list[float]](list)
        self._asked = threading.Condition()

    def on_call(self, text: str) -> int:
        with self._asked:
            self.asked_at_s[text.partition(" ")[0]].append(time.monotonic())
            self._asked.notify_all()
        return super().on_call(text)

    def wait_asked(self, word: str, *, times: int = 1) -> None:
        """Return when prompts that begin with `word` have been asked that often."""
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.asked_at_s[word]) >= times, timeout=60), word

    def wait_asked_in_total(self, times: int) -> None:
        """Return when there have been that many calls, whatever they asked."""
        with self._asked:
            assert self._asked.wait_for(lambda: self.calls.total() >= times, timeout=60), self.calls


@contextmanager
def running_engine(*, delay_s: float = 0.0) -> Iterator[TimedUpstream]:
    """The engine for the length of a block, in a thread of its own."""
    upstream = TimedUpstream(delay_s=delay_s)
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()
    is_ready = threading.Event()

    async def serve() -> None:
        async with upstream:
            is_ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert is_ready.wait(10)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
