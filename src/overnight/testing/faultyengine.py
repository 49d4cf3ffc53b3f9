"""An engine that fails as engines do, while it runs: for tests of what a fault costs.

with running_engines(2, delay_s=0.2) as (first, second):
    first.suffer("refused", for_s=3.0)

A fault begins at once, ends by itself, and strikes whatever is asked or answered meanwhile. The engine counts every
call by its text (`calls`) and keeps the times of its answers, so that a test can tell what was asked again and how
fast it went before and after. A prompt with `[[poison]]` in it kills the engine while it works on it.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Final, Literal, get_args

from overnight.testing.upstream import Connection, Upstream

Fault = Literal[
    "refused",  # Nobody listens, and all connections are gone.
    "reset",  # Connections are accepted and reset, those to /health too.
    "cut",  # The connection breaks in the middle of an answer.
    "drip",  # An answer comes in pieces, over DRIP_S.
    "full",  # 429
    "full-after",  # 429 with `retry-after: 2`
    "unavailable",  # 503
    "overloaded",  # 529
    "broken",  # 500
    "garbage",  # 200 with JSON that is not a Message
    "html",  # 200 with a page of a proxy
    "mislabeled",  # 200 with a Message that is said to be text/html
    "truncated",  # 200 with half of the JSON, and a length that fits it
    "silent",  # What is asked is never answered.
    "frozen",  # Nothing is answered until the fault ends: a machine that swaps, or SIGSTOP.
    "slow",  # SLOWNESS times slower
]
FAULTS: Final[Sequence[Fault]] = get_args(Fault)
POISON: Final = "[[poison]]"
DOWN_S: Final = 1.0  # After it died.
DRIP_S: Final = 1.0
SLOWNESS: Final = 10
_PIECES = 10
_STATUS: Final[dict[Fault, tuple[int, bytes]]] = {
    "full": (429, b""),
    "full-after": (429, b"retry-after: 2\r\n"),
    "unavailable": (503, b""),
    "overloaded": (529, b""),
    "broken": (500, b""),
}
_REOPEN_S = 0.05  # Until the port is tried again, if something else has it just now.


class FaultyEngine(Upstream):
    """See the module. Lives in the thread of `running_engines`; what is public here may be called from any."""

    def __init__(self, *, delay_s: float) -> None:
        """Every Message takes `delay_s`."""
        super().__init__(delay_s=delay_s)
        self.fault: Fault | None = None
        self.faults: list[tuple[Fault, float, float]] = []  # Each with its begin and its end (monotonic clock).
        self.answered_s: list[float] = []  # When each good answer was sent.
        self.deaths = 0
        self._usual_delay_s = delay_s
        self._held: list[Callable[[], None]] = []  # What waits while it is frozen.
        self._group: asyncio.TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()

    def suffer(self, fault: Fault, *, for_s: float) -> None:
        """A fault begins, and ends after that time. One at a time."""
        assert self._loop is not None, "it runs"
        asyncio.run_coroutine_threadsafe(self._suffer(fault, for_s), self._loop).result()

    def wait(self, is_so: Callable[[], bool], *, patience_s: float = 60.0) -> None:
        """Return when it is so; looked at whenever there is a call, an answer, or a fault ends. AssertionError if it
        takes longer than `patience_s`."""
        with self._changed:
            assert self._changed.wait_for(is_so, patience_s), (self.calls.total(), len(self.answered_s), self.faults)

    def wait_answered(self, count: int) -> None:
        """Return when so many good answers were sent."""
        self.wait(lambda: len(self.answered_s) >= count)

    def wait_well(self) -> None:
        """Return when no fault is on."""
        self.wait(lambda: self.fault is None)

    def connection(self) -> Connection:
        """What serves one client, and fails it."""
        return FaultyConnection(self)

    def on_call(self, text: str) -> int:
        """Count it, and die of it if it is poison."""
        if POISON in text:
            asyncio.get_running_loop().call_later(self.delay_s / 2, self._die)
        with self._changed:
            self._changed.notify_all()
            return super().on_call(text)

    def on_answered(self) -> None:
        """A good answer is on its way."""
        with self._changed:
            self.answered_s.append(time.monotonic())
            self._changed.notify_all()

    def hold(self, call: Callable[[], None]) -> None:
        """Do this when the fault is over."""
        self._held.append(call)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """`group` runs what takes longer than a call; its loop is the engine's."""
        self._group, self._loop = group, asyncio.get_running_loop()

    async def _suffer(self, fault: Fault, for_s: float) -> None:
        assert self.fault is None, f"it suffers from {self.fault} already"
        self.fault = fault
        if fault == "refused":
            self._close()
        elif fault == "reset":
            self._drop_all()
        elif fault == "slow":
            self.delay_s = self._usual_delay_s * SLOWNESS
        asyncio.get_running_loop().call_later(for_s, self._recover, fault, time.monotonic())

    def _recover(self, fault: Fault, began_s: float) -> None:
        self.delay_s = self._usual_delay_s
        with self._changed:
            self.fault = None
            self.faults.append((fault, began_s, time.monotonic()))
            self._changed.notify_all()
        if fault == "refused":
            self._open()
        held, self._held = self._held, []
        for call in held:
            call()

    def _die(self) -> None:
        if self.fault == "refused" or not self._connections:
            return  # It is dead already.
        self.deaths += 1
        self._close()
        asyncio.get_running_loop().call_later(DOWN_S, self._open)

    def _close(self) -> None:
        assert self._server is not None, "it runs"
        self._server.close()
        self._drop_all()

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            connection.drop()

    def _open(self) -> None:
        assert self._group is not None, "it runs"
        self._group.create_task(self._reopen())

    async def _reopen(self) -> None:
        assert self._server is not None, "it runs"
        while self.fault != "refused" and not self._server.is_serving():  # Death and a fault may overlap.
            try:
                await self.listen()
            except OSError:  # Somebody's connection was given this port.
                await asyncio.sleep(_REOPEN_S)


