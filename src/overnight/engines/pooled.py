"""The transport for everything else, through aiohttp: TLS, and proxies as the environment names them."""

import asyncio
import io
import math
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from overnight import __version__, limits
from overnight.engines.address import Address, address
from overnight.engines.coding import Gunzip, check_transfer, gunzipped, is_gzip
from overnight.engines.head import checked_path, header_lines
from overnight.engines.transport import BadReply, ConnectFailed, ConnectionLost, Reply, TimedOut

_IDLE_S = 4.0  # As `plain.IDLE_S`: before servers close theirs.
_ONE_WRITE_BYTES_MAX = limits.MIB  # aiohttp wants larger bodies as files, which it sends in pieces.


class _Exchange:
    """One request, and how far it came: that decides what its failure means."""

    def __init__(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, served: WeakSet[ResponseHandler]
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.is_connected = False
        self.is_reused = False  # The connection had served before.
        self._served = served

    async def begin(self, session: aiohttp.ClientSession, timeout_s: float | None) -> aiohttp.ClientResponse:
        """The answer up to its head; `timeout_s` counts for its body too."""
        self.is_connected = self.is_reused = False
        _EXCHANGE.set(self)
        return await session.request(
            self.method,
            self.url,
            data=io.BytesIO(self.body) if self.body and len(self.body) > _ONE_WRITE_BYTES_MAX else self.body,
            headers=self.headers,
            timeout=_timeout(timeout_s),
            allow_redirects=False,
        )

    def on_connection(self, protocol: ResponseHandler) -> None:
        """There is a connection; what follows is between us and the server."""
        self.is_connected = True
        self.is_reused = protocol in self._served
        self._served.add(protocol)


_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange")  # aiohttp's own way, tracing, costs 8 µs a request.


@lru_cache(maxsize=64)  # Making one costs 5 µs, and callers use few.
def _timeout(timeout_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout_s, connect=min(limits.ENGINE_CONNECT_S, timeout_s or math.inf))


@lru_cache(maxsize=64)
def _url(checked: str) -> URL:
    return URL(checked, encoded=True)


class _CleanRequest(aiohttp.ClientRequest):
    """Tells its exchange that it has a connection.

    Refuses a pooled one on which something arrived unasked: aiohttp would take it for this answer.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is not None:
            _EXCHANGE.get().on_connection(conn.protocol)
        if conn.protocol is not None and conn.protocol.should_close:
            conn.close()
            raise aiohttp.ServerDisconnectedError
        return await super().send(conn)


class PooledTransport:
    """A `Transport` for `http://` and `https://`. Belongs to one event loop from its first exchange to `close`."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str] | None = None) -> None:
        """`headers` go with every request. Raises UsageError for what is no address."""
        self._address = address(base_url)
        self._headers = {"user-agent": f"overnight/{__version__}"} | dict(headers or {})
        header_lines(tuple(self._headers.items()))
        self._pool: aiohttp.ClientSession | None = None  # Made inside the loop that uses it.
        self._fresh: aiohttp.ClientSession | None = None  # Never reuses a connection.
        self._served: WeakSet[ResponseHandler] = WeakSet()
        self._is_closed = False

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return await self._whole(self._exchange("POST", path, headers, body), timeout_s)

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return await self._whole(self._exchange("GET", path, headers, None), timeout_s)

    async def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        exchange = self._exchange("POST", path, {"accept-encoding": "identity", **headers}, body)
        with self._translated(exchange):
            async with asyncio.timeout(timeout_s):
                response = await self._head(exchange, None)
        try:
            if response.status != 200:
                with self._translated(exchange):
                    async with asyncio.timeout(timeout_s):
                        whole = await _whole_reply(response)
                yield whole
                return
            head = Reply(status=response.status, headers=_headers(response), body=b"")
            yield head
            gunzip = Gunzip() if is_gzip(head.headers) else None
            while piece := await self._next_piece(response, timeout_s, exchange):
                for part in (piece,) if gunzip is None else gunzip.feed(piece):
                    yield part
            if gunzip is not None:
                gunzip.finish()
        finally:
            response.release()  # Closes the connection unless the answer is complete.

    async def close(self) -> None:
        self._is_closed = True
        for session in (self._pool, self._fresh):
            if session is not None:
                await session.close()

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> _Exchange:
        """Raises ValueError for what cannot stand in a head."""
        header_lines(tuple(headers.items()))
        return _Exchange(method, _url(f"{self._address.url}{checked_path(path)}"), headers, body, self._served)

    async def _whole(self, exchange: _Exchange, timeout_s: float) -> Reply:
        with self._translated(exchange):
            response = await self._head(exchange, timeout_s)
            try:
                return await _whole_reply(response)
            finally:
                response.release()

    async def _next_piece(self, response: aiohttp.ClientResponse, timeout_s: float, exchange: _Exchange) -> bytes:
        with self._translated(exchange):
            async with asyncio.timeout(timeout_s):
                return await response.content.readany()

    async def _head(self, exchange: _Exchange, timeout_s: float | None) -> aiohttp.ClientResponse:
        """The head of the answer. A dead kept-alive connection is replaced once, by a new one."""
        if self._is_closed:
            raise ConnectFailed("the transport was closed")
        if self._pool is None:
            self._pool = self._session(force_close=False)
        try:
            response = await exchange.begin(self._pool, timeout_s)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if self._is_closed or not exchange.is_reused or _has_begun(error):
                raise
            if self._fresh is None:
                self._fresh = self._session(force_close=True)
            try:
                response = await exchange.begin(self._fresh, timeout_s)
            except aiohttp.ClientConnectorError:
                exchange.is_connected = True
                raise error from None  # It is there no more, and may have died of this request.
        try:
            check_transfer(_headers(response))
            if response.status == 101:
                raise BadReply("the server wants to speak another protocol (status 101)")
        except BadReply:
            response.close()
            raise
        return response

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        keep_s = None if force_close else _IDLE_S
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=force_close, keepalive_timeout=keep_s),
            auto_decompress=False,  # aiohttp takes gzip that ends early for complete.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "gzip"} | self._headers,
            timeout=aiohttp.ClientTimeout(total=None),
            request_class=_CleanRequest,
            proxy=_environment_proxy(self._address),
        )

    @contextmanager
    def _translated(self, exchange: _Exchange) -> Iterator[None]:
        """Turn what aiohttp raises into our errors.

        `from None`: aiohttp's errors hold the request with its headers, and so the key; a log may print causes.
        """
        where = self._address.authority
        try:
            yield
        except TimeoutError:
            if exchange.is_connected:
                raise TimedOut("no complete answer in time") from None
            raise ConnectFailed(f"{where} does not accept the connection in time") from None
        except aiohttp.ClientHttpProxyError as error:
            raise ConnectFailed(f"the proxy answers {error.status} for {where}") from None
        except aiohttp.ClientConnectorError as error:
            raise ConnectFailed(f"cannot connect to {where}: {error}") from None
        except aiohttp.ClientResponseError as error:
            raise BadReply(f"the answer is not HTTP: {error.message[:200]}") from None
        except aiohttp.ClientPayloadError as error:
            is_cut = "not completed" in str(error)
            raise (ConnectionLost if is_cut else BadReply)(f"{where}: {str(error)[:200]}") from None
        except (aiohttp.ClientError, OSError) as error:
            kind = type(error).__name__
            raise (ConnectionLost if exchange.is_connected else ConnectFailed)(f"{where}: {kind}") from None


