"""One kept-alive HTTP/1.1 connection of `plain.PlainTransport`: one exchange at a time, no task, no stream.

httptools (llhttp) parses; this file holds the rules that a parser leaves to its user (RFC 9112; docs/adr/0003):
answers of status 1xx are skipped, a body without length ends with the connection, and bytes that nobody asked
for end the connection, because the next exchange would take them for its own answer.
"""

import asyncio
import math
from collections import deque
from typing import Protocol, cast

import httptools

from overnight import limits
from overnight.engines.coding import check_transfer, gunzipped, is_gzip
from overnight.engines.transport import BadReply, ConnectionLost, Reply, TimedOut, TransportError

# Bytes that may arrive without adding to a body: head, 1xx answers, chunk headers, trailers.
# nginx takes heads of 32 KiB.
_OVERHEAD_BYTES_MAX = 64 * 1024
_HELD_BYTES_MAX = 64 * 1024  # Of a stream that nobody reads; one read of the socket (256 KiB) may come on top.


class Stale(ConnectionLost):
    """A connection that had served before ended before the first byte of this answer: it was dead already."""


class Owner(Protocol):
    """What a connection tells the pool it belongs to."""

    def on_made(self, connection: "Connection") -> None: ...
    def on_idle(self, connection: "Connection") -> None: ...
    def on_lost(self, connection: "Connection") -> None: ...
    def wake_at(self, deadline_s: float) -> None:
        """Call `expire` on every connection whose `deadline_s` has passed, at `deadline_s` (loop time)."""
        ...


