"""jobs.prompt: the params of a request are what the job says, and nothing more."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overnight.errors import JobError
from overnight.jobs import jobfile
from overnight.jobs.prompt import Renderer, asked_again
from overnight.jobs.row import Row
from overnight.jobs.schema import Shape, shape_of

Json = dict[str, Any]
NOWHERE = Path("/nowhere")
JOB: Json = {"name": "j", "model": "m", "max_tokens": 50, "prompt": {"user": "{{ text }}"}}
BARE: Json = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "a"}]}
ROW = Row(7, {"text": "a"})


def renderer(values: Json, home: Path = NOWHERE) -> Renderer:
    job = jobfile.read(values)
    return Renderer(job, shape_of(job.output, home=home), home=home)


def params(values: Json, row: Row = ROW, home: Path = NOWHERE) -> Any:
    rendered = renderer(values, home)(row)
    assert rendered.error == ""
    return msgspec.json.decode(rendered.params)


TOOL = {"name": "t", "input_schema": {"type": "object", "properties": {"größe": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}


def system(marker: Json) -> list[Json]:
    return [{"type": "text", "text": "Be a", "cache_control": marker}]


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        pytest.param({}, {}, id="nothing more"),
        pytest.param(
            {"params": {"temperature": 0, "tools": [TOOL]}}, {"temperature": 0, "tools": [TOOL]}, id="params"
        ),
        pytest.param({"params": {"max_tokens": 9}}, {"max_tokens": 9}, id="params have the last word"),
        pytest.param({"output": {"choices": ["a", "b"]}}, {}, id="choices are not the server's affair"),
        pytest.param({"output": {"schema": SCHEMA}}, {"output_config": FORMAT}, id="a schema is enforced"),
        pytest.param({"output": {"schema": SCHEMA, "enforce": False}}, {}, id="unless the job does not want it"),
    ],
)
def test_params_are_what_the_job_says_and_nothing_more(settings: Json, more: Json) -> None:
    assert params({**JOB, **settings}) == {**BARE, **more}


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        pytest.param("", "Be a", id="not marked"),
        pytest.param("5m", system({"type": "ephemeral"}), id="five minutes, the default of the API"),
        pytest.param("1h", system({"type": "ephemeral", "ttl": "1h"}), id="an hour"),
    ],
)
def test_a_system_prompt_is_marked_for_the_cache_when_the_job_says_so(cache: str, expected: Any) -> None:
    prompt = {"user": "{{ text }}", "system": "Be {{ text }}", "cache": cache}
    assert params({**JOB, "prompt": prompt}) == {**BARE, "system": expected}


def test_bytes_are_compact_and_not_escaped() -> None:
    found = renderer(JOB)(Row(1, {"text": 'Größe 😀 "x"\n'})).params
    expected = r'{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"Größe 😀 \"x\"\n"}]}'
    assert found.decode() == expected


def test_the_same_row_makes_the_same_bytes() -> None:
    assert renderer(JOB)(ROW) == renderer(JOB)(ROW)


# --- documents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["", "What is it, {{ text }}?"])
def test_a_document_stands_in_front_of_the_question(user: str, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    found = params({**JOB, "prompt": {"document": "{{ text }}.pdf", "user": user}}, home=tmp_path)
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(b"%PDF").decode()}
    question = [{"type": "text", "text": "What is it, a?"}] if user else []
    assert found["messages"][0]["content"] == [{"type": "document", "source": source}, *question]


def test_a_document_that_cannot_be_read_fails_its_row_alone(tmp_path: Path) -> None:
    rendered = renderer({**JOB, "prompt": {"document": "{{ text }}.pdf"}}, tmp_path)(ROW)
    assert (rendered.custom_id, rendered.params) == ("7", b"{}")
    assert rendered.error == "cannot read a.pdf: No such file or directory"


# --- ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "row", "expected"),
    [
        pytest.param("", ROW, "7", id="the key"),
        pytest.param("", Row("INV-001", {"text": "a"}), "INV-001", id="a text"),
        pytest.param("ticket-{{ key }}", ROW, "ticket-7", id="of the key"),
        pytest.param("mod-{{ '%06d' | format(key) }}", ROW, "mod-000007", id="padded"),
        pytest.param("{{ text }}-{{ key }}", ROW, "a-7", id="of columns"),
    ],
)
def test_an_id_is_the_key_or_what_the_job_makes_of_it(template: str, row: Row, expected: str) -> None:
    assert renderer({**JOB, "id": template})(row).custom_id == expected


def test_an_id_that_the_api_does_not_take_becomes_a_hash() -> None:
    found = renderer({**JOB, "id": "no. {{ key }}"})(ROW).custom_id
    assert len(found) == 32
    assert found.isalnum()


# --- whole requests ---------------------------------------------------------------------------------------------


def whole(**more: Any) -> Row:
    return Row("r", {}, {"custom_id": "r", "params": {"max_tokens": 1, "messages": [], **more}})


REQUESTS: Json = {"name": "j", "source": {"requests": "a.jsonl"}}


@pytest.mark.parametrize(
    ("settings", "row", "expected"),
    [
        pytest.param({}, whole(model="x"), {"max_tokens": 1, "messages": [], "model": "x"}, id="as it came"),
        pytest.param({}, whole(), {"max_tokens": 1, "messages": []}, id="also what is missing"),
        pytest.param(
            {"model": "m"}, whole(), {"max_tokens": 1, "messages": [], "model": "m"}, id="the job's model if none"
        ),
        pytest.param(
            {"model": "m"}, whole(model="x"), {"max_tokens": 1, "messages": [], "model": "x"}, id="its own if any"
        ),
        pytest.param(
            {"params": {"max_tokens": 9, "top_k": 2}},
            whole(model="x"),
            {"max_tokens": 1, "messages": [], "model": "x", "top_k": 2},
            id="params of the job stand behind its own",
        ),
    ],
)
def test_a_whole_request_goes_as_it_came(settings: Json, row: Row, expected: Json) -> None:
    assert params({**REQUESTS, **settings}, row) == expected


# --- what cannot work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"model": ""}, "model: a job names its model", id="no model"),
        pytest.param({"prompt": {"system": "x"}}, "[prompt] user: a job asks something", id="no question"),
        pytest.param({"params": {"stream": True}}, "params: stream is not possible", id="stream"),
        pytest.param({"prompt": {"user": "{{ a"}}, "[prompt] user: line 1", id="no template"),
        pytest.param({"id": "{{ a"}, "id: line 1", id="no template of an id"),
    ],
)
def test_what_cannot_work_for_any_row_is_said_before_the_first(changes: Json, message: str) -> None:
    with pytest.raises(JobError) as error:
        renderer({**JOB, **changes})
    assert str(error.value).startswith(message)


def test_a_whole_request_that_streams_is_named() -> None:
    with pytest.raises(JobError, match=r"^row r: stream is not possible"):
        renderer(REQUESTS)(whole(stream=True))


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(JobError, match=r"^\[prompt\] user: there is no column 'text'"):
        renderer(JOB)(Row(1, {"body": "a"}))


# --- another attempt --------------------------------------------------------------------------------------------

SENT = msgspec.json.encode({**BARE, "temperature": 0})
COMPLAINT = msgspec.json.encode(("It is 7.", "amount: missing")).decode()
NO_ANSWER = msgspec.json.encode((" \n", "no JSON")).decode()
ASK = "That answer cannot be used: {}. Answer again, with nothing but the answer."


def test_another_attempt_is_the_same_to_the_byte_unless_something_changed() -> None:
    odd = b'{ "max_tokens": 50.0 }'
    assert asked_again(odd, more_room=False, explained="") is odd


@pytest.mark.parametrize(
    ("more_room", "explained", "changes"),
    [
        pytest.param(True, "", {"max_tokens": 100}, id="more room"),
        pytest.param(
            False,
            COMPLAINT,
            {
                "messages": [
                    *BARE["messages"],
                    {"role": "assistant", "content": "It is 7."},
                    {"role": "user", "content": ASK.format("amount: missing")},
                ]
            },
            id="explained",
        ),
        pytest.param(
            True,
            NO_ANSWER,
            {
                "max_tokens": 100,
                "messages": [*BARE["messages"], {"role": "user", "content": ASK.format("no JSON")}],
            },
            id="both, and no empty answer, which the API refuses",
        ),
    ],
)
def test_another_attempt_changes_what_may_help_and_nothing_else(
    more_room: bool, explained: str, changes: Json
) -> None:
    found = msgspec.json.decode(asked_again(SENT, more_room=more_room, explained=explained))
    assert found == {**BARE, "temperature": 0, **changes}


def test_braces_in_what_a_model_said_are_no_template() -> None:
    explained = msgspec.json.encode(("{error}", "no {key} in '{}'")).decode()
    messages = msgspec.json.decode(asked_again(SENT, more_room=False, explained=explained))["messages"]
    assert [message["content"] for message in messages[1:]] == ["{error}", ASK.format("no {key} in '{}'")]


def test_a_shape_of_python_is_enforced_like_one_of_the_file() -> None:
    found = Renderer(jobfile.read(JOB), Shape(SCHEMA), home=NOWHERE)(ROW)
    assert msgspec.json.decode(found.params)["output_config"] == FORMAT
