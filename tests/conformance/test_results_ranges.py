"""Parts of finished results (RFC 9110 14) and answers that a client has already (RFC 9110 13.1)."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import closing
from random import Random
from typing import NamedTuple

import pytest

from overnight.server import ranges
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request

CODINGS = [pytest.param("identity", id="identity"), pytest.param("gzip", id="gzip")]


class Ended(NamedTuple):
    """A batch that has ended."""

    client: WireClient
    path: str

    def get(self, method: str = "GET", **headers: str) -> Answer:
        sent = {"accept-encoding": "identity", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.client.call(method, self.path, headers=sent)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedServer]:
    with (
        upstream_process() as url,
        observed_server(tmp_path_factory.mktemp("ranges") / "data", "--engine", url) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def ended(server: ObservedServer) -> Iterator[Ended]:
    """Several segments: 5 of a thousand lines in objects, and a last one, inline."""
    with closing(WireClient(server.url)) as client:
        rows = [request(f"row-{number}", f"{number * 7919 % 100_003}" * 9) for number in range(5010)]
        batch_id = client.create(rows)["id"]
        server.wait_ended(client, batch_id)
        yield Ended(client, f"{BATCHES}/{batch_id}/results")


# --- The pure part --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=0-", range(100)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=99-", range(99, 100)),
        ("bytes=90-1000", range(90, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-100", range(100)),
        ("bytes=-1000", range(100)),
        ("BYTES= 5-6 ", range(5, 7)),
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=9-5", None),
        ("bytes=a-b", None),
        ("bytes=1-2,5-6", None),
        ("bytes=+1-2", None),
        ("bytes=²-3", None),
        ("lines=0-5", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_which_bytes_a_header_asks_for(header: str, part: range | None) -> None:
    """None: the header is as good as not there."""
    assert ranges.part_of({"range": header}, etag='"a"', length=100) == part


@pytest.mark.parametrize(
    "header", ["bytes=100-", "bytes=100-200", "bytes=5000-", "bytes=-0", "bytes=" + "9" * 18 + "-"]
)
def test_bytes_that_are_not_there(header: str) -> None:
    part = ranges.part_of({"range": header}, etag='"a"', length=100)
    assert part is not None
    assert not part


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("", False),
        ("a", False),
        ('"ab"', False),
    ],
)
def test_whether_the_client_has_it(header: str, is_known: bool) -> None:
    assert ranges.is_known({"if-none-match": header}, etag='"a"') is is_known


# --- Over HTTP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS)
def test_any_part_is_a_slice_of_the_whole(ended: Ended, coding: str) -> None:
    """Across all segments, and at every border of the answer."""
    whole = ended.get(accept_encoding=coding)
    body, length, dice = whole.body, len(whole.body), Random(8)
    assert (whole.status, whole.headers["accept-ranges"]) == (200, "bytes")
    pairs = [(0, 0), (0, length - 1), (length - 1, length - 1), (length - 11, length - 1), (0, 11), (9, 10)]
    pairs += [tuple(sorted(dice.choices(range(length), k=2))) for _ in range(150)]  # type: ignore[misc]
    pairs += [(first, min(first + dice.randrange(40), length - 1)) for first in dice.choices(range(length), k=150)]
    for first, last in pairs:
        part = ended.get(accept_encoding=coding, range=f"bytes={first}-{last}")
        assert part.status == 206
        assert part.body == body[first : last + 1], (first, last)
        assert part.headers["content-range"] == f"bytes {first}-{last}/{length}"
        assert part.headers["content-length"] == str(last - first + 1)
        assert part.headers["etag"] == whole.headers["etag"]
        assert part.headers.get("content-encoding") == whole.headers.get("content-encoding")
        assert part.headers["content-type"] == "application/x-jsonl"
    assert ended.get(accept_encoding=coding, range="bytes=-777").body == body[-777:]
    assert ended.get(accept_encoding=coding, range=f"bytes={length - 5}-").body == body[-5:]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_broken_download_is_completed(ended: Ended, coding: str) -> None:
    """What came, and the rest."""
    whole = ended.get(accept_encoding=coding)
    came = whole.body[: len(whole.body) // 3]
    rest = ended.get(accept_encoding=coding, range=f"bytes={len(came)}-", if_range=whole.headers["etag"])
    assert rest.status == 206
    joined = came + rest.body
    lines = (gzip.decompress(joined) if coding == "gzip" else joined).splitlines()
    assert len(lines) == 5010


def test_a_part_of_another_representation_is_never_sent(ended: Ended) -> None:
    """Lines and gzip have tags of their own, so a client that changes its mind gets the whole; as does one with a
    weak tag, or a date."""
    plain, packed = ended.get(), ended.get(accept_encoding="gzip")
    assert plain.headers["etag"] != packed.headers["etag"]
    for tag in (packed.headers["etag"], f"W/{plain.headers['etag']}", "Tue, 24 Nov 2026 20:00:00 GMT"):
        answer = ended.get(range="bytes=5-", if_range=tag)
        assert (answer.status, answer.body) == (200, plain.body)
        assert "content-range" not in answer.headers


@pytest.mark.parametrize("header", ["bytes=1-2,5-6", "bytes=9-5", "lines=1-2"])
def test_what_cannot_be_sent_as_one_part_is_sent_as_the_whole(ended: Ended, header: str) -> None:
    answer = ended.get(range=header)
    assert (answer.status, answer.body) == (200, ended.get().body)


def test_a_part_that_is_not_there_is_416_with_the_length(ended: Ended) -> None:
    length = len(ended.get().body)
    answer = ended.get(range=f"bytes={length}-")
    assert answer.error == (416, "invalid_request_error", f"Range: the results have {length} bytes")
    assert answer.headers["content-range"] == f"bytes */{length}"
    assert answer.json["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_is_not_sent_again(ended: Ended, method: str, coding: str) -> None:
    """The tag stays the same, and counts before a range."""
    tag = ended.get(accept_encoding=coding).headers["etag"]
    assert ended.get(accept_encoding=coding).headers["etag"] == tag
    answer = ended.get(method, accept_encoding=coding, if_none_match=f'"other", {tag}', range="bytes=0-1")
    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
    assert "accept-encoding" in answer.headers["vary"]
    assert ended.get(method, accept_encoding=coding, if_none_match='"other"').status == 200


@pytest.mark.parametrize("coding", CODINGS)
def test_head_is_get_without_a_body(ended: Ended, coding: str) -> None:
    """And without ranges (RFC 9110 14.2)."""
    shown, head = ended.get(accept_encoding=coding), ended.get("HEAD", accept_encoding=coding, range="bytes=5-9")
    assert (head.status, head.body) == (200, b"")
    own = ("date", "request-id")
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in shown.headers.items() if name not in own
    }


def test_other_results_have_other_tags(server: ObservedServer) -> None:
    """Even those of the same requests."""
    tags = set()
    with closing(WireClient(server.url)) as client:
        for _ in range(2):
            batch_id = client.create([request("a")])["id"]
            server.wait_ended(client, batch_id)
            tags.add(Ended(client, f"{BATCHES}/{batch_id}/results").get().headers["etag"])
    assert len(tags) == 2


@pytest.mark.parametrize("headers", [{"range": "bytes=0-5"}, {"if-none-match": "*"}])
def test_without_results_there_is_no_part(server: ObservedServer, headers: Mapping[str, str]) -> None:
    with closing(WireClient(server.url)) as client:
        path = f"{BATCHES}/msgbatch_01{'a' * 22}/results"
        assert client.call("GET", path, headers=headers).status == 404
