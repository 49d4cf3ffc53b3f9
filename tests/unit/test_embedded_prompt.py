"""What of a Messages body reaches llama.cpp: engines.conversation, engines.turns and engines.chat."""

from typing import Any

import msgspec
import pytest

from overnight.engines import chat, conversation
from overnight.errors import InvalidRequest

QUESTION = {"role": "user", "content": "Hi"}
TOOL = {"name": "record", "description": "Record a line.", "input_schema": {"type": "object"}}
PAST_CALL = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Pune"}},
    ],
}
PAST_RESULT = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "31 °C"}]}],
}


def plan(*, knows_tools: bool = False, **params: Any) -> chat.Plan:
    body = {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [QUESTION], **params}
    asked = conversation.read(msgspec.json.encode(body))
    return chat.plan(asked, output_tokens_max=64_000, knows_tools=knows_tools)


def chat_body(*, knows_tools: bool = False, **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(plan(knows_tools=knows_tools, **params).body)
    return body


def refusal(**params: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        plan(**params)
    return str(caught.value)


def test_a_system_prompt_is_the_first_message_whether_text_or_blocks() -> None:
    blocks = [
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "B"},
    ]
    assert chat_body(system="Be brief.")["messages"][0] == {"role": "system", "content": "Be brief."}
    assert chat_body(system=blocks)["messages"][0] == {"role": "system", "content": "Be brief.\nB"}
    assert chat_body(system="")["messages"] == [QUESTION]


def test_text_blocks_of_a_user_stand_on_lines_and_those_of_an_assistant_run_on() -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    turns = [{"role": "user", "content": blocks}, {"role": "assistant", "content": blocks}, QUESTION]
    assert [message["content"] for message in chat_body(messages=turns)["messages"]] == ["one\ntwo", "onetwo", "Hi"]


def test_neighbouring_turns_of_one_role_become_one_turn() -> None:
    turns = [QUESTION, {"role": "user", "content": "again"}, {"role": "assistant", "content": "Yes"}, QUESTION]
    assert [message["role"] for message in chat_body(messages=turns)["messages"]] == ["user", "assistant", "user"]
    assert chat_body(messages=turns)["messages"][0]["content"] == "Hi\nagain"


def test_documents_and_search_results_with_text_are_inlined() -> None:
    content = [
        {
            "type": "document",
            "title": "Terms",
            "source": {"type": "text", "media_type": "text/plain", "data": "30 days"},
        },
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "part"}]}},
        {"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "found"}]},
    ]
    messages = chat_body(messages=[{"role": "user", "content": content}])["messages"]
    assert messages[0]["content"] == "Terms\n30 days\npart\nT\ns\nfound"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}},
            "messages.0.content.0: 'image' is not supported by the embedded model, which reads text only",
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
            "messages.0.content.0.source: 'base64' is not supported by the embedded model, which reads text only",
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]},
            "messages.0.content.0.content.0: 'image' is not supported by the embedded model, which reads text only",
        ),
        ({"type": "text"}, "messages.0.content.0.text: Field required"),
        ({"type": "text", "text": 3}, "messages.0.content.0.text: Input should be a valid string"),
        ({"type": "tool_use", "id": "t", "name": "n"}, "messages.0.content.0.input: Field required"),
    ],
)
def test_a_block_that_cannot_be_read_is_refused_by_its_path(block: dict[str, Any], said: str) -> None:
    assert refusal(messages=[{"role": "user", "content": [block]}]) == said


def test_a_prefill_is_the_last_message_and_an_empty_one_is_none() -> None:
    assert chat_body(messages=[QUESTION, {"role": "assistant", "content": "{"}])["messages"][-1]["content"] == "{"
    assert chat_body(messages=[QUESTION, {"role": "assistant", "content": ""}])["messages"] == [QUESTION]


def test_a_prefill_may_not_end_in_whitespace() -> None:
    said = "messages: final assistant content cannot end with trailing whitespace"
    assert refusal(messages=[QUESTION, {"role": "assistant", "content": "Yes, "}]) == said
    blocks = [{"type": "text", "text": "Yes,"}, {"type": "text", "text": "\n"}]
    assert refusal(messages=[QUESTION, {"role": "assistant", "content": blocks}]) == said


def test_a_conversation_may_not_end_with_an_open_tool_call() -> None:
    assert "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1" in refusal(
        messages=[QUESTION, PAST_CALL]
    )


def test_past_tool_calls_are_tagged_text_for_a_template_without_tools() -> None:
    messages = chat_body(messages=[QUESTION, PAST_CALL, PAST_RESULT])["messages"]
    assert messages[1] == {
        "role": "assistant",
        "content": 'Looking.<tool_call>\n{"name":"weather","arguments":{"city":"Pune"}}\n</tool_call>',
    }
    assert messages[2] == {"role": "user", "content": "<tool_response>\n31 °C\n</tool_response>"}


