"""Our own transport for engines that speak plain HTTP: a Protocol, httptools and one future per exchange.

Why our own: it costs about a seventh of aiohttp's CPU per exchange (docs/adr/0003; benchmarks/transports.py).
What it does not do, on purpose: TLS, proxies (environment variables are ignored), HTTP/2, redirects, cookies.
`pooled.PooledTransport` does what is wanted of these; both pass the suite in `testing.transports`.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping

from overnight import __version__, limits
from overnight.engines.address import address
from overnight.engines.coding import Gunzip, is_gzip
from overnight.engines.connection import Connection, Exchange, Pieces, Stale
from overnight.engines.head import checked_path, header_lines
from overnight.engines.transport import ConnectFailed, ConnectionLost, Reply
from overnight.errors import UsageError

# Closed by us before the server does: uvicorn (vLLM) and llama.cpp close theirs after 5 s.
IDLE_S = 4.0
_ONE_WRITE_BYTES_MAX = 64 * 1024  # Joining up to here is cheaper than a second write.


class PlainTransport:
    """A `Transport` for `http://` addresses. Belongs to one event loop from its first exchange to `close`.

    The pool is last in, first out: as few connections stay warm as the load needs, the others run out.
    It has no bound of its own, because whoever calls bounds what is in flight.
    """

    def __init__(self, base_url: str, *, headers: Mapping[str, str] | None = None, idle_s: float = IDLE_S) -> None:
        """`headers` go with every request. Raises UsageError for an address that is not plain HTTP."""
        self._address = address(base_url)
        if self._address.scheme != "http":
            raise UsageError(f"{self._address.url}: the plain transport has no TLS.")
        standing = {"user-agent": f"overnight/{__version__}"} | dict(headers or {})
        self._standing = f"host: {self._address.authority}\r\n".encode() + header_lines(tuple(standing.items()))
        self._idle_s = idle_s
        self._connections: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}  # A stack: popitem takes the newest; any can be removed at once.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = math.inf
        self._is_closed = False
        self._is_empty = asyncio.Event()

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        request = self._head("POST", path, headers, "gzip", len(body))
        return await self._exchange(request, body, timeout_s, None)

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return await self._exchange(self._head("GET", path, headers, "gzip", None), b"", timeout_s, None)

    async def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        pieces = Pieces()
        request = self._head("POST", path, headers, "identity", len(body))
        head = await self._exchange(request, body, timeout_s, pieces)
        try:
            yield head
            if head.status != 200:
                return
            gunzip = Gunzip() if is_gzip(head.headers) else None
            while piece := await pieces.next(timeout_s):
                for part in (piece,) if gunzip is None else gunzip.feed(piece):
                    yield part
            if gunzip is not None:
                gunzip.finish()
        finally:
            pieces.close()

    async def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.fail(ConnectionLost("the transport was closed"))
        if self._connections:
            await self._is_empty.wait()

    # --- What the connections tell ------------------------------------------------------------------------------

    def on_made(self, connection: Connection) -> None:
        self._connections[connection] = None
        # If whoever wanted it was cancelled a moment ago, it goes like any idle connection.
        connection.wake_at(asyncio.get_running_loop().time() + self._idle_s)

    def on_idle(self, connection: Connection) -> None:
        self._idle[connection] = None
        connection.wake_at(asyncio.get_running_loop().time() + self._idle_s)

    def on_lost(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._connections.pop(connection, None)
        if self._is_closed and not self._connections:
            self._is_empty.set()

    def wake_at(self, deadline_s: float) -> None:
        """One timer for all: at the earliest deadline that was ever asked for since it last rang.

        Most deadlines are lifted before they pass, so it rings about once in `idle_s`, not once per exchange.
        """
        if deadline_s < self._timer_at_s and not self._is_closed:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at_s = deadline_s
            self._timer = asyncio.get_running_loop().call_at(deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at_s = None, math.inf
        now_s = asyncio.get_running_loop().time()
        earliest_s = math.inf
        for connection in list(self._connections):
            if connection.deadline_s <= now_s:
                connection.expire()
            else:
                earliest_s = min(earliest_s, connection.deadline_s)
        self.wake_at(earliest_s)

    # --- One exchange -------------------------------------------------------------------------------------------

    async def _exchange(self, head: bytes, body: bytes, timeout_s: float, pieces: Pieces | None) -> Reply:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        if len(body) <= _ONE_WRITE_BYTES_MAX:
            head, body = head + body, b""
        connection = self._newest_idle() or await self._connect(deadline_s)
        try:
            return await self._exchange_on(connection, head, body, deadline_s, pieces)
        except Stale as stale:  # The server had closed it between two requests. A new one cannot be stale.
            try:
                connection = await self._connect(deadline_s)
            except ConnectFailed:
                raise stale from None  # It is there no more, and may have died of this request.
            return await self._exchange_on(connection, head, body, deadline_s, pieces)

    async def _exchange_on(
        self, connection: Connection, head: bytes, body: bytes, deadline_s: float, pieces: Pieces | None
    ) -> Reply:
        exchange = Exchange(asyncio.get_running_loop().create_future(), pieces)
        connection.begin(exchange, head, body, deadline_s)
        try:
            return await exchange.reply
        except asyncio.CancelledError:
            connection.abandon(exchange)
            raise

    def _newest_idle(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.is_closing:
                return connection
        return None

    async def _connect(self, deadline_s: float) -> Connection:
        """A new connection. Raises ConnectFailed, after `limits.ENGINE_CONNECT_S` at the latest."""
        loop, host, port = asyncio.get_running_loop(), self._address.host, self._address.port
        try:
            async with asyncio.timeout_at(min(deadline_s, loop.time() + limits.ENGINE_CONNECT_S)):
                _, connection = await loop.create_connection(lambda: Connection(self), host, port)
        except TimeoutError as error:
            raise ConnectFailed(f"{self._address.authority} does not accept the connection in time") from error
        except OSError as error:
            raise ConnectFailed(f"cannot connect to {self._address.authority}: {error}") from error
        if self._is_closed:
            connection.fail(ConnectionLost("the transport was closed"))
            raise ConnectFailed("the transport was closed")
        return connection

    def _head(self, method: str, path: str, headers: Mapping[str, str], coding: str, body_bytes: int | None) -> bytes:
        """Everything before the body. Raises ValueError for what cannot stand in a head."""
        length = "" if body_bytes is None else f"content-length: {body_bytes}\r\n"
        target = self._address.base_path + checked_path(path)
        first = f"{method} {target} HTTP/1.1\r\naccept-encoding: {coding}\r\n{length}".encode()
        return b"%b%b%b\r\n" % (first, self._standing, header_lines(tuple(headers.items())))
