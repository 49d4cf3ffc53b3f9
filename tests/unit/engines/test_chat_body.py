"""What of a Messages body reaches a chat/completions server: engines.openaibody in every dialect."""

from typing import Any, Literal

import msgspec
import pytest

from overnight.engines import conversation, openaibody, openaidialect
from overnight.engines.chat import Plan
from overnight.engines.openaidialect import Dialect, DialectName
from overnight.errors import InvalidRequest

QUESTION = {"role": "user", "content": "Hi"}
PREFILL = {"role": "assistant", "content": "{"}
TOOL = {"name": "record", "description": "Record a line.", "input_schema": {"type": "object"}}
OTHER = {"name": "other", "input_schema": {"type": "object"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}}
EVERY: list[DialectName] = ["common", "openai", "vllm", "sglang", "llamacpp"]


def dialect(name: DialectName) -> Dialect:
    found = openaidialect.given(name, host="example.com")
    assert found is not None
    return found


def plan(
    name: DialectName = "common",
    *,
    tier: Literal["batch", "standard"] = "batch",
    is_streamed: bool = False,
    **params: Any,
) -> Plan:
    body = {"model": "m", "max_tokens": 64, "messages": [QUESTION], **params}
    asked = conversation.read_with_images(msgspec.json.encode(body), reader=openaibody.READER)
    return openaibody.plan(asked, dialect(name), tier=tier, is_streamed=is_streamed)


def sent(name: DialectName = "common", **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(plan(name, **params).body)
    return body


def turns(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def refusal(name: DialectName = "common", **params: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        plan(name, **params)
    return str(caught.value)


@pytest.mark.parametrize("name", ["common", "sglang", "llamacpp"])
def test_a_plain_question_is_sent_with_nothing_that_was_not_asked_for(name: DialectName) -> None:
    assert sent(name) == {"model": "m", "messages": [QUESTION], "max_tokens": 64}


def test_a_strict_server_is_sent_only_what_all_servers_know() -> None:
    everything = {
        "system": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "tools": [TOOL],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    }
    fields = {"model", "messages", "max_tokens", "temperature", "top_p", "stop", "tools", "parallel_tool_calls"}
    assert sent(**everything).keys() == fields | {"response_format"}


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("openai", set()),
        ("vllm", {"top_k", "chat_template_kwargs", "priority"}),
        ("sglang", {"top_k", "chat_template_kwargs"}),
        ("llamacpp", {"top_k", "chat_template_kwargs", "verbose"}),
    ],
)
def test_a_known_server_is_sent_its_own_fields_too(name: DialectName, extra: set[str]) -> None:
    asked = {"top_k": 5, "thinking": {"type": "adaptive"}, "stop_sequences": ["END"]}
    limit = "max_completion_tokens" if name == "openai" else "max_tokens"
    assert sent(name, **asked).keys() == {"model", "messages", "stop", limit} | extra


@pytest.mark.parametrize(("tier", "priority"), [("standard", 0), ("batch", 1)])
def test_somebody_who_waits_overtakes_a_batch_inside_vllm(tier: Literal["batch", "standard"], priority: int) -> None:
    assert msgspec.json.decode(plan("vllm", tier=tier).body)["priority"] == priority


@pytest.mark.parametrize(("wish", "thinks"), [("enabled", True), ("adaptive", True), ("disabled", False)])
def test_whether_to_think_is_the_callers_choice(wish: str, thinks: bool) -> None:
    kwargs = sent("vllm", thinking={"type": wish, "budget_tokens": 1024})["chat_template_kwargs"]
    assert set(kwargs.values()) == {thinks}
    assert plan("vllm", thinking={"type": wish}).may_think is thinks


def test_a_stream_asks_for_its_usage_and_a_whole_answer_for_no_stream() -> None:
    body = msgspec.json.decode(plan(is_streamed=True).body)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert msgspec.json.decode(plan("llamacpp", is_streamed=True).body)["return_progress"] is True


@pytest.mark.parametrize(
    "system", ["Be brief.\nB", [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "B"}]]
)
def test_a_system_prompt_is_the_first_message(system: Any) -> None:
    assert sent(system=system)["messages"][0] == {"role": "system", "content": "Be brief.\nB"}


# --- Images and documents ----------------------------------------------------------------------------------------


def test_images_become_parts_in_their_order() -> None:
    content = sent(messages=turns({"type": "text", "text": "a"}, PNG, LINKED, {"type": "text", "text": "b"}))
    assert content["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                PNG_PART,
                {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
                {"type": "text", "text": "b"},
            ],
        }
    ]


def test_neighbouring_turns_with_and_without_images_become_one() -> None:
    messages = sent(messages=[QUESTION, *turns(PNG), QUESTION])["messages"]
    text = {"type": "text", "text": "Hi"}
    assert messages == [{"role": "user", "content": [text, PNG_PART, text]}]


def test_a_document_with_text_is_inlined() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "30 days"}
    messages = sent(messages=turns({"type": "document", "title": "Terms", "source": source}))["messages"]
    assert messages == [{"role": "user", "content": "Terms\n30 days"}]


READS = "an engine behind chat/completions, which reads text and images only"


@pytest.mark.parametrize(
    ("block", "said"),
    [
        pytest.param(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}},
            f"messages.0.content.0.source: 'base64' is not supported by {READS}",
            id="pdf",
        ),
        pytest.param(
            {"type": "image", "source": {"type": "file", "file_id": "f"}},
            f"messages.0.content.0.source: 'file' is not supported by {READS}",
            id="uploaded file",
        ),
        pytest.param(
            {"type": "server_tool_use"}, f"messages.0.content.0: 'server_tool_use' is not supported by {READS}"
        ),
        pytest.param(
            {"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}},
            "messages.0.content.0.source.url: Expected `str` matching regex '^https?://'",
            id="a file of the engine's machine",
        ),
    ],
)
def test_what_no_chat_server_reads_is_refused_by_its_place(block: dict[str, Any], said: str) -> None:
    assert refusal(messages=turns(block)) == said


