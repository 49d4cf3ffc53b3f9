"""`results?so_far=true`: the lines that are durable by now, each once, over HTTP and over crashes."""

import gzip
import json
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from overnight import limits
from overnight.errors import InvalidRequest
from overnight.ids import BatchId
from overnight.server import cursor
from overnight.server.cursor import NOTHING, Given
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request

_DAY_S = 24 * 3600
_LOOKS_MAX = 5_000  # Each takes milliseconds; a checkpoint is due every 200.
OURS, OTHER = BatchId("msgbatch_01" + "a" * 22), BatchId("msgbatch_01" + "b" * 22)
_keys = count()


class Read(NamedTuple):
    """One answer, taken apart."""

    ids: list[str]
    cursor: str
    status: str


def get(client: WireClient, batch_id: str, query: str = "so_far=true", *, coding: str = "identity") -> Answer:
    return client.call("GET", f"{BATCHES}/{batch_id}/results?{query}", headers={"accept-encoding": coding})


def read(client: WireClient, batch_id: str, after: str = "") -> Read:
    answer = get(client, batch_id, f"so_far=true&after={after}")
    assert answer.status == 200, answer
    ids = [json.loads(line)["custom_id"] for line in answer.body.splitlines()]
    return Read(ids, answer.headers["overnight-cursor"], answer.headers["overnight-processing-status"])


def read_until(client: WireClient, batch_id: str, wanted: set[str], after: str = "") -> str:
    """Read on until these lines came, none twice and no others; the cursor then."""
    came: list[str] = []
    for _ in range(_LOOKS_MAX):
        found = read(client, batch_id, after)
        came, after = came + found.ids, found.cursor
        if set(came) >= wanted:
            break
    assert sorted(came) == sorted(wanted)
    return after


@pytest.fixture(scope="module")
def engine_url() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[ObservedServer]:
    """`claude-…` is answered at once, `held-…` never."""
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(f"key-{number}".encode()).hexdigest()}"\nworkspace = "wrkspc_{number:02}"\n'
        for number in range(30)
    )
    config = tmp_path_factory.mktemp("config") / "overnight.toml"
    config.write_text(
        f'[[engines]]\nspec = "{engine_url}"\nmodels = ["claude-*"]\n'
        f'[[engines]]\nspec = "http://127.0.0.1:9"\nmodels = ["held-*"]\n{keys}'
    )
    with observed_server(tmp_path_factory.mktemp("so-far") / "data", "--config", str(config)) as found:
        yield found


@pytest.fixture
def client(server: ObservedServer) -> Iterator[WireClient]:
    """In a workspace of its own."""
    with closing(WireClient(server.url, api_key=f"key-{next(_keys)}")) as found:
        yield found


def half_done(client: WireClient, rows: int = 3) -> str:
    """A batch of which as many rows are answered as are not and never will be."""
    done = [request(f"done-{number}", f"{number}") for number in range(rows)]
    held = [request(f"held-{number}", f"{number}", model="held-model") for number in range(rows)]
    return str(client.create(done + held)["id"])


# --- Reading --------------------------------------------------------------------------------------------------------


def test_every_line_is_given_once_over_two_crashes(tmp_path: Path, engine_url: str) -> None:
    """Rows of one segment whose lines come before, between and after: its log goes over into a new one twice. Those
    that hang fit into the window of the engine beside the others."""
    data, after, batch_id = tmp_path / "data", "", ""
    texts = {f"{name}-{number}": f"{name} {number}" for name in ("first", "second", "third") for number in range(9)}
    hangs = {"first": "", "second": " [[hang x1]]", "third": " [[hang x2]]"}
    rows = [request(name, f"{text} {tmp_path}{hangs[name.partition('-')[0]]}") for name, text in texts.items()]
    for life in ("first", "second", "third"):
        with observed_server(data, "--engine", engine_url) as server, closing(WireClient(server.url)) as client:
            batch_id = batch_id or client.create(rows)["id"]
            after = read_until(client, batch_id, {name for name in texts if name.startswith(life)}, after)
            if life == "third":
                server.wait_ended(client, batch_id)
                assert read(client, batch_id, after) == Read([], after, "ended")
                assert set(read(client, batch_id).ids) == set(client.results(batch_id)) == set(texts)


