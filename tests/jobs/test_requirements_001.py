"""Text 001: a guide to batches. Waiting, printing, asking again. Its splits: …_001_splits.py.

Rows that are about the wire run against our server and the hosted API. What only the hosted API's double can be led
to do (expired rows, unknown words, a 429 for one call) is shown there alone.
"""

import base64
import csv
import json
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from nights import Folder, Params, Served, Time, said, served

import overnight
from overnight.cli.joboptions import DONE, FAILED_ROWS, NOT_YET
from overnight.jobs import api
from overnight.ports.clock import SystemPause
from overnight.ports.world import World
from overnight.testing import crashpoint
from overnight.testing.hosted import Outcome, canceled, expired, failed, text
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess
from overnight.testing.wireclient import WireClient

MODEL = "claude-haiku-4-5"
ROWS = """
model = "claude-haiku-4-5"
max_tokens = 50
[source]
db = "sqlite:///rows.db"
sql = "select id, text from rows where answer is null order by id"
key = "id"
[prompt]
user = "{{ text }}"
[sink]
db = "sqlite:///rows.db"
sql = "update rows set answer = :value where id = :key and answer is null"
"""
REAL_TIME = "[batch]\npoll = 0.01\n"
ONE_ATTEMPT = "[limits]\nattempts = 1\n"
BUSY = failed("overloaded_error", "Overloaded")


def job(*tables: str) -> str:
    return "\n".join(['name = "guide"', ROWS, *tables])


def rows(folder: Folder, *texts: str) -> None:
    """A table with rows req-001 and so on."""
    named = [(f"req-{number:03}", content, None) for number, content in enumerate(texts, 1)]
    folder.table("rows", ["id text primary key", "text", "answer"], named)


def answers(folder: Folder) -> list[str | None]:
    return [answer for (answer,) in folder.sql("select answer from rows order by id")]


def request(custom_id: str, content: str) -> dict[str, object]:
    messages = [{"role": "user", "content": content}]
    return {"custom_id": custom_id, "params": {"model": MODEL, "max_tokens": 100, "messages": messages}}


REQUESTS = [request(f"req-{number:03}", f"Summarize text {number}") for number in range(1, 4)]


def asked(server: Served) -> list[Params]:
    """What was asked so far, by text: of the hosted API in batches, of the engine behind our server one by one."""
    double = server.double
    found = (
        double.realtime if server.kind == "ours" else [params for made in double.creates for params in made.params]
    )
    return sorted(found, key=said)


