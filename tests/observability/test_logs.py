"""The log: one line an event whatever is in it, in two formats, with the ids of what it is about and no payload."""

import asyncio
import io
import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from overnight.ports import logs as fields
from overnight.server import logs
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.processes import running_server
from overnight.testing.upstream import Upstream
from overnight.testing.wireclient import BATCHES, WireClient, params, request

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_KEY = "sk-secret-of-an-operator"
_NOBODY = "http://127.0.0.1:9"
_MARKER = "zzz-prompt-of-a-person-zzz"
_EVIL = 'a\nb\r\n2026-01-01T00:00:00.000Z INFO forged: x\x1b[2J\x85\u2028\u202e\x00"\\'


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards as it was."""
    found, names = logging.getLogger(), ("", "overnight", "uvicorn", "opentelemetry")
    handlers, levels = list(found.handlers), {name: logging.getLogger(name).level for name in names}
    yield found
    found.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _written(root: logging.Logger, log_format: logs.Format, write: Any, *, level: logs.Level = "info") -> list[str]:
    stream = io.StringIO()
    logs.set_up(log_format, level, stream=stream)
    write()
    return stream.getvalue().splitlines(keepends=True)


# --- Lines ----------------------------------------------------------------------------------------------------------


def test_a_text_line_has_time_level_logger_words_and_fields(root: logging.Logger) -> None:
    log = logging.getLogger("overnight.batches")
    (line,) = _written(
        root, "text", lambda: fields.tell(log, logging.INFO, "batch created", batch="msgbatch_1", requests=2, x="a b")
    )
    assert _TIME.sub("T", line) == 'T INFO overnight.batches: batch created batch=msgbatch_1 requests=2 x="a b"\n'


def test_a_json_line_is_an_object_whose_numbers_are_numbers(root: logging.Logger) -> None:
    log = logging.getLogger("overnight.batches")
    (line,) = _written(
        root,
        "json",
        lambda: fields.tell(log, logging.WARNING, "batch ended", batch="msgbatch_1", requests=2, gone=None),
    )
    found = json.loads(line)
    assert _TIME.fullmatch(found.pop("time"))
    assert found == {
        "level": "warning",
        "logger": "overnight.batches",
        "message": "batch ended",
        "batch": "msgbatch_1",
        "requests": 2,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("place", ["message", "argument", "field", "about"])
def test_no_value_can_forge_a_line_or_move_a_cursor(
    root: logging.Logger, log_format: logs.Format, place: str
) -> None:
    log = logging.getLogger("overnight.test")

    def write() -> None:
        if place == "message":
            log.info(_EVIL)
        elif place == "argument":
            log.info("said %s", _EVIL)
        elif place == "field":
            fields.tell(log, logging.INFO, "said", what=_EVIL)
        else:
            with fields.about(batch=_EVIL):
                log.info("said")

    (line,) = _written(root, log_format, write)
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_long_value_is_cut(root: logging.Logger, log_format: logs.Format) -> None:
    log = logging.getLogger("overnight.test")
    (line,) = _written(root, log_format, lambda: fields.tell(log, logging.INFO, "x" * 9_000, what="y" * 9_000))
    assert line.count("x") < 2_001
    assert line.count("y") < 2_001
    assert line.count("...") == 2


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_told_by_type_and_place_and_not_by_its_words(
    root: logging.Logger, log_format: logs.Format
) -> None:
    def fail() -> None:
        try:
            raise KeyError(_MARKER)
        except KeyError as error:
            raise ExceptionGroup(_MARKER, [ValueError(_MARKER)]) from error

    def write() -> None:
        try:
            fail()
        except ExceptionGroup:
            logging.getLogger("overnight.test").exception("it failed")

    (line,) = _written(root, log_format, write)
    assert _MARKER not in line
    assert line.count("Traceback") == 1
    for told in ("ExceptionGroup", "ValueError", "KeyError", "test_logs.py:", " fail"):
        assert told in line


def test_what_asyncio_shows_of_a_lost_task_is_not_told(root: logging.Logger) -> None:
    async def lose() -> None:
        async def fail() -> None:
            raise ValueError(_MARKER)

        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task

    (line,) = _written(root, "text", lambda: asyncio.run(lose()))
    assert "Task exception was never retrieved" in line
    assert _MARKER not in line


def test_ids_reach_nested_lines_and_tasks_and_end_with_their_block(root: logging.Logger) -> None:
    log = logging.getLogger("overnight.test")

    async def nested() -> None:
        with fields.about(segment=3):
            log.info("inner")

    async def main() -> None:
        with fields.about(request="req_1"):
            await asyncio.create_task(nested())
            log.info("outer")
        log.info("after")

    lines = _written(root, "json", lambda: asyncio.run(main()))
    shown = [
        {name: found.get(name) for name in ("message", "request", "segment")} for found in map(json.loads, lines)
    ]
    assert shown == [
        {"message": "inner", "request": "req_1", "segment": 3},
        {"message": "outer", "request": "req_1", "segment": None},
        {"message": "after", "request": None, "segment": None},
    ]


def test_a_field_cannot_take_the_place_of_what_every_line_says(root: logging.Logger) -> None:
    log = logging.getLogger("overnight.test")
    (line,) = _written(root, "json", lambda: fields.tell(log, logging.INFO, "said", level="critical", time="never"))
    assert json.loads(line)["level"] == "info"
    assert _TIME.fullmatch(json.loads(line)["time"])


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param("debug", ["d", "i", "w", "e", "li"], id="debug, of our own modules only"),
        pytest.param("info", ["i", "w", "e", "li"], id="info"),
        pytest.param("warning", ["w", "e"], id="warning"),
        pytest.param("error", ["e"], id="error"),
    ],
)
def test_the_level_says_what_is_written(root: logging.Logger, level: logs.Level, expected: list[str]) -> None:
    ours, others = logging.getLogger("overnight.test"), logging.getLogger("library")

    def write() -> None:
        ours.debug("d")
        ours.info("i")
        ours.warning("w")
        ours.error("e")
        others.debug("ld")
        others.info("li")

    assert [json.loads(line)["message"] for line in _written(root, "json", write, level=level)] == expected


# --- A server -------------------------------------------------------------------------------------------------------


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _outcomes() -> list[dict[str, object]]:
    """Requests that end in every way: answered, refused, busy first, no Message, never valid."""
    return [
        request("fine", _MARKER),
        request("refused", f"{_MARKER} [[400]]"),
        request("twice", f"{_MARKER} [[529 x1]]"),
        request("garbage", f"{_MARKER} [[garbage]]"),
        request("invalid", _MARKER, max_tokens=0, secret=_MARKER),
        {"custom_id": "nonsense", "params": {"model": _MARKER, "messages": _MARKER}},
    ]


def test_no_prompt_and_no_key_is_in_the_log_whatever_becomes_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_LOG_FORMAT", "json")
    monkeypatch.setenv("OVERNIGHT_LOG_LEVEL", "debug")
    monkeypatch.setenv("OVERNIGHT_API_KEY", _KEY)
    data = tmp_path / "data"
    with upstream_process() as url:
        with (
            observed_server(data, "--engine", url) as server,
            closing(WireClient(server.url, api_key=_KEY)) as client,
        ):
            batch_id = client.create(_outcomes())["id"]
            counts = server.wait_ended(client, batch_id)["request_counts"]
            assert (counts["succeeded"], counts["errored"]) == (2, 4)
            _be_difficult(client)
            waiting = client.create([request("full", f"{_MARKER} [[529 after 600]]")])["id"]
            client.cancel(waiting)
            assert server.wait_ended(client, waiting)["request_counts"]["canceled"] == 1
            late = client.create([request("late", f"{_MARKER} [[529 after 600]]")])["id"]
        with (
            observed_server(data, "--engine", url, ahead_s=25 * 3600) as server,
            closing(WireClient(server.url, api_key=_KEY)) as client,
        ):
            assert server.wait_ended(client, late)["request_counts"]["expired"] == 1
    written = server.log()
    assert _MARKER not in written
    assert _KEY not in written
    events = Counter(line["message"] for line in _lines(written) if line["logger"] == "overnight.batches")
    assert events["batch created"] == events["batch ended"] == 3
    assert events["batch canceled"] == events["batch expired"] == 1
    assert events["segment sealed"] == 3
    assert events["segment leased"] >= 3  # Once more if the first worker had the last one when it was killed.


def _be_difficult(client: WireClient) -> None:
    """Requests that show the marker wherever a client can write."""
    client.call("POST", "/v1/messages", params(_MARKER))
    client.call("POST", "/v1/messages", params(f"{_MARKER} [[400]]"))
    client.call("POST", "/v1/messages", params(f"{_MARKER} [[garbage]]"))
    client.call("POST", "/v1/messages", params(_MARKER, model=_MARKER))
    client.call("POST", BATCHES, f'{{"requests": "{_MARKER}'.encode())
    client.call("POST", BATCHES, {"requests": [request("a", _MARKER), request("a", _MARKER)]})
    client.call("GET", f"{BATCHES}?after_id={_MARKER}&{_MARKER}={_MARKER}")
    client.call("GET", f"{BATCHES}/{_MARKER}")
    client.call("GET", f"/{_MARKER}/{_MARKER}?{_MARKER}")
    client.call("GET", f"/v1/models/{_MARKER}")
    client.call("GET", "/health", headers={"x-api-key": _MARKER, "user-agent": _MARKER, "x-forwarded-for": _MARKER})


def test_every_http_request_has_a_line_with_route_status_duration_bytes_and_ids(tmp_path: Path) -> None:
    environment = {"OVERNIGHT_LOG_FORMAT": "json", "OVERNIGHT_API_KEY": _KEY}
    with (
        upstream_process() as url,
        running_server(tmp_path / "data", "--engine", url, environment=environment) as server,
        closing(WireClient(server.url, api_key=_KEY)) as client,
    ):
        created = client.call("POST", BATCHES, {"requests": [request("a")]})
        batch_id = created.json["id"]
        answers = [
            created,
            client.call("GET", f"{BATCHES}/{batch_id}"),
            client.call("GET", f"{BATCHES}/msgbatch_nothing"),
            client.call("GET", "/nothing?q=1", headers={"x-forwarded-for": "10.1.2.3, 10.9.9.9"}),
            client.call("GET", BATCHES, headers={"x-api-key": "wrong"}),
        ]
        client.call("GET", "/health")
        assert server.stop() == 0
    lines = [line for line in _lines(server.log()) if line["logger"] == "overnight.http"]
    assert [(line["message"], line["status"]) for line in lines] == [
        (f"POST {BATCHES}", 200),
        (f"GET {BATCHES}/{{batch_id}}", 200),
        (f"GET {BATCHES}/{{batch_id}}", 404),
        ("GET other", 404),
        (f"GET {BATCHES}", 401),
    ]  # And none of /health, which is asked every few seconds.
    assert [line["request"] for line in lines] == [answer.headers["request-id"] for answer in answers]
    assert [line["bytes"] for line in lines] == [len(answer.body) for answer in answers]
    assert all(0 <= line["took_s"] < 60 for line in lines)
    assert [line["client"] for line in lines] == ["127.0.0.1"] * 3 + ["10.9.9.9", "127.0.0.1"]
    assert [line.get("workspace") for line in lines] == ["wrkspc_01default"] * 3 + [None, None]
    assert [line.get("batch") for line in lines] == [None, batch_id, None, None, None]
    (made,) = [line for line in _lines(server.log()) if line["message"] == "batch created"]
    assert (made["batch"], made["requests"]) == (batch_id, 1)
    assert made["request"] == answers[0].headers["request-id"]  # From a call deep below.


def test_an_engine_that_goes_and_comes_back_is_told_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERNIGHT_LOG_FORMAT", "json")

    async def main() -> list[tuple[str, str]]:
        upstream = Upstream()
        async with upstream:
            url = upstream.url
        server = await asyncio.to_thread(ObservedServer, tmp_path / "data", "--engine", url)
        with closing(WireClient(server.url)) as client:
            batch_id = (await asyncio.to_thread(client.create, [request("a"), request("b")]))["id"]
            while "connect" not in str((await asyncio.to_thread(client.call, "GET", "/health")).json["trouble"]):
                pass
            assert (await asyncio.to_thread(client.call, "GET", "/ready")).status == 503
            async with upstream:
                await asyncio.to_thread(server.wait_ended, client, batch_id)
                assert (await asyncio.to_thread(client.call, "GET", "/ready")).status == 200
        await asyncio.to_thread(server.kill)
        lines = [line for line in _lines(server.log()) if line["message"].startswith("engine")]
        assert {line["engine"] for line in lines} == {f"messages {url}"}
        return [(line["level"], line["message"]) for line in lines]

    assert asyncio.run(main()) == [("warning", "engine away"), ("info", "engine back")]


def test_what_uvicorn_says_is_a_line_like_any_other(tmp_path: Path) -> None:
    environment = {"OVERNIGHT_LOG_FORMAT": "json"}
    with running_server(tmp_path / "data", "--engine", _NOBODY, environment=environment) as server:
        host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert b"400" in connection.recv(1000)
        assert server.stop() == 0
    (line,) = [line for line in _lines(server.log()) if line["logger"].startswith("uvicorn")]
    assert (line["level"], line["message"]) == ("warning", "Invalid HTTP request received.")
