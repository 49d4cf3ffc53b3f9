"""What programs of users do, text 002: JSONL, tickets with a schema, a table of batches, time-outs, back-off."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from nights import Folder, Params, Printed, Served, Time, said

import overnight
from overnight.cli import joboptions
from overnight.cli.joboptions import DONE, FAILED_ROWS, NOT_YET
from overnight.cli.main import cli
from overnight.errors import ServerTrouble
from overnight.jobs import api
from overnight.jobs.split import body
from overnight.ports.world import World
from overnight.testing.hosted import HostedApi, Outcome, canceled, expired, failed, text
from overnight.wire.batch import rfc3339

NOBODY = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": "any"}
TICKETS = [("001", "My invoice is wrong"), ("002", "It crashes"), ("003", "Please add a dark mode")]
TRIAGE = {"category": "billing", "sentiment": "negative", "urgency": "high", "hours": 4}
HEAD = """
name = "tickets"
noun = "tickets"
model = "claude-haiku-4-5"
max_tokens = 200
id = "ticket-{{ key }}"
[source]
db = "sqlite:///rows.db"
sql = "select id, content from tickets order by id"
key = "id"
"""
JOB = (
    HEAD
    + '''
[prompt]
user = """Analyze this support ticket. Respond with JSON only.
{{ content }}"""
[output.schema]
category = { enum = ["billing", "technical", "feature-request", "bug"] }
sentiment = { enum = ["positive", "neutral", "negative"] }
urgency = { enum = ["low", "medium", "high"] }
hours = "number"
[limits]
attempts = 1
[lines]
batch = "Submitted batch {{ id }} with {{ requests }} requests"
status = "Status: {{ status }} - Processing: {{ processing }}"
ended = "Batch completed! Succeeded: {{ succeeded }}, Errored: {{ errored }}"
[report]
line = "\\n{{ custom_id }}: {{ {'category': category, 'sentiment': sentiment, 'urgency': urgency, 'hours': hours} }}"
'''
)


def triage(**changes: object) -> Outcome:
    return text(json.dumps({**TRIAGE, **changes}))


def by_ticket(**outcomes: Outcome) -> Callable[[Params], Outcome]:
    """An answer by the first word of a ticket, in lower case; TRIAGE for the others."""
    return lambda params: outcomes.get(said(params).splitlines()[-1].split()[0].lower(), triage())


def given(folder: Folder, job: str = JOB, *, poll: float = 0.01) -> None:
    folder.table("tickets", ["id", "content"], TICKETS)
    folder.job(f"{job}\n[batch]\npoll = {poll}\n")


def requests(folder: Folder) -> list[dict[str, Any]]:
    """A file `requests.jsonl` of three whole requests."""
    found = [
        {
            "custom_id": f"doc-{number}",
            "params": {
                "model": "claude-haiku-4-5",
                "max_tokens": 50 + number,
                "messages": [{"role": "user", "content": f"Summarize – {number}"}],
            },
        }
        for number in range(3)
    ]
    lines = [json.dumps(request, ensure_ascii=False) for request in found]
    (folder.home / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


def command(environment: Mapping[str, str], *arguments: str | Path, world: World | None = None) -> Printed:
    """`overnight …` in this process, which a command that ends well does not need one of its own for."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment, obj=world)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Printed(done.exit_code, done.stdout.splitlines(), done.stderr)


class Died(BaseException):
    """The process ended here."""


class DiesAt:
    """Marks that end the process, as far as a test inside of it can."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def reach(self, mark: str) -> None:
        if mark == self._mark:
            raise Died


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time of jobs that Python programs run."""
    found = Time()
    monkeypatch.setattr(api, "World", partial(World, clock=found, pause=found))
    return found


