"""Checks 21 to 35: what is wrong with a create body is said at once, and leaves no trace."""

import gzip
import json
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from given import Whale

from overnight.limits import MIB
from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import BATCHES, WireClient, params, request

_INVALID = (400, "invalid_request_error")
_PATTERN = "^[a-zA-Z0-9_-]{1,64}$"


def _refusal(client: WireClient, body: object) -> str:
    """The message of the 400 that this body gets; nothing may have been created."""
    answer = client.call("POST", BATCHES, body)
    assert answer.error[:2] == _INVALID
    assert client.ids() == []
    return answer.error[2]


def test_21_no_requests_at_all(client: WireClient) -> None:
    """`{"requests":[]}` → 400 invalid, message mentions `requests` and "at least 1 item". [reported by users]"""
    said = _refusal(client, {"requests": []})
    assert said == "requests: List should have at least 1 item after validation, not 0"


def test_22_a_custom_id_twice(client: WireClient) -> None:
    """Duplicate `custom_id` → 400 invalid, message contains the duplicate id; no batch appears in the list.
    [reported by users]"""
    said = _refusal(client, {"requests": [request("one"), request("twice"), request("twice")]})
    assert said == "requests: custom_id's must be unique within a batch. Duplicate custom_id found: twice"


def test_23_a_custom_id_of_64_characters(server: ObservedServer, client: WireClient) -> None:
    """`custom_id` of 64 characters is accepted. [documented]"""
    longest = "aZ09_-" * 10 + "1234"
    assert len(longest) == 64
    batch_id = client.create([request(longest)])["id"]
    server.wait_ended(client, batch_id)
    assert list(client.results(batch_id)) == [longest]


def test_24_a_custom_id_of_65_characters(client: WireClient) -> None:
    """`custom_id` of 65 characters → 400 invalid, "at most 64 characters". [reported by users]"""
    said = _refusal(client, {"requests": [request("a" * 65)]})
    assert said == "requests.0.custom_id: String should have at most 64 characters"


@pytest.mark.parametrize("custom_id", ["a b", "a.b", "a/b", "ü", "a\n", "a\u0000", "١"])
def test_25_a_custom_id_with_other_characters(client: WireClient, custom_id: str) -> None:
    """`custom_id` with a space, dot, slash or non-ASCII letter → 400 invalid, message shows the pattern.
    [reported by users]"""
    said = _refusal(client, {"requests": [request(custom_id)]})
    assert said == f"requests.0.custom_id: String should match pattern '{_PATTERN}'"


def test_26_an_empty_custom_id(client: WireClient) -> None:
    """Empty-string `custom_id` → 400 invalid. Minimum length [documented], status [inferred]."""
    said = _refusal(client, {"requests": [request("")]})
    assert said == "requests.0.custom_id: String should have at least 1 character"


def test_27_no_custom_id(client: WireClient) -> None:
    """Missing `custom_id` → 400 invalid, `requests.0.custom_id: Field required`. [reported by users]"""
    assert _refusal(client, {"requests": [{"params": params()}]}) == "requests.0.custom_id: Field required"


def test_28_no_params(client: WireClient) -> None:
    """Missing `params` → 400 invalid, `requests.0.params: Field required`. [reported by users]"""
    assert _refusal(client, {"requests": [{"custom_id": "a"}]}) == "requests.0.params: Field required"


def test_29_no_requests_key(client: WireClient) -> None:
    """Missing `requests` key → 400 invalid. [inferred]"""
    assert _refusal(client, {}) == "requests: Field required"


_NOT_JSON = [
    *(b"", b"{", b"requests", b'{"requests":[]}x', b'{"requests":["\xff"]}'),
    b'{"requests":[{"custom_id":"a","params":' + b'{"a":' * 99_999,
]


@pytest.mark.parametrize("body", _NOT_JSON, ids=range(len(_NOT_JSON)))
def test_30_a_body_that_is_not_json(client: WireClient, body: bytes) -> None:
    """Body that is not JSON → 400 invalid, message starts "The request body is not valid JSON".
    [reported by users]"""
    assert _refusal(client, body).startswith("The request body is not valid JSON")


def test_31_100_000_requests_and_not_one_more(client: WireClient, whale: Whale) -> None:
    """100,001 requests → 400 invalid; 100,000 are accepted. Limit [documented], status [inferred]."""
    assert whale.created["request_counts"] == {
        **dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0),
        "processing": 100_000,
    }
    said = _refusal(client, {"requests": [request(f"row-{number}", "x") for number in range(100_001)]})
    assert said == "requests: List should have at most 100000 items after validation, not 100001"


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    """A server of which nothing else was asked, so that its memory is small."""
    data = tmp_path_factory.mktemp("small") / "data"
    with observed_server(data, "--engine", "http://127.0.0.1:9") as server:
        yield server


