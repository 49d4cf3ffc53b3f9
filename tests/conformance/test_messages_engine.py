"""The `Messages` engine: what it sends, what it makes of each answer, and that it works with a real server."""

import asyncio
import importlib.resources
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overnight import errors, limits
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Call, Engine, Model
from overnight.engines.messages import Messages
from overnight.engines.plain import PlainTransport
from overnight.engines.pooled import PooledTransport
from overnight.testing.scripted import Peer, ScriptedServer
from overnight.testing.upstream import Upstream
from overnight.wire import message

KEY = "sk-hush-0123456789"
CASE_S = 60.0
NOW_MS = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


class StoppedClock:
    def now_ms(self) -> int:
        return NOW_MS


def call(text: str = "Hello", *, stream: bool = False, **fields: Any) -> Call:
    params: dict[str, Any] = {"model": "echo", "max_tokens": 16, "messages": [{"role": "user", "content": text}]}
    if stream:
        params["stream"] = True
    settings: dict[str, Any] = {"model": "echo", "api_version": "2023-06-01", "timeout_s": 30.0}
    return Call(params=msgspec.json.encode(params), **(settings | fields))


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(CASE_S):
            await main

    asyncio.run(bounded())


def with_upstream(case: Callable[[Upstream, Messages], Coroutine[Any, Any, None]], **settings: Any) -> None:
    """Run `case` with a fake server and an engine on it."""

    async def hold() -> None:
        async with Upstream(**settings) as upstream:
            engine = Messages(upstream.url, api_key=settings.get("key"), clock=StoppedClock())
            try:
                await case(upstream, engine)
            finally:
                await engine.close()

    run(hold())


def answered(status: int, body: bytes = b"{}", *headers: str, asked: Call | None = None) -> tuple[Outcome, bytes]:
    """What the engine makes of this answer, and the request that it sent for it."""
    seen: list[Any] = []

    async def hold() -> None:
        async with ScriptedServer() as server:
            engine = Messages(server.url, api_key=KEY, clock=StoppedClock())
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(engine.answer(asked or call()))
                peer = await server.accept()
                seen.append(await peer.request())
                lines = "".join(f"{line}\r\n" for line in headers).encode()
                peer.say(b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body))
            seen.append(asking.result())
            await engine.close()

    run(hold())
    return seen[1], seen[0]


def problem(error_type: str, text: str, request_id: str | None = None) -> bytes:
    error = {"type": error_type, "message": text}
    return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


def test_it_is_an_engine() -> None:
    engine: Engine = Messages("http://localhost:8000")
    assert (engine.name, engine.in_flight_max) == ("messages http://localhost:8000", 1024)


# --- What is sent ------------------------------------------------------------------------------------------------


def test_params_are_sent_as_the_bytes_they_are() -> None:
    params = b'{"model": "m",  "service_tier":"auto", "unknown": [1e400, "\\u00e9"], "stream":false}'
    asked = Call(params=params, model="m", api_version="2023-01-01", betas="a-1,b-2", timeout_s=30.0)
    outcome, request = answered(200, b'{"anything": true}', asked=asked)
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == params
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /v1/messages http/1.1"
    assert {"anthropic-version: 2023-01-01", "anthropic-beta: a-1,b-2", "content-type: application/json"} <= set(
        lines
    )
    assert outcome == Answered(b'{"anything": true}')


def test_without_betas_there_is_no_beta_header() -> None:
    assert b"anthropic-beta" not in answered(200)[1].lower()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [("auto", {"x-api-key", "authorization"}), ("x-api-key", {"x-api-key"}), ("bearer", {"authorization"})],
)
def test_the_key_goes_where_servers_look_for_it(auth: Any, expected: set[str]) -> None:
    async def hold() -> None:
        async with ScriptedServer() as server:
            engine = Messages(server.url, api_key=KEY, auth=auth)
            async with asyncio.TaskGroup() as group:
                group.create_task(engine.answer(call()))
                peer = await server.accept()
                lines = (await peer.request()).decode().lower().split("\r\n")
                peer.end()
            sent = {line.partition(":")[0]: line for line in lines if KEY in line}
            assert set(sent) == expected
            assert sent.get("authorization", f"bearer {KEY}").endswith(f"bearer {KEY}")
            await engine.close()

    run(hold())


