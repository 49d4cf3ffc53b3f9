"""wire.message.as_batch: the same Message, whose usage says `batch`, on one line."""

import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import example, given
from hypothesis import strategies as st
from wire_values import OBJECTS, VALUES, written

from overnight.wire import message

_COUNTS = st.integers(min_value=0, max_value=2**40)
_USAGES = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": _COUNTS,
        "output_tokens": _COUNTS,
        "cache_read_input_tokens": _COUNTS | st.none(),
        "service_tier": st.sampled_from(["standard", "batch", "priority", None]),
        "other": VALUES | _COUNTS,
        "nested": st.just({"service_tier": "standard"}),
    },
)


@st.composite
def _messages(draw: st.DrawFn) -> dict[str, Any]:
    """Messages whose content is made to be taken for their usage; their keys in any order."""
    usage = draw(_USAGES)
    texts = st.sampled_from(
        [json.dumps(usage), "{}", '"usage":{}', '"service_tier":"standard"', json.dumps({"usage": usage})]
    )
    lures = st.sampled_from([usage, {"usage": usage}, {"service_tier": "standard"}, {}])
    block = st.fixed_dictionaries({"type": st.just("text"), "text": texts | st.text(max_size=9), "input": lures})
    fields = {
        "type": "message",
        "role": "assistant",
        "content": draw(st.lists(block | OBJECTS, max_size=3)),
        "usage": usage,
        "container": draw(st.just(usage) | VALUES),
        **draw(st.dictionaries(st.text(max_size=3), VALUES, max_size=2)),
    }
    return {key: fields[key] for key in draw(st.permutations(sorted(fields)))}


@given(written(_messages()))
def test_only_the_service_tier_changes(pair: tuple[dict[str, Any], bytes]) -> None:
    value, text = pair
    line, usage = message.as_batch(text)
    assert json.loads(line) == {**value, "usage": {**value["usage"], "service_tier": "batch"}}
    assert b"\n" not in line
    assert b"\r" not in line
    assert usage.input_tokens == value["usage"].get("input_tokens", 0)
    assert usage.service_tier == value["usage"].get("service_tier")


def test_everything_else_keeps_its_bytes() -> None:
    content = '[{"type":"text","text":"é\\u00e9 \\/ 😀"},{"n":[1.0,1E+5,-0,123456789012345678901234567890]}, 1e999]'
    text = f'{{"type":"message","usage":{{"input_tokens":1,"x":1.50}},"role":"assistant","content":{content}}}'
    line, _ = message.as_batch(text.encode())
    assert line.decode() == (
        '{"type":"message","usage":{"input_tokens":1,"x":1.50,"service_tier":"batch"},'
        f'"role":"assistant","content":{content}}}'
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('"usage":{},"content":[{"text":"{}"}]', {"content": [{"text": "{}"}]}),
        ('"usage":{"a":1},"content":[{"input":{"a":1}}]', {"content": [{"input": {"a": 1}}]}),
        ('"usage":{"a":1},"content":[],"usage":{"b":2}', {"usage": {"b": 2, "service_tier": "batch"}}),
        (
            '"content":[],"usage":{"x":{"service_tier":"standard"},"service_tier":"priority"}',
            {"usage": {"x": {"service_tier": "standard"}, "service_tier": "batch"}},
        ),
        (
            '"content":[],"usage":{"service_tier":"standard","service_tier":"priority"}',
            {"usage": {"service_tier": "batch"}},
        ),
        ('"content":[],"us\\u0061ge":{"service\\u005ftier":"standard"}', {"usage": {"service_tier": "batch"}}),
        (
            '"content":[],"usage":{"x":"\\"service_tier\\":\\"standard\\""}',
            {"usage": {"x": '"service_tier":"standard"', "service_tier": "batch"}},
        ),
    ],
)
def test_look_alikes_of_the_usage_are_left_alone(text: str, wanted: dict[str, object]) -> None:
    line, _ = message.as_batch(f'{{"type":"message","role":"assistant",{text}}}'.encode())
    found = json.loads(line)
    assert {key: found[key] for key in wanted} == wanted
    assert found["usage"]["service_tier"] == "batch"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b'{"type":"error","error":{"type":"api_error","message":"x"}}',
        b'{"type":"message","role":"assistant","content":[]}',
        b'{"type":"message","role":"assistant","usage":{}}',
        b'{"type":"message","role":"user","content":[],"usage":{}}',
        b'{"type":"completion","role":"assistant","content":[],"usage":{}}',
        b'{"type":"message","role":"assistant","content":"text","usage":{}}',
        b'{"type":"message","role":"assistant","content":null,"usage":{}}',
        b'{"type":"message","role":"assistant","content":[],"usage":null}',
        b'{"type":"message","role":"assistant","content":[],"usage":{"input_tokens":"1"}}',
        b'{"type":1,"role":"assistant","content":[],"usage":{}}',
        b'{"type":"message","role":"assistant","content":["\xff"],"usage":{}}',
        b'{"type":"message","role":"assistant","content":["\\ud800"],"usage":{}}',
        b'{"type":"message","role":"assistant","content":[],"usage":{}}{}',
        b'{"type":"message","role":"assistant","usage":{},"content":' + b"[" * 5000,
    ],
)
def test_what_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(message.NotAMessage, match=r"^the engine's answer is not a Message: "):
        message.as_batch(text)


@given(st.binary(max_size=60))
@example(b'{"type":"message","role":"assistant","content":[],"usage":{}}')
def test_any_bytes_are_a_message_or_are_refused(text: bytes) -> None:
    try:
        line, _ = message.as_batch(text)
    except message.NotAMessage:
        return
    assert json.loads(line)["usage"] == {"service_tier": "batch"}


def test_the_official_types_take_it() -> None:
    text = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes", "citations": None}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 4, "service_tier": "standard"},
    }
    line, _ = message.as_batch(json.dumps(text, indent=2).encode())
    found = Message.model_validate_json(line)
    assert found.usage.service_tier == "batch"
    assert found.usage.output_tokens == 4


def test_the_usage_of_a_message_is_read_without_the_rest() -> None:
    text = b'{"content":[{"type":"text","text":"usage"}],"usage":{"input_tokens":3,"output_tokens":4}}'
    assert message.usage_of(text) == message.Usage(input_tokens=3, output_tokens=4)
    assert [message.usage_of(text) for text in (b"{}", b"[", b'{"usage":7}', b"\xff")] == [None] * 4


def test_the_usage_of_a_stream_is_the_last_count_of_each_kind() -> None:
    seen = message.StreamedUsage()
    start = {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1, "service_tier": "standard"}
    for data in (
        {"type": "message_start", "message": {"usage": start}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'my "usage": 1'}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 8}},
    ):
        seen.read(f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode())
    seen.read(b'event: error\ndata: "usage" is no JSON\n\n')
    assert seen.usage == message.Usage(
        input_tokens=9, cache_read_input_tokens=5, output_tokens=8, service_tier="standard"
    )
