"""The steps that the cases of the transport suite are made of."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from overnight.engines.transport import Reply, Transport, TransportError
from overnight.testing.scripted import Peer, ScriptedServer

CASE_S = 30.0  # A hang fails; the slowest case takes a second.
PATIENCE_S = 20.0  # What exchanges are given that shall not time out.
IMPATIENCE_S = 0.05  # And those that shall.
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Case = Callable[[Any, ScriptedServer, Transport], Awaitable[None]]


class Cases:
    """Test methods about one thing. `transport` makes what is tested; `run` may be another loop's `run`."""

    BASE_PATH = "/base"

    def transport(self, base_url: str, headers: Mapping[str, str]) -> Transport:
        """A new transport to this address that sends these headers with everything."""
        raise NotImplementedError

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        asyncio.run(main)


def case(body: Case) -> Callable[["Cases"], None]:
    """Make a test method of an async function that wants a server and a transport connected to it."""

    def test(suite: "Cases") -> None:
        async def hold() -> None:
            async with asyncio.timeout(CASE_S), ScriptedServer() as server:
                transport = suite.transport(server.url + suite.BASE_PATH, {"x-standing": "yes"})
                try:
                    await body(suite, server, transport)
                finally:
                    await transport.close()

        suite.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


async def settled(asking: Awaitable[Reply]) -> Reply | TransportError:
    """The reply, or the error as a value, so that it can be waited for beside other things."""
    try:
        return await asking
    except TransportError as error:
        return error


def post(transport: Transport, body: bytes = b"{}", *, timeout_s: float = PATIENCE_S) -> Awaitable[Reply]:
    """One exchange, as the suites ask for it."""
    return transport.post("/v1/messages", body, headers={"x-call": "yes"}, timeout_s=timeout_s)


async def said(
    server: ScriptedServer, transport: Transport, *answer: bytes, then: Callable[[Peer], None] | None = None
) -> Reply | TransportError:
    """What a transport makes of `answer` on a new connection."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(settled(post(transport)))
        peer = await server.accept()
        await peer.request()
        for piece in answer:
            peer.say(piece)
        if then is not None:
            then(peer)
    return asking.result()


async def asked_again(peer: Peer, transport: Transport, answer: bytes = OK) -> Reply | TransportError:
    """What a transport makes of `answer` when it uses the connection of `peer` once more."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(settled(post(transport)))
        await peer.request()
        peer.say(answer)
    return asking.result()


async def answered_anywhere(server: ScriptedServer, transport: Transport, answer: bytes) -> Reply | TransportError:
    """What a transport makes of `answer`, which is given on the connection that it chooses, old or new."""

    async def first_request(peer: Peer) -> None:
        with suppress(EOFError, ConnectionError):  # The transport has closed this one.
            await peer.request()
            peer.say(answer)

    async def newest() -> None:
        await first_request(await server.accept())

    async with asyncio.TaskGroup() as group:
        asking = group.create_task(settled(post(transport)))
        waiting = [group.create_task(first_request(peer)) for peer in server.peers if not peer.has_ended]
        waiting.append(group.create_task(newest()))
        await asyncio.wait([asking])
        for task in waiting:
            task.cancel()
    return asking.result()


async def turns() -> None:
    """Let the loop turn until what was said on this machine has been read."""
    for _ in range(20):
        await asyncio.sleep(0)


async def warm(server: ScriptedServer, transport: Transport) -> Peer:
    """A kept-alive connection that has served once."""
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(settled(post(transport)))
        peer = await server.accept()
        await peer.request()
        peer.say(OK)
    assert body_of(asking.result()) == b"ok"
    return peer


def body_of(reply: Reply | TransportError) -> bytes:
    """The body of what must be an answer."""
    assert isinstance(reply, Reply), reply
    return reply.body


def encoded(body: bytes, coding: bytes = b"gzip") -> bytes:
    """An answer with `body` in a content-encoding."""
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (coding, len(body), body)
