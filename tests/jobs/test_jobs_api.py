"""overnight.map, Job and submit, as a program uses them; the ledger lies in the working directory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pandas
import polars
import pytest
from pydantic import BaseModel

import overnight
from overnight.errors import NotSpent
from overnight.testing.hosted import HostedApi, failed, text

RECORDS = [{"id": 1, "content": "It is broken"}, {"id": 2, "content": "How much?"}]


class Triage(BaseModel):
    category: Literal["bug", "question"]
    hours: int


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostedApi]:
    monkeypatch.chdir(tmp_path)
    with HostedApi(lambda custom_id, params: answer(params)) as found:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", found.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", found.key)
        yield found


def answer(params: dict[str, Any]) -> Any:
    asked = params["messages"][0]["content"]
    if "How much" in asked:
        return text('```json\n{"category": "question", "hours": 1}\n```')
    return text('{"category": "bug", "hours": 8}')


def mapped(data: Any, **options: Any) -> Any:
    settings = {"name": "triage", "model": "claude-haiku-4-5", "output": Triage, "batch": {"poll": 0.01}}
    return overnight.map(data, "Triage this ticket:\n{{ content }}", **{**settings, **options})


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        pytest.param(RECORDS, lambda found: found, id="records"),
        pytest.param(pandas.DataFrame(RECORDS), lambda found: found.to_dict("records"), id="pandas"),
        pytest.param(polars.DataFrame(RECORDS), lambda found: found.to_dicts(), id="polars"),
    ],
)
def test_a_table_comes_back_as_its_kind_with_the_fields_of_the_answers(
    hosted: HostedApi, data: Any, plain: Any
) -> None:
    found = mapped(data)
    assert type(found) is type(data)
    rest = {"state": "succeeded", "error": ""}
    assert plain(found) == [
        {"id": 1, "content": "It is broken", "category": "bug", "hours": 8, **rest},
        {"id": 2, "content": "How much?", "category": "question", "hours": 1, **rest},
    ]


def test_the_same_call_again_pays_nothing_and_a_new_row_alone(hosted: HostedApi) -> None:
    mapped(RECORDS)
    assert [row["hours"] for row in mapped(RECORDS)] == [8, 1]
    grown = mapped([*RECORDS, {"id": 3, "content": "It hangs"}])
    assert [row["hours"] for row in grown] == [8, 1, 8]
    assert [create.custom_ids for create in hosted.creates] == [["1", "2"], ["3"]]


def test_results_are_instances_of_the_model_or_say_why_there_is_none(hosted: HostedApi) -> None:
    job = overnight.Job(
        "triage", rows=RECORDS, output=Triage, model="claude-haiku-4-5", prompt="{{ content }}", batch={"poll": 0.01}
    )
    run = job.run()
    assert run is not None
    first, second = run.results()
    assert isinstance(first, overnight.Ok)
    assert (first.key, first.value, first.row["content"]) == (1, Triage(category="bug", hours=8), "It is broken")
    assert isinstance(second, overnight.Ok)
    assert run.counts == {"succeeded": 2}
    assert job.attach(run.id).by_id().keys() == {"1", "2"}


def test_a_row_without_an_answer_is_a_failed_one(hosted: HostedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "answer", lambda params: failed("invalid_request_error", "too odd"))
    (row,) = mapped(RECORDS[:1])
    assert (row["state"], row["error"]) == ("errored", "too odd")


def test_the_awaited_twin_does_the_same(hosted: HostedApi) -> None:
    settings = {"name": "triage", "model": "claude-haiku-4-5", "batch": {"poll": 0.01}}
    found = asyncio.run(overnight.amap(RECORDS, "{{ content }}", output=Triage, **settings))
    assert [row["category"] for row in found] == ["bug", "question"]


def test_a_callable_gets_each_answer_once(hosted: HostedApi) -> None:
    written = []
    job = overnight.Job(
        "write",
        rows=lambda: RECORDS,
        output=Triage,
        model="claude-haiku-4-5",
        prompt="{{ content }}",
        write=lambda answer: written.append((answer.key, answer.fields["hours"], answer.columns["content"])),
        batch={"poll": 0.01},
    )
    job.run()
    assert written == [(1, 8, "It is broken"), (2, 1, "How much?")]


def test_an_empty_list_of_requests_is_said(hosted: HostedApi) -> None:
    with pytest.raises(NotSpent, match="nothing to do"):
        overnight.submit([], name="none")