def test_claude_gets_no_bearer() -> None:
    """api.anthropic.com takes `authorization` for an OAuth token; with both headers it refuses."""
    from overnight.engines.address import address
    from overnight.engines.messages import auth_headers

    assert auth_headers(address("https://api.anthropic.com"), KEY, "auto") == {"x-api-key": KEY}
    assert auth_headers(address("https://notanthropic.com"), KEY, "auto").keys() == {"x-api-key", "authorization"}
    assert auth_headers(address("https://api.anthropic.com"), None, "auto") == {}


@pytest.mark.parametrize("suffix", ["/v1", "/v1/", "/", ""])
def test_a_v1_at_the_end_of_the_address_is_dropped(suffix: str) -> None:
    assert Messages(f"http://host:1/base{suffix}").name == "messages http://host:1/base"


@pytest.mark.parametrize("version", ["2023-06-01\r\nx-api-key: other", "\x00", "€"])
def test_a_header_value_that_cannot_be_sent_is_the_callers_fault(version: str) -> None:
    async def hold() -> None:
        engine = Messages("http://127.0.0.1:1")
        for asked in (call(api_version=version), call(betas=version)):
            outcome = await engine.answer(asked)
            assert isinstance(outcome, Refused)
            assert (outcome.status, outcome.type) == (400, "invalid_request_error")
        await engine.close()

    run(hold())


# --- What answers mean -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_server_without_room_is_busy(status: int) -> None:
    outcome, _ = answered(status, problem("overloaded_error", "later"), "retry-after: 1.5")
    assert outcome == Busy(reason=f"HTTP {status}: later", status=status, retry_after_ms=1500)


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        (["retry-after: 7"], 7_000),
        (["retry-after-ms: 250.9", "retry-after: 7"], 250),
        (["retry-after-ms: soon", "retry-after: 7"], 7_000),
        (["retry-after: Tue, 14 Nov 2023 22:13:50 GMT"], 30_000),
        (["retry-after: Tue, 14 Nov 2023 22:13:50 -0000"], 30_000),
        (["retry-after: Tue, 14 Nov 2023 22:00:00 GMT"], 0),
        (["retry-after: -5"], 0),
        (["retry-after: 1e300"], limits.RETRY_AFTER_MS_MAX),
        (["retry-after: inf"], limits.RETRY_AFTER_MS_MAX),
        (["retry-after: nan"], None),
        (["retry-after: tomorrow"], None),
        ([], None),
    ],
)
def test_how_long_to_wait_is_read_as_the_sdks_read_it(headers: list[str], wait_ms: int | None) -> None:
    outcome, _ = answered(429, b"", *headers)
    assert isinstance(outcome, Busy)
    assert outcome.retry_after_ms == wait_ms


@pytest.mark.parametrize("status", [400, 413, 422, 404, 451])
def test_a_refused_request_keeps_status_type_text_and_id(status: int) -> None:
    body = problem("permission_error", "max_tokens: too large", "req_body")
    outcome, _ = answered(status, body, "request-id: req_head")
    assert outcome == Refused(
        status=status, type="permission_error", message="max_tokens: too large", request_id="req_body"
    )


def test_a_type_that_is_none_of_the_apis_becomes_that_of_the_status() -> None:
    outcome, _ = answered(413, problem("exceed_context_size_error", "too long", None))
    assert outcome == Refused(status=413, type="request_too_large", message="too long")


def test_the_request_id_may_stand_in_a_header_alone() -> None:
    outcome, _ = answered(400, b'{"error": {"message": "no"}}', "request-id: req_head")
    assert outcome == Refused(status=400, type="invalid_request_error", message="no", request_id="req_head")


@pytest.mark.parametrize("status", [401, 402, 403, 407])
def test_a_refused_key_lets_work_wait_instead_of_failing_it(status: int) -> None:
    outcome, _ = answered(status, problem("authentication_error", f"no such key: {KEY}"))
    assert isinstance(outcome, Busy)
    assert "refuses our key" in outcome.reason
    assert KEY not in outcome.reason


