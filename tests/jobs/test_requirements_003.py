"""What programs of users do, text 003: the SDK programs of a course, labels for reviews, scenarios, many files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from nights import Folder, Params, Printed, Served, Time, said

import overnight
from overnight.cli.joboptions import DONE, FAILED_ROWS
from overnight.cli.main import cli
from overnight.errors import JobError, UsageError
from overnight.jobs.job import Job
from overnight.jobs.row import Row
from overnight.testing.hosted import HostedApi, Outcome, failed, text

SDK = Path(__file__).parents[1] / "sdk"
REVIEWS = ["I love it.", "It broke on the first day.", "Never again!"]
HEAD = """
name = "reviews"
noun = "reviews"
model = "claude-3-5-haiku-20241022"
max_tokens = 10
id = "review-{{ key }}"
[source]
db = "sqlite:///rows.db"
sql = "select id, review from reviews where sentiment is null order by id"
key = "id"
[prompt]
user = "Positive, negative or neutral? Reply with just the label.\\n{{ review }}"
[sink]
db = "sqlite:///rows.db"
sql = "update reviews set sentiment = :value where id = :key"
on_error = "update reviews set sentiment = :value where id = :key"
[limits]
attempts = 1
[output]
on_failure = "error"
"""


def given(folder: Folder, more: str = "", *, poll: float = 0.01) -> None:
    folder.table("reviews", ["id", "review", "sentiment"], [(i, review, None) for i, review in enumerate(REVIEWS)])
    folder.job(f"{HEAD}{more}\n[batch]\npoll = {poll}\n")


def label(params: Params) -> Outcome:
    """ " positive\\n", but "It broke …" is refused, and what is no sentence too."""
    review = said(params).splitlines()[-1]
    if review.startswith("It broke"):
        return failed("invalid_request_error", "no")
    return text(" positive\n" if "love" in review else "negative")


def by_text(**outcomes: Outcome) -> Callable[[Params], Outcome]:
    """An answer by a word in the last message; "ok" for the others."""
    return lambda params: next((found for word, found in outcomes.items() if word in said(params)), text("ok"))


def command(environment: Mapping[str, str], *arguments: str | Path) -> Printed:
    """`overnight …` in this process. UsageError and its like are raised."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Printed(done.exit_code, done.stdout.splitlines(), done.stderr)


