"""What the HTTP engines ask of an HTTP client, and how it fails. `testing.transports` is the suite all must pass.

Why not any client: at 64 requests in flight httpx costs 2,200 µs of CPU a request, aiohttp 69 µs, httptools on
uvloop 10 µs (docs/adr/0003), and one GPU with a small model already answers 800 a second.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

import msgspec


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A complete answer. Header names are lower case; of repeated headers the last one counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TransportError(Exception):
    """The exchange failed below HTTP. The message is for operators and holds no credentials."""


class ConnectFailed(TransportError):
    """No connection: not one byte of the request was sent, so nobody has worked on it."""


class ConnectionLost(TransportError):
    """The connection ended before the answer was complete; the request may have been worked on."""


class TimedOut(TransportError):
    """No complete answer in time; the connection was closed."""


class BadReply(TransportError):
    """The answer is not HTTP, or larger than `limits.ENGINE_REPLY_BYTES_MAX`; the connection was closed."""


class Transport(Protocol):
    """A pool of connections to one server. `base_url` and the standing headers are given at construction."""

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """The complete answer, of any status. `headers` are added to the standing ones.

        Skips 1xx, takes chunked and sized bodies, decodes gzip, follows no redirect. A kept-alive
        connection that turns out dead before the first byte of an answer is replaced once, silently.
        Cancelling closes the connection.
        """
        ...

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        """As `post`, without a body."""
        ...

    def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        """First a `Reply` with an empty body (or, if the status is not 200, the whole one, and nothing more),
        then the body in pieces as they arrive. `timeout_s` bounds the wait for each piece."""
        ...

    async def close(self) -> None:
        """Close all connections; exchanges in progress end in `ConnectionLost`."""
        ...
