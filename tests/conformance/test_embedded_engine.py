"""The embedded engine with its own model: real inference, greedy, so that answers can be compared."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec.structs import replace

from overnight.core.retry import Answered, Broken, Outcome, Refused
from overnight.engines.embedded import Embedded, tiny_weights
from overnight.engines.engine import Call, Engine, Load
from overnight.errors import ApiError, UsageError
from overnight.ports.entropy import SystemEntropy

LABEL = "Classify the sentiment of the product review. Answer with one word: positive, negative or neutral."
EXTRACT = 'Extract the invoice line as JSON with the keys "department", "amount" and "description".'
LINE = "Marketing - printer paper - Rs 640"
RECORD = {"department": "Marketing", "amount": 640, "description": "printer paper"}
SCHEMA = {
    "type": "object",
    "properties": {
        "department": {"type": "string"},
        "amount": {"type": "number"},
        "description": {"type": "string"},
    },
    "required": ["department", "amount", "description"],
    "additionalProperties": False,
}
TOOL = {"name": "record_invoice", "description": "Record one invoice line.", "input_schema": SCHEMA}
TOOL_TEMPLATE = """{% if tools %}<|im_start|>system
<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>
Call one like this: <tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
STRICT_TEMPLATE = (
    "{% if messages[0].role == 'assistant' %}{{ raise_exception('the user speaks first') }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)


def embedded(**settings: Any) -> Embedded:
    return Embedded(tiny_weights(), entropy=SystemEntropy(), threads=1, **settings)


@pytest.fixture(scope="module")
def engine() -> Iterator[Embedded]:
    engine = embedded()
    checked: Engine = engine  # For mypy: it is one.
    asyncio.run(checked.start())
    yield engine
    asyncio.run(checked.close())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("overnight-")]


def call(
    text: str = LINE, *, timeout_s: float = 60.0, tier: Literal["batch", "standard"] = "batch", **params: Any
) -> Call:
    body = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **params}
    return Call(
        params=msgspec.json.encode(body),
        model=body["model"],
        api_version="2023-06-01",
        service_tier=tier,
        timeout_s=timeout_s,
    )


def long_call(text: str = LINE, *, tokens: int = 1500, **settings: Any) -> Call:
    """One whose schema allows no end before the context of a slot is full."""
    word = {"const": "all work and no play makes jack a dull boy " * 10}
    endless = {"type": "array", "items": word, "minItems": 500}
    wanted = {"format": {"type": "json_schema", "schema": endless}}
    return call(text, max_tokens=tokens, output_config=wanted, **settings)


def message_of(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Answered), outcome
    assert b"\n" not in outcome.message
    message: dict[str, Any] = msgspec.json.decode(outcome.message)
    return message


def ask(engine: Embedded, text: str = LINE, **params: Any) -> dict[str, Any]:
    return message_of(asyncio.run(engine.answer(call(text, **params))))


