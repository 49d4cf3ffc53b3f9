"""A server that speaks POST /v1/messages and costs almost nothing: for tests, crash tests and benchmarks.

What it answers follows from the request alone, so any two runs agree: the text is `echo: ` and the last text of the
last message, tokens are counted in fours of bytes. Directives inside that text script failures, for the first calls
with this text (`x2`) or for all of them:

    [[429]] [[500 x2]] [[529 x1 after 3]]   that status, with `retry-after: 3` if asked for
    [[drop]]       the connection is closed without an answer
    [[hang]]       no answer at all
    [[slow 0.5]]   the answer comes after half a second (a whole one without the number)
    [[garbage]]    status 200 with a body that is not a Message
    [[usage {…}]]  a whole answer tells this usage, JSON

Also `"stream": true`, POST /v1/messages/count_tokens, GET /v1/models and GET /health. As a process of its own:
`python -m overnight.testing.upstream --port 0` prints its port and serves until it is terminated.
"""

import argparse
import asyncio
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import httptools
import msgspec
import uvloop

from overnight.testing.ratelimited import RateLimiter
from overnight.wire import problem

_DIRECTIVE = re.compile(
    r"\[\[(?P<what>[45]\d\d|drop|hang|slow|garbage)(?: (?P<delay_s>[0-9.]+))?"
    r"(?: x(?P<times>\d+))?(?: after (?P<after_s>[0-9.]+))?\]\]"
)
_USAGE = re.compile(r"\[\[usage (\{.*?\})\]\]")
_TURN_END = b'"stop_reason":"end_turn","stop_sequence":null'


class _Block(msgspec.Struct, gc=False):
    type: str
    text: str = ""


