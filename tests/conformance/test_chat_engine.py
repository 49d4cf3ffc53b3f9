"""The `Chat` engine: what it makes of each answer, which server it takes it for, and where it asks."""

import asyncio
import json
from typing import Any

import pytest
from chatserver import KEY, TOOL, USAGE, call, http, run, with_server

from overnight import errors
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.core.tokens import Tokens
from overnight.engines.engine import Call, Engine, Load, Model
from overnight.engines.openai import Chat
from overnight.testing.scripted import ScriptedServer
from overnight.wire import message


def answered(status: int, body: Any, *headers: str, asked: Call | None = None, dialect: Any = "common") -> Outcome:
    """What the engine makes of this one answer."""
    outcomes: list[Outcome] = []
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def case(engine: Chat) -> None:
        outcomes.append(await engine.answer(asked or call()))

    with_server(case, {"/v1/chat/completions": [http(status, raw, *headers)]}, dialect=dialect)
    return outcomes[0]


def said(finish: str = "stop", /, *, choice: dict[str, Any] | None = None, **of_message: Any) -> dict[str, Any]:
    one = {"index": 0, "message": {"role": "assistant", "content": "Hi.", **of_message}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "choices": [one | (choice or {})], "usage": USAGE}


def read(body: Any, **how: Any) -> dict[str, Any]:
    """The Message that the engine makes of `body`."""
    outcome = answered(200, body, **how)
    assert isinstance(outcome, Answered), outcome
    message.as_batch(outcome.message)
    whole: dict[str, Any] = json.loads(outcome.message)
    return whole


def test_it_is_an_engine() -> None:
    engine: Engine = Chat("http://localhost:8000", in_flight_max=7)
    assert (engine.name, engine.in_flight_max) == ("chat http://localhost:8000", 7)


# --- Whole answers -----------------------------------------------------------------------------------------------


def test_an_answer_is_a_message_and_cached_tokens_are_counted_apart() -> None:
    whole = read(said(), asked=call(service_tier="standard"))
    assert (whole["model"], whole["role"], whole["stop_reason"], whole["stop_sequence"]) == (
        "m",
        "assistant",
        "end_turn",
        None,
    )
    assert whole["content"] == [{"type": "text", "text": "Hi."}]
    usage = whole["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (2, 10, 3)
    assert usage["service_tier"] == "standard"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 3}, (12, 0, 3)),
        ({"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": None}, (12, 0, 3)),
        (
            {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}},
            (12, 0, 3),
        ),
        ({"prompt_tokens": 2, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}, (0, 2, 3)),
        (None, (0, 0, 0)),
    ],
)
def test_usage_is_read_however_much_of_it_there_is(usage: Any, counts: tuple[int, int, int]) -> None:
    told = read(said() | {"usage": usage})["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == counts


@pytest.mark.parametrize(
    ("body", "reason", "sequence"),
    [
        pytest.param(said(), "end_turn", None, id="stop"),
        pytest.param(said("length"), "model_context_window_exceeded", None, id="cut by the context"),
        pytest.param(
            said("length") | {"usage": {**USAGE, "completion_tokens": 16}}, "max_tokens", None, id="cut by max_tokens"
        ),
        pytest.param(said("length") | {"usage": None}, "max_tokens", None, id="cut, without usage"),
        pytest.param(said("content_filter"), "refusal", None, id="filtered"),
        pytest.param(said(content=None, refusal="I can't."), "refusal", None, id="refused"),
        pytest.param(said(choice={"stop_reason": "END"}), "stop_sequence", "END", id="vllm's word"),
        pytest.param(said(choice={"stop_reason": 151645}), "end_turn", None, id="vllm's token"),
        pytest.param(said(choice={"stop_reason": "<|eot|>"}), "end_turn", None, id="not the caller's word"),
        pytest.param(said(choice={"matched_stop": "END"}), "stop_sequence", "END", id="sglang"),
        pytest.param(said() | {"__verbose": {"stopping_word": "END"}}, "stop_sequence", "END", id="llama.cpp"),
    ],
)
def test_the_stop_reason_is_the_apis(body: dict[str, Any], reason: str, sequence: str | None) -> None:
    whole = read(body, asked=call(stop_sequences=["END"]))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)