def loaded(folder: Folder, server: Served, monkeypatch: pytest.MonkeyPatch) -> overnight.Job:
    """The job as a Python program has it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return overnight.Job.load(folder.home / "job.toml")


def test_002_01_a_file_of_whole_requests_is_submitted(folder: Folder, server: Served) -> None:
    wanted = requests(folder)
    server.answer = lambda params: text(said(params))
    printed = command(server.environment, "submit", folder.home / "requests.jsonl")
    assert (printed.code, printed.err) == (DONE, "")
    assert folder.collect(server.environment, name="requests.jsonl", wait_s=3600).code == DONE
    [batch] = server.batch_ids
    answers = {line["custom_id"]: line["result"]["message"]["content"][0]["text"] for line in server.results(batch)}
    assert answers == {f"doc-{number}": f"Summarize – {number}" for number in range(3)}
    if server.kind == "hosted":
        [create] = server.double.creates
        assert create.custom_ids == [request["custom_id"] for request in wanted]
        assert create.params == [request["params"] for request in wanted]


def test_002_02_the_requests_are_on_disk_before_they_are_sent_and_are_what_is_sent(
    folder: Folder, server: Served
) -> None:
    given(folder)
    with pytest.raises(Died):
        folder.submit(server.environment, marks=DiesAt("job.intended"))
    assert server.batch_ids == []
    spooled = command({}, "results", folder.home / "job.toml", "--requests").lines
    assert [json.loads(line)["custom_id"] for line in spooled] == ["ticket-001", "ticket-002", "ticket-003"]

    server.hold()
    folder.submit(server.environment)
    [(digest,)] = folder.ledger("select body_sha256 from batch_jobs")
    assert digest == hashlib.sha256(body(line.encode() for line in spooled)).hexdigest()
    if server.kind == "hosted":
        [create] = server.double.creates
        assert [{"custom_id": name, "params": sent} for name, sent in zip(*create[:2], strict=True)] == [
            json.loads(line) for line in spooled
        ]
    (folder.home / "again.jsonl").write_text("\n".join(spooled), encoding="utf-8")
    folder.submit(server.environment, name="again.jsonl")
    assert len(server.batch_ids) == 2


def test_002_03_the_submission_is_printed(folder: Folder, server: Served) -> None:
    requests(folder)
    folder.job(
        'name = "docs"\n[source]\nrequests = "requests.jsonl"\n[lines]\n'
        'batch = "Batch submitted with ID: {{ id }}\\nRequest count: {{ requests }}"\nfound = ""\nsubmitted = ""\n'
    )
    printed = folder.submit(server.environment)
    assert printed.lines == [f"Batch submitted with ID: {server.batch_ids[0]}", "Request count: 3"]


def test_002_04_the_status_can_be_asked_at_any_time(folder: Folder, server: Served) -> None:
    given(folder)
    fates = iter([triage(), failed("invalid_request_error", "no"), triage()])
    server.answer = lambda params: next(fates)
    server.hold(done=2)
    folder.submit(server.environment)
    [batch] = server.batch_ids

    running = command(server.environment, "status", batch)
    while server.kind == "ours" and "Processing: 1" not in running.lines:  # It has only begun.
        running = command(server.environment, "status", batch)
    assert running.lines[:4] == ["Status: in_progress", "Processing: 1", "Succeeded: 1", "Errored: 1"]
    server.release()
    folder.collect(server.environment, wait_s=3600)
    ended = command(server.environment, "status", batch)
    assert ended.lines[:4] == ["Status: ended", "Processing: 0", "Succeeded: 2", "Errored: 1"]


def test_002_05_tickets_have_ids_of_a_template(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket()
    folder.run(server.environment)
    [batch] = server.batch_ids
    assert {line["custom_id"] for line in server.results(batch)} == {"ticket-001", "ticket-002", "ticket-003"}


def test_002_06_answers_have_the_shape_and_the_types_that_were_asked_for(folder: Folder, server: Served) -> None:
    sink = """
    [sink]
    db = "sqlite:///rows.db"
    sql = "insert into triage values (:key, :category, :sentiment, :urgency, :hours, null)"
    on_error = "insert into triage values (:key, null, null, null, null, :error)"
    """
    given(folder, JOB + sink)
    folder.table("triage", ["id", "category", "sentiment", "urgency", "hours", "error"], [])
    server.answer = by_ticket(my=triage(hours=1.5), it=triage(urgency="urgent"), please=triage(hours="four"))
    assert folder.run(server.environment).code == FAILED_ROWS
    good, *bad = folder.sql("select * from triage order by id")
    assert good == ("001", "billing", "negative", "high", 1.5, None)
    assert [row[-1] for row in bad] == [
        "urgency: 'urgent' is not one of ['low', 'medium', 'high']",
        "hours: 'four' is not of type 'number'",
    ]
    asked = server.double.creates[0].params if server.kind == "hosted" else server.double.realtime
    for params in asked:
        assert "Respond with JSON only" in said(params)
        assert params["output_config"]["format"]["schema"]["properties"] == {
            "category": {"type": "string", "enum": ["billing", "technical", "feature-request", "bug"]},
            "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
            "urgency": {"type": "string", "enum": ["low", "medium", "high"]},
            "hours": {"type": "number"},
        }


def test_002_07_the_number_that_is_printed_is_that_of_the_requests(folder: Folder, server: Served) -> None:
    """The text counts the fields of the counts, of which there are five."""
    given(folder)
    for number in range(4, 8):
        folder.sql("insert into tickets values (?, ?)", f"00{number}", f"One more, {number}")
    printed = folder.submit(server.environment)
    assert f"Submitted batch {server.batch_ids[0]} with 7 requests" in printed.lines


def test_002_08_an_hour_is_waited_at_most_and_every_30_seconds_is_looked(folder: Folder, server: Served) -> None:
    given(folder, poll=30)
    server.hold()
    folder.submit(server.environment)
    time = Time()
    before = len(server.calls)
    assert folder.collect(server.environment, wait_s=60 * 60, time=time).code == NOT_YET
    assert time.waits == [30.0] * 120
    [batch] = server.batch_ids
    looks = [call for call in server.calls[before:] if call == ("GET", f"/v1/messages/batches/{batch}")]
    assert len(looks) == 121


def test_002_09_every_poll_and_the_end_are_printed(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket(it=failed("invalid_request_error", "no"))
    server.hold()
    looks = iter(range(10_000))
    time = Time(on_wait=lambda _seconds: server.release() if next(looks) == 1 else None)
    printed = folder.run(server.environment, time=time).lines
    polls = [line for line in printed if line.startswith("Status: ")]
    assert polls[:2] == ["Status: in_progress - Processing: 3"] * 2
    assert all(re.fullmatch(r"Status: in_progress - Processing: [0-3]", line) for line in polls[:-1])
    assert polls[-1] == "Status: ended - Processing: 0"
    assert printed[printed.index(polls[-1]) + 1] == "Batch completed! Succeeded: 2, Errored: 1"


def test_002_10_a_time_out_says_so_and_the_batch_goes_on(
    folder: Folder, server: Served, monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    given(folder, poll=30)
    server.answer = by_ticket()
    server.hold()
    begun = loaded(folder, server, monkeypatch).submit()
    assert begun is not None
    [batch] = server.batch_ids
    with pytest.raises(TimeoutError) as error:
        begun.wait(timeout="60m")
    assert str(error.value) == f"Batch {batch} did not complete within 60 minutes"

    server.release()
    resumed = overnight.Job.load(folder.home / "job.toml").attach(begun.id).wait(timeout="60d")
    assert [result for result in resumed.results() if isinstance(result, overnight.Failed)] == []
    assert server.batch_ids == [batch]


def test_002_11_results_are_a_dict_by_id(
    folder: Folder, server: Served, monkeypatch: pytest.MonkeyPatch, time: Time
) -> None:
    given(folder)
    server.answer = by_ticket(it=failed("invalid_request_error", "too odd"), please=text("no JSON"))
    run = loaded(folder, server, monkeypatch).run()
    assert run is not None
    found = run.by_id()
    assert set(found) == {"ticket-001", "ticket-002", "ticket-003"}
    assert found["ticket-001"] == overnight.Ok("001", TRIAGE, {"id": "001", "content": "My invoice is wrong"})
    wrong, odd = found["ticket-002"], found["ticket-003"]
    assert isinstance(wrong, overnight.Failed)
    assert isinstance(odd, overnight.Failed)
    assert (wrong.state, wrong.key) == ("errored", "002")
    assert "too odd" in wrong.error
    assert (odd.state, odd.error) == ("invalid", "no JSON object in 'no JSON'")


def test_002_11_every_row_has_one_of_all_states(folder: Folder) -> None:
    given(folder)
    for number in range(4, 7):
        folder.sql("insert into tickets values (?, ?)", f"00{number}", f"One more, {number}")
    fates = [triage(), failed("invalid_request_error", "no"), expired(), canceled(), text("{"), triage()]
    with HostedApi(lambda custom_id, params: fates[int(custom_id[-1]) - 1]) as hosted:
        hosted.lose_rows(["ticket-006"])
        folder.run({"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key})
    run = overnight.Job.load(folder.home / "job.toml").attach(folder.ledger("select id from runs")[0][0])
    states = [getattr(result, "state", "succeeded") for _, result in sorted(run.by_id().items())]
    assert states == ["succeeded", "errored", "expired", "canceled", "invalid", "missing"]


def test_002_12_one_answer_that_is_no_json_stops_no_other(folder: Folder, server: Served) -> None:
    given(folder)
    fenced = text(f"Here you are:\n```json\n{json.dumps(TRIAGE)}\n```\n")
    server.answer = by_ticket(my=fenced, it=text('{"category": "billing", '))
    assert folder.run(server.environment).code == FAILED_ROWS
    states = folder.ledger("select custom_id, state from items order by position")
    assert states == [("ticket-001", "succeeded"), ("ticket-002", "invalid"), ("ticket-003", "succeeded")]


def test_002_13_every_ticket_is_printed_after_a_blank_line(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket(it=triage(category="bug", hours=0.5))
    printed = folder.run(server.environment).lines
    first = printed.index(
        "ticket-001: {'category': 'billing', 'sentiment': 'negative', 'urgency': 'high', 'hours': 4}"
    )
    assert printed[first - 1 : first + 5 : 2] == ["", "", ""]
    assert printed[first + 2 : first + 5 : 2] == [
        "ticket-002: {'category': 'bug', 'sentiment': 'negative', 'urgency': 'high', 'hours': 0.5}",
        "ticket-003: {'category': 'billing', 'sentiment': 'negative', 'urgency': 'high', 'hours': 4}",
    ]


def test_002_14_the_table_of_batches_is_made_if_it_is_missing(folder: Folder, server: Served) -> None:
    given(folder)
    assert not (folder.home / ".overnight").exists()
    folder.submit(server.environment)
    columns = {row[1] for row in folder.ledger("pragma table_info(batch_jobs)")}
    assert columns >= {
        "id",
        "batch_id",
        "status",
        "created_at",
        "completed_at",
        "total_requests",
        "succeeded",
        "errored",
    }


def test_002_15_a_batch_is_recorded_when_it_is_submitted(folder: Folder, server: Served) -> None:
    given(folder)
    server.hold()
    time = Time()
    folder.submit(server.environment, time=time)
    found = folder.ledger("select id, batch_id, status, total_requests, created_at from batch_jobs")
    assert found == [(1, server.batch_ids[0], "submitted", 3, rfc3339(time.now_ms()))]


def test_002_16_counts_are_refreshed_and_only_the_end_has_a_time(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket()
    server.hold(done=1)
    folder.submit(server.environment)
    asked = "select completed_at, processing, succeeded, errored from batch_jobs"

    def collect_until(is_so: Callable[[tuple[Any, ...]], bool]) -> tuple[Any, ...]:
        for _ in range(1_000):
            folder.collect(server.environment)
            [row] = folder.ledger(asked)
            if is_so(row):
                return row
        raise AssertionError(row)

    assert collect_until(lambda row: row[2] == 1) == (None, 2, 1, 0)
    server.release()
    completed_at, *counts = collect_until(lambda row: row[0] is not None)
    assert counts == [0, 3, 0]
    assert datetime.fromisoformat(completed_at).tzinfo is not None
    assert folder.ledger("select status from batch_jobs") == [("collected",)]


MANY = """
name = "documents"
model = "claude-haiku-4-5"
max_tokens = 50
[source]
sql = "select i as id, 'A document of ' || repeat('some words ', 20) || i as content from range(300000) t(i)"
key = "id"
[prompt]
user = "{{ content }}"
[batch]
max_requests = 100000
"""
_RSS_BYTES_MAX = 320 * 2**20  # 240 measured. Requests and rows of 300,000 documents alone are 170 MB of JSON.


def test_002_17_300000_documents_are_three_batches_and_memory_is_bounded(folder: Folder) -> None:
    """The first row goes ahead in real time. Takes 45 s of a free core."""
    folder.job(MANY)
    with HostedApi() as hosted:
        environment = {
            "ANTHROPIC_BASE_URL": hosted.url,
            "ANTHROPIC_API_KEY": hosted.key,
            "PYTHONPATH": str(Path(__file__).parent),
        }
        process = folder.started(environment, "submit", "job.toml", module="peakmemory")
        out, err = process.communicate()
        assert process.returncode == DONE
        printed = out.splitlines()
        assert printed[0] == "300000 rows to do"
        assert [len(create.custom_ids) for create in hosted.creates] == [99_999, 100_000, 100_000]
        assert len({name for create in hosted.creates for name in create.custom_ids}) == 299_999
    assert 0 < int(err) < _RSS_BYTES_MAX


@pytest.mark.parametrize("what", ["nobody", "500"])
def test_002_18_three_attempts_further_and_further_apart(folder: Folder, what: str) -> None:
    """After a 500 nobody knows whether the batch was made: then the list is also asked, until it cannot lag."""
    given(folder)
    time, out = Time(), list[str]()
    with HostedApi() as hosted:
        if what == "500":
            hosted.next_create("500-nothing", times=3)
        at_hosted = {"ANTHROPIC_BASE_URL": hosted.url, "ANTHROPIC_API_KEY": hosted.key}
        environment = NOBODY if what == "nobody" else at_hosted
        with pytest.raises(ServerTrouble) as raised, folder.night(environment, out.append, time=time) as night:
            night.submit()
        said_by = {"nobody": "[Errno 111] Connection refused", "500": "500: Internal server error"}[what]
        assert out[1:] == [f"Attempt {number} failed: {said_by}. Retrying..." for number in (1, 2)]
        assert str(raised.value) == f"{environment['ANTHROPIC_BASE_URL']}: {said_by}"
        if what == "nobody":
            assert time.waits == [1.0, 2.0]
        else:
            assert time.waits[0] == 1.0
            assert time.waits[-1] == 2.0
        folder.submit(at_hosted, time=time)
        assert len(hosted.creates) == 1


def test_002_18_the_last_error_is_that_of_the_command(folder: Folder) -> None:
    given(folder)
    printed = folder.command(NOBODY, "submit", "job.toml")
    assert printed.lines[1:] == [
        f"Attempt {number} failed: [Errno 111] Connection refused. Retrying..." for number in (1, 2)
    ]
    assert (printed.code, printed.err) == (1, "overnight: http://127.0.0.1:9: [Errno 111] Connection refused\n")


def test_002_19_an_answer_that_got_lost_makes_no_second_batch(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket()
    server.lose_next_create()
    printed = folder.run(server.environment)
    assert printed.code == DONE
    assert [line for line in printed.lines if line.startswith("Attempt 1 failed: ")] != []
    assert len(server.batch_ids) == 1


def test_002_20_the_context_that_tickets_share_is_marked_for_the_prompt_cache(folder: Folder, server: Served) -> None:
    shared = "You triage support tickets. " * 20
    given(folder, JOB.replace("[prompt]", f'[prompt]\nsystem = "{shared}"\ncache = "5m"'))
    server.answer = by_ticket()
    folder.run(server.environment)
    asked = server.double.creates[0].params if server.kind == "hosted" else server.double.realtime
    marked = [{"type": "text", "text": shared, "cache_control": {"type": "ephemeral"}}]
    assert [params["system"] for params in asked] == [marked] * 3


def test_002_20_answers_that_max_tokens_cut_are_reported(folder: Folder, server: Served) -> None:
    given(folder)
    server.answer = by_ticket(it=text('{"category": "bil', stop_reason="max_tokens"))
    printed = folder.run(server.environment)
    assert printed.code == FAILED_ROWS
    assert "ticket-002: Failed - the answer was cut (max_tokens)" in printed.lines
    assert "3 tickets: 2 succeeded, 1 failed (1 truncated)" in printed.lines


class NightTime(Time):
    """Time that a command may be told to stop; somebody writes another ticket while it passes."""

    def stop(self) -> None:
        """Nobody does."""


def test_002_20_rows_are_read_and_sent_at_11_pm(
    folder: Folder, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(folder)
    server.hold()
    waited = NightTime(on_wait=lambda _seconds: _one_more(folder))
    monkeypatch.setattr(joboptions, "SystemPause", lambda: waited)
    at_11 = ("submit", folder.home / "job.toml", "--not-before", "23:00")
    printed = command(server.environment, *at_11, world=World(clock=waited))
    assert (printed.code, printed.err) == (DONE, "")
    assert len(waited.waits) == 1
    assert datetime.fromtimestamp(waited.now_ms() / 1000).strftime("%H:%M:%S") == "23:00:00"
    assert f"Submitted batch {server.batch_ids[0]} with 4 requests" in printed.lines


def _one_more(folder: Folder) -> None:
    folder.sql("insert into tickets values ('004', 'It is late')")


PDF = b"%PDF-1.4 \xff\x00"
PNG = b"\x89PNG\r\n\x1a\n"


def test_002_21_contracts_invoices_mails_and_pdfs_are_documents(folder: Folder, server: Served) -> None:
    inbox = folder.home / "inbox"
    inbox.mkdir()
    for name, data in {"a.txt": b"A contract", "b.pdf": PDF, "c.eml": b"Subject: hello", "d.png": PNG}.items():
        (inbox / name).write_bytes(data)
    folder.job(
        'name = "documents"\nmodel = "claude-haiku-4-5"\nid = "{{ stem }}"\n[source]\nglob = "inbox/*"\n'
        'key = "path"\n[prompt]\ndocument = "{{ path }}"\nuser = "What is it?"\n[batch]\npoll = 0.01\n'
        '[sink]\nfile = "answers.csv"\n'
    )
    server.answer = lambda params: text(params["messages"][0]["content"][0]["type"])
    assert folder.run(server.environment).code == DONE
    asked = server.double.creates[0].params if server.kind == "hosted" else server.double.realtime
    sources = [params["messages"][0]["content"][0]["source"] for params in asked]
    assert {(source["type"], source["media_type"], source["data"]) for source in sources} == {
        ("text", "text/plain", "A contract"),
        ("base64", "application/pdf", "JVBERi0xLjQg/wA="),
        ("text", "text/plain", "Subject: hello"),
        ("base64", "image/png", "iVBORw0KGgo="),
    }
    rows = (folder.home / "answers.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["inbox/a.txt", "inbox/b.pdf", "inbox/c.eml", "inbox/d.png"]
