"""What a transport sends, and what it makes of every kind of answer."""

import asyncio
import gzip

from overnight import limits
from overnight.engines.transport import BadReply, Reply, Transport
from overnight.testing.exchanges import (
    CHUNKED,
    OK,
    PATIENCE_S,
    Cases,
    asked_again,
    body_of,
    case,
    encoded,
    post,
    said,
    settled,
    warm,
)
from overnight.testing.scripted import Peer, ScriptedServer


class AnswerCases(Cases):
    """One exchange at a time."""

    # --- The request --------------------------------------------------------------------------------------------

    @case
    async def test_path_headers_and_body_go_as_they_are(self, server: ScriptedServer, transport: Transport) -> None:
        body = b"expect: 100-continue\r\n\r\nHTTP/1.1 500 No\r\n\r\n\x00\xff"
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport, body)))
            peer = await server.accept()
            request = await peer.request()
            peer.say(OK)
        head, _, sent = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert first == "POST /base/v1/messages HTTP/1.1"
        assert headers["host"] == server.url.removeprefix("http://")
        assert (headers["x-standing"], headers["x-call"]) == ("yes", "yes")
        assert (headers["content-length"], sent) == (str(len(body)), body)
        assert body_of(asking.result()) == b"ok"

    @case
    async def test_get_has_no_body(self, server: ScriptedServer, transport: Transport) -> None:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(transport.get("/v1/models?limit=1", headers={}, timeout_s=PATIENCE_S)))
            peer = await server.accept()
            request = await peer.request()
            peer.say(OK)
        assert request.startswith(b"GET /base/v1/models?limit=1 HTTP/1.1\r\n")
        assert request.endswith(b"\r\n\r\n")
        assert body_of(asking.result()) == b"ok"

    @case
    async def test_a_body_larger_than_any_buffer_arrives_whole(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        body = b"0123456789abcdef" * (512 * 1024)
        async with asyncio.TaskGroup() as group:
            group.create_task(settled(post(transport, body)))
            peer = await server.accept()
            request = await peer.request()
            peer.say(OK)
        assert request.endswith(b"\r\n\r\n" + body)

    @case
    async def test_an_answer_before_the_request_was_read_counts_and_ends_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport, bytes(32 * limits.MIB))))
            peer = await server.accept()
            await peer.head()
            peer.say(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
        reply = asking.result()
        assert isinstance(reply, Reply), reply
        assert reply.status == 413
        await warm(server, transport)
        assert server.connections == 2

    @case
    async def test_nobody_can_add_a_header(self, server: ScriptedServer, transport: Transport) -> None:
        bad = [{"x": "a\r\ny: b"}, {"x": "a\nb"}, {"x": "a\0"}, {"x\r\ny": "b"}, {"x y": "b"}, {"x": "€"}]
        framing = [{"Content-Length": "0"}, {"transfer-encoding": "chunked"}, {"host": "elsewhere"}]
        for headers in bad + framing:
            try:
                await transport.post("/v1/messages", b"", headers=headers, timeout_s=PATIENCE_S)
            except ValueError:
                continue
            raise AssertionError(f"{headers} was sent")
        for path in ("/a b", "/a\r\nb: c", "nowhere"):
            try:
                await transport.get(path, headers={}, timeout_s=PATIENCE_S)
            except ValueError:
                continue
            raise AssertionError(f"{path!r} was sent")
        assert server.connections == 0

    # --- The answer ---------------------------------------------------------------------------------------------

    @case
    async def test_headers_are_lower_case_and_the_last_of_a_name_counts(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        head = b"HTTP/1.1 418 Teapot\r\nX-One: 1\r\nx-one:  2 \r\nEmpty:\r\nContent-Length: 0\r\n\r\n"
        reply = await said(server, transport, head)
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (418, b"")
        assert (reply.headers["x-one"], reply.headers["empty"]) == ("2", "")

    @case
    async def test_chunks_are_joined_and_trailers_change_nothing(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        chunks = b"5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx-late: 1\r\ncontent-type: x\r\n\r\n"
        reply = await said(server, transport, CHUNKED + chunks)
        assert body_of(reply) == b"hello world"
        assert isinstance(reply, Reply)
        assert "x-late" not in reply.headers
        assert "content-type" not in reply.headers

    @case
    async def test_bytes_may_come_one_by_one(self, server: ScriptedServer, transport: Transport) -> None:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(settled(post(transport)))
            peer = await server.accept()
            await peer.request()
            await peer.say_bytewise(b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        assert body_of(asking.result()) == b"abc"
        assert body_of(await asked_again(peer, transport)) == b"ok"

    @case
    async def test_answers_of_status_1xx_are_skipped(self, server: ScriptedServer, transport: Transport) -> None:
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n"
        reply = await said(server, transport, early + OK)
        assert body_of(reply) == b"ok"
        assert isinstance(reply, Reply)
        assert "x-early" not in reply.headers

    @case
    async def test_a_body_without_length_ends_with_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        reply = await said(server, transport, b"HTTP/1.1 200 OK\r\n\r\nall ", b"of it", then=Peer.end)
        assert body_of(reply) == b"all of it"

    @case
    async def test_204_and_304_have_no_body_and_keep_the_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        peer = await warm(server, transport)
        for head in (b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 No\r\ncontent-length: 5\r\n\r\n"):
            assert body_of(await asked_again(peer, transport, head)) == b""
        assert body_of(await asked_again(peer, transport)) == b"ok"
        assert server.connections == 1

    @case
    async def test_redirects_are_answers(self, server: ScriptedServer, transport: Transport) -> None:
        reply = await said(server, transport, b"HTTP/1.1 307 Go\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n")
        assert isinstance(reply, Reply)
        assert (reply.status, reply.headers["location"]) == (307, "/else")

    @case
    async def test_cookies_are_forgotten(self, server: ScriptedServer, transport: Transport) -> None:
        by_name = self.transport(server.url.replace("127.0.0.1", "localhost"), {})
        answer = OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b; path=/\r\n\r\n")
        assert body_of(await said(server, by_name, answer)) == b"ok"
        async with asyncio.TaskGroup() as group:
            group.create_task(settled(post(by_name)))
            request = await server.peers[0].request()
            server.peers[0].say(OK)
        await by_name.close()
        assert b"cookie" not in request.lower()

    # --- Compressed answers -------------------------------------------------------------------------------------

    @case
    async def test_gzip_is_decoded_members_and_all(self, server: ScriptedServer, transport: Transport) -> None:
        packed = gzip.compress(b"first ") + gzip.compress(b"second")
        assert body_of(await said(server, transport, encoded(packed))) == b"first second"

    @case
    async def test_gzip_that_is_damaged_cut_or_of_another_kind_is_a_bad_reply(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        packed = gzip.compress(b"a text that is long enough to be cut" * 9)
        for answer in (encoded(packed[:-9]), encoded(b"no gzip"), encoded(b"?", b"br"), encoded(packed, b"gzip, br")):
            assert isinstance(await said(server, transport, answer + b"", then=Peer.end), BadReply), answer

    @case
    async def test_a_small_gzip_of_too_large_a_body_is_a_bad_reply(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        bomb = gzip.compress(bytes(limits.ENGINE_REPLY_BYTES_MAX + 1), 1)
        assert isinstance(await said(server, transport, encoded(bomb)), BadReply)

    # --- Answers that are wrong ---------------------------------------------------------------------------------

    @case
    async def test_too_large_an_answer_is_refused_at_its_head(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (limits.ENGINE_REPLY_BYTES_MAX + 1)
        assert isinstance(await said(server, transport, head), BadReply)
        assert await server.peers[0].is_closed()

    @case
    async def test_too_large_an_answer_of_unknown_length_is_refused(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        chunk = b"%x\r\n%b\r\n" % (limits.MIB, bytes(limits.MIB))
        chunks = [chunk] * (limits.ENGINE_REPLY_BYTES_MAX // limits.MIB + 1)
        assert isinstance(await said(server, transport, CHUNKED, *chunks), BadReply)
        assert await server.peers[0].is_closed()

    @case
    async def test_what_is_not_http_is_a_bad_reply(self, server: ScriptedServer, transport: Transport) -> None:
        endless = b"HTTP/1.1 200 OK\r\n" + b"x-long: %b\r\n" % (b"y" * 8000) * 400
        upgrade = b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
        chunk = CHUNKED + b"zz\r\n"
        transfer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n"
        for number, answer in enumerate((b"SSH-2.0-OpenSSH_9.2\r\n", endless, upgrade, chunk, transfer)):
            assert isinstance(await said(server, transport, answer), BadReply), answer[:50]
            assert await server.peers[number].is_closed()

    @case
    async def test_an_answer_with_two_lengths_is_a_bad_reply(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        both = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        assert isinstance(await said(server, transport, both), BadReply)