def printed_by(program: str, script: str, server: Served) -> list[str]:
    """What a program of an SDK prints. `make sdks` installs what it needs."""
    done = subprocess.run(
        [program, str(SDK / script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": os.environ["PATH"], **server.environment},
    )
    assert done.returncode == 0, f"{done.stderr}\nIs it installed? make sdks"
    return done.stdout.splitlines()


def test_003_01_the_typescript_program_runs_unchanged(server: Served) -> None:
    server.answer = by_text(second=failed("invalid_request_error", "no"), first=text("A summary"))
    *printed, results = printed_by("node", "typescript/reviews.mjs", server)
    assert printed == [
        f"Batch ID: {server.batch_ids[0]}",
        "Status: in_progress",
        "Status: ended",
        "Succeeded: 2",
        "Errored: 1",
        "Processing: 0",
    ]
    assert json.loads(results) == [
        {"id": "request-0", "type": "succeeded", "text": "A summary", "error": None},
        {"id": "request-1", "type": "errored", "text": None, "error": "invalid_request_error"},
        {"id": "request-2", "type": "succeeded", "text": "ok", "error": None},
    ]


def test_003_02_the_python_program_runs_unchanged(server: Served) -> None:
    server.answer = label
    created, *polls, results = printed_by(sys.executable, "python/reviews.py", server)
    assert created == f"Batch created: {server.batch_ids[0]} (3 reviews)"
    assert all(re.fullmatch(r"Status: in_progress \| Done: [0-3]", line) for line in polls[:-1])
    assert polls[-1] == "Status: ended | Done: 3"
    assert json.loads(results) == [
        {"review": "I love it.", "sentiment": "positive"},
        {"review": "It broke on the first day.", "sentiment": "error"},
        {"review": "Never again!", "sentiment": "negative"},
    ]


COURSE_LINES = """
[lines]
batch = "Batch ID: {{ id }}"
first_status = "Status: {{ status }}"
status = "Status: {{ status }}\\nSucceeded: {{ succeeded }}\\nErrored: {{ errored }}\\nProcessing: {{ processing }}"
"""


def test_003_03_the_batch_and_its_status_are_printed(folder: Folder, server: Served) -> None:
    given(folder, COURSE_LINES)
    server.hold()
    printed = folder.run(server.environment, time=Time(on_wait=lambda _seconds: server.release())).lines
    first = printed.index(f"Batch ID: {server.batch_ids[0]}")
    assert printed[first + 1 : first + 3] == ["Submitted 3 reviews", "Status: in_progress"]


def test_003_04_the_status_shows_succeeded_errored_and_processing(folder: Folder, server: Served) -> None:
    given(folder, COURSE_LINES)
    server.answer = label
    server.hold()
    printed = folder.run(server.environment, time=Time(on_wait=lambda _seconds: server.release())).lines
    last = len(printed) - printed[::-1].index("Status: ended") - 1
    assert printed[last : last + 4] == ["Status: ended", "Succeeded: 2", "Errored: 1", "Processing: 0"]
    shown = command(server.environment, "status", server.batch_ids[0]).lines
    assert {"Status: ended", "Succeeded: 2", "Errored: 1", "Processing: 0"} <= set(shown)


def test_003_05_results_have_an_id_a_type_a_text_and_an_error(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = label
    folder.run(server.environment)
    printed = command(server.environment, "results", server.batch_ids[0], "--json").lines
    good, wrong, other = sorted(map(json.loads, printed), key=lambda result: str(result["id"]))
    assert good == {"id": "review-0", "type": "succeeded", "text": " positive\n", "error": None}
    assert other == {"id": "review-2", "type": "succeeded", "text": "negative", "error": None}
    error = wrong.pop("error")
    assert wrong == {"id": "review-1", "type": "errored", "text": None}
    assert "no" in error


def test_003_06_results_carry_the_review_they_are_of(folder: Folder, server: Served) -> None:
    (folder.home / "reviews.csv").write_text("\n".join(["review", *REVIEWS]), encoding="utf-8")
    folder.job(
        'name = "reviews"\nmodel = "claude-haiku-4-5"\nid = "review-{{ key }}"\n[source]\nkey = "i"\n'
        "sql = \"select row_number() over () - 1 as i, review from 'reviews.csv'\"\n"
        '[prompt]\nuser = "{{ review }}"\n[batch]\npoll = 0.01\n'
    )
    server.answer = lambda params: text(f"about {said(params)}")
    folder.run(server.environment)
    [batch] = server.batch_ids
    assert {line["custom_id"] for line in server.results(batch)} == {"review-0", "review-1", "review-2"}
    results = [json.loads(line) for line in command({}, "results", folder.home / "job.toml").lines]
    assert [(result["id"], result["value"], result["row"]) for result in results] == [
        (f"review-{i}", f"about {review}", {"i": i, "review": review}) for i, review in enumerate(REVIEWS)
    ]
    [(run_id,)] = folder.ledger("select id from runs")
    found = overnight.Job.load(folder.home / "job.toml").attach(run_id).by_id()
    assert found["review-2"] == overnight.Ok(2, "about Never again!", {"i": 2, "review": "Never again!"})


def test_003_07_labels_are_trimmed(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = lambda params: text(" positive\n")
    folder.run(server.environment)
    assert folder.sql("select sentiment from reviews") == [("positive",)] * 3


def test_003_08_the_batch_and_its_reviews_are_printed(folder: Folder, server: Served) -> None:
    given(folder, '[lines]\nbatch = "Batch created: {{ id }} ({{ requests }} {{ noun }})"')
    printed = folder.submit(server.environment).lines
    assert f"Batch created: {server.batch_ids[0]} (3 reviews)" in printed


def test_003_09_every_ten_seconds_what_is_done_is_printed(folder: Folder, server: Served) -> None:
    given(folder, '[lines]\nstatus = "Status: {{ status }} | Done: {{ done }}"', poll=10)
    server.hold()
    looks = iter(range(10_000))
    time = Time(on_wait=lambda _seconds: server.release() if next(looks) == 2 else None)
    printed = [line for line in folder.run(server.environment, time=time).lines if line.startswith("Status: ")]
    assert printed[:3] == ["Status: in_progress | Done: 0"] * 3
    assert all(re.fullmatch(r"Status: in_progress \| Done: [0-3]", line) for line in printed[:-1])
    assert printed[-1] == "Status: ended | Done: 3"
    assert time.waits == [10.0] * (len(printed) - 1)


def test_003_10_a_review_that_failed_gets_the_word_for_it(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = label
    assert folder.run(server.environment).code == FAILED_ROWS
    assert folder.sql("select sentiment from reviews order by id") == [("positive",), ("error",), ("negative",)]


class Scenario(NamedTuple):
    """A workload of the text, with the tokens of one row."""

    name: str
    model: str
    rows: int
    tokens_in: int
    tokens_out: int


SCENARIOS = (
    Scenario("classifications", "claude-3-5-haiku-20241022", 1_000, 1_000, 100),
    Scenario("summaries", "claude-sonnet-4-20250514", 500, 5_000, 1_000),
    Scenario("analyses", "claude-opus-4-1", 100, 50_000, 10_000),
)


def test_003_11_scenarios_are_priced_beside_each_other(folder: Folder) -> None:
    """A token is 3.5 characters of a request; without a history an answer is as long as it may be."""

    def job(scenario: Scenario, characters: int) -> Path:
        source = f"select i as id, repeat('x', {characters}) as content from range({scenario.rows}) t(i)"
        return folder.job(
            f'name = "{scenario.name}"\nmodel = "{scenario.model}"\nmax_tokens = {scenario.tokens_out}\n'
            f'[source]\nsql = "{source}"\nkey = "id"\n[prompt]\nuser = "{{{{ content }}}}"\n',
            name=f"{scenario.name}.toml",
        )

    files = []
    for scenario in SCENARIOS:
        empty = len(Job.load(job(scenario, 1)).renderer(Row(0, {"content": ""})).params)
        files.append(job(scenario, scenario.tokens_in * 7 // 2 - empty))
    assert command({}, "estimate", *files).lines == [
        "scenario          rows  standard  batch  savings",
        "classifications  1,000     $1.20  $0.60    $0.60",
        "summaries          500       $15  $7.50    $7.50",
        "analyses           100      $150    $75      $75",
    ]


def test_003_12_more_than_100000_rows_are_split(folder: Folder) -> None:
    """The first row goes ahead in real time, so the first batch has one less. Takes 20 seconds of a free core."""
    folder.job(
        'name = "reviews"\nmodel = "claude-haiku-4-5"\nmax_tokens = 10\n[source]\nkey = "id"\n'
        "sql = \"select i as id, 'review ' || i as review from range(100001) t(i)\"\n"
        '[prompt]\nuser = "{{ review }}"\n[batch]\nmax_requests = 100000\n'
    )
    with HostedApi() as hosted:
        environment = {"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key}
        assert folder.submit(environment).lines[0] == "100001 rows to do"
        assert [len(create.custom_ids) for create in hosted.creates] == [99_999, 1]
        assert len(hosted.realtime) == 1


def test_003_13_a_request_that_streams_is_refused_before_anything_is_sent(folder: Folder, server: Served) -> None:
    asked: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": []}
    lines = [{"custom_id": f"review-{i}", "params": {**asked, **({"stream": True} if i else {})}} for i in range(2)]
    path = folder.home / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(JobError, match=r"^row review-1: stream is not possible in a batch; leave it out$"):
        command(server.environment, "submit", path)
    given(folder, "[params]\nstream = true")
    with pytest.raises(JobError, match=r"^params: stream is not possible in a batch; leave it out$"):
        command(server.environment, "submit", folder.home / "job.toml")
    assert server.calls == []


def test_003_14_only_batches_and_runs_can_be_cancelled(
    folder: Folder, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(folder)
    server.hold()
    folder.submit(server.environment)
    [batch] = server.batch_ids
    [(run_id,)] = folder.ledger("select id from runs")
    monkeypatch.chdir(folder.home)
    with pytest.raises(UsageError, match=r"^review-1 is no job file, and no run of a job in this directory$"):
        command(server.environment, "cancel", "review-1")
    assert command(server.environment, "cancel", batch, "review-1").code == 2
    assert "Usage: cli cancel [OPTIONS] RUN | BATCH" in command({}, "cancel", "--help").lines
    assert [path for _, path in server.calls if "cancel" in path] == []

    for name in (run_id, batch):
        assert command(server.environment, "cancel", name).lines == [f"{batch}: canceling"]
    cancels = [path for _, path in server.calls if "cancel" in path]
    assert cancels == [f"/v1/messages/batches/{batch}/cancel"] * 2


def test_003_15_hundreds_of_files_are_translated(folder: Folder, server: Served) -> None:
    texts = folder.home / "texts"
    texts.mkdir()
    for number in range(300):
        (texts / f"{number:03}.md").write_text(f"Text {number}", encoding="utf-8")
    folder.job(
        'name = "translations"\nmodel = "claude-haiku-4-5"\n[source]\nglob = "texts/*.md"\n'
        '[prompt]\ndocument = "{{ path }}"\nuser = "Translate into German."\n'
        '[sink]\nfile = "translations.jsonl"\n[batch]\npoll = 0.01\n'
    )
    server.answer = lambda params: text(f"German: {params['messages'][0]['content'][0]['source']['data']}")
    assert folder.run(server.environment).code == DONE
    rows = [json.loads(line) for line in (folder.home / "translations.jsonl").read_text().splitlines()]
    assert [(row["path"], row["value"]) for row in rows] == [
        (f"texts/{number:03}.md", f"German: Text {number}") for number in range(300)
    ]


def test_003_15_thousands_of_descriptions_are_written(folder: Folder) -> None:
    lines = ["sku,product", *(f"sku-{number},Product {number}" for number in range(2_000))]
    (folder.home / "products.csv").write_text("\n".join(lines), encoding="utf-8")
    folder.job(
        'name = "descriptions"\nmodel = "claude-haiku-4-5"\n[source]\nfile = "products.csv"\nkey = "sku"\n'
        '[prompt]\nuser = "Describe {{ product }}."\n[sink]\nfile = "descriptions.csv"\n'
    )
    with HostedApi(lambda custom_id, params: text(f"{said(params)} It is good.")) as hosted:
        folder.run({"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key})
    header, *rows = (folder.home / "descriptions.csv").read_text().splitlines()
    assert header.startswith("sku,product,value")
    assert len(rows) == 2_000
    assert rows[1_999].startswith("sku-1999,Product 1999,Describe Product 1999. It is good.")


def test_003_16_prompt_caching_is_asked_for_and_reported(folder: Folder, server: Served) -> None:
    shared = "You label reviews. " * 20
    given(folder)
    path = folder.home / "job.toml"
    path.write_text(path.read_text().replace("[prompt]", f'[prompt]\nsystem = "{shared}"\ncache = "1h"'))
    server.double.usage(20, 5, cache_read=900, cache_write=100)
    printed = folder.run(server.environment).lines
    asked = server.double.creates[0].params if server.kind == "hosted" else server.double.realtime
    marked = [{"type": "text", "text": shared, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert [params["system"] for params in asked] == [marked] * 3
    assert "Prompt cache: 2,700 tokens read, 300 written" in printed
