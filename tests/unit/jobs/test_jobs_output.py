"""jobs.output: what one result says. Whatever a model answers becomes a state of its row, and nothing worse."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from overnight.errors import JobError
from overnight.jobs.jobfile import Output
from overnight.jobs.output import Reader, Reading, decode_line, json_in
from overnight.jobs.schema import NotValid, shape_of, shape_of_model

CATEGORIES = Output(choices=["billing", "Feature Request"])
OBJECT = Output(schema={"amount": "integer", "note": "string"})
TEXT = Output()
GOOD = {"amount": 7, "note": "a"}


def read(output: Output, result: dict[str, Any]) -> Reading:
    line = decode_line(msgspec.json.encode({"custom_id": "a", "result": result}))
    return Reader(output, shape_of(output, home=Path("/nowhere"))).of_result(line.result)


def answer(output: Output, text: str, *, stop_reason: str = "end_turn") -> Reading:
    message = {"content": [{"type": "text", "text": text}], "stop_reason": stop_reason}
    return read(output, {"type": "succeeded", "message": message})


# --- texts and choices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [(" positive\n", "positive"), ("", ""), ("**bold**", "**bold**"), ('{"a": 1}', '{"a": 1}')],
)
def test_a_text_is_trimmed_and_otherwise_left_alone(text: str, value: str) -> None:
    assert answer(TEXT, text)[:2] == ("succeeded", {"value": value})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("billing", "billing"),
        (" Billing.\n", "billing"),
        ("BILLING", "billing"),
        ('"billing"', "billing"),
        ("**billing**", "billing"),
        ("`billing`", "billing"),
        ("'billing.'", "billing"),
        ("feature request", "Feature Request"),
    ],
)
def test_a_choice_is_known_in_any_dress(text: str, value: str) -> None:
    assert answer(CATEGORIES, text)[:2] == ("succeeded", {"value": value})


@pytest.mark.parametrize("text", ["", "billing or not", "category: billing", "feature-request", "bill"])
def test_what_is_no_choice_is_invalid(text: str) -> None:
    reading = answer(CATEGORIES, text)
    assert (reading.state, reading.fields, reading.text) == ("invalid", {}, text)
    assert reading.error == f"{text!r} is none of billing, Feature Request"


def test_a_long_answer_is_quoted_short() -> None:
    reading = answer(CATEGORIES, "I think " * 1_000)
    assert len(reading.error) < 150
    assert "..." in reading.error


def test_choices_that_cannot_be_told_apart_are_the_jobs_fault() -> None:
    with pytest.raises(JobError, match="differ only in case or spaces"):
        Reader(Output(choices=["Bug", "bug "]), None)


def test_several_blocks_of_text_are_one_answer_and_thoughts_are_none_of_it() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "bill"},
        {"type": "text", "text": "ing"},
    ]
    reading = read(CATEGORIES, {"type": "succeeded", "message": {"content": blocks}})
    assert reading.fields == {"value": "billing"}


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"amount": 7, "note": "a"}', id="plain"),
        pytest.param('\n {"amount": 7, "note": "a"} \n', id="spaces"),
        pytest.param('```json\n{"amount": 7, "note": "a"}\n```', id="code fence"),
        pytest.param('```\n{"amount": 7, "note": "a"}\n```\nI hope this helps!', id="code fence and more"),
        pytest.param('Here it is: {"amount": 7, "note": "a"}. {"amount": 8}', id="the first of two"),
        pytest.param('The {curly} one is {"amount": 7, "note": "a"}', id="braces before it"),
    ],
)
def test_an_object_is_found_in_what_stands_around_it(text: str) -> None:
    assert answer(OBJECT, text)[:2] == ("succeeded", GOOD)


def test_nested_json_is_read_whole() -> None:
    value = {"a": {"b": [{"c": "} ``` {"}, {"d": None}]}}
    assert json_in(f"Sure!\n```json\n{msgspec.json.encode(value).decode()}\n```") == value


def test_deep_json_is_read_while_python_can() -> None:
    assert answer(Output(schema={"type": "object"}), '{"a":' * 100 + "1" + "}" * 100).state == "succeeded"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("I cannot tell.", id="words"),
        pytest.param('{"amount": 7, "note": "a"', id="cut"),
        pytest.param("{'amount': 7, 'note': 'a'}", id="Python"),
        pytest.param('{"amount": 7, "note": "a",}', id="comma at the end"),
        pytest.param('{"amount": NaN, "note": "a"}', id="not a number"),
        pytest.param('{"amount": 1e999, "note": "a"}', id="infinite"),
        pytest.param('{"amount": ' + "9" * 5_000 + ', "note": "a"}', id="a number without end"),
        pytest.param('{"amount": 7, "note": "\\ud800"}', id="half a surrogate pair"),
        pytest.param('```json\n{"amount": 7, "note": "\\ud800"}\n```', id="half a pair in a fence"),
        pytest.param('{"amount": 7}', id="a field is missing"),
        pytest.param('{"amount": "7", "note": "a"}', id="a wrong type"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
    ],
)
def test_broken_json_makes_its_row_invalid_and_can_be_written_down(text: str) -> None:
    reading = answer(OBJECT, text)
    assert (reading.state, reading.fields, reading.text) == ("invalid", {}, text)
    assert reading.error
    assert msgspec.json.encode(reading)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{" * 200_000, id="braces"),
        pytest.param("[" * 200_000, id="brackets"),
        pytest.param('{"a":' * 40_000, id="objects in objects"),
        pytest.param('{"a' * 60_000, id="texts that do not end"),
        pytest.param('{"a":1,' * 28_000, id="fields that do not end"),
        pytest.param('{"a": "' + "x" * 200_000, id="a long text"),
    ],
)
def test_a_hostile_answer_ends_quickly(text: str) -> None:
    began = time.process_time()
    with pytest.raises(NotValid, match="no JSON object in"):
        json_in(text)
    assert time.process_time() - began < 1, "seconds; it takes some hundredths"


def test_an_object_behind_many_braces_is_not_looked_for() -> None:
    assert json_in("{" * 19 + '{"a": 1}') == {"a": 1}
    with pytest.raises(NotValid):
        json_in("{" * 20 + '{"a": 1}')


def test_a_value_that_is_no_object_is_called_value() -> None:
    schema = Output(schema={"type": "array", "items": {"type": "integer"}})
    assert answer(schema, "[1, 2]")[:2] == ("succeeded", {"value": [1, 2]})


def test_a_tool_call_is_an_answer() -> None:
    blocks = [{"type": "text", "text": "Calling."}, {"type": "tool_use", "id": "t", "name": "n", "input": GOOD}]
    message = {"content": blocks, "stop_reason": "tool_use"}
    assert read(OBJECT, {"type": "succeeded", "message": message})[:2] == ("succeeded", GOOD)


def test_a_tool_call_that_does_not_fit_is_invalid() -> None:
    blocks = [{"type": "tool_use", "id": "t", "name": "n", "input": {"amount": "x"}}]
    reading = read(OBJECT, {"type": "succeeded", "message": {"content": blocks, "stop_reason": "tool_use"}})
    assert (reading.state, reading.error) == ("invalid", "'note' is a required property")


def test_a_pydantic_model_gives_plain_fields() -> None:
    class Label(BaseModel):
        label: str
        hours: float = 2

    result = {"type": "succeeded", "message": {"content": [{"type": "text", "text": '{"label": "a"}'}]}}
    line = decode_line(msgspec.json.encode({"custom_id": "a", "result": result}))
    assert Reader(TEXT, shape_of_model(Label)).of_result(line.result).fields == {"label": "a", "hours": 2.0}


# --- how an answer ended --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [TEXT, CATEGORIES, OBJECT])
def test_a_model_that_declines_has_refused_whatever_was_asked(output: Output) -> None:
    reading = answer(output, " I would rather not. ", stop_reason="refusal")
    assert (reading.state, reading.fields, reading.error) == ("refused", {}, "I would rather not.")
    assert answer(output, "", stop_reason="refusal").error == "the model declined to answer"


@pytest.mark.parametrize("stop_reason", ["max_tokens", "model_context_window_exceeded"])
@pytest.mark.parametrize(
    ("output", "text", "state"),
    [
        pytest.param(TEXT, "It all beg", "truncated", id="text"),
        pytest.param(CATEGORIES, "I think that", "truncated", id="choice"),
        pytest.param(CATEGORIES, "billing", "succeeded", id="a choice that was made before"),
        pytest.param(OBJECT, '{"amount": 7, "no', "truncated", id="JSON"),
        pytest.param(OBJECT, '{"amount": 7, "note": "a"} And now', "succeeded", id="JSON that was whole before"),
    ],
)
def test_an_answer_that_was_cut_counts_only_if_what_matters_is_there(
    output: Output, text: str, state: str, stop_reason: str
) -> None:
    reading = answer(output, text, stop_reason=stop_reason)
    assert reading.state == state
    assert (stop_reason in reading.error) is (state == "truncated")


def test_an_error_of_the_server_keeps_its_type_and_words() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    reading = read(TEXT, {"type": "errored", "error": error})
    assert reading == Reading("errored", {}, error_type="overloaded_error", error="Overloaded")


@pytest.mark.parametrize(
    ("result", "state", "error"),
    [
        pytest.param({"type": "expired"}, "expired", "expired before the request was sent", id="expired"),
        pytest.param({"type": "canceled"}, "canceled", "was cancelled before", id="canceled"),
        pytest.param({"type": "errored"}, "errored", "", id="errored without an error"),
        pytest.param({"type": "succeeded"}, "errored", "'succeeded', which is unknown", id="without a message"),
        pytest.param({"type": "postponed"}, "errored", "type 'postponed', which is unknown", id="of tomorrow"),
    ],
)
def test_every_other_result_is_a_failure_with_a_reason(result: dict[str, Any], state: str, error: str) -> None:
    reading = read(TEXT, result)
    assert (reading.state, reading.fields) == (state, {})
    assert error in reading.error


def test_a_long_error_is_kept_in_part() -> None:
    error = {"error": {"type": "api_error", "message": "x" * 5_000}}
    assert len(read(TEXT, {"type": "errored", "error": error}).error) == 2_000


def test_tokens_are_counted_also_where_a_server_leaves_some_out() -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 9, "cache_creation_input_tokens": None}
    message = {"content": [{"type": "text", "text": "a"}], "usage": usage}
    assert read(TEXT, {"type": "succeeded", "message": message})[5:] == (5, 2, 9, 0)
    assert answer(TEXT, "a")[5:] == (0, 0, 0, 0)


def test_an_answer_in_real_time_is_read_alike() -> None:
    reader = Reader(CATEGORIES, None)
    assert reader.of_message(b'{"content":[{"type":"text","text":"Billing"}]}').fields == {"value": "billing"}
    broken = reader.of_message(b"<html>")
    assert broken.state == "errored"
    assert broken.error.startswith("the answer is no message: ")
