"""What a transport makes of answers that come in pieces."""

import asyncio
import gzip
from collections.abc import AsyncIterator

from overnight import limits
from overnight.engines.transport import ConnectFailed, ConnectionLost, Reply, TimedOut, Transport, TransportError
from overnight.testing.exchanges import (
    CHUNKED,
    IMPATIENCE_S,
    OK,
    PATIENCE_S,
    Cases,
    asked_again,
    body_of,
    case,
    encoded,
    post,
    settled,
    warm,
)
from overnight.testing.scripted import Peer, ScriptedServer

_BACKLOG_BYTES = 32 * limits.MIB  # More than sockets hold: Linux stops at about 10 MiB for both ends.


def _stream(transport: Transport, *, timeout_s: float = PATIENCE_S) -> AsyncIterator[Reply | bytes]:
    return transport.stream("/v1/messages", b"{}", headers={}, timeout_s=timeout_s)


async def _next(parts: AsyncIterator[Reply | bytes]) -> Reply | bytes | TransportError | None:
    """The next part, the error instead of it, or None at the end."""
    try:
        return await anext(parts, None)
    except TransportError as error:
        return error


async def _begun(server: ScriptedServer, parts: AsyncIterator[Reply | bytes], head: bytes = CHUNKED) -> Peer:
    """The server's end of a stream whose head has arrived."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(_next(parts))
        peer = await server.accept()
        await peer.request()
        peer.say(head)
    reply = asking.result()
    assert isinstance(reply, Reply), reply
    assert (reply.status, reply.body) == (200, b"")
    return peer


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class StreamCases(Cases):
    """A reader may be faster than the server, slower, or gone."""

    @case
    async def test_a_stream_brings_its_head_and_then_pieces_as_they_come(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        parts = _stream(transport)
        peer = await _begun(server, parts)
        for piece in (b"data: 1\n\n", b"data: 2\n\n"):
            peer.say(_chunk(piece))
            assert await _next(parts) == piece
        peer.say(b"0\r\n\r\n")
        assert await _next(parts) is None
        assert body_of(await asked_again(peer, transport)) == b"ok"

    @case
    async def test_a_stream_of_another_status_is_one_whole_reply(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        parts = _stream(transport)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_next(parts))
            peer = await server.accept()
            await peer.request()
            peer.say(CHUNKED.replace(b"200", b"529") + _chunk(b"too ") + _chunk(b"busy") + b"0\r\n\r\n")
        reply = asking.result()
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (529, b"too busy")
        assert await _next(parts) is None
        assert body_of(await asked_again(peer, transport)) == b"ok"

    @case
    async def test_closing_the_iterator_closes_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for pieces_read in (0, 1):
            parts = _stream(transport)
            peer = await _begun(server, parts)
            peer.say(_chunk(b"piece"))
            if pieces_read:
                assert await _next(parts) == b"piece"
            await parts.aclose()  # type: ignore[attr-defined]
            assert await peer.is_closed()

    @case
    async def test_a_stream_that_is_cut_brings_what_there_was_and_then_the_loss(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        parts = _stream(transport)
        peer = await _begun(server, parts)
        peer.say(_chunk(b"piece"))
        peer.end()
        assert await _next(parts) == b"piece"
        assert isinstance(await _next(parts), ConnectionLost)

    @case
    async def test_a_stream_without_length_ends_with_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        parts = _stream(transport)
        peer = await _begun(server, parts, b"HTTP/1.1 200 OK\r\n\r\n")
        peer.say(b"piece")
        assert await _next(parts) == b"piece"
        peer.end()
        assert await _next(parts) is None

    @case
    async def test_a_stream_that_falls_silent_times_out(self, server: ScriptedServer, transport: Transport) -> None:
        parts = _stream(transport, timeout_s=IMPATIENCE_S)
        peer = await _begun(server, parts)
        peer.say(_chunk(b"piece"))
        assert await _next(parts) == b"piece"
        assert isinstance(await _next(parts), TimedOut)
        assert await peer.is_closed()

    @case
    async def test_a_slow_reader_does_not_time_out(self, server: ScriptedServer, transport: Transport) -> None:
        parts = _stream(transport, timeout_s=IMPATIENCE_S)
        peer = await _begun(server, parts)
        for piece in (b"first", b"second"):
            assert isinstance(await settled(post(transport, timeout_s=3 * IMPATIENCE_S)), TimedOut)
            peer.say(_chunk(piece))
            assert await _next(parts) == piece
        await parts.aclose()  # type: ignore[attr-defined]

    @case
    async def test_a_slow_reader_holds_the_server_back(self, server: ScriptedServer, transport: Transport) -> None:
        parts = _stream(transport)
        peer = await _begun(server, parts)
        for _ in range(_BACKLOG_BYTES // limits.MIB):
            peer.say(_chunk(bytes(limits.MIB)))
        other = await warm(server, transport)
        for _ in range(300):  # Turns of the loop in which all of it could have been read.
            assert body_of(await asked_again(other, transport)) == b"ok"
        assert peer.unsent_bytes() > _BACKLOG_BYTES // 4
        peer.say(b"0\r\n\r\n")
        size = 0
        while isinstance(piece := await _next(parts), bytes):
            size += len(piece)
        assert (piece, size) == (None, _BACKLOG_BYTES)

    @case
    async def test_a_gzip_stream_is_decoded(self, server: ScriptedServer, transport: Transport) -> None:
        head, _, packed = encoded(gzip.compress(b"piece")).partition(b"\r\n\r\n")
        parts = _stream(transport)
        peer = await _begun(server, parts, head + b"\r\n\r\n")
        peer.say(packed)
        assert await _next(parts) == b"piece"
        assert await _next(parts) is None

    @case
    async def test_a_stream_replaces_a_dead_connection_too(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        peer = await warm(server, transport)
        parts = _stream(transport)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(_next(parts))
            await peer.request()
            peer.end()
            second = await server.accept()
            await second.request()
            second.say(OK)
        assert isinstance(asking.result(), Reply)
        assert await _next(parts) == b"ok"
        assert await _next(parts) is None

    @case
    async def test_a_stream_without_a_server_fails_at_once(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        async with ScriptedServer() as gone:
            nobody = self.transport(gone.url, {})
        assert isinstance(await _next(_stream(nobody)), ConnectFailed)
        await nobody.close()
        assert server.connections == 0