def text_of(message: dict[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"])


async def events_of(engine: Embedded, asked: Call) -> list[dict[str, Any]]:
    found = []
    async with aclosing(engine.stream(asked)) as pieces:
        whole = b"".join([piece async for piece in pieces])
    for event in whole.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert found[-1]["type"] == name.removeprefix("event: ")
    return found


def test_a_message_has_the_shape_of_the_api(engine: Embedded) -> None:
    message = ask(engine, "I love this kettle, it works perfectly.", system=LABEL)
    assert message["id"].startswith("msg_01")
    assert message["content"] == [{"type": "text", "text": "positive"}]
    assert message["usage"]["service_tier"] == "batch"
    expected = {
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert {field: message[field] for field in expected} == expected


def test_concurrent_answers_do_not_mix() -> None:
    """Not compared bit for bit: which requests share a step changes rounding, and 2 of 300 invoices by a digit."""
    reviews = {"I love this kettle, it works perfectly.": "positive", "It stopped working. Terrible.": "negative"}
    lines = {f"{who} - printer paper - Rs 640": who for who in ("HR", "IT", "Sales", "Marketing", "Finance", "Legal")}
    calls = [call(text, system=LABEL) for text in reviews] + [call(line, system=EXTRACT) for line in lines]

    async def all_at_once() -> list[Outcome]:
        engine = embedded()
        await engine.start()
        try:
            return await asyncio.gather(*(engine.answer(asked) for asked in calls))
        finally:
            await engine.close()

    said = [text_of(message_of(outcome)) for outcome in asyncio.run(all_at_once())]
    assert said[: len(reviews)] == list(reviews.values())
    assert [msgspec.json.decode(text)["department"] for text in said[len(reviews) :]] == list(lines.values())


def test_a_prefill_is_continued_and_not_echoed(engine: Embedded) -> None:
    turns = [{"role": "user", "content": LINE}, {"role": "assistant", "content": '{"department": "Marketing",'}]
    continued = text_of(ask(engine, messages=turns, system=EXTRACT))
    assert continued == ' "amount": 640, "description": "printer paper"}'


def test_a_matched_stop_sequence_is_named_and_not_part_of_the_text(engine: Embedded) -> None:
    message = ask(engine, system=EXTRACT, stop_sequences=["nowhere", ', "description"'])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", ', "description"')
    assert text_of(message) == '{"department": "Marketing", "amount": 640'


def test_max_tokens_and_the_end_of_the_context_are_told_apart(engine: Embedded) -> None:
    short = ask(engine, system=EXTRACT, max_tokens=3)
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 3)
    full = message_of(asyncio.run(engine.answer(long_call("word " * 1900, tokens=64_000))))
    assert full["stop_reason"] == "model_context_window_exceeded"


def test_a_prompt_longer_than_the_context_is_refused(engine: Embedded) -> None:
    outcome = asyncio.run(engine.answer(call("word " * 9000)))
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.type) == (400, "invalid_request_error")
    assert outcome.message == "prompt is too long: 18003 tokens > 4096 maximum"


def test_a_structured_answer_satisfies_its_schema(engine: Embedded) -> None:
    """Also one the model would never give by itself."""
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert msgspec.json.decode(text_of(ask(engine, system=EXTRACT, output_config=wanted))) == RECORD
    odd = {"type": "object", "properties": {"size": {"enum": ["S", "XL"]}}, "required": ["size"]}
    answer = text_of(ask(engine, system=LABEL, output_config={"format": {"type": "json_schema", "schema": odd}}))
    assert msgspec.json.decode(answer)["size"] in ("S", "XL")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nosuch"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://localhost/schema"},
        {"type": "string", "pattern": "^(a$"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1_000_000},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_and_harms_nobody(
    engine: Embedded, schema: dict[str, Any]
) -> None:
    wanted = {"format": {"type": "json_schema", "schema": schema}}
    outcome = asyncio.run(engine.answer(call(output_config=wanted)))
    assert isinstance(outcome, Refused), outcome
    assert outcome.type == "invalid_request_error"
    assert text_of(ask(engine, "It stopped working. Terrible.", system=LABEL)) == "negative"


def test_a_forced_tool_is_called(engine: Embedded) -> None:
    choice = {"type": "tool", "name": "record_invoice"}
    message = ask(engine, system=EXTRACT, tools=[TOOL], tool_choice=choice)
    [block] = message["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "record_invoice", RECORD)
    assert message["stop_reason"] == "tool_use"


def test_one_of_several_tools_is_called_and_its_input_fits_its_schema(engine: Embedded) -> None:
    who = {"enum": ["Ann", "Bob"]}
    greeting = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/who"}},
        "required": ["to"],
        "$defs": {"who": who},
    }
    other = {"name": "greet", "input_schema": greeting}
    [block] = ask(engine, tools=[TOOL, other], tool_choice={"type": "any"}, max_tokens=400)["content"]
    if block["name"] == "greet":
        assert block["input"]["to"] in ("Ann", "Bob")
    else:
        assert (block["name"], set(block["input"])) == ("record_invoice", set(RECORD))


def test_a_repeated_prefix_is_read_from_the_cache(engine: Embedded) -> None:
    guide = f"{EXTRACT} " + "Treat all customers with respect. " * 20
    first = ask(engine, system=guide)["usage"]
    again = ask(engine, system=guide)["usage"]
    assert again["cache_read_input_tokens"] > again["input_tokens"]
    assert sum_of_input(again) == sum_of_input(first)


def sum_of_input(usage: dict[str, Any]) -> int:
    return int(usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"])


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"system": EXTRACT},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So"}]},
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ],
)
def test_counted_tokens_are_those_of_the_answers_usage(engine: Embedded, params: dict[str, Any]) -> None:
    counted = asyncio.run(engine.count_tokens(call(**params)))
    assert counted == sum_of_input(ask(engine, **params)["usage"])