@pytest.mark.parametrize(
    ("status", "body"), [(404, b"404 page not found"), (404, b'{"detail":"Not Found"}'), (405, b""), (302, b"")]
)
def test_a_wrong_address_lets_work_wait_instead_of_failing_it(status: int, body: bytes) -> None:
    outcome, _ = answered(status, body)
    assert isinstance(outcome, Busy)
    assert "check the engine's URL" in outcome.reason


@pytest.mark.parametrize(
    ("status", "error_type"),
    [(500, "api_error"), (502, "api_error"), (504, "timeout_error"), (408, "timeout_error"), (409, "api_error")],
)
def test_a_failed_attempt_is_broken(status: int, error_type: str) -> None:
    outcome, _ = answered(status, b"<html>oops</html>")
    assert outcome == Broken(reason=f"HTTP {status}: <html>oops</html>", type=error_type)  # type: ignore[arg-type]


def test_an_empty_success_is_broken() -> None:
    assert isinstance(answered(204)[0], Broken)


def test_a_lost_connection_is_broken_a_silent_one_a_timeout_and_none_is_busy() -> None:
    async def hold() -> None:
        async with Upstream() as upstream:
            engine = Messages(upstream.url)
            assert isinstance(await engine.answer(call("[[drop]]")), Broken)
            silent = await engine.answer(call("[[hang]]", timeout_s=0.05))
            assert isinstance(silent, Broken)
            assert silent.type == "timeout_error"
        assert isinstance(await engine.answer(call()), Busy)
        await engine.close()

    run(hold())


def test_failures_come_as_the_text_asks_for_them() -> None:
    async def case(upstream: Upstream, engine: Messages) -> None:
        text = "count [[429 x2 after 3]]"
        outcomes = [await engine.answer(call(text)) for _ in range(3)]
        assert [type(outcome) for outcome in outcomes] == [Busy, Busy, Answered]
        assert upstream.calls == {text: 3}
        first = outcomes[0]
        assert isinstance(first, Busy)
        assert first.retry_after_ms == 3_000

    with_upstream(case)


def test_an_answer_is_a_message() -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        outcome = await engine.answer(call('say "hi"\n'))
        assert isinstance(outcome, Answered)
        line, usage = message.as_batch(outcome.message)
        assert json.loads(line)["content"] == [{"type": "text", "text": 'echo: say "hi"\n'}]
        assert usage.input_tokens > 0

    with_upstream(case)


def test_garbage_is_passed_on_for_the_runner_to_refuse() -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        outcome = await engine.answer(call("[[garbage]]"))
        assert isinstance(outcome, Answered)
        with pytest.raises(message.NotAMessage):
            message.as_batch(outcome.message)

    with_upstream(case)


def test_many_calls_at_once_get_their_own_answers() -> None:
    async def case(upstream: Upstream, engine: Messages) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(call(f"number {number}"))) for number in range(200)]
        for number, task in enumerate(tasks):
            outcome = task.result()
            assert isinstance(outcome, Answered)
            assert f'echo: number {number}"'.encode() in outcome.message
        assert upstream.in_flight == 0

    with_upstream(case, delay_s=0.01)


def test_each_call_is_in_the_log_before_it_is_answered(tmp_path: Path) -> None:
    log = tmp_path / "calls"

    async def case(_: Upstream, engine: Messages) -> None:
        for text in ("a", "b [[500]]", "a"):
            await engine.answer(call(text))
            assert json.loads(log.read_text().splitlines()[-1]) == text

    with_upstream(case, calls_log=log)
    assert len(log.read_text().splitlines()) == 3


# --- Streams -----------------------------------------------------------------------------------------------------


def test_a_stream_passes_events_through() -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        text = b"".join([piece async for piece in engine.stream(call("one two", stream=True))]).decode()
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
        deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
        assert "".join(deltas) == "echo: one two"

    with_upstream(case)