def test_a_refusal_in_words_is_the_text_of_the_answer() -> None:
    assert read(said(content=None, refusal="I can't."))["content"] == [{"type": "text", "text": "I can't."}]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_come_first_and_only_to_those_who_ask_for_them(field: str) -> None:
    body = said(**{field: "hm"})
    thinking = {"type": "thinking", "thinking": "hm", "signature": ""}
    assert read(body, asked=call(thinking={"type": "adaptive"}))["content"] == [
        thinking,
        {"type": "text", "text": "Hi."},
    ]
    assert read(body)["content"] == [{"type": "text", "text": "Hi."}]


def test_tool_calls_become_blocks_with_the_servers_ids() -> None:
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":\n "Pune"}'}},
        {"id": "functions.map:1", "type": "function", "function": {"name": "map", "arguments": ""}},
        {"type": "function", "function": {"name": "nameless", "arguments": "no JSON"}},
    ]
    whole = read(said("tool_calls", content=None, tool_calls=calls), asked=call(tools=[TOOL]))
    assert whole["stop_reason"] == "tool_use"
    first, second, third = whole["content"]
    assert first == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Pune"}}
    assert second == {"type": "tool_use", "id": "functions.map:1", "name": "map", "input": {}}
    assert third["id"].startswith("toolu_01")


def test_calls_under_another_finish_reason_are_still_calls() -> None:
    """vLLM says "stop" when the tool was named."""
    calls = [{"id": "c", "function": {"name": "weather", "arguments": "{}"}}]
    assert read(said("stop", tool_calls=calls), asked=call(tools=[TOOL]))["stop_reason"] == "tool_use"


def test_a_repeated_prefill_is_taken_off_where_it_is_repeated() -> None:
    asked = call(messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I can"}])
    body = said(content="I can only read.")
    assert read(body, asked=asked, dialect="llamacpp")["content"][0]["text"] == " only read."
    assert read(body, asked=asked, dialect="vllm")["content"][0]["text"] == "I can only read."


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"<html>", b"\xff", b"[" * 100_000, {"choices": []}, {"choices": 1}, said("abort"), said("error")],
)
def test_what_is_no_answer_is_broken_and_tried_again(body: Any) -> None:
    assert isinstance(answered(200, body), Broken)


@pytest.mark.parametrize(
    ("code", "kind"), [(429, Busy), (503, Busy), (402, Busy), (400, Refused), (502, Broken), ("x", Broken)]
)
def test_an_error_in_the_place_of_an_answer_is_what_its_code_says(code: Any, kind: type[Outcome]) -> None:
    """OpenRouter answers 200 before it knows that its own upstream fails."""
    outcome = answered(200, {"error": {"message": f"no: {KEY}", "code": code}})
    assert isinstance(outcome, kind)
    assert KEY not in repr(outcome)


# --- Errors ------------------------------------------------------------------------------------------------------


def openai_error(text: str, kind: str = "invalid_request_error", code: Any = None) -> dict[str, Any]:
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        pytest.param(
            400,
            openai_error("too long", "BadRequestError", 400),
            Refused(status=400, type="invalid_request_error", message="too long"),
            id="vllm",
        ),
        pytest.param(
            400,
            {"object": "error", "message": "bad", "type": "BadRequest", "code": 400},
            Refused(status=400, type="invalid_request_error", message="bad"),
            id="sglang",
        ),
        pytest.param(
            404,
            openai_error("no model x", "invalid_request_error", "model_not_found"),
            Refused(status=404, type="not_found_error", message="no model x"),
            id="an unknown model",
        ),
        pytest.param(
            422,
            {"detail": "Unexpected keys in the request: {'x'}"},
            Refused(status=422, type="invalid_request_error", message="HTTP 422"),
            id="transformers",
        ),
        pytest.param(
            400,
            {
                "error": {
                    "code": 400,
                    "message": "x",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 3012,
                    "n_ctx": 1024,
                }
            },
            Refused(
                status=400, type="invalid_request_error", message="prompt is too long: 3012 tokens > 1024 maximum"
            ),
            id="llama.cpp's context",
        ),
        pytest.param(
            500,
            openai_error("image input is not supported - hint: mmproj", "server_error", 500),
            Refused(status=400, type="invalid_request_error", message="messages: this model does not read images"),
            id="llama.cpp's blindness",
        ),
        pytest.param(429, openai_error("slow", "tokens"), Busy(reason="HTTP 429: slow", status=429), id="no room"),
        pytest.param(
            503, openai_error("loading", "unavailable_error", 503), Busy(reason="HTTP 503: loading", status=503)
        ),
        pytest.param(
            401, openai_error("no such key"), Busy(reason="it refuses our key or account (HTTP 401: no such key)")
        ),
        pytest.param(500, openai_error("oops", "server_error"), Broken(reason="HTTP 500: oops"), id="broken"),
    ],
)
def test_errors_of_every_server_are_outcomes_with_the_apis_types(status: int, body: Any, outcome: Outcome) -> None:
    assert answered(status, body) == outcome