def test_a_cursor_at_the_end_gives_an_empty_body(server: ObservedServer, client: WireClient) -> None:
    """Also to who takes gzip."""
    batch_id = client.create([request("a"), request("b")])["id"]
    server.wait_ended(client, batch_id)
    found = read(client, batch_id)
    assert (found.ids, found.status) == (["a", "b"], "ended")
    for coding in ("identity", "gzip"):
        answer = get(client, batch_id, f"so_far=true&after={found.cursor}", coding=coding)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["overnight-cursor"] == found.cursor


def test_the_lines_are_those_of_the_results(server: ObservedServer, client: WireClient) -> None:
    """Byte for byte, in the same order, over several segments; gzip is one member, as the SDKs need it."""
    batch_id = client.create([request(f"row-{number}", f"{number}" * 40) for number in range(2500)])["id"]
    server.wait_ended(client, batch_id)
    whole = client.call("GET", f"{BATCHES}/{batch_id}/results", headers={"accept-encoding": "identity"}).body
    plain, packed = get(client, batch_id), get(client, batch_id, coding="gzip")
    assert plain.body == whole
    assert plain.headers["content-type"] == packed.headers["content-type"] == "application/x-jsonl"
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
    member = zlib.decompressobj(31)
    assert member.decompress(packed.body) == whole
    assert (member.eof, member.unused_data) == (True, b"")


def test_gzip_of_a_part_of_a_segment(server: ObservedServer, client: WireClient) -> None:
    """And an answer whose length is not known is chunked, so that its end is seen."""
    batch_id = half_done(client)
    read_until(client, batch_id, {"done-0", "done-1", "done-2"})
    plain, packed = get(client, batch_id), get(client, batch_id, coding="gzip")
    assert gzip.decompress(packed.body) == plain.body
    for answer in (plain, packed):
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["overnight-processing-status"] == "in_progress"


def test_what_a_cancel_leaves_comes_too(server: ObservedServer, client: WireClient) -> None:
    batch_id = half_done(client)
    after = read_until(client, batch_id, {"done-0", "done-1", "done-2"})
    client.cancel(batch_id)
    after = read_until(client, batch_id, {"held-0", "held-1", "held-2"}, after)
    server.wait_ended(client, batch_id)
    assert read(client, batch_id, after) == Read([], after, "ended")


def test_without_it_results_are_as_before(client: WireClient) -> None:
    """Not there until the batch has ended."""
    batch_id = half_done(client)
    for query in ("", "so_far=false", "after=nonsense"):
        answer = get(client, batch_id, query)
        assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("value", ["", "1", "True", "yes"])
def test_so_far_is_true_or_false(client: WireClient, value: str) -> None:
    answer = get(client, half_done(client), f"so_far={value}")
    assert answer.error == (400, "invalid_request_error", "so_far: Input should be true or false")


# --- Who may read ---------------------------------------------------------------------------------------------------


def test_other_workspaces_see_nothing_not_even_with_the_cursor(server: ObservedServer, client: WireClient) -> None:
    batch_id = client.create([request("a")])["id"]
    server.wait_ended(client, batch_id)
    after = read(client, batch_id).cursor
    with closing(WireClient(server.url, api_key=f"key-{next(_keys)}")) as other:
        for query in ("so_far=true", f"so_far=true&after={after}", "so_far=true&after=nonsense"):
            theirs, nobodys = get(other, batch_id, query), get(other, OTHER, query)
            assert theirs.error == (404, "not_found_error", f"Message Batch {batch_id} not found.")
            assert nobodys.error == (404, "not_found_error", f"Message Batch {OTHER} not found.")
    assert get(client, "nonsense").status == 404


def test_it_counts_against_the_rate_limit(tmp_path: Path, engine_url: str) -> None:
    config = tmp_path / "overnight.toml"
    config.write_text(f'requests_per_minute = 2\n[[engines]]\nspec = "{engine_url}"\n')
    with (
        observed_server(tmp_path / "data", "--config", str(config)) as server,
        closing(WireClient(server.url)) as client,
    ):
        assert [get(client, OTHER).status for _ in range(3)] == [404, 404, 429]