@pytest.mark.parametrize("params", [{}, {"stop_sequences": ["needs"]}, {"max_tokens": 5}])
def test_streamed_deltas_join_to_the_answer(engine: Embedded, params: dict[str, Any]) -> None:
    whole = ask(engine, system=EXTRACT, **params)
    events = asyncio.run(events_of(engine, call(system=EXTRACT, stream=True, tier="standard", **params)))
    names = [event["type"] for event in events if event["type"] not in ("ping", "content_block_delta")]
    assert names == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == text_of(whole)
    end = next(event for event in events if event["type"] == "message_delta")
    assert end["delta"] == {field: whole[field] for field in ("stop_reason", "stop_sequence")}
    assert end["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    begin = events[0]["message"]
    assert (begin["content"], begin["usage"]["service_tier"]) == ([], "standard")
    assert sum_of_input(begin["usage"]) == sum_of_input(whole["usage"])


def test_a_streamed_tool_call_carries_its_whole_input(engine: Embedded) -> None:
    asked = call(system=EXTRACT, tools=[TOOL], tool_choice={"type": "any"}, stream=True)
    events = asyncio.run(events_of(engine, asked))
    start = next(event for event in events if event["type"] == "content_block_start")
    assert (start["content_block"]["name"], start["content_block"]["input"]) == ("record_invoice", {})
    delta = next(event["delta"] for event in events if event["type"] == "content_block_delta")
    assert msgspec.json.decode(delta["partial_json"]) == RECORD


@pytest.mark.parametrize(
    ("text", "said"), [("word " * 9000, "prompt is too long"), ("x", "max_tokens: 64001 > 64000")]
)
def test_a_stream_that_is_refused_raises_before_its_first_piece(engine: Embedded, text: str, said: str) -> None:
    with pytest.raises(ApiError, match=said) as caught:
        asyncio.run(events_of(engine, call(text, max_tokens=64_001 if text == "x" else 100, stream=True)))
    assert (caught.value.status, caught.value.type) == (400, "invalid_request_error")


def seconds(work: Coroutine[Any, Any, Any]) -> float:
    begin = time.monotonic()
    asyncio.run(work)
    return time.monotonic() - begin


def test_a_cancelled_answer_stops_working(engine: Embedded) -> None:
    """`answer` returns from a cancel when its slot is free: far earlier than the whole answer would have been."""

    async def cancelled() -> None:
        task = asyncio.create_task(engine.answer(long_call()))
        await engine.answer(call("Hi", max_tokens=1))  # By then the long one has begun.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert seconds(cancelled()) < seconds(engine.answer(long_call())) / 2


def test_a_closed_stream_stops_working(engine: Embedded) -> None:
    async def closed() -> None:
        async with aclosing(engine.stream(long_call())) as pieces:
            await anext(pieces)

    assert seconds(closed()) < seconds(engine.answer(long_call())) / 2


def test_an_answer_that_takes_too_long_is_broken_by_timeout(engine: Embedded) -> None:
    outcome = asyncio.run(engine.answer(long_call(timeout_s=0.01)))
    assert isinstance(outcome, Broken)
    assert outcome.type == "timeout_error"


def test_more_calls_than_slots_are_all_answered(engine: Embedded) -> None:
    async def flood() -> list[Outcome]:
        return await asyncio.gather(*(engine.answer(call(max_tokens=2)) for _ in range(30)))

    assert all(isinstance(outcome, Answered) for outcome in asyncio.run(flood()))


def test_it_tells_who_runs_in_a_slot_and_who_waits_for_one() -> None:
    async def case() -> list[Load | None]:
        engine = embedded(in_flight_max=1)  # Two slots.
        await engine.start()
        seen = [await engine.load()]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(long_call())) for _ in range(5)]
            await asyncio.sleep(0)
            seen.append(await engine.load())
            for task in tasks:
                task.cancel()
        seen.append(await engine.load())
        await engine.close()
        return seen

    nobody = Load(running=0, waiting=0)
    assert asyncio.run(case()) == [nobody, Load(running=2, waiting=3), nobody]