def test_past_tool_calls_are_messages_for_a_template_with_tools() -> None:
    messages = chat_body(knows_tools=True, messages=[QUESTION, PAST_CALL, PAST_RESULT])["messages"]
    call = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Pune"}'}}
    assert messages[1] == {"role": "assistant", "content": "Looking.", "tool_calls": [call]}
    assert messages[2] == {"role": "tool", "content": "31 °C", "tool_call_id": "toolu_1"}
    assert len(messages) == 3


def test_a_failed_tool_says_so() -> None:
    failed = {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, "content": "no network"}
    messages = chat_body(messages=[QUESTION, PAST_CALL, {"role": "user", "content": [failed]}])["messages"]
    assert messages[2]["content"] == "<tool_response>\nError: no network\n</tool_response>"


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"top_p": 0.9}, {"temperature": 1.0, "top_p": 0.9}),
        ({"top_k": 5, "temperature": 0.2}, {"temperature": 0.2, "top_k": 5}),
    ],
)
def test_answers_are_greedy_unless_sampling_is_asked_for(asked: dict[str, Any], sent: dict[str, Any]) -> None:
    body = chat_body(**asked)
    assert {field: body[field] for field in ("temperature", "top_p", "top_k") if field in body} == sent


def test_stop_sequences_are_passed_on_and_ask_which_one_matched() -> None:
    body = chat_body(stop_sequences=["END"])
    assert (body["stop"], body["verbose"]) == (["END"], True)
    assert (chat_body().get("stop"), chat_body()["verbose"]) == (None, False)
    assert refusal(stop_sequences=["ok", " "]) == "stop_sequences.1: each stop sequence must contain non-whitespace"


def test_max_tokens_above_the_cap_is_refused_in_the_words_of_the_api() -> None:
    assert refusal(max_tokens=9_999_999) == (
        "max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens for claude-haiku-4-5"
    )
    assert chat_body(max_tokens=64_000)["max_tokens"] == 64_000


@pytest.mark.parametrize("spelling", ["output_config", "output_format"])
def test_a_structured_answer_is_enforced_in_both_spellings(spelling: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "schema": schema}
    params = {"output_config": {"format": wanted}} if spelling == "output_config" else {"output_format": wanted}
    assert chat_body(**params)["response_format"]["json_schema"]["schema"] == schema


def test_a_schema_that_llama_would_silently_ignore_is_refused() -> None:
    wanted = {"format": {"type": "json_schema", "schema": "any"}}
    assert refusal(output_config=wanted) == "output_config.format.schema: Input should be a valid dictionary"


def test_a_prefill_and_a_prescribed_format_exclude_each_other() -> None:
    turns = [QUESTION, {"role": "assistant", "content": "{"}]
    wanted = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    said = "messages: a final assistant message cannot be continued in a prescribed format"
    assert refusal(messages=turns, output_config=wanted) == said
    assert refusal(messages=turns, tools=[TOOL], tool_choice={"type": "any"}) == said


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "record"}])
@pytest.mark.parametrize("knows_tools", [True, False])
def test_a_tool_that_must_be_called_is_a_schema_with_any_template(choice: dict[str, Any], knows_tools: bool) -> None:
    body = chat_body(knows_tools=knows_tools, system="Read.", tools=[TOOL], tool_choice=choice, stop_sequences=["}"])
    assert body["response_format"]["json_schema"]["schema"] == TOOL["input_schema"]
    assert body["messages"][0]["content"] == "Use the tool record: Record a line.\n\nRead."
    assert "tools" not in body
    assert "stop" not in body  # A stop sequence ends text, not the input of a tool.


def test_tools_are_offered_only_to_a_template_that_knows_them_and_only_with_auto() -> None:
    offered = chat_body(knows_tools=True, tools=[TOOL])
    assert offered["tools"] == [
        {
            "type": "function",
            "function": {"name": "record", "description": "Record a line.", "parameters": {"type": "object"}},
        }
    ]
    assert "tools" not in chat_body(knows_tools=False, tools=[TOOL])
    assert "tools" not in chat_body(knows_tools=True, tools=[TOOL], tool_choice={"type": "none"})
    one = chat_body(knows_tools=True, tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert one["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
            "tool_choice: Tool 'x' not found in provided tools",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice: there are no tools"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0: 'web_search_20250305' is not supported by the embedded model",
        ),
        ({"tools": [{**TOOL, "input_schema": []}]}, "tools.0.input_schema: Input should be a valid dictionary"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name: Field required"),
    ],
)
def test_tools_that_cannot_work_are_refused(params: dict[str, Any], said: str) -> None:
    assert refusal(**params) == said


def test_thinking_is_off_unless_asked_for() -> None:
    assert chat_body()["chat_template_kwargs"] == {"enable_thinking": False}
    assert plan(thinking={"type": "enabled", "budget_tokens": 1024}).may_think
    assert not plan(thinking={"type": "disabled"}).may_think


def test_nesting_without_end_is_refused_and_not_followed() -> None:
    deep = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"output_format":'
    deep += b'{"type":"json_schema","schema":' + b'{"items":' * 20_000 + b"1" + b"}" * 20_002
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        conversation.read(deep)