def test_a_request_that_cannot_be_said_is_refused_before_it_is_sent() -> None:
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}
    outcomes: list[Outcome] = []

    async def case(engine: Chat) -> None:
        outcomes.append(await engine.answer(call(messages=[{"role": "user", "content": [pdf]}])))

    assert with_server(case, {}, dialect="common") == []
    assert isinstance(outcomes[0], Refused)
    assert outcomes[0].message.startswith("messages.0.content.0.source: 'base64' is not supported")


def test_vllm_without_priorities_is_asked_again_without_one_and_then_never_with_one() -> None:
    no = http(400, json.dumps(openai_error("Got priority 1 but Priority scheduling is not enabled.")).encode())
    yes = http(200, json.dumps(said()).encode())

    async def case(engine: Chat) -> None:
        for _ in range(2):
            assert isinstance(await engine.answer(call()), Answered)

    seen = with_server(case, {"/v1/chat/completions": [no, yes]}, dialect="vllm")
    assert [body.get("priority") for _, body in seen] == [1, None, None]


def test_nobody_there_is_busy_and_says_so_everywhere() -> None:
    async def hold() -> None:
        engine = Chat("http://127.0.0.1:1")
        assert isinstance(await engine.answer(call()), Busy)
        assert (await engine.models(), await engine.load(), await engine.is_there()) == ([], None, False)
        with pytest.raises(errors.Overloaded):
            await anext(engine.stream(call(stream=True)))
        await engine.close()

    run(hold())


# --- Which server it is, and where it is asked -------------------------------------------------------------------


def models(owner: str) -> bytes:
    listed = {"object": "list", "data": [{"id": "q", "object": "model", "owned_by": owner, "max_model_len": 2048}]}
    return http(200, json.dumps(listed).encode())


ANSWER = http(200, json.dumps(said()).encode())
METRICS = http(200, b"vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n")


@pytest.mark.parametrize(
    ("answers", "has_top_k"),
    [
        pytest.param({"/v1/models": [models("vllm")]}, True, id="its models say so"),
        pytest.param({"/v1/models": [models("proxy")], "/metrics": [METRICS]}, True, id="its metrics say so"),
        pytest.param({"/v1/models": [models("proxy")]}, False, id="nothing says so"),
        pytest.param({}, False, id="it has no list"),
    ],
)
def test_the_dialect_is_found_once_for_all_callers(answers: dict[str, list[bytes]], has_top_k: bool) -> None:
    async def case(engine: Chat) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(call(top_k=5))) for _ in range(8)]
        assert all(isinstance(task.result(), Answered) for task in tasks)
        assert isinstance(await engine.answer(call(top_k=5)), Answered)

    seen = with_server(case, answers | {"/v1/chat/completions": [ANSWER]})
    assert [path for path, _ in seen].count("/v1/models") == 1
    assert {"top_k" in body for path, body in seen if body} == {has_top_k}


def test_callers_of_a_server_that_is_starting_share_their_looks_too() -> None:
    async def case(engine: Chat) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(engine.answer(call()))

    seen = with_server(case, {"/v1/models": [http(503, b"")], "/v1/chat/completions": [ANSWER]})
    assert [path for path, _ in seen].count("/v1/models") == 1


def test_a_server_that_is_starting_is_looked_at_again() -> None:
    async def case(engine: Chat) -> None:
        for _ in range(2):
            assert isinstance(await engine.answer(call(top_k=5)), Answered)

    starting = {"/v1/models": [http(503, b""), models("vllm")], "/v1/chat/completions": [ANSWER]}
    assert ["top_k" in body for _, body in with_server(case, starting) if body] == [False, True]


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
    ],
)
def test_the_address_is_the_one_openais_clients_take(base: str, path: str) -> None:
    async def hold() -> None:
        async with ScriptedServer() as server, asyncio.TaskGroup() as group:
            engine = Chat(server.url + base, api_key=KEY, dialect="common")
            asking = group.create_task(engine.answer(call()))
            peer = await server.accept()
            head = (await peer.request()).decode().partition("\r\n\r\n")[0].split("\r\n")
            peer.say(ANSWER)
            assert isinstance(await asking, Answered)
            assert head[0] == f"POST {path} HTTP/1.1"
            assert [line for line in head if KEY in line] == [f"authorization: Bearer {KEY}"]
            await engine.close()

    run(hold())


