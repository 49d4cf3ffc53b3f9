"""Whatever bytes come in: one clear answer, no trace, and a server that is as well as before."""

import gzip
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anthropic
import pytest
from scale_server import MIB, asked_until, hosting, left_alone, memory_bytes, peak_memory, traces

from overnight import limits
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess
from overnight.testing.rawhttp import answered, connected, head, received, send_until_refused
from overnight.testing.wireclient import BATCHES, Answer, WireClient, params, request

STALL_S = 1
SLACK_BYTES = 64 * MIB  # A buffer that grows is an eighth too large, and what is read is there twice for a moment.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad-input") / "data"


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[ServerProcess]:
    with upstream_process() as engine_url, hosting(data, engine_url, {"UPLOAD_STALL_S": STALL_S}) as found:
        yield found


@pytest.fixture(autouse=True)
def untouched(server: ServerProcess, data: Path) -> Iterator[None]:
    """After each test the server is well, and there is nothing that was not there before."""
    before = traces(server, data)
    yield
    left_alone(server, data, before)
    assert "Traceback" not in server.log()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[WireClient]:
    with closing(WireClient(server.url)) as found:
        yield found


def gone(client: WireClient, answer: Answer) -> None:
    """What was accepted ends whole, and is deleted again."""
    assert answer.status == 200, answer
    batch_id, total = answer.json["id"], sum(answer.json["request_counts"].values())
    while client.retrieve(batch_id)["processing_status"] != "ended":
        pass
    assert len(client.results(batch_id)) == total
    assert client.call("DELETE", f"{BATCHES}/{batch_id}").status == 200


# --- JSON ---------------------------------------------------------------------------------------------------------

GOOD = json.dumps({"requests": [request("a")]}).encode()
PARAMS = json.dumps(params()).encode()


def one(custom_id: bytes, content: bytes = PARAMS) -> bytes:
    return b'{"requests":[{"custom_id":%b,"params":%b}]}' % (custom_id, content)


def said(text: bytes) -> bytes:
    return b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"%b"}]}' % text


def split_at(boundary: int, character: bytes) -> bytes:
    """A body that has the middle of a character at this offset."""
    start = one(b'"a"', said(b"\x00")).index(b"\x00")
    return one(b'"a"', said(b"x" * (boundary - start - 1) + character))


