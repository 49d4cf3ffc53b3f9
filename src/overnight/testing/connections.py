"""When a transport keeps, replaces, and ends its connections."""

import asyncio

from overnight.engines.transport import BadReply, ConnectFailed, ConnectionLost, TimedOut, Transport
from overnight.testing.exchanges import (
    CHUNKED,
    IMPATIENCE_S,
    LAST,
    OK,
    Cases,
    answered_anywhere,
    asked_again,
    body_of,
    case,
    post,
    said,
    settled,
    turns,
    warm,
)
from overnight.testing.scripted import Peer, ScriptedServer

MINE = LAST.replace(b"\r\n\r\nok", b"\r\n\r\nmy")


class ConnectionCases(Cases):
    """Two exchanges and more."""

    # --- Connections --------------------------------------------------------------------------------------------

    @case
    async def test_a_connection_serves_again(self, server: ScriptedServer, transport: Transport) -> None:
        peer = await warm(server, transport)
        assert body_of(await asked_again(peer, transport)) == b"ok"
        assert server.connections == 1

    @case
    async def test_a_connection_that_is_to_close_serves_once(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for last in (LAST, LAST.replace(b"close", b"Close"), OK.replace(b"1.1", b"1.0")):
            assert body_of(await said(server, transport, last)) == b"ok"
        await warm(server, transport)
        assert server.connections == 4

    @case
    async def test_a_dead_connection_is_replaced_silently(self, server: ScriptedServer, transport: Transport) -> None:
        for die in (Peer.end, Peer.reset):
            peer = await warm(server, transport)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport, b"the body")))
                first = await peer.request()
                die(peer)
                second = await server.accept()
                again = await second.request()
                assert (again.split(b"\r\n")[0], again[-8:]) == (first.split(b"\r\n")[0], b"the body")
                second.say(LAST)
            assert body_of(asking.result()) == b"ok"

    @case
    async def test_a_dead_connection_is_replaced_by_a_new_one_since_others_may_be_dead_too(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(settled(post(transport)))
            peers = [await server.accept(), await server.accept()]
            for peer in peers:
                await peer.request()
                peer.say(OK)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport)))
            waiting = {group.create_task(peer.request()): peer for peer in peers}
            done, unused = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in unused:
                task.cancel()
            waiting[done.pop()].reset()
            third = await server.accept()
            await third.request()
            third.say(OK)
        assert body_of(asking.result()) == b"ok"

    @case
    async def test_a_dead_connection_is_replaced_once(self, server: ScriptedServer, transport: Transport) -> None:
        peer = await warm(server, transport)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport)))
            await peer.request()
            peer.end()
            second = await server.accept()
            await second.request()
            second.end()
        assert isinstance(asking.result(), ConnectionLost)
        assert server.connections == 2

    @case
    async def test_what_was_sent_to_a_server_that_is_gone_since_is_lost(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        """It may have died of it: were it only a failed connection, nobody would ever hold that against a request."""
        peer = await warm(server, transport)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport)))
            await peer.request()
            server.stop_listening()
            peer.reset()
        assert isinstance(asking.result(), ConnectionLost)
        assert server.connections == 1

    @case
    async def test_a_new_connection_that_dies_is_not_replaced(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for die in (Peer.end, Peer.reset):
            assert isinstance(await said(server, transport, then=die), ConnectionLost)
        assert server.connections == 2

    @case
    async def test_after_the_first_byte_of_an_answer_nothing_is_sent_again(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for number, begun in enumerate((b"H", b"HTTP/1.1 200 OK\r\nx: y\r\n", OK[:-1]), start=1):
            peer = await warm(server, transport)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport)))
                await peer.request()
                peer.say(begun)
                peer.end()
            assert isinstance(asking.result(), ConnectionLost), begun
            assert server.connections == number

    @case
    async def test_an_answer_that_is_cut_is_lost(self, server: ScriptedServer, transport: Transport) -> None:
        for cut in (b"HTTP/1.1 200 OK\r\nx:", OK[:-1], CHUNKED, CHUNKED + b"5\r\nhel", CHUNKED + b"2\r\nok\r\n"):
            assert isinstance(await said(server, transport, cut, then=Peer.end), ConnectionLost), cut

    @case
    async def test_bytes_that_nobody_asked_for_are_not_taken_for_the_next_answer(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for unasked in (OK, b"H", b"nonsense"):
            peer = await warm(server, transport)
            peer.say(unasked)
            await turns()
            assert body_of(await answered_anywhere(server, transport, MINE)) == b"my"
            peer.end()

    @case
    async def test_bytes_after_an_answer_are_not_taken_for_the_next(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for surplus in (OK, b"HTTP/1.1 2", b"nonsense"):
            first = await said(server, transport, OK + surplus)
            assert isinstance(first, BadReply) or body_of(first) == b"ok"  # Not HTTP as a whole, if one is strict.
            assert body_of(await answered_anywhere(server, transport, MINE)) == b"my"

    @case
    async def test_no_connection_is_told_apart(self, server: ScriptedServer, transport: Transport) -> None:
        async with ScriptedServer() as gone:
            nobody = self.transport(gone.url, {})
        assert isinstance(await settled(post(nobody)), ConnectFailed)
        await nobody.close()
        assert server.connections == 0

    # --- Time, cancelling, closing ------------------------------------------------------------------------------

    @case
    async def test_an_answer_that_does_not_come_in_time_ends_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for begun in (b"", b"HTTP/1.1 200", OK[:-1], CHUNKED + b"1\r\nx\r\n"):
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport, timeout_s=IMPATIENCE_S)))
                peer = await server.accept()
                await peer.request()
                peer.say(begun)
            assert isinstance(asking.result(), TimedOut), begun
            assert await peer.is_closed()

    @case
    async def test_cancelling_closes_its_connection_and_no_other(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        async with asyncio.TaskGroup() as group:
            cancelled = group.create_task(settled(post(transport)))
            first = await server.accept()
            await first.request()
            other = group.create_task(settled(post(transport)))
            second = await server.accept()
            await second.request()
            cancelled.cancel()
            assert await first.is_closed()
            second.say(OK)
        assert cancelled.cancelled()
        assert body_of(other.result()) == b"ok"
        assert body_of(await asked_again(second, transport)) == b"ok"

    @case
    async def test_closing_ends_exchanges_and_idle_connections(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        idle = await warm(server, transport)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(settled(post(transport))) for _ in range(2)]
            await idle.request()
            busy = await server.accept()
            await busy.request()
            idle.say(OK)
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            await transport.close()
        assert sorted(type(task.result()).__name__ for task in asking) == ["ConnectionLost", "Reply"]
        assert await idle.is_closed()
        assert await busy.is_closed()
        assert isinstance(await settled(post(transport)), ConnectFailed)
