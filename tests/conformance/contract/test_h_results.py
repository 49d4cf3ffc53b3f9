"""Checks 87 to 93: the stream of results."""

import gzip
import json
import zlib
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from given import Whale

from overnight.limits import MIB
from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import BATCHES, WireClient, request

_DAY_S = 24 * 3600
_AWKWARD = 'line\nfeed \r\n \u2028 \u2029 \ufeff \u0000 ü 🌙 \\ " </s>'


@pytest.fixture
def path(server: ObservedServer, client: WireClient) -> str:
    """The results of an ended batch of 40 requests with awkward texts and one error."""
    requests = [request(f"row-{number}", f"{number} {_AWKWARD}") for number in range(39)]
    batch_id = client.create([*requests, request("bad", max_tokens=0)])["id"]
    server.wait_ended(client, batch_id)
    return f"{BATCHES}/{batch_id}/results"


def test_87_the_content_type_is_json_lines(client: WireClient, path: str) -> None:
    """Content type of results is `application/x-jsonl`. [reported by users]"""
    assert client.call("GET", path).headers["content-type"] == "application/x-jsonl"


def test_88_every_line_stands_alone(client: WireClient, path: str) -> None:
    """No blank line, no BOM, LF only; every line parses on its own. [seen in SDK source]"""
    body = client.call("GET", path).body
    assert not body.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in body
    assert body.endswith(b"}\n")
    lines = body[:-1].split(b"\n")
    assert len(lines) == 40
    rows = {row["custom_id"]: row["result"] for row in map(json.loads, lines)}
    assert rows["row-7"]["message"]["content"][0]["text"] == f"echo: 7 {_AWKWARD}"


def test_89_a_hundred_thousand_results_stream(whale: Whale) -> None:
    """Results of 100,000 rows stream with bounded server memory and the first line arrives at once. [inferred]

    The first line is there, and the reader pauses and goes on, while the server's memory has grown by far less than
    the body: so it cannot have made the rest before."""
    found = urlsplit(whale.server.url)
    assert found.hostname is not None
    before = whale.server.rss_bytes()
    with closing(HTTPConnection(found.hostname, found.port, timeout=60)) as connection:
        headers = {**whale.client.headers, "accept-encoding": "identity"}
        connection.request("GET", f"{BATCHES}/{whale.created['id']}/results", headers=headers)
        with connection.getresponse() as response:
            first = response.readline()
            grown = [whale.server.rss_bytes() - before]
            rest = b""
            while piece := response.read(4 * MIB):
                rest += piece
                grown.append(whale.server.rss_bytes() - before)
    assert json.loads(first)["result"]["type"] == "succeeded"
    assert len(first + rest) > 40 * MIB
    assert max(grown) < 12 * MIB
    custom_ids = {json.loads(line)["custom_id"] for line in (first + rest).splitlines()}
    assert custom_ids == {f"row-{number}" for number in range(100_000)}


def test_90_the_accept_header_of_the_sdks(client: WireClient, path: str) -> None:
    """`Accept: application/binary` on results is accepted (no 406). [seen in SDK source]"""
    answer = client.call("GET", path, headers={"accept": "application/binary"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-jsonl")


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate", "br, gzip;q=0.5", "*"])
def test_91_gzip_if_it_is_asked_for(client: WireClient, path: str, accepted: str) -> None:
    """With `Accept-Encoding: gzip` the body is either plain or validly gzip-encoded with the header.
    [seen in SDK source]

    It is one gzip member: the official Python SDK stops after the first without a word."""
    plain = client.call("GET", path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert len(plain.body) == int(plain.headers["content-length"])
    packed = client.call("GET", path, headers={"accept-encoding": accepted})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) == int(packed.headers["content-length"])
    assert "accept-encoding" in packed.headers["vary"]
    assert gzip.decompress(packed.body) == plain.body
    member = zlib.decompressobj(31)
    assert member.decompress(packed.body) == plain.body
    assert (member.eof, member.unused_data) == (True, b"")


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "deflate"])
def test_no_gzip_for_who_does_not_take_it(client: WireClient, path: str, accepted: str) -> None:
    """Check 91, the other way round."""
    answer = client.call("GET", path, headers={"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b'{"custom_id"')


def test_92_two_downloads_are_the_same(client: WireClient, path: str) -> None:
    """Two downloads give the same set of rows. [inferred]"""
    assert client.call("GET", path).body == client.call("GET", path).body


def test_93_results_are_there_for_29_days(tmp_path: Path, engine_url: str) -> None:
    """After 29 days from `created_at`: retrieve still 200 with `archived_at` not null, results not available.
    [documented]

    An hour before they are."""
    data, flags = tmp_path / "data", ("--engine", engine_url)
    with observed_server(data, *flags) as server, closing(WireClient(server.url)) as client:
        batch_id = client.create([request(f"row-{number}", f"{number}" * 99) for number in range(1500)])["id"]
        server.wait_ended(client, batch_id)
        assert server.stop() == 0
    almost = 29 * _DAY_S - 3600
    with observed_server(data, *flags, ahead_s=almost) as server, closing(WireClient(server.url)) as client:
        assert len(client.results(batch_id)) == 1500
        assert server.stop() == 0
    with observed_server(data, *flags, ahead_s=29 * _DAY_S) as server, closing(WireClient(server.url)) as client:
        batch = _archived(client, batch_id)
        assert (batch["processing_status"], batch["request_counts"]["succeeded"]) == ("ended", 1500)
        assert batch["results_url"] is None
        answer = client.call("GET", f"{BATCHES}/{batch_id}/results")
        assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")
        assert client.ids() == [batch_id]
        assert client.call("DELETE", f"{BATCHES}/{batch_id}").status == 200


def _archived(client: WireClient, batch_id: str) -> dict[str, dict[str, int]]:
    """The batch once it is archived: that is among the first things a server does."""
    for _ in range(5_000):
        batch = client.retrieve(batch_id)
        if batch["archived_at"] is not None:
            assert isinstance(batch, dict)
            return batch
    raise AssertionError("it was not archived")
