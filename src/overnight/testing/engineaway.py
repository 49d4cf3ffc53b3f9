"""Claims about an engine behind an address: its server is away, goes away, or talks nonsense."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import pytest

from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Engine
from overnight.errors import ApiError
from overnight.testing.enginecases import SYSTEM, EngineCases, asked, case
from overnight.testing.scripted import Peer, ScriptedServer
from overnight.wire.message import NotAMessage, as_batch

NOBODY = "http://127.0.0.1:1"
_NONSENSE = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"{}",
    b'{"type":"message","role":"assistant","content":"text","usage":{}}',
    b'{"choices":[],"usage":null}',
    b'{"choices":[{"message":{"content":7}}]}',
    b"<html>200</html>",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"choices":' * 20_000,
)


class EngineAwayCases(EngineCases):
    """`url` is where the server is, plain http; `engine_at` makes an engine for a server elsewhere."""

    url = NOBODY

    def engine_at(self, url: str) -> Engine:
        """An engine like the one that is tested, for a server at `url`."""
        raise NotImplementedError

    def engine(self) -> Engine:
        return self.engine_at(self.url)

    @case
    async def test_nobody_at_the_address_is_busy_and_says_so_everywhere(self, engine: Engine) -> None:
        lost = self.engine_at(NOBODY)
        await lost.start()
        outcome = await lost.answer(self.call())
        assert isinstance(outcome, Busy), outcome
        assert outcome.is_away
        assert (list(await lost.models()), await lost.load(), await lost.is_there()) == ([], None, False)
        with pytest.raises(ApiError):
            await anext(lost.stream(self.call(stream=True)))
        with pytest.raises(ApiError):
            await lost.count_tokens(self.call())
        await lost.close()

    @case
    async def test_a_server_that_goes_is_missed_and_its_answers_in_the_making_are_lost(self, engine: Engine) -> None:
        async with Relay(self.url) as relay:
            cut = self.engine_at(relay.url)
            await cut.start()
            assert await cut.is_there()
            await asked(cut, self.call(system=SYSTEM))
            relay.is_asked.clear()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(cut.answer(self.endless()))
                await relay.is_asked.wait()
                await relay.cut()
            lost = task.result()
            assert isinstance(lost, Broken), lost
            assert lost.is_lost
            assert not await cut.is_there()
            away = await cut.answer(self.call())
            assert isinstance(away, Busy), away
            assert away.is_away
            await cut.close()

    @case
    async def test_nonsense_is_never_an_answer(self, engine: Engine) -> None:
        """It is broken here, or where its record would be written."""
        for status in (200, 201, 299, 500):
            for body in _NONSENSE:
                outcome = await self._said(_reply(status, body))
                if isinstance(outcome, Answered):
                    with pytest.raises(NotAMessage):
                        as_batch(outcome.message)
                else:
                    assert isinstance(outcome, Broken), (status, body[:50], outcome)

    @case
    async def test_a_status_counts_whatever_the_body_is(self, engine: Engine) -> None:
        for status, kind in ((400, Refused), (413, Refused), (429, Busy), (503, Busy), (401, Busy)):
            for body in _NONSENSE:
                outcome = await self._said(_reply(status, body))
                assert isinstance(outcome, kind), (status, body[:50], outcome)

    @case
    async def test_what_is_no_http_is_broken(self, engine: Engine) -> None:
        for said in (b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"):
            outcome = await self._said(said)
            assert isinstance(outcome, Broken), (said, outcome)

    async def _said(self, reply: bytes) -> Outcome:
        """What the engine makes of a server that says `reply` to everything and hangs up."""
        async with ScriptedServer() as server, asyncio.TaskGroup() as group:
            answering = group.create_task(_answer_all(server, reply))
            engine = self.engine_at(server.url)
            try:
                return await engine.answer(self.call())
            finally:
                answering.cancel()
                await engine.close()


def _reply(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


async def _answer_all(server: ScriptedServer, reply: bytes) -> None:
    while True:
        peer: Peer = await server.accept()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await peer.request()
            peer.say(reply)
            peer.end()


class Relay:
    """A TCP relay to a server, which can be cut: then nobody is at its address any more."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http", "a relay cannot speak for an https server"
        self._host, self._port, self._path = parts.hostname, parts.port or 80, parts.path
        self._ends: set[asyncio.StreamWriter] = set()
        self.is_asked = asyncio.Event()  # Something was sent to the server.

    @property
    def url(self) -> str:
        """Where the server seems to be."""
        return f"http://127.0.0.1:{self._own_port}{self._path}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self._own_port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def cut(self) -> None:
        """Break all connections, and take no more."""
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await self._server.wait_closed()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
            self._ends |= {writer, there_writer}
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, there_writer, is_request=True))
                group.create_task(self._copy(there_reader, writer, is_request=False))
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                if is_request:
                    self.is_asked.set()
        writer.close()
