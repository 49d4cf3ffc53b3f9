"""What llama.cpp's chunks become: engines.completion, engines.forced and engines.answer."""

from typing import Any

import msgspec
import pytest

from overnight.core.retry import Broken, Busy, Refused
from overnight.engines import answer, chat, completion, conversation, forced
from overnight.engines.completion import Completion, Reading
from overnight.engines.conversation import Tool
from overnight.ports.entropy import SystemEntropy

DONE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}}


def plan(**params: Any) -> chat.Plan:
    body = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}], **params}
    return chat.plan(conversation.read(msgspec.json.encode(body)), output_tokens_max=100, knows_tools=True)


def chunks(*deltas: dict[str, Any], finish: str = "stop", **end: Any) -> list[completion.Chunk]:
    raw: list[dict[str, Any]] = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    raw.append({"choices": [{"delta": {}, "finish_reason": finish}], **end})
    raw.append({"choices": [], "usage": DONE})
    return [completion.read_chunk(msgspec.json.encode(chunk)) for chunk in raw]


def read(plan: chat.Plan, said: list[completion.Chunk]) -> Completion:
    reading = Reading(plan)
    for chunk in said:
        reading.take(chunk)
    outcome = reading.outcome()
    assert isinstance(outcome, Completion)
    return outcome


def tool(name: str, schema: dict[str, Any] | None = None, description: str | None = None) -> Tool:
    return Tool(name, description, msgspec.Raw(msgspec.json.encode(schema or {"type": "object"})))


@pytest.mark.parametrize(
    ("finish", "tokens", "word", "reason"),
    [
        ("stop", 2, "", "end_turn"),
        ("length", 3, "", "max_tokens"),
        ("length", 2, "", "model_context_window_exceeded"),
        ("stop", 2, "END", "stop_sequence"),
        ("stop", 2, "<|im_end|>", "end_turn"),  # The template's own stop words are not the caller's.
    ],
)
def test_the_stop_reason_is_the_apis(finish: str, tokens: int, word: str, reason: str) -> None:
    said = chunks({"content": "a"}, finish=finish, __verbose={"stopping_word": word})
    said[-1] = completion.read_chunk(
        msgspec.json.encode({"usage": {"prompt_tokens": 1, "completion_tokens": tokens}, "choices": []})
    )
    whole = read(plan(stop_sequences=["END"]), said)
    assert whole.stop_reason == reason
    assert whole.stop_sequence == ("END" if reason == "stop_sequence" else None)


def test_tool_calls_arrive_in_pieces_and_become_blocks() -> None:
    said = chunks(
        {"content": "Looking."},
        {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Pune"}'}}]},
        finish="tool_calls",
    )
    whole = read(plan(tools=[{"name": "weather", "input_schema": {"type": "object"}}]), said)
    message = msgspec.json.decode(answer.message(whole, model="m", tier="batch", entropy=SystemEntropy()))
    text, call = message["content"]
    assert text == {"type": "text", "text": "Looking."}
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Pune"})
    assert call["id"].startswith("toolu_01")
    assert message["stop_reason"] == "tool_use"


def test_thinking_is_shown_only_if_it_was_asked_for() -> None:
    said = chunks({"reasoning_content": "hm"}, {"content": "Yes"})
    assert read(plan(), said).thinking == ""
    whole = read(plan(thinking={"type": "adaptive"}), said)
    message = msgspec.json.decode(answer.message(whole, model="m", tier="batch", entropy=SystemEntropy()))
    assert message["content"][0] == {"type": "thinking", "thinking": "hm", "signature": ""}


def test_usage_counts_cached_tokens_apart() -> None:
    whole = read(plan(), chunks({"content": "a"}))
    usage = msgspec.json.decode(answer.message(whole, model="m", tier="batch", entropy=SystemEntropy()))["usage"]
    assert usage == {
        "input_tokens": 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 3,
        "service_tier": "batch",
        "inference_geo": "not_available",
    }


def test_an_answer_that_was_cut_off_is_none() -> None:
    reading = Reading(plan())
    reading.take(chunks({"content": "half"})[0])
    assert isinstance(reading.outcome(), Broken)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (
            {
                "code": 400,
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 3012,
                "n_ctx": 1024,
                "message": "x",
            },
            Refused(
                status=400, type="invalid_request_error", message="prompt is too long: 3012 tokens > 1024 maximum"
            ),
        ),
        ({"code": 400, "message": "bad"}, Refused(status=400, type="invalid_request_error", message="bad")),
        ({"code": 503, "message": "loading"}, Busy(reason="loading")),
        ({"code": 500, "message": "boom"}, Broken(reason="boom")),
    ],
)
def test_a_refusal_in_the_stream_is_an_outcome(error: dict[str, Any], outcome: Refused | Busy | Broken) -> None:
    reading = Reading(plan())
    reading.take(completion.read_chunk(msgspec.json.encode({"error": error})))
    assert reading.outcome() == outcome


def test_a_rejection_names_the_schema_or_what_the_template_said() -> None:
    of_schema = plan(output_format={"type": "json_schema", "schema": {}})
    long = "Unable to generate parser for this template. Automatic parser generation failed: "
    refused = completion.outcome_of_rejection(long + "JSON schema error at #: unrecognized type x", of_schema)
    assert refused.message == "output_format.schema: JSON schema error at #: unrecognized type x"
    refused = completion.outcome_of_rejection(long + "\n---\nError: Jinja Exception: roles must alternate", plan())
    assert refused.message == "messages: roles must alternate"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"name": "b", "arguments": {"x": 1}}', [("b", {"x": 1})]),
        ('{"name": "b", "argum', [("b", {})]),
        ('{"name": "b', []),
        ("", []),
    ],
)
def test_a_forced_call_of_one_of_several_tools_survives_being_cut(text: str, names: list[Any]) -> None:
    calls = forced.read(text, [tool("a"), tool("b")])
    assert [(call.name, msgspec.json.decode(call.input)) for call in calls] == names


def test_a_forced_call_of_the_only_tool_is_its_bare_input() -> None:
    [call] = forced.read('{"x":\n 1.50}', [tool("a")])
    assert (call.name, bytes(call.input)) == ("a", b'{"x":1.50}')


def test_references_inside_a_schema_still_point_at_their_target_among_several_tools() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {"y": {"type": "string"}}}
    whole = msgspec.json.decode(forced.schema([tool("a"), tool("b", schema)]))
    reference = whole["anyOf"][1]["properties"]["arguments"]["properties"]["x"]["$ref"]
    node = whole
    for step in reference.removeprefix("#/").split("/"):
        node = node[int(step)] if isinstance(node, list) else node[step]
    assert node == {"type": "string"}


def test_the_instruction_says_what_tools_and_properties_mean_and_nothing_else() -> None:
    schema = {"properties": {"amount": {"type": "number", "description": "in rupees"}, "day": {"type": "string"}}}
    assert forced.instruction([tool("record", schema, "Record it.")]) == (
        "Use the tool record: Record it.\namount: in rupees"
    )
    assert forced.instruction([tool("a"), tool("b")]).endswith("\n- a\n- b")
