"""overnight.jobs.templates: what a job words itself, filled with what strangers wrote."""

from typing import Any

import pytest

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.templates import Expression, RowLine, Template

ROW = {"id": 7, "title": "Größe <b>", "body": "x" * 600, "tags": ["a", "b"], "amount": 200_000, "nothing": None}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("Subject: {{ title }}\n{{ body[:500] }}", "Subject: Größe <b>\n" + "x" * 500, id="cut"),
        pytest.param("{{ title }}\n", "Größe <b>", id="one line end at the end is dropped"),
        pytest.param("  {{ id }}  \n\n", "  7  \n", id="other white space stays"),
        pytest.param("{% for tag in tags %}{{ loop.index }}{{ tag }} {% endfor %}", "1a 2b ", id="loop"),
        pytest.param("{{ '-' * 3 }}{{ 2 ** 10 }}", "---1024", id="small products"),
        pytest.param("{{ surname | default('-') }}", "-", id="a default is no error"),
    ],
)
def test_a_template_renders(text: str, rendered: str) -> None:
    assert Template(text, "[prompt] user").render(ROW) == rendered


def test_what_a_column_holds_is_never_a_template() -> None:
    assert Template("{{ title }}", "[prompt] user").render({"title": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "{{ titel }}",
            "[prompt] user: there is no column 'titel'; the columns are id, title; did you mean 'title'?",
            id="near",
        ),
        pytest.param(
            "{{ colour }}", "[prompt] user: there is no column 'colour'; the columns are id, title", id="far"
        ),
        pytest.param("{% if titel %}{% endif %}", "[prompt] user: there is no column 'titel'", id="in a condition"),
        pytest.param("{{ title.text }}", "[prompt] user: 'str object' has no attribute 'text'", id="attribute"),
        pytest.param("{{ id / 0 }}", "[prompt] user: division by zero", id="arithmetic"),
        pytest.param("{{ id | round('x', 'y') }}", "[prompt] user: ", id="filter"),
    ],
)
def test_a_template_that_cannot_be_filled_says_why(text: str, message: str) -> None:
    template = Template(text, "[prompt] user")
    with pytest.raises(JobError) as error:
        template.render({"id": 1, "title": "a"})
    assert str(error.value).startswith(message)


def test_a_template_that_is_none_names_its_line() -> None:
    with pytest.raises(JobError, match=r"^\[prompt\] user: line 2: unexpected '}'$"):
        Template("a\n{{ b } }}", "[prompt] user")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{{ title.__class__ }}", id="class"),
        pytest.param("{{ title['__class__'] }}", id="class by subscript"),
        pytest.param("{{ ().__class__.__base__.__subclasses__() }}", id="subclasses"),
        pytest.param("{{ '{0.__class__}'.format(title) }}", id="format"),
        pytest.param("{{ tags.append('c') }}", id="changing a row"),
        pytest.param("{% include '/etc/passwd' %}", id="file"),
        pytest.param("{{ lipsum() }}", id="dice"),
    ],
)
def test_a_template_reaches_nothing_but_its_row(text: str) -> None:
    row = {"title": "a", "tags": ["a"]}
    template = Template(text, "[prompt] user")
    with pytest.raises(JobError, match=r"^\[prompt\] user: "):
        template.render(row)
    assert row == {"title": "a", "tags": ["a"]}


def test_there_is_no_filter_that_rolls_dice() -> None:
    with pytest.raises(JobError, match="line 1: No filter named 'random'"):
        Template("{{ tags | random }}", "[prompt] user")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{{ 'a' * 10 ** 10 }}", id="text"),
        pytest.param("{{ 10 ** 10 * 'a' }}", id="text, turned round"),
        pytest.param("{{ [1] * 10 ** 10 }}", id="list"),
        pytest.param("{{ 10 ** (10 ** 10) }}", id="power"),
        pytest.param("{% for a in range(10 ** 6) %}{% endfor %}", id="range"),
    ],
)
def test_a_value_that_explodes_is_refused(text: str) -> None:
    with pytest.raises(JobError, match=r"grows beyond 33,554,432 characters|Range too big"):
        Template(text, "[prompt] user").render({})