def test_32_a_body_over_256_mb_is_refused_before_it_is_read(small_server: ObservedServer) -> None:
    """Body over 256 MB → 413, `error.type == "request_too_large"` [documented], without reading it all into
    memory [inferred]."""
    before = small_server.rss_bytes()
    with _connected(small_server) as connection:
        connection.sendall(_head(f"content-length: {256 * MIB + 1}"))
        _assert_too_large(_answer(connection))
        assert small_server.rss_bytes() - before < 8 * MIB


def test_a_body_of_unknown_length_is_refused_while_it_is_read(small_server: ObservedServer) -> None:
    """Check 32 for a chunked body: it is held up to the limit and no further, and let go at once."""
    before = small_server.rss_bytes()
    piece = b" " * MIB
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    most, sent = 0, 0
    with _connected(small_server) as connection:
        connection.sendall(_head("transfer-encoding: chunked"))
        while not _is_answered(connection):
            connection.sendall(chunk)
            sent += 1
            if sent % 32 == 0:
                most = max(most, small_server.rss_bytes())
        _assert_too_large(_answer(connection))
        assert small_server.rss_bytes() - before < 64 * MIB
    assert 256 < sent < 300
    assert most - before < 320 * MIB


def test_a_body_that_is_small_only_while_compressed_is_refused(small_server: ObservedServer) -> None:
    """Check 32 for a compressed body: its size after decoding counts, and it is never decoded beyond the limit."""
    before = small_server.rss_bytes()
    bomb = gzip.compress(b" " * MIB) * 300
    assert len(bomb) < MIB
    with closing(WireClient(small_server.url)) as client:
        answer = client.call("POST", BATCHES, bomb, headers={"content-encoding": "gzip"})
        assert client.call("GET", "/health").status == 200  # It is done with the body.
    assert answer.error[:2] == (413, "request_too_large")
    assert small_server.rss_bytes() - before < 64 * MIB


def _connected(server: ObservedServer) -> socket.socket:
    found = urlsplit(server.url)
    assert found.hostname is not None
    assert found.port is not None
    return socket.create_connection((found.hostname, found.port), timeout=60)


def _head(framing: str) -> bytes:
    lines = (
        f"POST {BATCHES} HTTP/1.1",
        "host: localhost",
        "anthropic-version: 2023-06-01",
        "content-type: application/json",
        framing,
    )
    return "\r\n".join((*lines, "", "")).encode()


def _is_answered(connection: socket.socket) -> bool:
    """Whether the server has said something."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable)


def _answer(connection: socket.socket) -> tuple[HTTPResponse, bytes]:
    """The one answer on this connection."""
    response = HTTPResponse(connection)
    with response:
        response.begin()
        return response, response.read()


def _assert_too_large(answer: tuple[HTTPResponse, bytes]) -> None:
    response, body = answer
    assert (response.status, response.headers["connection"]) == (413, "close")
    error = json.loads(body)["error"]
    assert error == {"type": "request_too_large", "message": "Request exceeds the maximum size"}


def test_33_letter_case_makes_another_custom_id(server: ObservedServer, client: WireClient) -> None:
    """`custom_id`s that differ only in letter case are distinct and accepted. [inferred]"""
    batch_id = client.create([request("Row", "large"), request("row", "small"), request("ROW", "loud")])["id"]
    server.wait_ended(client, batch_id)
    texts = {key: row["message"]["content"][0]["text"] for key, row in client.results(batch_id).items()}
    assert texts == {"Row": "echo: large", "row": "echo: small", "ROW": "echo: loud"}


def test_34_a_rejected_create_leaves_no_trace(tmp_path: Path) -> None:
    """A rejected create leaves no trace (list unchanged, no queue use). [inferred]"""
    data = tmp_path / "data"
    with observed_server(data, "--engine", "http://127.0.0.1:9") as own, closing(WireClient(own.url)) as client:
        large = [request(f"row-{number}", f"{number}" * 200) for number in range(2000)]  # Not stored inline.
        kept = client.create(large)["id"]
        objects = sorted((data / "objects").rglob("*.gz"))
        assert objects
        for bad in ({"requests": [*large, request("row-0")]}, {"requests": [*large, request("ä")]}):
            assert client.call("POST", BATCHES, bad).error[:2] == _INVALID
        assert client.ids() == [kept]
        assert sorted((data / "objects").rglob("*.*")) == objects
        health = client.call("GET", "/health").json
        assert (health["batches_open"], health["segments_open"]) == (1, 2)


def test_35_the_path_names_the_offending_element(client: WireClient) -> None:
    """The error path index names the offending element (`requests.3.custom_id: …` for the fourth).
    [reported by users]"""
    good = [request("a"), request("b"), request("c")]
    assert _refusal(client, {"requests": [*good, request("no good")]}).startswith("requests.3.custom_id: ")
    assert _refusal(client, {"requests": [*good, {"custom_id": "d"}]}) == "requests.3.params: Field required"
    wrong = [*good, {"custom_id": "d", "params": "text"}]
    assert _refusal(client, {"requests": wrong}) == "requests.3.params: Input should be a valid dictionary"
