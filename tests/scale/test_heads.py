"""Heads of requests that no client would send: refused or understood, never a trace, never a leak."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from scale_server import MIB, asked_until, hosting, left_alone, open_sockets, peak_memory

from overnight.testing.processes import ServerProcess
from overnight.testing.rawhttp import answered, connected, head, received, send_until_refused
from overnight.testing.wireclient import BATCHES, WireClient, request

HEAD_S = 1
BODY = json.dumps({"requests": []}).encode()  # Understood, and refused by its content.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads") / "data"


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[ServerProcess]:
    with hosting(data, "http://127.0.0.1:1", {"HEAD_S_MAX": HEAD_S}) as found:
        yield found


@pytest.fixture(autouse=True)
def untouched(server: ServerProcess, data: Path) -> Iterator[None]:
    """After each test the server is well, and there is nothing that was not there before."""
    yield
    left_alone(server, data, ([], []))
    assert "Traceback" not in server.log()


def post(*lines: str, body: bytes = BODY) -> bytes:
    """A create with exactly these header lines."""
    start = [f"POST {BATCHES} HTTP/1.1", *lines, "", ""]
    return "\r\n".join(start).encode("latin-1") + body


HOST, VERSION, LENGTH = "host: localhost", "anthropic-version: 2023-06-01", f"content-length: {len(BODY)}"
HERE = f"{HOST}\r\n{VERSION}".encode()
NOT_HTTP = {
    "two lengths": post(HOST, VERSION, LENGTH, "content-length: 1"),
    "length and chunks": post(HOST, VERSION, LENGTH, "transfer-encoding: chunked"),
    "negative length": post(HOST, VERSION, "content-length: -1"),
    "length with exponent": post(HOST, VERSION, "content-length: 1e3"),
    "length beyond 64 bits": post(HOST, VERSION, "content-length: 99999999999999999999999"),
    "unknown transfer coding": post(HOST, VERSION, "transfer-encoding: gzip"),
    "chunk of no size": post(HOST, VERSION, "transfer-encoding: chunked", body=b"zz\r\n"),
    "space in a name": post(HOST, VERSION, LENGTH, "x y: z"),
    "line that begins with a space": post(HOST, " folded", VERSION, LENGTH),
    "zero in a value": post(HOST, VERSION, LENGTH, "x: \0"),
    "unknown method": b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "nothing but zeros": bytes(1000),
    "path that is no text": b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
}
UNDERSTOOD = {
    "byte that is not ASCII in a key": (post(HOST, VERSION, LENGTH, "x-api-key: \xff"), 400),
    "betas that are no text": (post(HOST, VERSION, LENGTH, "anthropic-beta: \xff\xfe"), 400),
    "no version": (post(HOST, LENGTH), 400),
    "version of tomorrow": (post(HOST, "anthropic-version: 2099-01-01", LENGTH), 400),
    "long version": (post(HOST, "anthropic-version: " + "9" * 5000, LENGTH), 400),
    "idempotency key without end": (post(HOST, VERSION, LENGTH, "idempotency-key: " + "k" * 5000), 400),
    "idempotency key of nothing": (post(HOST, VERSION, LENGTH, "idempotency-key:"), 400),
    "no host": (post(VERSION, LENGTH), 400),
    "host that leads elsewhere": (post("host: localhost/b?c@d", VERSION, LENGTH), 400),
    "host that is not ours": (post("host: a", VERSION, LENGTH), 403),
    "no length": (post(HOST, VERSION, body=b""), 400),
    "upper case": (post(HOST.upper(), VERSION.upper(), LENGTH.upper()), 400),
    "chunks": (post(HOST, VERSION, "transfer-encoding: chunked", body=b"4;x=y\r\n{}  \r\n0\r\nlate: 1\r\n\r\n"), 400),
    "trailing zero in a path": (b"GET /v1/messages/batches/%00 HTTP/1.1\r\n" + HERE, 404),
    "surrogates in a path": (b"GET /v1/messages/batches/%ED%A0%80 HTTP/1.1\r\n" + HERE, 404),
    "dots in a path": (b"GET /v1/messages/batches/..%2f..%2fetc HTTP/1.1\r\n" + HERE, 404),
    "cursor that is no text": (b"GET /v1/messages/batches?after_id=%ff%00 HTTP/1.1\r\n" + VERSION.encode(), 400),
    "limit of other digits": (b"GET /v1/messages/batches?limit=%D9%A3 HTTP/1.1\r\n" + VERSION.encode(), 400),
    "limit without end": (
        b"GET /v1/messages/batches?limit=" + b"9" * 5000 + b" HTTP/1.1\r\n" + VERSION.encode(),
        400,
    ),
    "whole URL": (b"GET http://b/v1/messages/batches/x HTTP/1.1\r\nhost: localhost\r\n" + VERSION.encode(), 404),
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_not_http_ends_the_connection(name: str, server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection:
        send_until_refused(connection, [NOT_HTTP[name]])
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_odd_gets_an_answer_in_the_words_of_the_api(name: str, server: ServerProcess) -> None:
    sent, status = UNDERSTOOD[name]
    with closing(connected(server.url)) as connection:
        connection.sendall(sent if sent.startswith(b"POST") else sent + b"\r\n\r\n")
        answer = answered(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "error"


def test_a_client_that_waits_for_leave_to_send_gets_it(server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection:
        connection.sendall(post(HOST, VERSION, LENGTH, "expect: 100-continue", body=b""))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert answered(connection).startswith(b"HTTP/1.1 400 ")


def test_requests_in_a_row_are_answered_in_order(server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection:
        ask = head("GET", "/v1/messages/batches/msgbatch_none")
        connection.sendall(ask + post(HOST, VERSION, LENGTH) + head("GET", "/health", {"connection": "close"}))
        answers = received(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"404", b"400", b"200"]


@pytest.mark.parametrize("kind", ["many lines", "one line", "one name", "one path", "trailers"])
def test_a_head_without_end_is_cut_and_not_kept(kind: str, server: ServerProcess) -> None:
    start, piece = {
        "many lines": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 10_000),
        "one line": (b"GET / HTTP/1.1\r\nx: ", b"y" * 60_000),
        "one name": (b"GET / HTTP/1.1\r\n", b"x" * 60_000),
        "one path": (b"GET /", b"a" * 60_000),
        "trailers": (
            post(HOST, VERSION, "transfer-encoding: chunked", body=b"1\r\n{\r\n0\r\n"),
            b"x: y\r\n" * 10_000,
        ),
    }[kind]
    with closing(connected(server.url)) as connection, peak_memory(server) as peak:
        sent = send_until_refused(connection, [start, *[piece] * 2_000])
        assert sent < 20 * MIB, "the server read on"
        assert peak() < 24 * MIB


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HT", head("GET", "/health")[:-2]], ids=["nothing", "line", "head"]
)
def test_a_head_that_never_comes_is_not_waited_for(sent: bytes, server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection:
        connection.sendall(sent)
        received(connection)  # Returns: the server ends the connection.
    with closing(WireClient(server.url)) as client:
        asked_until(client, lambda: open_sockets(server) == 1, what="closed, but for our own")


def test_five_hundred_silent_connections_hold_nobody_up(server: ServerProcess) -> None:
    with closing(WireClient(server.url)) as client:
        assert client.ids() == []
        before = open_sockets(server)
        silent = [connected(server.url) for _ in range(500)]
        try:
            assert client.ids() == []
            assert client.call("POST", BATCHES, {"requests": [request("")]}).status == 400
            asked_until(client, lambda: open_sockets(server) <= before, what="closed")
        finally:
            for connection in silent:
                connection.close()