@pytest.mark.parametrize(
    ("text", "expected", "status"),
    [
        ("[[400]]", errors.UpstreamRefused, 400),
        ("[[529 after 3]]", errors.Overloaded, 529),
        ("[[401]]", errors.Overloaded, 529),
        ("[[500]]", errors.EngineFailed, 500),
        ("[[504]]", errors.EngineTimeout, 504),
        ("[[drop]]", errors.EngineFailed, 500),
        ("[[garbage]]", errors.EngineFailed, 500),
    ],
)
def test_a_stream_that_does_not_begin_raises(text: str, expected: type[errors.ApiError], status: int) -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        with pytest.raises(expected) as raised:
            await anext(engine.stream(call(text, stream=True)))
        assert raised.value.status == status
        if text.startswith("[[529"):
            assert raised.value.headers() == {"retry-after": "3"}

    with_upstream(case)


async def _cut_stream(server: ScriptedServer, parts: AsyncIterator[bytes], pieces: list[bytes]) -> Peer:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_read(parts, pieces))
        peer = await server.accept()
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n")
        peer.say(b'event: ping\ndata: {"type": "ping"}\n\nevent: content_block_delta\ndata: {"ty')
        peer.end()
        await reading
    return peer


async def _read(parts: AsyncIterator[bytes], pieces: list[bytes]) -> None:
    async for piece in parts:
        pieces.append(piece)


def test_a_stream_that_breaks_ends_in_an_error_event_and_not_in_half_an_event() -> None:
    async def hold() -> None:
        pieces: list[bytes] = []
        async with ScriptedServer() as server:
            engine = Messages(server.url, api_key=KEY)
            await _cut_stream(server, engine.stream(call(stream=True)), pieces)
            await engine.close()
        events = b"".join(pieces).decode().split("\n\n")
        assert events[0] == 'event: ping\ndata: {"type": "ping"}'
        assert events[1].startswith('event: error\ndata: {"type":"error","error":{"type":"api_error"')
        assert events[2:] == [""]

    run(hold())


def test_closing_a_stream_stops_the_work() -> None:
    async def hold() -> None:
        async with ScriptedServer() as server:
            engine = Messages(server.url)
            parts = engine.stream(call(stream=True))
            async with asyncio.TaskGroup() as group:
                first = group.create_task(_first(parts))
                peer = await server.accept()
                await peer.request()
                peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: ping\ndata: {}\n\n")
            assert first.result() == b"event: ping\ndata: {}\n\n"
            await parts.aclose()  # type: ignore[attr-defined]
            assert await peer.is_closed()
            await engine.close()

    run(hold())


async def _first(parts: AsyncIterator[bytes]) -> bytes:
    return await anext(parts)


# --- Tokens and models -------------------------------------------------------------------------------------------


def test_tokens_are_counted_by_the_server() -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        assert await engine.count_tokens(call()) == len(call().params) // 4 + 1

    with_upstream(case)


def test_a_server_that_cannot_count_says_so() -> None:
    async def hold() -> None:
        nobody = Messages("http://127.0.0.1:1")
        with pytest.raises(errors.Overloaded):
            await nobody.count_tokens(call())
        await nobody.close()

    run(hold())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"data":[{"type":"model","id":"claude-x","display_name":"X","max_input_tokens":9,"max_tokens":4}]}',
            [Model(id="claude-x", display_name="X", max_input_tokens=9, max_tokens=4)],
        ),
        (
            b'{"object":"list","data":[{"id":"q","object":"model","max_model_len":2048,"root":"q","permission":[]}]}',
            [Model(id="q", display_name="q", max_input_tokens=2048)],
        ),
        (b'{"models":[{"name":"g"}],"data":[{"id":"g","meta":null}]}', [Model(id="g", display_name="g")]),
        (b'{"data":null}', []),
        (b"[" * 100_000, []),
        (b"\xff", []),
        (b"", []),
    ],
)
def test_models_are_read_in_every_dialect_and_never_raise(body: bytes, expected: list[Model]) -> None:
    async def hold() -> None:
        async with ScriptedServer() as server:
            engine = Messages(server.url)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(engine.models())
                peer = await server.accept()
                assert (await peer.request()).startswith(b"GET /v1/models")
                peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            assert asking.result() == expected
        assert await engine.models() == []
        await engine.close()

    run(hold())