class _Turn(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Params(msgspec.Struct):
    model: str
    messages: list[_Turn]
    stream: bool = False


_decode_params = msgspec.json.Decoder(_Params).decode
_quote = msgspec.json.Encoder().encode


class Upstream:
    """The server inside this process: `async with Upstream() as upstream:` listens on a free port of 127.0.0.1."""

    def __init__(
        self,
        *,
        port: int = 0,
        key: str | None = None,
        delay_s: float = 0.0,
        model: str = "echo",
        calls_log: Path | None = None,
        limits: RateLimiter | None = None,
    ) -> None:
        """Every Message takes `delay_s`. With a `key`, calls without it get 401; beyond `limits` they get 429.

        Each call for a Message is appended to `calls_log` before it is answered, as one line: its text in JSON.
        The line survives the death of any process."""
        self.port = port
        self.key = key
        self.delay_s = delay_s
        self.model = model
        self.calls: Counter[str] = Counter()  # By text: how often it was asked for a Message.
        self.in_flight = 0
        self.in_flight_max = 0
        self.limits = limits
        self._calls_log = calls_log
        self._log_file: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._none_left = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        if self._calls_log is not None:
            self._log_file = os.open(self._calls_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.drop()
        if self._connections:
            await self._none_left.wait()
        if self._log_file is not None:
            os.close(self._log_file)

    async def listen(self) -> None:
        """Take connections; the port stays the same from the first time on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.connection, "127.0.0.1", self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    def connection(self) -> "Connection":
        """What serves one client."""
        return Connection(self)

    def on_made(self, connection: "Connection") -> None:
        self._connections.add(connection)
        self._none_left.clear()

    def on_lost(self, connection: "Connection") -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()

    def on_call(self, text: str) -> int:
        """Count and log a call for a Message; which call with this text it is, from 1."""
        self.calls[text] += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight, self.in_flight_max)
        if self._log_file is not None:
            os.write(self._log_file, _quote(text) + b"\n")
        return self.calls[text]


class Connection(asyncio.Protocol):
    """One client. Answers one request at a time, in order: clients that pipeline are not served.

    `testing.faultyengine` has one that misbehaves.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._path = b""
        self._body: list[bytes] = []
        self._has_key = upstream.key is None
        self._timer: asyncio.TimerHandle | None = None
        self._is_answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so.
        self._parser = httptools.HttpRequestParser(self)
        self._upstream.on_made(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end_call()
        self._upstream.on_lost(self)
        del self._parser  # It holds this object.

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.drop()

    def on_message_begin(self) -> None:
        self._path = b""
        self._body = []
        self._has_key = self._upstream.key is None

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_key and name.lower() in (b"x-api-key", b"authorization"):
            self._has_key = value.decode("latin-1").removeprefix("Bearer ") == self._upstream.key

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        path, body = self._path.partition(b"?")[0], b"".join(self._body)
        if path == b"/health":
            self._send(200, b'{"status":"ok"}')
        elif not self._has_key:
            self._refuse(401, "invalid x-api-key")
        elif path == b"/v1/messages":
            self._message(body)
        elif path == b"/v1/messages/count_tokens":
            self._send(200, b'{"input_tokens":%d}' % _tokens(len(body)))
        elif path == b"/v1/models":
            self._send(200, _models(self._upstream.model))
        else:
            self._refuse(404, "no such path")

    def drop(self) -> None:
        """Close without a word."""
        self._transport.abort()

    def _message(self, body: bytes) -> None:
        try:
            params = _decode_params(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._refuse(400, str(error))
            return
        text = _last_text(params)
        self._is_answering = True
        call = self._upstream.on_call(text)
        if not self._has_passed_limits(len(body)):
            return
        delay_s = self._upstream.delay_s
        if "[[" in text and (directive := _DIRECTIVE.search(text)) is not None:
            times = directive["times"]
            if times is None or call <= int(times):
                if directive["what"] != "slow":
                    self._misbehave(directive)
                    return
                delay_s = float(directive["delay_s"] or 1.0)
        if delay_s > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._answer, params, text, len(body))
        else:
            self._answer(params, text, len(body))

    def _has_passed_limits(self, body_bytes: int) -> bool:
        if self._upstream.limits is None:
            return True
        verdict = self._upstream.limits.arrive(_tokens(body_bytes), now_ms=_now_ms())
        if verdict.status != 200:
            self._refuse(verdict.status, "beyond the limits of your rate", _lines(verdict.headers))
        return verdict.status == 200

    def _limit_lines(self, reply_bytes: int) -> bytes:
        if self._upstream.limits is None:
            return b""
        now_ms = _now_ms()
        self._upstream.limits.produce(_tokens(reply_bytes), now_ms=now_ms)
        return _lines(self._upstream.limits.headers(now_ms=now_ms))

    def _misbehave(self, directive: re.Match[str]) -> None:
        what = directive["what"]
        if what == "drop":
            self.drop()
        elif what == "garbage":
            self._send(200, b'{"object":"list"}')
        elif what != "hang":
            after_s = directive["after_s"]
            extra = f"retry-after: {after_s}\r\n".encode() if after_s else b""
            self._refuse(int(what), f"as asked for: {what}", extra)

    def _answer(self, params: _Params, text: str, body_bytes: int) -> None:
        reply = f"echo: {text}"
        if params.stream:
            self._stream(params.model, reply, body_bytes)
        else:
            content = b'[{"type":"text","text":%b}]' % _quote(reply)
            message = _message_json(params.model, content, _TURN_END, body_bytes, len(reply))
            if (told := _USAGE.search(text)) is not None:
                message = message[: message.rindex(b'"usage":')] + b'"usage":%b}' % told[1].encode()
            self._send(200, message, self._limit_lines(len(reply)))

    def _stream(self, model: str, reply: str, body_bytes: int) -> None:
        start = _message_json(model, b"[]", b'"stop_reason":null,"stop_sequence":null', body_bytes, 0)
        words = re.findall(r"\s*\S+", reply) or [reply]
        events = [
            b'{"type":"message_start","message":%b}' % start,
            b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
            *(
                b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}' % _quote(word)
                for word in words
            ),
            b'{"type":"content_block_stop","index":0}',
            b'{"type":"message_delta","delta":{%b},"usage":{"output_tokens":%d}}' % (_TURN_END, _tokens(len(reply))),
            b'{"type":"message_stop"}',
        ]
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n"
            % self._limit_lines(len(reply))
        )
        for event in events:
            name = event[9 : event.index(b'"', 9)]
            piece = b"event: %b\ndata: %b\n\n" % (name, event)
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self._transport.write(b"0\r\n\r\n")
        self._end_call()

    def _refuse(self, status: int, message: str, extra: bytes = b"") -> None:
        body = problem.encode(problem.type_of_status(status), message, request_id="req_upstream")
        self._send(status, body, extra)

    def _send(self, status: int, body: bytes, extra: bytes = b"") -> None:
        self._transport.write(
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
            % (status, extra, len(body), body)
        )
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._end_call()

    def _end_call(self) -> None:
        if self._is_answering:
            self._is_answering = False
            self._upstream.in_flight -= 1


def _last_text(params: _Params) -> str:
    content = params.messages[-1].content if params.messages else ""
    if isinstance(content, str):
        return content
    return next((block.text for block in reversed(content) if block.type == "text"), "")


def _now_ms() -> float:
    return asyncio.get_running_loop().time() * 1000


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def _tokens(size: int) -> int:
    return size // 4 + 1


def _message_json(model: str, content: bytes, ending: bytes, body_bytes: int, reply_bytes: int) -> bytes:
    return (
        b'{"id":"msg_%024x","type":"message","role":"assistant","model":%b,"content":%b,%b,'
        b'"usage":{"input_tokens":%d,"output_tokens":%d,"service_tier":"standard"}}'
        % (zlib.crc32(content), _quote(model), content, ending, _tokens(body_bytes), _tokens(reply_bytes))
    )


def _models(model: str) -> bytes:
    entry = {"id": model, "type": "model", "display_name": model.title(), "max_input_tokens": 200_000}
    return _quote({"data": [entry], "has_more": False, "first_id": model, "last_id": model})


async def _serve(upstream: Upstream) -> None:
    async with upstream:
        sys.stdout.write(f"{upstream.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m overnight.testing.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--key", help="the key that calls must carry")
    parser.add_argument("--delay-s", type=float, default=0.0, help="what every Message takes")
    parser.add_argument("--calls-log", type=Path, help="a file to append one line per call to")
    options = parser.parse_args()
    upstream = Upstream(port=options.port, key=options.key, delay_s=options.delay_s, calls_log=options.calls_log)
    uvloop.run(_serve(upstream))


if __name__ == "__main__":
    main()
