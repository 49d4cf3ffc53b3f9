"""Hostile paths, queries, bodies and engines, against a real process: clear answers, bounded memory.

What tests/scale has is not here: heads (test_heads), malformed and oversized bodies (test_bad_input), clients that
vanish or dawdle (test_clients).
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from scale_server import MIB, hosting, peak_memory

from overnight import limits
from overnight.server.app import ROUTES
from overnight.server.console.routes import CONSOLE_ROUTES, OPEN_ROUTES
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess
from overnight.testing.rawhttp import answered, connected, head
from overnight.testing.wireclient import BATCHES, WireClient, params, request

SLACK_BYTES = 64 * MIB
HOSTILE = {
    "dots": "..",
    "dots with slashes": "..%2f..%2f..%2fetc%2fpasswd",
    "encoded dots": "%2e%2e%2f%2e%2e",
    "encoded twice": "%252e%252e%252f",
    "backslashes": "..%5c..%5cetc",
    "zero": "msgbatch_01aaaaaaaaaa%00.gz",
    "a line": "msgbatch_01aaaaaaaaaa%0d%0aset-cookie:%20evil=1%0d%0a%0d%0a<script>",
    "a newline at the end": "msgbatch_01aaaaaaaaaaaaaaaaaaaaaa%0a",
    "direction": "msgbatch_01aaaaaaaaaa%e2%80%ae",
    "other digits": "msgbatch_01%d9%a3%d9%a3%d9%a3%d9%a3%d9%a3%d9%a3%d9%a3%d9%a3",
    "wide letters": "%ef%bd%8d%ef%bd%93%ef%bd%87batch_01aaaaaaaaaa",
    "no UTF-8": "msgbatch_01%ff%fe%c0%ae%c0%ae",
    "markup": "%22%3e%3cscript%3ealert(1)%3c/script%3e",
    "SQL": "msgbatch_01%27%20OR%201=1%20--",
    "a template": "{{7*7}}${7*7}",
    "long": "msgbatch_01" + "a" * 20_000,
    "many parts": "a/" * 5_000,
}
PATHS = sorted({path for _, path, _ in (*ROUTES, *CONSOLE_ROUTES, *OPEN_ROUTES) if "{" in path})
QUERIES = [
    "/v1/messages/batches?limit=5&after_id=",
    "/v1/messages/batches?before_id=",
    "/v1/messages/batches?limit=",
    "/v1/models?after_id=",
    "/v1/organizations/usage_report/messages?starting_at=",
    "/v1/organizations/usage_report/messages?starting_at=2026-01-01T00:00:00Z&page=",
    "/v1/organizations/cost_report?starting_at=2026-01-01T00:00:00Z&group_by[]=",
    "/v1/organizations/rate_limits?model=",
    "/v1/overnight/usage?since=",
    "/v1/overnight/usage?by=",
    "/v1/messages/batches/{ended}/results?so_far=true&after=",
    "/v1/overnight/batches/{ended}/export?format=",
    "/v1/overnight/batches/{ended}/export?with=",
    "/console/batches?id=",
    "/console/batches?after=",
    "/console/batches?from=",
    "/console/batches/{ended}/results?at=",
    "/console/batches/{ended}/results?text=",
    "/console/batches/{ended}/results?type=",
    "/console/batches/{ended}/results/a/whole?side=answer&part=",
    "/console/batches/{ended}/download?format=",
    "/console/usage?from=",
    "/console/usage?workspace=",
    "/console/usage.csv?by=",
    "/console/hooks?hook=",
    "/console/keys/new?workspace=",
    "/console/login?next=",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("hostile") / "data"
    with upstream_process() as url, hosting(data, url, {"HEAD_S_MAX": 600, "UPLOAD_STALL_S": 600}) as found:
        yield found


@pytest.fixture
def client(server: ServerProcess) -> Iterator[WireClient]:
    with closing(WireClient(server.url)) as found:
        yield found


@pytest.fixture(scope="module")
def ended(server: ServerProcess) -> str:
    with closing(WireClient(server.url)) as client:
        batch_id = str(client.create([request("a")])["id"])
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
        return batch_id


@pytest.fixture(autouse=True)
def well(server: ServerProcess, client: WireClient) -> Iterator[None]:
    """After each test the server is well, and wrote no line that a client made up."""
    yield
    assert client.call("GET", "/health").status == 200
    log = server.log()
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if not line.startswith("20")] == []


# --- Names ----------------------------------------------------------------------------------------------------------


def _said(url: str, method: str, path: str) -> bytes:
    """The head of an answer, which must be one, and none of ours that went wrong."""
    with closing(connected(url)) as connection:
        connection.sendall(head(method, path, {"content-length": "0"}))
        answer = answered(connection)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert answer[9:12] in (b"200", b"303", b"400", b"401", b"403", b"404", b"405"), answer[:500]
    assert b"evil" not in start.replace(b"location: /console/", b"")
    assert b"<script>alert" not in body or b"application/json" in start
    assert b"root:" not in body
    assert b">49" not in body
    return answer


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_in_a_path_leads_anywhere(name: str, server: ServerProcess, ended: str) -> None:
    for path in PATHS:
        known = path.replace("{batch_id}", ended)
        for to in {path, known} if "{" in known else {path}:
            for method in ("GET", "POST", "DELETE"):
                answer = _said(server.url, method, _filled(to, HOSTILE[name]))
                assert answer[9:12] != b"200" or "{model_id" in path, to  # The engine takes any name for a model.


def _filled(path: str, name: str) -> str:
    start, _, rest = path.partition("{")
    while rest:
        _, _, rest = rest.partition("}")
        middle, _, rest = rest.partition("{")
        start += name + middle
    return start


@pytest.mark.parametrize("name", HOSTILE)
def test_no_word_in_a_query_does_anything(name: str, server: ServerProcess, ended: str) -> None:
    for query in QUERIES:
        answer = _said(server.url, "GET", query.replace("{ended}", ended) + HOSTILE[name])
        assert answer.count(b"HTTP/1.1") == 1


def test_what_a_client_made_up_comes_back_in_no_header(client: WireClient, ended: str) -> None:
    made_up = {
        "idempotency-key": 'zebra"; filename=evil',
        "anthropic-beta": "zebra",
        "x-forwarded-prefix": "/zebra",
        "x-forwarded-proto": "zebra",
        "user-agent": "zebra",
        "x-request-id": "zebra",
        "request-id": "zebra",
        "traceparent": "zebra",
        "range": "zebra=0-1",
        "if-none-match": "zebra",
        "accept-encoding": "zebra",
    }
    paths = [BATCHES, f"{BATCHES}/{ended}", f"{BATCHES}/{ended}/results", f"/v1/overnight/batches/{ended}/export"]
    for path in (*paths, "/console/batches", "/console/login"):
        answer = client.call("GET", path, headers=made_up)
        assert answer.status in (200, 303)
        left = {name: value for name, value in answer.headers.items() if name not in ("location", "set-cookie")}
        assert "zebra" not in str(left)
        assert "//" not in answer.headers.get("location", "")


# --- Bombs ----------------------------------------------------------------------------------------------------------

ROOM = b" " * (300 * MIB)
SMALL = limits.CONSOLE_FORM_BYTES_MAX


def _bomb(levels: int) -> bytes:
    body = gzip.compress(ROOM, 9)
    for _ in range(levels - 1):
        body = gzip.compress(body, 9)
    return body


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (BATCHES, limits.BATCH_BODY_BYTES_MAX),
        ("/v1/messages", limits.MESSAGE_BODY_BYTES_MAX),
        ("/v1/messages/count_tokens", limits.MESSAGE_BODY_BYTES_MAX),
        ("/v1/overnight/batches/{ended}/retry", 4096),
    ],
)
def test_a_body_that_inflates_a_thousandfold_is_refused(
    path: str, most: int, server: ServerProcess, client: WireClient, ended: str
) -> None:
    bomb = _bomb(1)
    assert len(bomb) * 900 < len(ROOM)
    with peak_memory(server) as peak:
        answer = client.call("POST", path.replace("{ended}", ended), bomb, headers={"content-encoding": "gzip"})
        assert answer.error[:2] == (413, "request_too_large")
        assert peak() < most + SLACK_BYTES


def test_a_bomb_in_a_bomb_is_taken_apart_once(server: ServerProcess, client: WireClient) -> None:
    with peak_memory(server) as peak:
        answer = client.call("POST", BATCHES, _bomb(2), headers={"content-encoding": "gzip"})
        assert answer.error[:2] == (400, "invalid_request_error")
        twice = client.call("POST", BATCHES, _bomb(2), headers={"content-encoding": "gzip, gzip"})
        assert twice.error[:2] == (400, "invalid_request_error")
        assert peak() < SLACK_BYTES


def test_a_form_cannot_be_a_bomb(server: ServerProcess, client: WireClient) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/x-www-form-urlencoded"}
    with peak_memory(server) as peak:
        assert client.call("POST", "/console/login", _bomb(1), headers=headers).status == 413
        assert peak() < SLACK_BYTES


MANY = 400_000
JSON = {
    "many keys": b'{"model":"m","max_tokens":1,"messages":[],'
    + b",".join(b'"k%d":1' % n for n in range(MANY))
    + b"}",
    "one key, again and again": b'{"model":"m",' + b",".join([b'"max_tokens":1'] * MANY) + b"}",
    "many small lists": b'{"model":"m","messages":[' + b",".join([b"[]"] * MANY * 4) + b"]}",
    "many digits": b'{"model":"m","max_tokens":' + b"9" * 10_000_000 + b"}",
    "many decimals": b'{"model":"m","temperature":0.' + b"9" * 10_000_000 + b"}",
    "a number that is none": b'{"model":"m","max_tokens":1e' + b"9" * 1_000_000 + b"}",
    "deep": b'{"model":"m","messages":' + b"[" * 1_000_000,
    "deep and whole": b'{"model":"m","messages":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "escapes": b'{"model":"' + rb"\u0000" * 1_000_000 + b'"}',
}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", BATCHES])
@pytest.mark.parametrize("name", JSON)
def test_odd_json_takes_little_memory_and_is_answered(
    name: str, path: str, server: ServerProcess, client: WireClient
) -> None:
    body = JSON[name]
    if path == BATCHES:
        body = b'{"requests":[{"custom_id":"a","params":%b}]}' % body
    with peak_memory(server) as peak:
        answer = client.call("POST", path, body)
        assert answer.status in (200, 400, 404), answer
        assert len(answer.body) < 2_000
        assert peak() < 8 * len(body) + SLACK_BYTES


# --- Engines that mean harm -----------------------------------------------------------------------------------------


class _Bombs(BaseHTTPRequestHandler):
    """Answers everything with a Message that inflates to 300 MB."""

    body = gzip.compress(b'{"type":"message","content":[{"type":"text","text":"' + ROOM, 9)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        try:
            self.wfile.write(self.body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("kind", ["", "chat+"])
def test_an_engine_that_answers_with_a_bomb_costs_one_request(kind: str, tmp_path: Path) -> None:
    engine = ThreadingHTTPServer(("127.0.0.1", 0), _Bombs)
    thread = threading.Thread(target=engine.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"{kind}http://127.0.0.1:{engine.server_port}"
        with hosting(tmp_path / "data", url) as server, closing(WireClient(server.url)) as client:
            with peak_memory(server) as peak:
                answer = client.call("POST", "/v1/messages", params())
                assert answer.status >= 500
                assert len(answer.body) < 2_000
                assert peak() < 2 * limits.ENGINE_REPLY_BYTES_MAX + SLACK_BYTES
            assert client.call("GET", "/health").status == 200
    finally:
        engine.shutdown()
        engine.server_close()
        thread.join()


# --- Slow clients ---------------------------------------------------------------------------------------------------


def test_people_are_answered_while_slow_clients_hold_hundreds_of_connections(
    server: ServerProcess, client: WireClient, ended: str
) -> None:
    """Heads, bodies and readers that never go on, none of which is given up while this test runs."""
    begun = {
        "a head": b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx: ",
        "a body": head("POST", "/v1/messages", {"content-length": "1000"}) + b"{",
        "a large body": head("POST", BATCHES, {"content-length": str(200 * MIB)}) + b"{",
        "a form": head(
            "POST",
            "/console/login",
            {"content-length": "99", "content-type": "application/x-www-form-urlencoded"},
        ),
        "a reader": head("GET", f"{BATCHES}/{ended}/results") * 50,
    }
    with ExitStack() as stack:
        for start in begun.values():
            for _ in range(60):
                connection = stack.enter_context(closing(connected(server.url, receive_bytes=4096)))
                connection.sendall(start)
        for number in range(20):
            answer = client.call("POST", "/v1/messages", params(f"hello {number}"))
            assert json.loads(answer.body)["content"][0]["text"] == f"echo: hello {number}"
            assert client.retrieve(ended)["processing_status"] == "ended"
            assert client.call("GET", "/console/batches").status == 200
        batch_id = client.create([request("b")])["id"]  # Small bodies need no place among the uploads.
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