def test_a_text_is_bounded_to_the_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_PROMPT_CHARACTERS_MAX", 100)
    template = Template("{{ a }}{{ b }}", "[prompt] user")
    assert len(template.render({"a": "x" * 60, "b": "y" * 40})) == 100
    with pytest.raises(JobError, match=r"^\[prompt\] user: the text grows beyond 100 characters$"):
        template.render({"a": "x" * 60, "b": "y" * 41})


def test_names_are_checked_before_there_is_a_row() -> None:
    template = Template("{% set x = 1 %}{{ x }}{{ rows }}", "[lines] found", of="name")
    template.check(["rows", "noun"])
    with pytest.raises(JobError, match=r"^\[lines\] found: there is no name 'rows'; the names are row; did you mean"):
        template.check(["row"])


# --- expressions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("amount > 200000", False, id="at the threshold"),
        pytest.param("amount + 1 > 200000", True, id="above it"),
        pytest.param("nothing", None, id="null"),
        pytest.param("tags | map('upper')", ["A", "B"], id="no generators"),
        pytest.param("'high' if id == 7 else 'low'", "high", id="condition"),
        pytest.param("surname is defined", False, id="asking if there is a column"),
    ],
)
def test_an_expression_has_a_value(text: str, value: Any) -> None:
    assert Expression(text, "[derive] flag").value(ROW) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("amuont", "there is no column 'amuont'; the columns are id, amount; did you mean 'amount'?"),
        pytest.param("amuont > 1", "there is no column 'amuont'; the columns are id, amount; did you mean 'amount'?"),
        pytest.param("amount > 'a'", "'>' not supported between instances of 'int' and 'str'"),
        pytest.param("amount.__class__", "access to attribute '__class__' of 'int' object is unsafe."),
        pytest.param("'a' * 10 ** 10", "a value grows beyond 33,554,432 characters"),
        pytest.param("amount.real.imag.x", "'int object' has no attribute 'x'"),
    ],
)
def test_an_expression_without_a_value_says_why(text: str, message: str) -> None:
    expression = Expression(text, "[derive] flag")
    with pytest.raises(JobError) as error:
        expression.value({"id": 1, "amount": 5})
    assert str(error.value) == f"[derive] flag: {message}"


@pytest.mark.parametrize("text", ["", "amount >", "amount 5", "{{ amount }}", "amount | nofilter"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(JobError, match=r"^\[derive\] flag: "):
        Expression(text, "[derive] flag")


def test_an_expression_knows_its_names() -> None:
    assert Expression("amount > limit and '}}' not in note", "rows").names == {"amount", "limit", "note"}


# --- lines for rows -----------------------------------------------------------------------------------------------

FAILED = {"key": 1, "custom_id": "req-001", "state": "expired", "error": "not done in 24 h"}


@pytest.mark.parametrize(
    ("text", "names", "line"),
    [
        pytest.param("{{ custom_id }}: {{ value }}", {**FAILED, "state": "succeeded", "value": "ok"}, "req-001: ok"),
        pytest.param("{{ custom_id }}: {{ value }}", FAILED, "req-001: Failed - not done in 24 h"),
        pytest.param("{{ custom_id }}: {{ value }}", {**FAILED, "error": ""}, "req-001: Failed - expired"),
        pytest.param("{{ custom_id }}: {{ value }}", {**FAILED, "custom_id": ""}, "1: Failed - not done in 24 h"),
        pytest.param("{{ custom_id }} {{ state }}", FAILED, "req-001 expired"),
        pytest.param("{% if error %}({{ error }}){% endif %}", FAILED, "(not done in 24 h)"),
    ],
)
def test_a_failed_row_has_a_line_though_it_has_no_fields(text: str, names: dict[str, Any], line: str) -> None:
    assert RowLine(text, "[report] line").render(names) == line