def test_an_archived_batch_has_no_results(tmp_path: Path, engine_url: str) -> None:
    data, flags = tmp_path / "data", ("--engine", engine_url)
    with observed_server(data, *flags) as server, closing(WireClient(server.url)) as client:
        batch_id = client.create([request("a")])["id"]
        server.wait_ended(client, batch_id)
        after = read(client, batch_id).cursor
    with observed_server(data, *flags, ahead_s=29 * _DAY_S) as server, closing(WireClient(server.url)) as client:
        for _ in range(_LOOKS_MAX):
            if client.retrieve(batch_id)["archived_at"] is not None:
                break
        answer = get(client, batch_id, f"so_far=true&after={after}")
        assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")


# --- Cursors --------------------------------------------------------------------------------------------------------

REQUESTS = [1000, 1000, 3, 1, 1000, 1000, 500, 1, 7]
GIVEN = [
    pytest.param([NOTHING] * 9, id="nothing"),
    pytest.param([Given(most) for most in REQUESTS], id="all"),
    pytest.param([Given(1000), Given(999, 2**32 - 1), Given(1, 0), *[NOTHING] * 5, Given(6, 5)], id="some"),
]


@pytest.mark.parametrize("given", GIVEN)
def test_a_cursor_says_what_was_given(given: list[Given]) -> None:
    text = cursor.encode(OURS, given, REQUESTS)
    assert cursor.decode(text, OURS, REQUESTS) == given
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum()


def test_the_longest_cursor_fits() -> None:
    """Of a batch that is cut as badly as can be: every two neighbours over a segment's size, all of them begun."""
    segments = 2 * limits.BATCH_BODY_BYTES_MAX // limits.SEGMENT_BYTES_MAX
    segments += limits.BATCH_REQUESTS_MAX // limits.SEGMENT_REQUESTS_MAX
    given, requests = [Given(999, 2**32 - 1)] * segments, [1000] * segments
    text = cursor.encode(OURS, given, requests)
    assert len(text) <= limits.CURSOR_LENGTH_MAX
    assert cursor.decode(text, OURS, requests) == given


def _forged(payload: bytes) -> str:
    check = sha256(b"overnight cursor 1 " + OURS.encode() + b" " + payload).digest()[:8]
    return urlsafe_b64encode(check + payload).decode().rstrip("=")


GOOD = cursor.encode(OURS, [Given(2, 9), NOTHING], [5, 5])
NONSENSE = [
    pytest.param("nonsense", id="nonsense"),
    pytest.param("ä", id="not ascii"),
    pytest.param("AAAA AAAA", id="space"),
    pytest.param(GOOD + "!", id="more"),
    pytest.param(GOOD[:-4], id="less"),
    pytest.param(("B" if GOOD[0] == "A" else "A") + GOOD[1:], id="changed"),
    pytest.param("A" * (limits.CURSOR_LENGTH_MAX + 1), id="too long"),
    pytest.param(cursor.encode(OTHER, [Given(2, 9), NOTHING], [5, 5]), id="of another batch"),
    pytest.param(_forged(b""), id="forged: nothing"),
    pytest.param(_forged(b"\x00\x01"), id="forged: a part is missing"),
    pytest.param(_forged(b"\x00\x01\x02\x00"), id="forged: half a part"),
    pytest.param(_forged(b"\x00\x01\x05\x00\x00\x00\x00\x00"), id="forged: too many lines"),
    pytest.param(_forged(b"\x00\x01\x00\x00\x00\x00\x00\x00"), id="forged: no lines"),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^after: .* of Message Batch {OURS}$"):
        cursor.decode(text, OURS, [5, 5])


@pytest.mark.parametrize("text", ["nonsense", "%C3%A4", "A" * (limits.CURSOR_LENGTH_MAX + 1), GOOD])
def test_what_is_no_cursor_is_400(client: WireClient, text: str) -> None:
    batch_id = half_done(client)
    status, kind, said = get(client, batch_id, f"so_far=true&after={text}").error
    assert (status, kind) == (400, "invalid_request_error")
    assert said == f"after: this is no `overnight-cursor` of Message Batch {batch_id}"