class Pieces:
    """A body on its way to a reader that may be slower than the network: holds little, then stops the socket."""

    __slots__ = ("_connection", "_error", "_held", "_held_bytes", "_waiter")

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._error: TransportError | None = None
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, connection: "Connection") -> None:
        """The head has arrived; `connection` brings the body and belongs to this reader until `end`."""
        self._connection = connection

    def put(self, piece: bytes) -> None:
        """One more piece of the body."""
        assert self._connection is not None
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > _HELD_BYTES_MAX:
            self._connection.pause()
        self._wake()

    def end(self, error: TransportError | None) -> None:
        """No more pieces come: the body is complete, or `error` ended it."""
        self._connection, self._error = None, error
        self._wake()

    async def next(self, timeout_s: float) -> bytes:
        """All that has arrived since the last call, at least one byte; empty at the end of the body.

        Raises the TransportError that ended the body early, after everything before it was read.
        """
        loop = asyncio.get_running_loop()
        while not self._held and self._connection is not None:
            connection, self._waiter = self._connection, loop.create_future()
            connection.wake_at(loop.time() + timeout_s)
            await self._waiter
            if self._connection is not None:
                connection.deadline_s = math.inf  # The reader is at work: the server is not to blame.
        if not self._held and self._error is not None:
            raise self._error
        piece = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if self._connection is not None:
            self._connection.resume()
        return piece

    def close(self) -> None:
        """The reader has gone: an unfinished answer takes its connection along."""
        if self._connection is not None:
            self._connection.fail(ConnectionLost("the reader has gone"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """One request on its way. `reply` ends once: with the answer, or with a TransportError.

    With `pieces`, an answer of status 200 ends `reply` at its head, and its body goes to `pieces`.
    """

    __slots__ = (
        "body_bytes",
        "ends_with_connection",
        "has_begun",
        "headers",
        "is_complete",
        "parts",
        "pieces",
        "reply",
        "status",
    )

    def __init__(self, reply: asyncio.Future[Reply], pieces: Pieces | None) -> None:
        self.reply = reply
        self.pieces = pieces
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.body_bytes = 0
        self.has_begun = False  # A byte of the answer has arrived.
        self.ends_with_connection = False
        self.is_complete = False


class Connection(asyncio.Protocol):
    """See the module. Idle until `begin`; tells its owner when it is idle again, and when it is gone."""

    __slots__ = (
        "_exchange",
        "_has_surplus",
        "_is_paused",
        "_may_stay",
        "_overhead_bytes",
        "_owner",
        "_parser",
        "_transport",
        "deadline_s",
        "has_served",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._exchange: Exchange | None = None
        self._has_surplus = False  # Bytes came after the end of an answer.
        self._is_paused = False
        self._may_stay = False  # The last answer allows another exchange on this connection.
        self._overhead_bytes = 0
        self.deadline_s = math.inf  # Loop time; busy: the answer's, idle: when it has been idle for too long.
        self.has_served = False

    # --- What the pool does -------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, request: bytes, body: bytes, deadline_s: float) -> None:
        """Send `request` and then `body`; `exchange.reply` will end, at `deadline_s` (loop time) at the latest."""
        assert self._exchange is None, "one exchange at a time"
        self._exchange = exchange
        self._overhead_bytes = 0
        self.wake_at(deadline_s)
        self._transport.write(request)
        if body:
            self._transport.write(body)

    def fail(self, error: TransportError) -> None:
        """End the exchange, if there is one, in `error`; close the connection without waiting for anything."""
        self._transport.abort()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if exchange.pieces is not None and exchange.reply.done():
            exchange.pieces.end(error)
        elif not exchange.reply.done():
            exchange.reply.set_exception(error)

    def abandon(self, exchange: Exchange) -> None:
        """Nobody waits for `exchange` any more: close the connection, unless it already serves another."""
        if self._exchange is exchange:
            self.fail(ConnectionLost("the request was cancelled"))

    def expire(self) -> None:
        """`deadline_s` has passed."""
        self.fail(TimedOut("no complete answer in time"))

    def wake_at(self, deadline_s: float) -> None:
        """Set the deadline of what this connection does now."""
        self.deadline_s = deadline_s
        self._owner.wake_at(deadline_s)

    def pause(self) -> None:
        """Read no more from the socket: the server is held back by TCP."""
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    @property
    def is_closing(self) -> bool:
        """Whether it can serve no further exchange."""
        return self._transport.is_closing()

    # --- What the event loop does -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so.
        self._parser = httptools.HttpResponseParser(self)
        self._owner.on_made(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self._transport.abort()  # Nobody asked. What follows could be taken for the next answer.
            return
        exchange.has_begun = True
        self._overhead_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not exchange.is_complete:
                self.fail(_bad_reply(exchange, error))
                return
            self._has_surplus = True
        if exchange.is_complete:
            self._finish(exchange)
        elif self._overhead_bytes > _OVERHEAD_BYTES_MAX:
            self.fail(BadReply(f"more than {_OVERHEAD_BYTES_MAX} bytes of headers"))

    def eof_received(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.ends_with_connection:
            self._may_stay = False
            self._finish(exchange)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.on_lost(self)
        if self._exchange is not None:
            is_stale = self.has_served and not self._exchange.has_begun
            how = f"the connection broke: {error}" if error else "the server closed the connection"
            when = "in" if self._exchange.has_begun else "before"
            self.fail((Stale if is_stale else ConnectionLost)(f"{how} {when} its answer"))
        del self._parser  # It holds this object: without the cycle both go at once, not at the next collection.

    # --- What the parser finds ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._exchange is not None and self._exchange.is_complete:
            self._has_surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        if (
            exchange is not None and not exchange.status
        ):  # Afterwards they are trailers, which may not change anything.
            exchange.headers[name.lower().decode("latin-1")] = value.decode("latin-1").rstrip(" \t")

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.is_complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            exchange.headers.clear()
            return
        exchange.status = status
        _check_framing(exchange)
        if exchange.pieces is not None and status == 200 and not exchange.reply.done():
            exchange.pieces.begin(self)
            exchange.reply.set_result(Reply(status=status, headers=exchange.headers, body=b""))
            self.deadline_s = math.inf

    def on_body(self, piece: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.is_complete:
            return
        self._overhead_bytes = 0
        if exchange.pieces is not None and exchange.status == 200:
            exchange.pieces.put(piece)
            return
        exchange.body_bytes += len(piece)
        if exchange.body_bytes > limits.ENGINE_REPLY_BYTES_MAX:
            raise BadReply(_TOO_LARGE)
        exchange.parts.append(piece)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.status and not exchange.is_complete:
            exchange.is_complete = True
            self._may_stay = self._parser.should_keep_alive()

    def _finish(self, exchange: Exchange) -> None:
        """The answer is complete: free the connection first, so that whoever waits for the answer may use it."""
        self._exchange = None
        # A request that is still being sent would run into the next one.
        is_sent = self._transport.get_write_buffer_size() == 0
        if self._may_stay and is_sent and not self._has_surplus and not self._transport.is_closing():
            self.resume()
            self.has_served = True
            self._owner.on_idle(self)
        else:
            self._transport.abort()
        if exchange.pieces is not None and exchange.status == 200:
            exchange.pieces.end(None)
        elif not exchange.reply.done():
            try:
                exchange.reply.set_result(_reply(exchange))
            except BadReply as error:
                exchange.reply.set_exception(error)


_TOO_LARGE = f"the answer is larger than {limits.ENGINE_REPLY_BYTES_MAX} bytes"


def _reply(exchange: Exchange) -> Reply:
    body = exchange.parts[0] if len(exchange.parts) == 1 else b"".join(exchange.parts)
    if body and is_gzip(exchange.headers):
        body = gunzipped(body, bytes_max=limits.ENGINE_REPLY_BYTES_MAX)
    return Reply(status=exchange.status, headers=exchange.headers, body=body)


def _check_framing(exchange: Exchange) -> None:
    """Decide how the body ends. Raises BadReply if it is too large, or framed in a way nobody here understands."""
    headers, has_no_body = exchange.headers, exchange.status in (204, 304)
    check_transfer(headers)
    length = headers.get("content-length")
    is_whole = exchange.pieces is None or exchange.status != 200
    if length is not None and is_whole and not has_no_body and int(length) > limits.ENGINE_REPLY_BYTES_MAX:
        raise BadReply(_TOO_LARGE)
    exchange.ends_with_connection = not has_no_body and length is None and "transfer-encoding" not in headers


def _bad_reply(exchange: Exchange, error: Exception) -> BadReply:
    """What was wrong: our own word if a callback stopped the parser, else the parser's."""
    if isinstance(error.__context__, BadReply):
        return error.__context__
    if isinstance(error, httptools.HttpParserUpgrade):
        return BadReply("the server wants to speak another protocol (status 101)")
    return BadReply(f"the answer is not HTTP: {error}")