def _environment_proxy(server: Address) -> str | None:
    """The proxy that `http_proxy`, `https_proxy` and `no_proxy` name for `server`, credentials included.

    Asked once: aiohttp's own `trust_env` asks for every request, in two threads, which triples its CPU; and it takes
    passwords from ~/.netrc, which must not replace our key.
    """
    return None if proxy_bypass(server.authority) else getproxies().get(server.scheme)


async def _whole_reply(response: aiohttp.ClientResponse) -> Reply:
    """The answer with its body. Raises BadReply as soon as it is too large."""
    bytes_max, headers = limits.ENGINE_REPLY_BYTES_MAX, _headers(response)
    pieces, size = list[bytes](), 0
    declared = 0 if response.status in (204, 304) else response.content_length or 0
    while max(size, declared) <= bytes_max and (piece := await response.content.readany()):
        pieces.append(piece)
        size += len(piece)
    if max(size, declared) > bytes_max:
        raise BadReply(f"the answer is larger than {bytes_max} bytes")
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if body and is_gzip(headers):
        body = gunzipped(body, bytes_max=bytes_max)
    return Reply(status=response.status, headers=headers, body=body)


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _has_begun(error: Exception) -> bool:
    """Whether a part of an answer arrived before the connection ended: then aiohttp says which."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