@pytest.fixture
def program(server: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A server that Python programs find by the SDK's variables."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@contextmanager
def impatient_server(data: Path) -> Iterator[dict[str, str]]:
    """Ours, where an engine's error becomes a failed row at once. Answers `echo: …`; texts may ask for errors."""
    once = crashpoint.settings(changed_limits={"ATTEMPTS_MAX": 1})
    with upstream_process() as engine:
        found = ServerProcess(data, "--engine", engine, module="overnight.testing.crashpoint", environment=once)
        try:
            yield {"ANTHROPIC_BASE_URL": found.url, "ANTHROPIC_API_KEY": "any"}
        finally:
            found.kill()


# --- Lists of requests ---------------------------------------------------------------------------------------------


def test_001_01_a_plain_list_of_request_dicts_is_accepted(program: Served, folder: Folder) -> None:
    program.answer = lambda params: text(f"summary of {said(params)}")
    run = overnight.submit(REQUESTS, name="summaries", home=folder.home).wait(poll=0.01)
    assert {name: found.value for name, found in run.by_id().items() if isinstance(found, overnight.Ok)} == {
        "req-001": "summary of Summarize text 1",
        "req-002": "summary of Summarize text 2",
        "req-003": "summary of Summarize text 3",
    }
    assert asked(program) == [found["params"] for found in REQUESTS]


def test_001_02_a_submit_prints_the_batch_and_its_requests(program: Served, folder: Folder) -> None:
    printed = list[str]()
    lines = {"found": "", "batch": "Batch ID: {{ id }}\nTotal requests: {{ requests }}", "submitted": ""}
    overnight.submit(REQUESTS, name="summaries", home=folder.home, lines=lines, say=printed.append)
    assert "\n".join(printed).splitlines() == [f"Batch ID: {program.batch_ids[0]}", "Total requests: 3"]


# --- Waiting -------------------------------------------------------------------------------------------------------


def test_001_03_the_poll_interval_is_a_parameter(
    program: Served, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wait_for_batch(id, poll_interval=60)` is `Run.wait(poll=60)`: every 60 s one look, until it has ended."""
    statuses = list[str]()

    def after_three(_seconds: float) -> None:
        if len(time.waits) == 3:
            program.release()

    time = Time(on_wait=after_three)
    monkeypatch.setattr(api, "World", lambda: World(clock=time, pause=time))
    program.hold()
    run = overnight.submit(REQUESTS, name="summaries", home=folder.home)
    run.wait(poll=60, on_status=lambda facts: statuses.append(facts["status"]))
    assert set(time.waits) == {60.0}
    assert statuses == ["in_progress"] * len(time.waits) + ["ended"]
    assert program.calls.count(("GET", f"/v1/messages/batches/{run.batches[0]}")) == len(time.waits) + 1
    assert len(time.waits) == 3 if program.kind == "hosted" else len(time.waits) >= 3


def test_001_04_progress_is_succeeded_of_all_five_counts(server: Served, folder: Folder) -> None:
    """The seed reads a total that no API has: it is the sum of what succeeded, failed, expired and so on."""
    fates: dict[str, Outcome] = {"no": failed("invalid_request_error", "no")}
    if server.kind == "hosted":
        fates |= {"late": expired(), "stopped": canceled()}
    server.answer = lambda params: fates.get(said(params), text("ok"))
    rows(folder, "one", "two", *fates)
    lines = '[lines]\nstatus = "Status: {{ status }}\\nProgress: {{ succeeded }}/{{ total }}"\n'
    folder.job(job(REAL_TIME, ONE_ATTEMPT, lines))
    printed = "\n".join(folder.run(server.environment).lines).splitlines()
    total = 2 + len(fates)
    assert printed[printed.index("Status: ended") + 1] == f"Progress: 2/{total}"
    if server.kind == "hosted":  # Whose counters stand still until the end.
        assert printed[3:7] == ["Status: in_progress", "Progress: 0/5", "Status: ended", "Progress: 2/5"]


def test_001_05_an_unknown_status_neither_ends_nor_breaks_the_loop(folder: Folder, tmp_path: Path) -> None:
    rows(folder, "one", "two")
    folder.job(job(REAL_TIME, '[lines]\nstatus = "Status: {{ status }}"\n'))
    with served("hosted", tmp_path / "server") as server:
        server.double.end_after_looks(3)
        server.double.say_status("finalizing")
        printed = folder.run(server.environment)
    statuses = [line for line in printed.lines if line.startswith("Status: ")]
    assert statuses == ["Status: finalizing", "Status: in_progress", "Status: in_progress", "Status: ended"]
    assert (printed.code, answers(folder)) == (DONE, ["ok", "ok"])


# --- Results -------------------------------------------------------------------------------------------------------


def test_001_06_each_result_is_a_line_with_its_text_or_its_error(server: Served, folder: Folder) -> None:
    """Expired and canceled results have no error object: the seed breaks on them."""
    fates: dict[str, Outcome] = {"bad": failed("invalid_request_error", "max_tokens: too large")}
    if server.kind == "hosted":
        fates |= {"late": expired(), "stopped": canceled()}
    server.answer = lambda params: fates.get(said(params), text(" A summary.\n"))
    rows(folder, "good", *fates)
    folder.job(job(REAL_TIME, ONE_ATTEMPT, '[lines]\nrow = "{{ custom_id }}: {{ value }}"\n'))
    printed = folder.run(server.environment)
    before_report = printed.lines[: printed.lines.index("Answered 1 rows")]
    assert (
        sorted(line for line in before_report if line.startswith("req-"))
        == [
            "req-001: A summary.",
            "req-002: Failed - max_tokens: too large",
            "req-003: Failed - the batch expired before the request was sent",
            "req-004: Failed - the batch was cancelled before the request was sent",
        ][: 1 + len(fates)]
    )
    assert printed.code == FAILED_ROWS


def test_001_14_everything_that_did_not_succeed_is_listed_with_its_error(server: Served, folder: Folder) -> None:
    fates: dict[str, Outcome] = {"bad": failed("invalid_request_error", "no such tool")}
    if server.kind == "hosted":
        fates |= {"late": expired(), "stopped": canceled()}
    server.answer = lambda params: fates.get(said(params), text("ok"))
    rows(folder, "good", *fates)
    folder.job(job(REAL_TIME, ONE_ATTEMPT))
    assert folder.command(server.environment, "run", "job.toml").code == FAILED_ROWS
    listed = folder.command(server.environment, "results", "job.toml", "--failed")
    assert [(row["id"], row["state"], row["error"]) for row in map(json.loads, listed.lines)] == [
        ("req-002", "errored", "no such tool"),
        ("req-003", "expired", "the batch expired before the request was sent"),
        ("req-004", "canceled", "the batch was cancelled before the request was sent"),
    ][: len(fates)]


# --- Asking again --------------------------------------------------------------------------------------------------


def twice_busy(kind: str) -> tuple[str, ...]:
    """Texts of which the second and third fail once."""
    return ("one", "[[500 x1]] two", "[[500 x1]] three") if kind == "ours" else ("one", "busy two", "busy three")


@contextmanager
def failing_once(kind: str, data: Path) -> Iterator[tuple[dict[str, str], Served | None]]:
    """A server, by its environment, on which the texts of `twice_busy` fail once."""
    if kind == "ours":
        with impatient_server(data) as environment:
            yield environment, None
        return
    with served(kind, data) as server:
        server.answer = lambda params: BUSY if is_first(server, params) else text(f"echo: {said(params)}")
        yield server.environment, server


def is_first(server: Served, params: Params) -> bool:
    return said(params).startswith("busy") and len(server.double.creates) == 1


@pytest.mark.parametrize("kind", ["ours", "hosted"])
def test_001_15_failed_requests_go_into_a_new_batch_with_their_original_params(
    kind: str, folder: Folder, tmp_path: Path
) -> None:
    rows(folder, *twice_busy(kind))
    folder.job(job(REAL_TIME))
    with failing_once(kind, tmp_path / "server") as (environment, server):
        assert folder.run(environment).code == DONE
        batches = folder.ledger("select batch_id, total_requests, attempt from batch_jobs order by id")
        if server is not None:
            first, second = server.double.creates
            assert second.custom_ids == ["req-002", "req-003"]
            assert second.params == [first.params[first.custom_ids.index(name)] for name in second.custom_ids]
    assert [batch[1:] for batch in batches] == [(3, 1), (2, 2)]
    assert batches[0][0] != batches[1][0]
    assert answers(folder) == [f"echo: {content}" for content in twice_busy(kind)]


@pytest.mark.parametrize("kind", ["ours", "hosted"])
def test_001_16_a_retry_says_how_many_and_where(kind: str, folder: Folder, tmp_path: Path) -> None:
    rows(folder, *twice_busy(kind))
    folder.job(job(REAL_TIME))
    with failing_once(kind, tmp_path / "server") as (environment, _):
        printed = folder.run(environment)
    [retry] = folder.ledger("select batch_id from batch_jobs where attempt = 2")
    assert f"Retrying 2 failed requests in batch {retry[0]}" in printed.lines


def test_001_17_without_failures_there_is_no_retry_batch(server: Served, folder: Folder) -> None:
    rows(folder, "one", "two")
    folder.job(job(REAL_TIME))
    printed = folder.run(server.environment)
    assert len(server.batch_ids) == 1
    assert not [line for line in printed.lines if line.startswith("Retrying")]


@pytest.mark.parametrize("kind", ["ours", "hosted"])
def test_001_18_another_process_asks_again_with_the_original_params(
    kind: str, folder: Folder, tmp_path: Path
) -> None:
    """The first is killed with its failures in hand or still under way, and the source has changed since."""
    texts = twice_busy(kind)
    rows(folder, *texts)
    folder.job(job(REAL_TIME))
    with failing_once(kind, tmp_path / "server") as (environment, server):
        if server is not None:
            server.double.hold()
        first = folder.started(environment, "run", "job.toml")
        assert first.stdout is not None
        while not first.stdout.readline().startswith("Batch submitted"):
            assert first.poll() is None
        if server is not None:
            server.double.next_create("busy", 3600)
            server.double.release()
            while first.stdout.readline() != "Waiting 3600 s: the server is busy\n":
                assert first.poll() is None
        first.send_signal(signal.SIGKILL)
        first.communicate()
        folder.sql("update rows set text = 'something else'")
        second = folder.command(environment, "collect", "job.toml", "--wait", "60s")
        assert second.code == DONE, second
        if server is not None:
            before, after = server.double.creates
            assert after.params == [before.params[before.custom_ids.index(name)] for name in after.custom_ids]
    assert any(line.startswith("Retrying 2 failed requests in batch msgbatch_") for line in second.lines)
    assert answers(folder) == [f"echo: {content}" for content in texts]


ERROR_TYPES = {
    "rate_limit_error": True,
    "overloaded_error": True,
    "api_error": True,
    "timeout_error": True,
    "invalid_request_error": False,
    "request_too_large": False,
    "authentication_error": False,
    "permission_error": False,
    "not_found_error": False,
}


def test_001_20_errors_that_pass_are_asked_again_and_no_others(folder: Folder, tmp_path: Path) -> None:
    rows(folder, *ERROR_TYPES)
    folder.job(job(REAL_TIME))
    with served("hosted", tmp_path / "server") as server:
        server.answer = lambda params: (
            failed(said(params), "as it is") if len(server.double.creates) == 1 else text("ok")
        )
        assert folder.run(server.environment).code == FAILED_ROWS
        first, again = server.double.creates
    assert [said(params) for params in first.params] == list(ERROR_TYPES)
    assert [said(params) for params in again.params] == [name for name, passes in ERROR_TYPES.items() if passes]
    assert answers(folder) == ["ok" if passes else None for passes in ERROR_TYPES.values()]


def test_001_20_of_our_server_too(folder: Folder, tmp_path: Path) -> None:
    rows(folder, "[[500 x1]] broke once", "[[400 x1]] would be answered the second time")
    folder.job(job(REAL_TIME))
    with impatient_server(tmp_path / "server") as environment:
        assert folder.run(environment).code == FAILED_ROWS
    assert answers(folder) == ["echo: [[500 x1]] broke once", None]
    assert folder.ledger("select total_requests from batch_jobs order by id") == [(2,), (1,)]


def test_001_21_a_second_run_makes_no_second_batch_for_the_same_rows(server: Served, folder: Folder) -> None:
    """While the first is under way, and after it."""
    rows(folder, "one", "two")
    folder.job(job(REAL_TIME))
    folder.submit(server.environment)
    again = folder.submit(server.environment)
    assert f"Resuming batch {server.batch_ids[0]}" in again.lines
    assert folder.run(server.environment).code == DONE
    assert folder.run(server.environment).lines == ["No rows to do"]
    assert len(server.batch_ids) == 1
    assert answers(folder) == ["ok", "ok"]


# --- What it is used for -------------------------------------------------------------------------------------------

FILES = """
model = "claude-haiku-4-5"
max_tokens = 200
[source]
file = "in.csv"
key = "id"
[sink]
file = "out.csv"
[batch]
poll = 0.01
"""
WORKLOADS = {
    "translation": (
        '[prompt]\nuser = "Translate to German: {{ text }}"',
        {"id": "t1", "text": "Good morning"},
        "Guten Morgen",
        {"value": "Guten Morgen"},
    ),
    "enrichment": (
        '[prompt]\nuser = "Where is {{ text }}?"\n[output.schema]\ncountry = "string"\ninhabitants = "integer"',
        {"id": "e1", "text": "Lyon"},
        '{"country": "France", "inhabitants": 522000}',
        {"country": "France", "inhabitants": "522000"},
    ),
    "evaluation": (
        '[prompt]\nuser = "Good or bad? {{ text }}"\n[output]\nchoices = ["good", "bad"]\n'
        '[derive]\nis_right = "value == label"',
        {"id": "v1", "text": "It works.", "label": "good"},
        "Good.",
        {"value": "good", "is_right": "true"},
    ),
    "moderation": (
        '[prompt]\nsystem = "Moderate."\nuser = "{{ text }}"\n[output]\nchoices = ["ok", "not ok"]',
        {"id": "m1", "text": "You are all wrong"},
        "ok\n",
        {"value": "ok"},
    ),
}


@pytest.mark.parametrize("workload", WORKLOADS)
def test_001_22_workloads_of_many_kinds_are_one_file_format(workload: str, server: Served, folder: Folder) -> None:
    tables, row, answer, fields = WORKLOADS[workload]
    with (folder.home / "in.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    folder.job(f'name = "{workload}"\n{FILES}\n{tables}')
    server.answer = lambda params: text(answer)
    assert folder.run(server.environment).code == DONE
    with (folder.home / "out.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{**row, **fields, "state": "succeeded", "error": ""}]


SCANS = """
name = "scans"
model = "claude-haiku-4-5"
[source]
glob = "inbox/*"
[prompt]
document = "{{ path }}"
user = "Which amount is due?"
[sink]
file = "amounts.csv"
[batch]
poll = 0.01
max_bytes = 20_000
"""


def test_001_23_documents_and_images_are_base64_blocks_and_their_size_counts(server: Served, folder: Folder) -> None:
    """Two files of 9,000 bytes would fit into a batch of 20,000; as base64 they have 12,000, and do not."""
    files = {"invoice.pdf": b"%PDF-1.7" + b"a" * 8_992, "scan.png": b"\x89PNG\r\n\x1a\n" + b"b" * 8_992}
    (folder.home / "inbox").mkdir()
    for name, content in files.items():
        (folder.home / "inbox" / name).write_bytes(content)
    folder.job(SCANS)
    assert folder.run(server.environment).code == DONE
    sent = [params["messages"][0]["content"] for params in asked(server)]
    kinds = {"invoice.pdf": ("document", "application/pdf"), "scan.png": ("image", "image/png")}
    expected = [
        [
            {
                "type": kinds[name][0],
                "source": {
                    "type": "base64",
                    "media_type": kinds[name][1],
                    "data": base64.b64encode(content).decode(),
                },
            },
            {"type": "text", "text": "Which amount is due?"},
        ]
        for name, content in files.items()
    ]
    assert sorted(sent, key=lambda content: str(content[0]["type"])) == expected
    assert len(server.batch_ids) == 2
    assert [size < 20_000 for (size,) in folder.ledger("select bytes from batch_jobs")] == [True, True]


# --- Limits of rate ------------------------------------------------------------------------------------------------


def test_001_25_a_429_on_create_poll_or_results_waits_as_long_as_it_says(folder: Folder, tmp_path: Path) -> None:
    rows(folder, "one", "two")
    folder.job(job("[batch]\npoll = 1\n"))
    time = Time()
    with served("hosted", tmp_path / "server") as server:
        server.double.next_create("busy", 7)
        server.double.next_retrieve("busy", 30)
        server.double.next_results("busy", retry_after_s=11)
        printed = folder.run(server.environment, time=time)
        assert len(server.double.creates) == 1
        assert ("POST", "/v1/messages/batches") in server.double.calls
    assert time.waits == [7.0, 30.0, 1.0, 11.0]
    assert "Waiting 7 s: the server is busy" in printed.lines
    assert (printed.code, answers(folder)) == (DONE, ["ok", "ok"])


def test_001_25_a_429_on_a_look_at_many_batches_asks_for_none_of_them(folder: Folder, tmp_path: Path) -> None:
    rows(folder, "one", "two", "three")
    folder.job(job("[batch]\npoll = 1\nmax_requests = 1\n"))
    time = Time()
    with served("hosted", tmp_path / "server") as server:
        server.double.next_list("busy", 30)
        assert folder.run(server.environment, time=time).code == DONE
        looks = [path.partition("?")[0] for method, path in server.double.calls if method == "GET"]
    assert looks[:2] == ["/v1/messages/batches"] * 2
    assert time.waits[0] == 30.0
    assert answers(folder) == ["ok", "ok", "ok"]


def test_001_25_a_limit_of_our_server_is_waited_for(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 requests a minute, all spent by somebody else: in real time, for the 10 s that this server asks for."""
    monkeypatch.setenv("OVERNIGHT_REQUESTS_PER_MINUTE", "6")
    rows(folder, "one", "two")
    folder.job(job(REAL_TIME))
    time = Time(on_wait=SystemPause().wait_s)
    with served("ours", tmp_path / "server") as server:
        with closing(WireClient(server.url)) as somebody:
            while somebody.call("GET", "/v1/messages/batches").status == 200:
                pass
        submitted = folder.submit(server.environment, time=time)
        looked = folder.collect(server.environment)
        assert server.calls.count(("POST", "/v1/messages/batches")) == 1 + len(time.waits)
    assert time.waits
    assert all(1 <= seconds <= 10 for seconds in time.waits)
    assert submitted.lines[-1] == "Submitted 2 rows"
    assert looked.code == NOT_YET
    assert re.fullmatch(r"Waiting (\d|10) s: the server is busy", looked.lines[1])