# --- Keys --------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_name_repr_outcome_or_error(caplog: pytest.LogCaptureFixture) -> None:
    async def case(upstream: Upstream, _: Messages) -> None:
        engine = Messages(upstream.url, api_key=KEY)
        seen: list[object] = [engine.name, engine, await engine.answer(call()), await engine.models()]
        for asking in (engine.count_tokens(call()), anext(engine.stream(call(stream=True)))):
            with pytest.raises(errors.ApiError) as raised:
                await asking
            seen.append(raised.value)
        await engine.close()
        assert not [one for one in seen if KEY in f"{one!r} {one}"]

    caplog.set_level(0)
    with_upstream(case, key="another")
    assert KEY not in caplog.text


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(errors.UsageError) as refusal:
        Messages("http://host", api_key=key)
    assert not key or key not in str(refusal.value)


def test_the_key_opens_a_server_that_wants_one() -> None:
    async def case(_: Upstream, engine: Messages) -> None:
        assert isinstance(await engine.answer(call()), Answered)
        assert [model.id for model in await engine.models()] == ["echo"]

    with_upstream(case, key=KEY)


# --- A real server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [PlainTransport, PooledTransport])
def test_llama_cpp_answers_streams_counts_and_lists(make: type[PlainTransport | PooledTransport]) -> None:
    """The HTTP listener of xllamacpp is llama.cpp's own server."""
    xllamacpp = importlib.import_module("xllamacpp")
    weights = importlib.resources.files("overnight.engines") / "weights" / "tiny.q8_0.gguf"
    with importlib.resources.as_file(weights) as path:
        server = _llama(xllamacpp, path)
    headers = {"authorization": f"Bearer {KEY}"}

    async def hold(url: str) -> None:
        engine = Messages(url, transport=make(url, headers=headers))
        stranger = Messages(url, api_key="wrong")
        asked = Call(params=_tiny_params(), model="tiny", api_version="2023-06-01", timeout_s=30.0)
        try:
            await _hold_to_llama(engine, asked)
            outcome = await stranger.answer(asked)
            assert isinstance(outcome, Busy)
            assert "refuses our key" in outcome.reason
        finally:
            await engine.close()
            await stranger.close()

    run(hold(server.listening_address))


async def _hold_to_llama(engine: Messages, asked: Call) -> None:
    outcome = await engine.answer(asked)
    assert isinstance(outcome, Answered), outcome
    line, usage = message.as_batch(outcome.message)
    assert json.loads(line)["model"] == "tiny"
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) > 0
    assert await engine.count_tokens(asked) > 0
    assert [model.id for model in await engine.models()] == ["tiny"]
    streamed = msgspec.structs.replace(asked, params=_tiny_params(stream=True))
    text = b"".join([piece async for piece in engine.stream(streamed)])
    assert text.startswith(b"event: message_start\n")
    assert b"event: message_stop\n" in text
    too_long = await engine.answer(msgspec.structs.replace(asked, params=_tiny_params("word " * 4_000)))
    assert isinstance(too_long, Refused), too_long
    assert too_long.status == 400


def _tiny_params(text: str = "What is the capital of France?", *, stream: bool = False) -> bytes:
    messages = [{"role": "user", "content": text}]
    return msgspec.json.encode({"model": "tiny", "max_tokens": 8, "messages": messages, "stream": stream})


def _llama(xllamacpp: Any, weights: Path) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_parallel, params.n_ctx = 2, 2 * 1024
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib, params.ui, params.verbosity, params.warmup = 0, False, 0, False
    params.api_keys, params.model_alias = [KEY], {"tiny"}
    return xllamacpp.Server(params)


def test_the_upstream_is_a_process_of_its_own_too() -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "overnight.testing.upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())

            async def hold() -> None:
                engine = Messages(f"http://127.0.0.1:{port}")
                assert isinstance(await engine.answer(call()), Answered)
                begun_s = time.monotonic()
                assert isinstance(await engine.answer(call("[[slow 0.1]]")), Answered)
                assert time.monotonic() - begun_s >= 0.1
                await engine.close()

            run(hold())
        finally:
            process.terminate()
