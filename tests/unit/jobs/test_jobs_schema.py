"""jobs.schema: what answers must look like, however a job says it."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from overnight.errors import JobError
from overnight.jobs.jobfile import Output
from overnight.jobs.schema import NotValid, Shape, expanded, shape_of, shape_of_model

Json = dict[str, Any]
INVOICE: Json = {"department": {"enum": ["IT", "HR"]}, "amount": "integer", "description": "string"}


def closed(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("short", "full"),
    [
        pytest.param(
            INVOICE,
            closed(
                department={"type": "string", "enum": ["IT", "HR"]},
                amount={"type": "integer"},
                description={"type": "string"},
            ),
            id="as in the manual",
        ),
        pytest.param({"kind": ["a", "b"]}, closed(kind={"enum": ["a", "b"]}), id="a list of values"),
        pytest.param({"n": {"enum": [1, 2]}}, closed(n={"enum": [1, 2]}), id="values that are no texts"),
        pytest.param(
            {"tags": {"type": "array", "items": {"type": "string"}}},
            closed(tags={"type": "array", "items": {"type": "string"}}),
            id="a field that is a schema",
        ),
        pytest.param({"type": "string"}, closed(type={"type": "string"}), id="a field called type"),
        pytest.param(
            {"type": {"enum": ["bug", "wish"]}, "enum": "integer"},
            closed(type={"type": "string", "enum": ["bug", "wish"]}, enum={"type": "integer"}),
            id="fields called type and enum",
        ),
        pytest.param(
            {"properties": "string", "const": "integer"},
            closed(properties={"type": "string"}, const={"type": "integer"}),
            id="fields called properties and const",
        ),
    ],
)
def test_the_short_form_is_a_closed_object_with_all_fields_required(short: Json, full: Json) -> None:
    assert expanded(short) == full
    Shape(full)


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "object", "properties": {"a": {"type": "string"}}}, id="object"),
        pytest.param({"properties": {"a": {"type": "string"}}}, id="properties alone"),
        pytest.param({"type": "object"}, id="any object"),
        pytest.param({"type": "array", "items": {"type": "string"}}, id="array"),
        pytest.param({"type": "string", "enum": ["a", "b"]}, id="enum of texts"),
        pytest.param({"enum": ["a", 1, None]}, id="enum"),
        pytest.param({"anyOf": [{"type": "string"}, {"type": "null"}]}, id="anyOf"),
        pytest.param({"type": ["string", "null"]}, id="two types"),
        pytest.param({"type": "string", "minLength": 3}, id="text with a bound"),
        pytest.param({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, id="reference"),
    ],
)
def test_a_json_schema_stays_as_it_is(schema: Json) -> None:
    assert expanded(schema) is schema


@pytest.mark.parametrize(
    ("short", "message"),
    [
        pytest.param({"a": "text"}, "a: 'text' is no type; the types are string, integer,", id="unknown type"),
        pytest.param({"a": 3}, "a: a field is a type, a list of values, or a JSON Schema", id="number"),
        pytest.param({"a": {"enum": "b"}}, "schema: 'b' is not of type 'array'", id="enum that is no list"),
        pytest.param({"a": {"type": "strin"}}, "schema: 'strin' is not valid", id="type within a schema"),
        pytest.param({"type": "object", "properties": {"a": {"type": 3}}}, "schema: 3 is not valid", id="full"),
    ],
)
def test_a_schema_that_is_none_is_the_jobs_fault(short: Json, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        shape_of(Output(schema=short), home=tmp_path)
    assert message in str(error.value)


def test_a_whole_number_that_is_written_as_a_fraction_becomes_one() -> None:
    """JSON Schema takes 1.0 for an integer, and a report would print it as 1.0."""
    lines = {"type": "array", "items": {"type": "object", "properties": {"amount": {"type": ["integer", "null"]}}}}
    shape = Shape(expanded({"lines": lines, "share": "number"}))
    found = shape.checked({"lines": [{"amount": 124_500.0}, {"amount": None}], "share": 1.0})
    assert repr(found) == "{'lines': [{'amount': 124500}, {'amount': None}], 'share': 1.0}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({"department": "IT", "amount": 1}, "'description' is a required property", id="missing"),
        pytest.param(
            {"department": "IT", "amount": 1, "description": "", "more": 1},
            "Additional properties are not allowed ('more' was unexpected)",
            id="more",
        ),
        pytest.param(
            {"department": "Sales", "amount": 1, "description": ""},
            "department: 'Sales' is not one of ['IT', 'HR']",
            id="other value",
        ),
        pytest.param(
            {"department": "IT", "amount": "1", "description": ""},
            "amount: '1' is not of type 'integer'",
            id="text for a number",
        ),
        pytest.param(
            {"department": "IT", "amount": 1.5, "description": ""}, "amount: 1.5 is not of type", id="fraction"
        ),
        pytest.param(["IT"], "['IT'] is not of type 'object'", id="list"),
        pytest.param(None, "None is not of type 'object'", id="null"),
    ],
)
def test_what_does_not_fit_says_where_and_why(value: Any, message: str) -> None:
    with pytest.raises(NotValid) as error:
        Shape(expanded(INVOICE)).checked(value)
    assert message in str(error.value)


def test_what_fits_comes_back_as_it_was() -> None:
    value = {"department": "IT", "amount": 124_500, "description": "hosting"}
    assert Shape(expanded(INVOICE)).checked(value) == value


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        pytest.param({"type": "integer"}, 124_500.0, "124500", id="an integer that was written with a point"),
        pytest.param({"type": "number"}, 124_500.0, "124500.0", id="a number"),
        pytest.param({"type": ["integer", "null"]}, 7.0, "7", id="an integer, if any"),
        pytest.param({"type": ["integer", "number"]}, 1.5, "1.5", id="nothing is cut off"),
        pytest.param({"type": "array", "items": {"type": "integer"}}, [7.0], "[7]", id="in a list"),
        pytest.param(True, 7.0, "7.0", id="anything goes"),
    ],
)
def test_a_whole_number_is_an_integer_where_the_schema_says_so(field: Any, given: Any, expected: str) -> None:
    found = Shape({"type": "object", "properties": {"a": field}}).checked({"a": given})
    assert repr(found["a"]) == expected


# --- pydantic -------------------------------------------------------------------------------------------------------


class Urgency(StrEnum):
    LOW = "low"
    HIGH = "high"


class Contact(BaseModel):
    name: str


class Triage(BaseModel):
    category: Literal["bug", "wish"]
    urgency: Urgency
    hours: int
    contacts: list[Contact] = []


def test_a_model_is_a_schema_whose_objects_are_all_closed() -> None:
    schema = shape_of_model(Triage).schema
    assert schema["required"] == ["category", "urgency", "hours"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Contact"]["additionalProperties"] is False
    assert "additionalProperties" not in schema["$defs"]["Urgency"]


def test_a_model_makes_instances_of_answers() -> None:
    found = shape_of_model(Triage).checked({"category": "bug", "urgency": "low", "hours": 3})
    assert found == Triage(category="bug", urgency=Urgency.LOW, hours=3)


def test_a_model_says_on_one_line_what_does_not_fit() -> None:
    with pytest.raises(NotValid) as error:
        shape_of_model(Triage).checked({"category": "bug", "urgency": "low", "hours": "soon"})
    assert "hours" in str(error.value)
    assert "valid integer" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_is_found_beside_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", ["/elsewhere"])
    text = "from pydantic import BaseModel\n\nclass Label(BaseModel):\n    label: str\n\nclass Other:\n    pass\n"
    (tmp_path / "shapes_of_this_test.py").write_text(text)
    shape = shape_of(Output(model="shapes_of_this_test:Label"), home=tmp_path)
    assert shape is not None
    assert shape.checked({"label": "a"}).label == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("shapes", "'shapes' should be module:name", id="no name"),
        pytest.param(":Label", "':Label' should be module:name", id="no module"),
        pytest.param("no_such_module:Label", "cannot import no_such_module:Label", id="unknown module"),
        pytest.param("pathlib:Label", "cannot import pathlib:Label", id="unknown name"),
        pytest.param("pathlib:Path", "pathlib:Path is no pydantic model", id="no model"),
    ],
)
def test_a_model_that_is_none_is_the_jobs_fault(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", ["/elsewhere"])
    with pytest.raises(JobError) as error:
        shape_of(Output(model=name), home=tmp_path)
    assert str(error.value).startswith(f"[output] model: {message}")


# --- a file ---------------------------------------------------------------------------------------------------------


def test_a_file_beside_the_job_file_holds_a_whole_schema(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "integer"}')
    shape = shape_of(Output(file="a.json"), home=tmp_path)
    assert shape is not None
    assert shape.schema == {"type": "integer"}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda _: None, "cannot read", id="missing"),
        pytest.param(lambda file: file.mkdir(), "cannot read", id="a directory"),
        pytest.param(lambda file: file.write_text("{"), "is no JSON", id="broken"),
        pytest.param(lambda file: file.write_bytes(b'{"a":"\xff"}'), "is no JSON", id="not UTF-8"),
        pytest.param(lambda file: file.write_text("[]"), "holds no JSON Schema", id="a list"),
    ],
)
def test_a_file_without_a_schema_is_the_jobs_fault(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "a.json")
    with pytest.raises(JobError, match=rf"^\[output\] file: .*{message}"):
        shape_of(Output(file="a.json"), home=tmp_path)


def test_only_one_way_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"has choices and file$"):
        shape_of(Output(choices=["a"], file="a.json"), home=tmp_path)


@pytest.mark.parametrize("output", [Output(), Output(choices=["a", "b"])])
def test_texts_and_choices_have_no_shape(output: Output, tmp_path: Path) -> None:
    assert shape_of(output, home=tmp_path) is None


def test_a_key_that_is_no_keyword_makes_a_schema_the_short_form() -> None:
    found = expanded({"enum": ["a", "b"], "amount": "integer"})
    assert found["properties"] == {"enum": {"enum": ["a", "b"]}, "amount": {"type": "integer"}}