class FaultyConnection(Connection):
    """One client of an engine that may have a fault."""

    def __init__(self, engine: FaultyEngine) -> None:
        super().__init__(engine)
        self._engine = engine

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._engine.fault == "reset":
            self.drop()

    def on_message_complete(self) -> None:
        if self._engine.fault == "frozen":
            self._engine.hold(super().on_message_complete)
        else:
            super().on_message_complete()

    def _has_passed_limits(self, body_bytes: int) -> bool:
        fault = self._engine.fault
        if fault in _STATUS:
            status, extra = _STATUS[fault]
            self._refuse(status, f"as told: {fault}", extra)
        return fault not in _STATUS and fault != "silent"

    def _send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        fault = self._engine.fault
        if status != 200 or not self._is_answering:
            super()._send(status, body, extra)
        elif fault == "frozen":
            self._engine.hold(lambda: self._send(status, body, extra))
        elif fault == "garbage":
            super()._send(status, b'{"object":"list"}')
        elif fault == "truncated":
            super()._send(status, body[: len(body) // 2])
        elif fault == "html":
            self._write(b"text/html", b"<html><body>It works!</body></html>")
            self._end_call()
        elif fault == "cut":
            self._write(b"application/json", body, sent=len(body) // 2)
            self._transport.close()  # What is written goes out before it.
        else:
            self._engine.on_answered()
            self._send_good(fault, body, extra)

    def _send_good(self, fault: Fault | None, body: bytes, extra: bytes) -> None:
        if fault == "mislabeled":
            self._write(b"text/html; charset=latin-1", body)
            self._end_call()
        elif fault == "drip":
            self._write(b"application/json", body, sent=0)
            self._drip(body)
        else:
            super()._send(200, body, extra)

    def _write(self, kind: bytes, body: bytes, *, sent: int | None = None) -> None:
        self._transport.write(
            b"HTTP/1.1 200 X\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body[:sent])
        )

    def _drip(self, body: bytes) -> None:
        size = len(body) // _PIECES + 1
        self._transport.write(body[:size])
        if body[size:]:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(DRIP_S / _PIECES, self._drip, body[size:])
        else:
            self._end_call()


@contextmanager
def running_engines(count: int, *, delay_s: float) -> Iterator[list[FaultyEngine]]:
    """So many engines on ports of their own, for the length of a block, in one thread."""
    engines = [FaultyEngine(delay_s=delay_s) for _ in range(count)]
    loop, stopping, is_ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            for engine in engines:
                engine.begin(group)
                await stack.enter_async_context(engine)
            is_ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert is_ready.wait(10)
    try:
        yield engines
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
