"""The `Chat` engine's streams: chunks of chat/completions become the server-sent events of the Messages API."""

import asyncio
import json
from typing import Any

import pytest
from chatserver import KEY, TOOL, USAGE, call, http, run, with_server

from overnight import errors
from overnight.engines.openai import Chat
from overnight.engines.openaistream import EVENT_BYTES_MAX, Lines, TooLong
from overnight.testing.scripted import ScriptedServer


def stream_of(*chunks: Any, done: bool = True, comment: bool = False) -> bytes:
    events = [b"data: " + (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) for chunk in chunks]
    events += [b"data: [DONE]"] if done else []
    body = b": OPENROUTER PROCESSING\n\n" * comment + b"".join(event + b"\n\n" for event in events)
    return http(200, body, "content-type: text/event-stream; charset=utf-8")


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def streamed(answer: bytes, **params: Any) -> list[dict[str, Any]]:
    """The events that the engine makes of this stream."""
    pieces: list[bytes] = []

    async def case(engine: Chat) -> None:
        pieces.extend([piece async for piece in engine.stream(call(stream=True, **params))])

    with_server(case, {"/v1/chat/completions": [answer]}, dialect="common")
    events = []
    for event in b"".join(pieces).decode().split("\n\n")[:-1]:
        name, data = event.strip("\n").split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def test_a_stream_of_thoughts_text_and_calls_becomes_the_events_of_the_api() -> None:
    one = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    answer = stream_of(
        delta(role="assistant", content=""),
        delta(reasoning="h"),
        delta(reasoning="m"),
        delta(content="Loo"),
        delta(content="king."),
        delta(tool_calls=[one]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
        delta(tool_calls=[{"index": 0, "function": {"name": None, "arguments": '"Pune"}'}}]),
        delta("tool_calls"),
        {"choices": [], "usage": USAGE},
        comment=True,
    )
    events = streamed(answer, thinking={"type": "adaptive"}, tools=[TOOL])
    block = ["content_block_start", "content_block_delta"]
    assert [event["type"] for event in events] == [
        "message_start",
        *block,
        "content_block_delta",
        "content_block_stop",
        *block,
        "content_block_delta",
        "content_block_stop",
        *block,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in events if "index" in event] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert [event["delta"] for event in events if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": "h"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "text_delta", "text": "Loo"},
        {"type": "text_delta", "text": "king."},
        {"type": "input_json_delta", "partial_json": '{"city":"Pune"}'},
    ]
    assert events[9]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    counts = events[-2]["usage"]
    assert (counts["input_tokens"], counts["cache_read_input_tokens"], counts["output_tokens"]) == (2, 10, 3)


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        pytest.param(http(400, b'{"error":{"message":"no"}}'), errors.UpstreamRefused, id="refused"),
        pytest.param(http(429, b"", "retry-after: 3"), errors.Overloaded, id="busy"),
        pytest.param(http(200, b"{}", "content-type: application/json"), errors.EngineFailed, id="no stream"),
        pytest.param(stream_of(), errors.EngineFailed, id="empty"),
        pytest.param(stream_of(b"{nonsense"), errors.EngineFailed, id="nonsense"),
        pytest.param(stream_of({"error": {"code": 400, "message": "no"}}), errors.UpstreamRefused, id="error first"),
        pytest.param(b"HTTP/1.1 x\r\n\r\n", errors.EngineFailed, id="not HTTP"),
    ],
)
def test_a_stream_that_does_not_begin_raises(answer: bytes, raised: type[errors.ApiError]) -> None:
    with pytest.raises(raised):
        streamed(answer)


def test_calls_that_come_in_turns_are_told_apart_by_their_index() -> None:
    def piece(index: int, text: str, **fields: Any) -> dict[str, Any]:
        return delta(tool_calls=[{"index": index, "function": {"arguments": text} | fields}])

    answer = stream_of(
        piece(0, '{"a":', name="first"),
        piece(1, '{"b":', name="second"),
        piece(0, "1}"),
        piece(1, "2}"),
        delta("stop"),
    )
    events = streamed(answer, tools=[TOOL])
    names = [event["content_block"]["name"] for event in events if event["type"] == "content_block_start"]
    inputs = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert (names, inputs) == (["first", "second"], ['{"a":1}', '{"b":2}'])


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        pytest.param([{"error": {"code": 503, "message": f"gone: {KEY}"}}], "overloaded_error", id="an error"),
        pytest.param([b"{nonsense"], "api_error", id="nonsense"),
        pytest.param([], "api_error", id="no finish reason"),
    ],
)
def test_a_stream_that_breaks_ends_in_an_error_event(end: list[Any], kind: str) -> None:
    events = streamed(stream_of(delta(content="Hi"), *end))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]
    assert events[-1]["error"]["type"] == kind
    assert KEY not in json.dumps(events)


def test_a_stream_ends_with_its_last_word_and_not_with_its_connection() -> None:
    answer = stream_of(delta("stop", content="Hi")).replace(b"content-length: ", b"content-length: 9", 1)
    assert streamed(answer)[-1] == {"type": "message_stop"}


def test_closing_a_stream_stops_the_work() -> None:
    async def hold() -> None:
        async with ScriptedServer() as server:
            engine = Chat(server.url, dialect="common")
            parts = engine.stream(call(stream=True))
            async with asyncio.TaskGroup() as group:
                first = group.create_task(anext(parts))  # type: ignore[arg-type]
                peer = await server.accept()
                await peer.request()
                peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                peer.say(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n')
            assert first.result().startswith(b"event: message_start\n")
            await parts.aclose()
            assert await peer.is_closed()
            await engine.close()

    run(hold())


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_events_survive_any_cut(end: bytes) -> None:
    text = end.join(
        [b": hello", b'data: {"a":1}', b"", b"event: x", b'data:{"b":"\xc3\xa9"}', b"", b"data: [DONE]", b"", b""]
    )
    lines = Lines()
    found = [data for position in range(len(text)) for data in lines.feed(text[position : position + 1])]
    assert found == [b'{"a":1}', b'{"b":"\xc3\xa9"}'] == Lines().feed(text)
    assert lines.is_done


def test_an_event_without_end_is_given_up() -> None:
    lines = Lines()
    lines.feed(b"data: " + b"x" * (EVENT_BYTES_MAX - 6))
    with pytest.raises(TooLong):
        lines.feed(b"x")
