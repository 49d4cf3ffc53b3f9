"""jobs.jobfile: every key has its place and its type; what is wrong is named with what was probably meant."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.jobfile import Currency, JobFile, Notify, Price, load, read

TICKETS = """
name = "tickets"
model = "claude-haiku-4-5"
max_tokens = 50
params = { temperature = 0, metadata = { anything = ["goes"] } }
[source]
db = "env:DATABASE_URL"
sql = "select id, subject from tickets where category is null"
key = "id"
[prompt]
user = "{{ subject }}"
[output]
choices = ["billing", "other"]
[limits]
budget_usd = 2
tolerate = "1.5%"
[report.currency]
code = "INR"
per_usd = 85.0
[prices."my-model"]
input = 0.80
output = 4
[cache]
days = 30
"""


def refusal(text: str) -> str:
    with pytest.raises(JobError) as error:
        read(tomllib.loads(text), origin="job.toml")
    return str(error.value)


def test_a_job_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "tickets.toml").write_text(TICKETS)
    job = load(tmp_path / "tickets.toml")
    assert (job.name, job.max_tokens, job.source.key, job.output.choices) == (
        "tickets",
        50,
        "id",
        ["billing", "other"],
    )
    assert job.params == {"temperature": 0, "metadata": {"anything": ["goes"]}}
    assert job.limits.budget_usd == 2.0
    assert job.report.currency == Currency(code="INR", per_usd=85.0)
    assert job.prices == {"my-model": Price(input=0.8, output=4.0)}
    assert job.cache is not None
    assert job.cache.days == 30


def test_only_a_name_is_asked_for_and_the_rest_has_its_default() -> None:
    job = read({"name": "a"})
    assert job == JobFile("a")
    assert job.batch.max_requests == limits.JOB_BATCH_REQUESTS
    assert job.batch.max_bytes == limits.JOB_BATCH_BYTES
    assert job.limits.budget_usd is None


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        pytest.param("modle = 'm'", "there is no key 'modle'", "did you mean 'model'?", id="top"),
        pytest.param("[sorce]\ndb = ''", "there is no key 'sorce'", "did you mean 'source'?", id="table"),
        pytest.param("[source]\nqsl = ''", "[source] there is no key 'qsl'", "did you mean 'sql'?", id="in a table"),
        pytest.param(
            "[limits]\nbudget = 2", "[limits] there is no key 'budget'", "did you mean 'budget_usd'?", id="short"
        ),
        pytest.param(
            "[report.currency]\nper_us = 1",
            "[report.currency] there is no key 'per_us'",
            "did you mean 'per_usd'?",
            id="two levels down, in a table that may be left out",
        ),
        pytest.param(
            "[prices.m]\ninptu = 1", "[prices.m] there is no key 'inptu'", "did you mean 'input'?", id="named table"
        ),
        pytest.param(
            "[[notify]]\nurls = ['a']\n[[notify]]\nurl = 'a'",
            "[notify] there is no key 'url'",
            "did you mean 'urls'?",
            id="the second of two",
        ),
        pytest.param(
            "[notify]\nwehn = 'a'", "[notify] there is no key 'wehn'", "did you mean 'when'?", id="a single table"
        ),
        pytest.param("[cache]\ndayz = 1", "[cache] there is no key 'dayz'", "did you mean 'days'?", id="cache"),
        pytest.param(
            "[cache]\nzzzz = 1", "[cache] there is no key 'zzzz'", "the keys here are days", id="nothing is near"
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_that_exists(text: str, where: str, hint: str) -> None:
    assert refusal(f"name = 'a'\n{text}") == f"job.toml: {where}; {hint}"


@pytest.mark.parametrize("table", ["params", "output.schema", "derive"])
def test_keys_that_a_job_chooses_itself_are_free(table: str) -> None:
    assert read(tomllib.loads(f"name = 'a'\n[{table}]\nmodle = 'x'"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("max_tokens = '50'", "max_tokens: expected int, got str", id="text for a number"),
        pytest.param("max_tokens = 0", "max_tokens: expected int >= 1", id="too small"),
        pytest.param("max_tokens = true", "max_tokens: expected int, got bool", id="bool for a number"),
        pytest.param("[limits]\nattempts = 11", "limits.attempts: expected int <= 10", id="too large"),
        pytest.param("[limits]\nbudget_usd = 0", "limits.budget_usd: expected float > 0", id="no budget"),
        pytest.param("[limits]\ntolerate = 'few'", "limits.tolerate: expected str matching regex", id="no share"),
        pytest.param("[prompt]\ncache = '2h'", "prompt.cache: invalid enum value '2h'", id="no such choice"),
        pytest.param("[source]\nkey = ''", "source.key: expected str of length >= 1", id="empty"),
        pytest.param("source = 'a.csv'", "source: expected object, got str", id="no table"),
        pytest.param("[notify]\nurls = []", "urls: expected array of length >= 1", id="nobody to tell"),
        pytest.param(
            "[report.currency]\ncode = 'INR'", "report.currency: object missing required field", id="missing"
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_place(text: str, message: str) -> None:
    found = refusal(f"name = 'a'\n{text}")
    assert found.startswith("job.toml: ")
    assert message in found
    assert "`" not in found


@pytest.mark.parametrize(
    ("key", "most"),
    [("max_requests", limits.BATCH_REQUESTS_MAX), ("max_bytes", limits.BATCH_BODY_BYTES_MAX)],
)
def test_no_batch_is_set_larger_than_the_api_takes(key: str, most: int) -> None:
    assert getattr(read({"name": "a", "batch": {key: most}}).batch, key) == most
    assert refusal(f"name = 'a'\n[batch]\n{key} = {most + 1}") == f"job.toml: batch.{key}: expected int <= {most}"


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "-a", "a b", "a" * 65, "jörg", "a\n"])
def test_a_name_is_safe_as_the_name_of_a_file(name: str) -> None:
    with pytest.raises(JobError, match="name: expected str"):
        read({"name": name})


@pytest.mark.parametrize("name", ["tickets", "a", "2026_invoices.v2-final", "a" * 64])
def test_names_of_people_are_names(name: str) -> None:
    assert read({"name": name}).name == name


def test_a_job_without_a_name_is_refused() -> None:
    assert refusal("model = 'm'") == "job.toml: object missing required field name"


def test_a_single_notify_table_is_a_list_of_one() -> None:
    one: dict[str, Any] = {"urls": ["mailto://a"], "when": "problems"}
    assert read({"name": "a", "notify": one}).notify == [Notify(urls=["mailto://a"], when="problems")]
    assert read({"name": "a", "notify": [one, one]}).notify == [Notify(urls=["mailto://a"], when="problems")] * 2


def test_reading_leaves_the_given_values_alone() -> None:
    values = {"name": "a", "notify": {"urls": ["a"]}}
    read(values)
    assert values == {"name": "a", "notify": {"urls": ["a"]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot read the job file", id="missing"),
        pytest.param(b"name = ", "is not valid TOML: ", id="broken"),
        pytest.param(b"name = 'a'\nname = 'b'", "is not valid TOML: ", id="a key twice"),
        pytest.param(b"name = '\xff'", "is not valid TOML: ", id="not UTF-8"),
    ],
)
def test_a_file_that_is_no_job_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(JobError) as error:
        load(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