def test_an_image_in_a_prefill_is_refused() -> None:
    prefill = {"role": "assistant", "content": [PNG]}
    assert (
        refusal("vllm", messages=[QUESTION, prefill]) == "messages.1: an image cannot be continued by the assistant"
    )


# --- Tools -------------------------------------------------------------------------------------------------------

CALLED = {
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Pune"}},
        {"type": "tool_use", "id": "call_2", "name": "map", "input": {}},
    ],
}
RESULTS = {
    "role": "user",
    "content": [
        {"type": "tool_result", "tool_use_id": "call_1", "is_error": True, "content": "no network"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "a map"}, PNG]},
        {"type": "text", "text": "Go on."},
    ],
}


def test_past_calls_and_results_are_messages_and_past_thoughts_are_gone() -> None:
    _, assistant, first, second, user = sent(messages=[QUESTION, CALLED, RESULTS])["messages"]
    assert assistant == {
        "role": "assistant",
        "content": "Looking.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Pune"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "map", "arguments": "{}"}},
        ],
    }
    assert first == {"role": "tool", "content": "Error: no network", "tool_call_id": "call_1"}
    assert second == {"role": "tool", "content": "a map", "tool_call_id": "call_2"}
    assert user == {"role": "user", "content": [PNG_PART, {"type": "text", "text": "Go on."}]}


@pytest.mark.parametrize(
    ("choice", "names", "choice_sent"),
    [
        (None, ["record", "other"], None),
        ({"type": "auto"}, ["record", "other"], None),
        ({"type": "any"}, ["record", "other"], "required"),
        (
            {"type": "tool", "name": "other"},
            ["record", "other"],
            {"type": "function", "function": {"name": "other"}},
        ),
        ({"type": "none"}, [], None),
    ],
)
@pytest.mark.parametrize("name", ["common", "openai", "vllm", "sglang"])
def test_the_choice_of_a_tool_is_the_servers_own(
    name: DialectName, choice: Any, names: list[str], choice_sent: Any
) -> None:
    body = sent(name, tools=[TOOL, OTHER], **({"tool_choice": choice} if choice else {}))
    assert [tool["function"]["name"] for tool in body.get("tools", ())] == names
    assert body.get("tool_choice") == choice_sent


def test_llama_cpp_is_made_to_call_a_tool_by_a_schema() -> None:
    asked = plan(
        "llamacpp", tools=[TOOL, OTHER], tool_choice={"type": "tool", "name": "record"}, stop_sequences=["}"]
    )
    body = msgspec.json.decode(asked.body)
    assert body["response_format"]["json_schema"]["schema"] == TOOL["input_schema"]
    assert [tool.name for tool in asked.forced] == ["record"]
    assert not {"tools", "tool_choice", "stop"} & body.keys()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}},
            "tool_choice: Tool 'x' not found in provided tools",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice: there are no tools"),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            "tools.0: 'bash_20250124' is not supported by an engine behind chat/completions",
        ),
        ({"stop_sequences": [" "]}, "stop_sequences.0: each stop sequence must contain non-whitespace"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": 3}}},
            "output_config.format.schema: Input should be a valid dictionary",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_its_place(name: DialectName, params: dict[str, Any], said: str) -> None:
    assert refusal(name, **params) == said


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("spelling", ["output_config", "output_format"])
def test_a_structured_answer_is_asked_for_in_both_spellings(name: DialectName, spelling: str) -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}}
    body = sent(name, **{spelling: {"format": wanted} if spelling == "output_config" else wanted})
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": wanted["schema"]},
    }


# --- Prefills ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_a_prefill_is_continued_where_the_server_can(name: DialectName) -> None:
    body = sent(name, messages=[QUESTION, PREFILL])
    assert body["messages"][-1] == PREFILL
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_llama_cpp_continues_a_prefill_by_itself_and_repeats_it() -> None:
    asked = plan("llamacpp", messages=[QUESTION, PREFILL])
    assert (asked.echo, plan("vllm", messages=[QUESTION, PREFILL]).echo) == ("{", "")
    assert "continue_final_message" not in msgspec.json.decode(asked.body)


@pytest.mark.parametrize("name", ["common", "openai"])
def test_a_prefill_that_would_be_answered_and_not_continued_is_refused(name: DialectName) -> None:
    assert refusal(name, messages=[QUESTION, PREFILL]).startswith(
        "messages: a final assistant message cannot be continued by this engine: end with a user message"
    )
    assert sent(name, messages=[QUESTION, {"role": "assistant", "content": ""}])["messages"] == [QUESTION]


# --- Which dialect -----------------------------------------------------------------------------------------------


def test_only_openai_is_known_by_its_host() -> None:
    known = openaidialect.given("auto", host="api.openai.com")
    assert known is not None
    assert known.name == "openai"
    assert openaidialect.given("auto", host="api.openai.com.example") is None


@pytest.mark.parametrize(("owner", "name"), [("vllm", "vllm"), ("sglang", "sglang"), ("llamacpp", "llamacpp")])
def test_a_server_is_what_it_calls_itself(owner: str, name: str) -> None:
    found = openaidialect.of_owner(owner)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("owner", ["openai", "", "organization-owner", "auto", "common"])
def test_a_name_that_anybody_may_have_tells_nothing(owner: str) -> None:
    assert openaidialect.of_owner(owner) is None