def test_load_and_models_are_the_servers_own_words() -> None:
    async def case(engine: Chat) -> None:
        assert await engine.load() == Load(running=2, waiting=1)
        assert await engine.models() == [Model(id="q", display_name="q", max_input_tokens=2048)]
        assert await engine.is_there()

    with_server(case, {"/v1/models": [models("vllm")], "/metrics": [METRICS]})


@pytest.mark.parametrize(
    ("dialect", "load", "priority", "counts"),
    [
        ("auto", True, False, False),
        ("common", False, False, False),
        ("openai", False, False, False),
        ("vllm", True, True, True),
        ("sglang", True, False, False),
        ("llamacpp", True, False, True),
    ],
)
def test_only_what_is_certain_is_claimed(dialect: Any, load: bool, priority: bool, counts: bool) -> None:
    can = Chat("http://localhost:8000", dialect=dialect).capabilities
    assert (can.tells_load, can.has_priority, can.counts_tokens) == (load, priority, counts)


def test_a_rate_that_the_server_tells_is_kept() -> None:
    full = [
        f"x-ratelimit-{what}-requests: {value}" for what, value in [("limit", 60), ("remaining", 0), ("reset", "9s")]
    ]

    async def case(engine: Chat) -> None:
        small = Tokens(10, 10)
        assert engine.wait_ms(small) == 0
        await engine.answer(call())
        assert 0 < engine.wait_ms(small) <= 9_000

    body = json.dumps(said()).encode()
    with_server(case, {"/v1/chat/completions": [http(200, body, *full)]}, dialect="common")


# --- Counting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "path", "body"),
    [
        ("vllm", "/tokenize", b'{"count":7,"max_model_len":2048,"tokens":[1]}'),
        ("llamacpp", "/v1/chat/completions/input_tokens", b'{"input_tokens":7}'),
    ],
)
def test_tokens_are_counted_where_the_server_can(dialect: Any, path: str, body: bytes) -> None:
    async def case(engine: Chat) -> None:
        assert await engine.count_tokens(call()) == 7

    [(asked, sent)] = with_server(case, {path: [http(200, body)]}, dialect=dialect)
    assert (asked, sent["messages"]) == (path, [{"role": "user", "content": "Hello"}])


@pytest.mark.parametrize(
    ("dialect", "answer", "raised", "said"),
    [
        ("common", ANSWER, errors.NotFound, "cannot count tokens: vLLM and llama.cpp can"),
        ("sglang", ANSWER, errors.NotFound, "cannot count tokens: vLLM and llama.cpp can"),
        ("vllm", ANSWER, errors.EngineFailed, "gave no count of tokens"),
        ("vllm", http(200, b"<html>"), errors.EngineFailed, "gave no count of tokens"),
        ("vllm", http(400, b'{"error":{"message":"no"}}'), errors.UpstreamRefused, "no"),
        ("vllm", http(404, b""), errors.Overloaded, "no such API"),
    ],
)
def test_a_count_that_cannot_be_had_is_an_error_that_says_why(
    dialect: Any, answer: bytes, raised: type[errors.ApiError], said: str
) -> None:
    async def case(engine: Chat) -> None:
        with pytest.raises(raised, match=said):
            await engine.count_tokens(call())

    with_server(case, {"/tokenize": [answer]}, dialect=dialect)


# --- Keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(errors.UsageError) as refusal:
        Chat("http://host", api_key=key)
    assert not key or key not in str(refusal.value)


def test_the_key_is_in_no_name_outcome_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    outcome = answered(401, openai_error(f"Incorrect API key provided: {KEY}"))
    assert isinstance(outcome, Busy)
    assert "refuses our key" in outcome.reason
    assert KEY not in f"{outcome} {Chat('http://host', api_key=KEY)!r} {caplog.text}"