DEEP = 100_000
MALFORMED = {
    "nothing": b"",
    "space": b" \n",
    "cut": GOOD[:-2],
    "more after it": GOOD + b" x",
    "twice": GOOD + GOOD,
    "not JSON": b"requests=1",
    "NaN": one(b'"a"', b'{"temperature":NaN}'),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "zero byte": one(b'"a"', said(b"\x00")),
    "raw newline in a string": one(b'"a"', said(b"\n")),
    "half a surrogate pair": one(b'"a"', said(rb"\ud800")),
    "half a surrogate pair as model": one(b'"a"', rb'{"model":"\ud800","max_tokens":1,"messages":[]}'),
    "bad escape": one(b'"a"', said(rb"\x41")),
    "bad UTF-8 in custom_id": one(b'"\xff"'),
    "bad UTF-8 in params": one(b'"a"', said(b"\xc3\x28")),
    "overlong UTF-8": one(b'"a"', said(b"\xc0\xaf")),
    "surrogate in UTF-8": one(b'"a"', said(b"\xed\xa0\x80")),
    "bad UTF-8 across 64 KB": split_at(64 * 1024, b"\xe2\x28\xa1"),
    "UTF-8 cut at 64 KB": split_at(64 * 1024, b"\xe2\x82"),
    "bad UTF-8 at the end": GOOD + b"\xe2\x82",
    "deep params": one(b'"a"', b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "deep objects": one(b'"a"', b'{"x":' * DEEP + b"1" + b"}" * DEEP),
    "deep envelope": b"[" * DEEP + b"]" * DEEP,
    "deep and cut": b'{"requests":' * DEEP,
    "deep and newlines": b"\n" + one(b'"a"', b'{"x":\n' + b"[" * DEEP + b"]" * DEEP + b"}"),
}
INVALID = {
    "a list": (b"[]", "Input should be"),
    "null": (b"null", "Input should be"),
    "no requests": (b"{}", "requests: Field required"),
    "requests are a number": (b'{"requests":1}', "requests: "),
    "requests are an object": (b'{"requests":{}}', "requests: "),
    "requests are null": (b'{"requests":null}', "requests: "),
    "no request": (b'{"requests":[]}', "requests: List should have at least 1 item"),
    "a request is a number": (b'{"requests":[1]}', "requests.0"),
    "no custom_id": (b'{"requests":[{"params":{}}]}', "requests.0.custom_id: Field required"),
    "no params": (b'{"requests":[{"custom_id":"a"}]}', "requests.0.params: Field required"),
    "custom_id is a number": (one(b"7"), "requests.0.custom_id: "),
    "custom_id is null": (one(b"null"), "requests.0.custom_id: "),
    "custom_id is empty": (one(b'""'), "requests.0.custom_id: String should have at least 1 character"),
    "custom_id is long": (
        one(b'"%b"' % (b"a" * 65)),
        "requests.0.custom_id: String should have at most 64 characters",
    ),
    "custom_id has a newline": (one(rb'"a\n"'), "requests.0.custom_id: String should match pattern"),
    "custom_id is not ASCII": (one('"ä"'.encode()), "requests.0.custom_id: String should match pattern"),
    "custom_id leads elsewhere": (one(b'"../../a"'), "requests.0.custom_id: String should match pattern"),
    "params are a list": (one(b'"a"', b"[]"), "requests.0.params: "),
    "params are a string": (one(b'"a"', b'"x"'), "requests.0.params: "),
    "params are null": (one(b'"a"', b"null"), "requests.0.params: "),
    "the same custom_id twice": (
        json.dumps({"requests": [request("a"), request("b"), request("a")]}).encode(),
        "Duplicate custom_id found: a",
    ),
    "too many": (
        b'{"requests":[' + b",".join(b'{"custom_id":"%d","params":{}}' % n for n in range(100_001)) + b"]}",
        "requests: List should have at most 100000 items",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_json_is_refused(name: str, client: WireClient) -> None:
    status, kind, message = client.call("POST", BATCHES, MALFORMED[name]).error
    assert (status, kind) == (400, "invalid_request_error")
    assert len(message) < 500


@pytest.mark.parametrize("name", INVALID)
def test_what_is_not_a_batch_is_refused_by_its_path(name: str, client: WireClient) -> None:
    body, wanted = INVALID[name]
    status, kind, message = client.call("POST", BATCHES, body).error
    assert (status, kind) == (400, "invalid_request_error")
    assert wanted in message
    assert len(message) < 500


ODD = {
    "character across 64 KB": split_at(64 * 1024, "€".encode()),
    "every kind of newline": one(b'"a"', b'{"model":\r\n"m",\n"x":\r1}').replace(b",", b",\r\n"),
    "a huge number": one(b'"a"', b'{"max_tokens":' + b"9" * 400_000 + b"}"),
    "a huge exponent": one(b'"a"', b'{"max_tokens":1e999999999}'),
    "an empty model": one(b'"a"', b'{"model":"","max_tokens":1,"messages":[]}'),
    "zero in a string": one(b'"a"', said(rb"\u0000")),
    "line separators": one(b'"a"', said("\u2028\u2029\x85".encode())),
    "wrong types": one(b'"a"', b'{"model":[],"max_tokens":"x","messages":{"a":null}}'),
    "no params": one(b'"a"', b"{}"),
    "requests twice": b'{"requests":[],' + GOOD[1:],
    "keys nobody knows": GOOD[:-1] + b',"x":{"y":[1]}}',
    "rather deep": one(b'"a"', b'{"x":' + b"[" * 500 + b"]" * 500 + b"}"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_but_valid_gets_its_row(name: str, client: WireClient) -> None:
    gone(client, client.call("POST", BATCHES, ODD[name]))


# --- Size ---------------------------------------------------------------------------------------------------------


def test_a_body_that_is_announced_too_large_is_refused_unread(server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection, peak_memory(server) as peak:
        connection.sendall(head("POST", BATCHES, {"content-length": str(limits.BATCH_BODY_BYTES_MAX + 1)}))
        answer = answered(connection)
        assert peak() < SLACK_BYTES
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in answer


def test_a_client_that_sends_on_after_the_refusal_can_still_read_it(server: ServerProcess) -> None:
    """A reset would lose the answer for many clients, and they would send the same body again."""
    pieces = [b" " * MIB] * 257
    with closing(connected(server.url)) as connection, peak_memory(server) as peak:
        connection.sendall(head("POST", BATCHES, {"content-length": str(257 * MIB)}))
        answer = answered(connection)
        assert send_until_refused(connection, pieces) == 257 * MIB
        assert received(connection) == b""
        assert peak() < SLACK_BYTES
    assert answer.startswith(b"HTTP/1.1 413 ")


def soon_as_before(server: ServerProcess, before: int) -> None:
    """The memory of a body that was refused is given back, shortly after the answer."""
    with closing(WireClient(server.url)) as client:
        asked_until(client, lambda: memory_bytes(server) - before < SLACK_BYTES, what="given back")


def chunked(size: int) -> Iterator[bytes]:
    """A chunked body, larger than allowed, in pieces."""
    piece = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    yield from [piece] * (size // MIB)
    yield b"0\r\n\r\n"


def test_a_body_that_turns_out_too_large_is_refused_while_it_is_read(server: ServerProcess) -> None:
    before = memory_bytes(server)
    with closing(connected(server.url)) as connection, peak_memory(server) as peak:
        connection.sendall(head("POST", BATCHES, {"transfer-encoding": "chunked"}))
        send_until_refused(connection, chunked(300 * MIB))
        answer = received(connection)
        assert peak() < limits.BATCH_BODY_BYTES_MAX + SLACK_BYTES
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in answer
    soon_as_before(server, before)


def test_the_official_sdk_understands_that_a_body_is_too_large(server: ServerProcess) -> None:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as sdk:
        text = "x" * (257 * MIB)
        message: anthropic.types.MessageParam = {"role": "user", "content": text}
        with pytest.raises(anthropic.RequestTooLargeError) as refusal:
            sdk.messages.batches.create(
                requests=[{"custom_id": "a", "params": {"model": "m", "max_tokens": 1, "messages": [message]}}]
            )
    assert refusal.value.status_code == 413


# --- Compression --------------------------------------------------------------------------------------------------

GZIP = {"content-encoding": "gzip"}


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD)),
        ("GZIP", gzip.compress(GOOD)),
        ("gzip", gzip.compress(GOOD[:20]) + gzip.compress(b"") + gzip.compress(GOOD[20:])),
        ("identity", GOOD),
    ],
    ids=["gzip", "upper case", "several members", "identity"],
)
def test_a_compressed_body_is_a_body(encoding: str, body: bytes, client: WireClient) -> None:
    gone(client, client.call("POST", BATCHES, body, headers={"content-encoding": encoding}))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD)[:-1]),
        ("gzip", gzip.compress(GOOD)[:-9]),
        ("gzip", gzip.compress(GOOD) + gzip.compress(GOOD)[:5]),
        ("gzip", gzip.compress(GOOD)[:-8] + bytes(8)),
        ("gzip", b""),
        ("gzip", GOOD),
        ("gzip", gzip.compress(GOOD) + b"garbage that is no member"),
        ("gzip", b"\x1f\x8b"),
        ("br", GOOD),
        ("gzip, gzip", gzip.compress(gzip.compress(GOOD))),
        ("nonsense" * 1000, GOOD),
    ],
    ids=["cut", "cut more", "cut later", "checksum", "empty", "plain", "garbage", "magic", "br", "twice", "long"],
)
def test_a_body_that_cannot_be_decoded_is_refused(encoding: str, body: bytes, client: WireClient) -> None:
    status, kind, message = client.call("POST", BATCHES, body, headers={"content-encoding": encoding}).error
    assert (status, kind) == (400, "invalid_request_error")
    assert message.startswith("content-encoding: ")
    assert len(message) < 200


def test_a_small_body_that_inflates_to_too_much_is_refused(server: ServerProcess, client: WireClient) -> None:
    bomb = gzip.compress(bytes(300 * MIB), 1)
    before = memory_bytes(server)
    with peak_memory(server) as peak:
        answer = client.call("POST", BATCHES, bomb, headers=GZIP)
        assert peak() < limits.BATCH_BODY_BYTES_MAX + SLACK_BYTES
    assert answer.error[:2] == (413, "request_too_large")
    soon_as_before(server, before)


# --- Time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 20])
def test_a_body_that_stops_is_given_up(sent: int, server: ServerProcess) -> None:
    with closing(connected(server.url)) as connection:
        connection.sendall(head("POST", BATCHES, {"content-length": str(len(GOOD))}) + GOOD[:sent])
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"stopped arriving" in answer


def test_a_body_that_comes_byte_by_byte_is_taken(server: ServerProcess, client: WireClient) -> None:
    with closing(connected(server.url)) as connection:
        connection.sendall(head("POST", BATCHES, {"content-length": str(len(GOOD))}))
        for byte in GOOD:
            connection.sendall(bytes([byte]))
        answer = answered(connection)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 200 ")
    gone(client, Answer(200, {}, body))