def test_the_first_token_is_told_on_the_loop_while_the_rest_is_in_the_making(engine: Embedded) -> None:
    async def case() -> tuple[list[bool], bool]:
        first, on_main_thread = asyncio.Event(), []

        def on_first_token() -> None:
            on_main_thread.append(threading.current_thread() is threading.main_thread())
            first.set()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(engine.answer(replace(long_call(), on_first_token=on_first_token)))
            await first.wait()
            was_done = task.done()
            task.cancel()
        return on_main_thread, was_done

    assert asyncio.run(case()) == ([True], False)


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"text": "word " * 1500}, id="a prompt that is read in many steps"),
        pytest.param({"max_tokens": 1}, id="one token"),
        pytest.param({"tools": [TOOL], "tool_choice": {"type": "any"}}, id="a forced tool"),
    ],
)
def test_the_first_token_is_told_once(engine: Embedded, params: dict[str, Any]) -> None:
    told: list[None] = []
    message_of(asyncio.run(engine.answer(replace(call(**params), on_first_token=lambda: told.append(None)))))
    assert len(told) == 1


def test_no_token_is_told_of_a_prompt_that_is_refused(engine: Embedded) -> None:
    told: list[None] = []
    outcome = asyncio.run(engine.answer(replace(call("word " * 9000), on_first_token=lambda: told.append(None))))
    assert (type(outcome), told) == (Refused, [])


def test_it_says_what_it_serves(engine: Embedded) -> None:
    [model] = asyncio.run(engine.models())
    assert (model.id, model.max_input_tokens, model.max_tokens) == ("overnight-tiny", 4096, 64_000)
    assert (engine.name, engine.in_flight_max) == ("embedded:tiny.q8_0.gguf", 4)


def with_template(template: str, asked: Call) -> tuple[Outcome, int]:
    async def both() -> tuple[Outcome, int]:
        engine = embedded(chat_template=template, in_flight_max=1, context_tokens=16_384)
        await engine.start()
        try:
            [model] = await engine.models()
            assert model.max_input_tokens == 8192, "bounded by what the model was trained with"
            return await engine.answer(asked), await engine.count_tokens(asked)
        finally:
            await engine.close()

    return asyncio.run(both())


def test_a_template_with_tools_renders_tools_and_past_calls() -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "record_invoice", "input": RECORD}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "recorded"}
    turns = [
        {"role": "user", "content": LINE},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    outcome, with_tools = with_template(TOOL_TEMPLATE, call(messages=turns, tools=[TOOL]))
    assert sum_of_input(message_of(outcome)["usage"]) == with_tools
    _, without = with_template(TOOL_TEMPLATE, call(messages=turns, tools=[TOOL], tool_choice={"type": "none"}))
    assert without < with_tools


def test_what_a_template_does_not_allow_is_refused_in_its_own_words() -> None:
    turns = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Hi"}]
    with pytest.raises(ApiError, match="messages: the user speaks first"):
        with_template(STRICT_TEMPLATE, call(messages=turns))


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"PK\x03\x04", "not a GGUF file"), (b"GGUF\x03\x00", "it is damaged, cut short")],
)
def test_a_model_file_that_cannot_work_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content if content[:4] != b"GGUF" else tiny_weights().read_bytes()[:1_000_000])

    async def start() -> None:
        engine = Embedded(path, entropy=SystemEntropy())
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(UsageError, match=said) as caught:
        asyncio.run(start())
    assert str(path) in str(caught.value)


BUSY = """
import asyncio, json, sys
from overnight.core.retry import Broken
from overnight.engines.embedded import Embedded, tiny_weights
from overnight.engines.engine import Call
from overnight.ports.entropy import SystemEntropy

def call(text, tokens):
    body = {"model": "m", "max_tokens": tokens, "messages": [{"role": "user", "content": text}], "temperature": 5}
    return Call(params=json.dumps(body).encode(), model="m", api_version="2023-06-01", timeout_s=60.0)

async def main():
    engine = Embedded(tiny_weights(), entropy=SystemEntropy(), threads=1)
    await engine.start()
    tasks = [asyncio.create_task(engine.answer(call("support " * 500, 3000))) for _ in range(12)]
    await engine.count_tokens(call("Hi", 1)) if sys.argv[1] == "later" else await asyncio.sleep(0)
    if sys.argv[2] == "close":
        await engine.close()
        assert any(isinstance(outcome, Broken) for outcome in await asyncio.gather(*tasks))

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["at once", "later"])
@pytest.mark.parametrize("how", ["close", "leave"])
def test_the_process_exits_cleanly_while_answers_are_in_the_making(when: str, how: str) -> None:
    """llama.cpp crashes the process if the interpreter goes while one of its calls runs."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUSY, when, how], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
