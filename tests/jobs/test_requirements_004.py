"""Text 004: tickets that cron classifies every night, and that a crash costs nothing."""

import re
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from nights import Folder, Params, Printed, Served, Time, said, served

from overnight.testing import jobcrash
from overnight.testing.hosted import Outcome, canceled, expired, failed, text

CATEGORIES = ["billing", "technical", "account", "feedback", "other"]
SYSTEM = """Classify the support ticket into exactly one category.
Categories: billing, technical, account, feedback, other
Return only the category name, lowercase."""
JOB = f'''
name = "tickets"
noun = "tickets"
model = "claude-haiku-4-5"
max_tokens = 50

[source]
db = "sqlite:///rows.db"
sql = "select id, subject, body from tickets where category is null order by id"
key = "id"

[prompt]
system = """{SYSTEM}"""
user = "Subject: {{{{ subject }}}}\\n{{{{ body[:500] }}}}"

[output]
choices = ["billing", "technical", "account", "feedback", "other"]
on_failure = "error"

[sink]
db = "sqlite:///rows.db"
sql = "update tickets set category = :value where id = :key and category is null"
on_error = "update tickets set category = :value, note = :state where id = :key and category is null"

[batch]
poll = POLL

[lines]
found = "Classifying {{{{ rows }}}} tickets"
nothing = "No tickets to classify"
batch = "Batch submitted: {{{{ id }}}}"
submitted = ""
first_status = "Status: {{{{ status }}}}"
status = "Status: {{{{ status }}}} | Succeeded: {{{{ succeeded }}}} | Processing: {{{{ processing }}}}"
collected = "Classified {{{{ succeeded }}}} tickets"
'''
COLUMNS = ("id", "subject", "body", "category", "note")  # Without types: 7 and "7" are different values.


def prepared(folder: Folder, tickets: Sequence[tuple[Any, str, str]], *, poll: float = 0.01, more: str = "") -> None:
    """A table of tickets, none of them classified, and the job."""
    folder.table("tickets", COLUMNS, [(*ticket, None, None) for ticket in tickets])
    folder.job(JOB.replace("POLL", str(poll)) + more)


def some(count: int, *, first: int = 1) -> list[tuple[int, str, str]]:
    return [(number, f"No {number}", f"Text of {number}") for number in range(first, first + count)]


def categories(folder: Folder) -> dict[Any, Any]:
    return dict(folder.sql("select id, category from tickets"))


def by_subject(answers: dict[str, Outcome]) -> Any:
    """An answer for each subject; for others `billing`."""

    def answer(params: Params) -> Outcome:
        asked = params["messages"][0]["content"]  # The last one may say what was wrong with the first answer.
        return answers.get(asked.splitlines()[0].removeprefix("Subject: "), text("billing"))

    return answer


def custom_ids(server: Served) -> list[list[str]]:
    """The requests of every batch, sorted; the newest batch first."""
    return [sorted(line["custom_id"] for line in server.results(batch_id)) for batch_id in server.batch_ids]


def local_time_ms(day: int, hour: int, minute: int) -> int:
    return int(datetime(2026, 5, day, hour, minute).astimezone().timestamp() * 1000)


def killed_at(mark: str, folder: Folder, server: Served, *arguments: str) -> None:
    """`overnight run` until it reaches `mark`."""
    environment = server.environment | jobcrash.settings(crash_at=mark)
    done = folder.command(environment, *(arguments or ("run", "job.toml")), module=jobcrash.MODULE)
    assert done.code == -9, done


def test_004_01_three_thousand_tickets_are_one_batch(folder: Folder, server: Served) -> None:
    prepared(folder, some(3_000))
    server.answer = lambda params: text("billing")
    assert folder.run(server.environment, time=Time()).code == 0
    assert set(categories(folder).values()) == {"billing"}
    [batch] = custom_ids(server)
    assert len(batch) == 2_999  # The first was asked before, in real time: the job is new.


def test_004_02_a_numeric_key_is_the_custom_id_and_a_number_again_when_it_is_written(
    folder: Folder, server: Served
) -> None:
    prepared(folder, [(7, "a", "a"), ("8", "b", "b"), (-12, "c", "c")])
    server.answer = lambda params: text("other")
    assert folder.run(server.environment, time=Time()).code == 0
    assert custom_ids(server) == [["-12", "7", "8"]]
    assert categories(folder) == {7: "other", "8": "other", -12: "other"}


def test_004_03_the_system_prompt_goes_out_as_it_is_and_only_a_category_comes_back(
    folder: Folder, server: Served
) -> None:
    prepared(folder, some(4))
    server.answer = by_subject({"No 1": text(" Technical\n"), "No 2": text("ACCOUNT"), "No 3": text("a billing one")})
    assert folder.run(server.environment, time=Time()).code == 3
    assert categories(folder) == {1: "technical", 2: "account", 3: "error", 4: "billing"}
    assert folder.sql("select note from tickets where id = 3") == [("invalid",)]
    assert {params["system"] for params in sent(server)} == {SYSTEM}


def sent(server: Served) -> list[Params]:
    """What the model was asked: by the hosted API in batches, by ours one by one."""
    if server.kind == "ours":
        return server.double.realtime
    return [params for create in server.double.creates for params in create.params]


@pytest.mark.parametrize("letter", [pytest.param("x", id="ascii"), pytest.param("𝄞", id="four-bytes")])
def test_004_04_the_body_is_cut_at_500_characters(letter: str, folder: Folder, server: Served) -> None:
    prepared(folder, [(1, "long", letter * 499 + "ab"), (2, "short", letter * 500), (3, "empty", "")])
    server.answer = lambda params: text("other")
    folder.run(server.environment, time=Time())
    assert sorted(said(params) for params in sent(server)) == sorted(
        [f"Subject: long\n{letter * 499}a", f"Subject: short\n{letter * 500}", "Subject: empty\n"]
    )


def test_004_05_max_tokens_is_50(folder: Folder, server: Served) -> None:
    prepared(folder, some(2))
    server.answer = lambda params: text("other")
    folder.run(server.environment, time=Time())
    assert [params["max_tokens"] for params in sent(server)] == [50, 50]


def test_004_06_the_batch_and_its_status_are_printed(folder: Folder, server: Served) -> None:
    prepared(folder, some(2))
    server.answer = lambda params: text("other")
    server.hold()
    lines = folder.run(server.environment, time=Time(on_wait=lambda _seconds: server.release())).lines
    [batch_id] = server.batch_ids
    assert lines[1] == f"Batch submitted: {batch_id}"
    assert lines[2] == "Status: in_progress"


def test_004_07_every_60_seconds_the_counts_are_printed(folder: Folder, tmp_path: Path) -> None:
    prepared(folder, some(5), poll=60)
    with served("hosted", tmp_path / "server") as server:
        server.answer = lambda params: text("other")
        server.double.live_counts(True)
        server.double.end_after_looks(3)
        passing = Time(on_wait=lambda seconds: server.double.progress(2 * len(passing.waits)))
        lines = folder.run(server.environment, time=passing).lines
    assert passing.waits == [60, 60, 60]
    assert [line for line in lines if line.startswith("Status")] == [
        "Status: in_progress",
        "Status: in_progress | Succeeded: 2 | Processing: 3",
        "Status: in_progress | Succeeded: 4 | Processing: 1",
        "Status: ended | Succeeded: 5 | Processing: 0",
    ]


def test_004_07_our_own_server_is_polled_the_same_way(folder: Folder, tmp_path: Path) -> None:
    prepared(folder, some(5), poll=60)
    with served("ours", tmp_path / "server") as server:
        server.answer = lambda params: text("other")
        passing = Time()
        lines = [line for line in folder.run(server.environment, time=passing).lines if line.startswith("Status")]
    assert set(passing.waits) <= {60}
    assert lines[0] == "Status: in_progress" or len(lines) == 1
    for line in lines[1:]:
        found = re.fullmatch(r"Status: (in_progress|ended) \| Succeeded: (\d) \| Processing: (\d)", line)
        assert found is not None, line
        assert int(found[2]) + int(found[3]) == 5
    assert lines[1:] == [] or lines[-1] == "Status: ended | Succeeded: 5 | Processing: 0"


def test_004_08_text_is_stripped_and_no_kind_of_failure_vanishes(folder: Folder, tmp_path: Path) -> None:
    prepared(folder, some(5))
    with served("hosted", tmp_path / "server") as server:
        server.answer = by_subject(
            {
                "No 1": text("  billing \n\n"),
                "No 2": failed("invalid_request_error", "too strange"),
                "No 3": expired(),
                "No 4": canceled(),
            }
        )
        done = folder.run(server.environment, time=Time())
    assert done.code == 3
    assert categories(folder) == {1: "billing", 2: "error", 3: "error", 4: "error", 5: "billing"}
    assert folder.sql("select id, note from tickets where note is not null") == [
        (2, "errored"),
        (3, "expired"),
        (4, "canceled"),
    ]
    assert "Classified 2 tickets" in done.lines
    assert "5 tickets: 2 succeeded, 3 failed (1 expired, 1 errored, 1 canceled)" in done.lines


def test_004_08_an_error_of_our_own_server_is_an_error_too(folder: Folder, tmp_path: Path) -> None:
    prepared(folder, some(2))
    with served("ours", tmp_path / "server") as server:
        server.answer = by_subject(
            {"No 1": failed("invalid_request_error", "too strange"), "No 2": text(" billing ")}
        )
        done = folder.run(server.environment, time=Time())
    assert done.code == 3
    assert categories(folder) == {1: "error", 2: "billing"}
    assert "2 tickets: 1 succeeded, 1 failed (1 errored)" in done.lines


def test_004_09_the_second_night_takes_only_new_tickets(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("feedback")
    folder.run(server.environment, time=Time())
    for ticket in some(2, first=4):
        folder.sql("insert into tickets (id, subject, body) values (?, ?, ?)", *ticket)
    assert folder.run(server.environment, time=Time()).lines[0] == "Classifying 2 tickets"
    assert custom_ids(server) == [["4", "5"], ["1", "2", "3"]]
    assert set(categories(folder).values()) == {"feedback"}


def test_004_10_the_number_of_tickets_is_printed_first(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("other")
    assert folder.command(server.environment, "run", "job.toml").lines[0] == "Classifying 3 tickets"


def test_004_11_nothing_to_do_is_said_and_makes_no_batch(folder: Folder, server: Served) -> None:
    prepared(folder, [])
    assert folder.command(server.environment, "run", "job.toml") == Printed(0, ["No tickets to classify"], "")
    assert server.batch_ids == []


def test_004_12_the_batch_id_is_on_disk_right_after_it_was_submitted(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    killed_at("job.submitted", folder, server, "submit", "job.toml")
    [batch_id] = server.batch_ids
    assert folder.ledger("select batch_id, status, total_requests from batch_jobs") == [(batch_id, "submitted", 3)]


def test_004_13_a_restart_resumes_and_does_not_submit(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("account")
    killed_at("job.submitted", folder, server)
    [batch_id] = server.batch_ids
    done = folder.command(server.environment, "run", "job.toml")
    assert (done.code, done.lines[0]) == (0, f"Resuming batch {batch_id}")
    assert not [line for line in done.lines if line.startswith("Batch submitted")]
    assert server.batch_ids == [batch_id]
    assert set(categories(folder).values()) == {"account"}


def test_004_14_what_began_before_midnight_is_resumed_after_it(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("account")
    folder.submit(server.environment, time=Time(now_ms=local_time_ms(5, 23, 50)))
    [batch_id] = server.batch_ids
    done = folder.run(server.environment, time=Time(now_ms=local_time_ms(6, 0, 10)))
    assert (done.code, done.lines[0]) == (0, f"Resuming batch {batch_id}")
    assert server.batch_ids == [batch_id]
    assert set(categories(folder).values()) == {"account"}


@pytest.mark.parametrize("lag", [pytest.param(0, id="listed-at-once"), pytest.param(3, id="listed-late")])
def test_004_15_a_crash_between_create_and_save_does_not_pay_twice(lag: int, folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("technical")
    server.double.list_lag(lag)
    killed_at("job.posted", folder, server)
    assert folder.ledger("select batch_id, status from batch_jobs") == [(None, "submitting")]
    [batch_id] = server.batch_ids
    done = folder.run(server.environment, time=Time(now_ms=time.time_ns() // 1_000_000))
    assert done.code == 0, done
    assert f"Batch submitted: {batch_id}" in done.lines
    assert server.batch_ids == [batch_id]
    assert set(categories(folder).values()) == {"technical"}


def test_004_16_the_end_is_told_after_the_data_base_was_updated(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = by_subject({"No 2": failed("invalid_request_error", "no")})
    seen = list[dict[Any, Any]]()

    def write(line: str) -> None:
        lines.append(line)
        if line == "Classified 2 tickets":
            seen.append(categories(folder))

    lines = list[str]()
    printed = folder.run(server.environment, time=Time(), write=write).lines
    assert seen == [{1: "billing", 2: "error", 3: "billing"}]
    assert lines[-2:] == ["Classified 2 tickets", "Done!"]
    assert "3 tickets: 2 succeeded, 1 failed (1 errored)" in printed


@pytest.mark.parametrize("is_bare", [pytest.param(True, id="no-environment"), pytest.param(False, id="as-of-cron")])
def test_004_17_it_runs_from_cron(is_bare: bool, folder: Folder, server: Served, tmp_path: Path) -> None:
    """No terminal, hardly an environment, another directory: relative paths count from the job file."""
    prepared(folder, some(3), more=f'\n[endpoint]\nbase_url = "{server.url}"\nkey = "env:KEY"\n')
    server.answer = lambda params: text("other")
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out.txt"
    elsewhere.mkdir()
    environment = {"KEY": server.environment["ANTHROPIC_API_KEY"]}
    if not is_bare:
        environment |= {"HOME": str(elsewhere), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "ann"}
    with out.open("wb") as file:
        command = [sys.executable, "-m", "overnight.cli.main", "run", str(folder.home / "job.toml")]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=elsewhere,
            env=environment,
            timeout=60,
            check=False,
        )
    printed = out.read_text()
    assert (done.returncode, printed.splitlines()[0], printed.splitlines()[-1]) == (
        0,
        "Classifying 3 tickets",
        "Done!",
    ), printed
    assert re.search(r"[\x00-\x08\x0b-\x1f]", printed) is None
    assert list(elsewhere.iterdir()) == []
    assert set(categories(folder).values()) == {"other"}


def test_004_18_of_two_overlapping_starts_one_submits(folder: Folder, server: Served) -> None:
    prepared(folder, some(3))
    server.answer = lambda params: text("billing")
    server.hold()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(folder.command, server.environment, "run", "job.toml") for _ in range(2)]
        try:
            ended, others = wait(both, timeout=60, return_when=FIRST_COMPLETED)
        finally:
            server.release()
        assert len(ended) == 1
        [loser], [winner] = [future.result() for future in ended], [future.result() for future in others]
    assert (loser.code, loser.lines) == (0, [])
    assert re.fullmatch(r"overnight: tickets is being worked on by \S+:\d+:\d+\n", loser.err)
    assert (winner.code, winner.lines[0], winner.lines[-1]) == (0, "Classifying 3 tickets", "Done!")
    assert custom_ids(server) == [["1", "2", "3"]]


@pytest.mark.parametrize(
    ("prices", "cost", "year"),
    [
        pytest.param(
            '\n[prices."claude-haiku-4-5"]\ninput = 0.80\noutput = 4.00\n',
            "Cost: $0.48 in batches, $0.96 in real time, $0.48 saved",
            "~$175",
            id="as-in-the-text",
        ),
        pytest.param("", "Cost: $0.60 in batches, $1.20 in real time, $0.60 saved", "~$219", id="list-price"),
    ],
)
def test_004_19_a_night_and_a_year_are_compared_with_real_time(
    prices: str, cost: str, year: str, folder: Folder, server: Served
) -> None:
    prepared(folder, some(3), more=prices)
    server.answer = lambda params: text("other")
    server.double.usage(400_000, 0)  # As 3,000 tickets of about 400 tokens.
    lines = folder.run(server.environment, time=Time()).lines
    assert cost in lines
    assert f"A year of such nights: {year}, {year} saved" in lines


def test_004_20_the_state_lies_beside_the_job_file(folder: Folder, server: Served, tmp_path: Path) -> None:
    prepared(folder, some(2))
    server.answer = lambda params: text("other")
    temporary, elsewhere = tmp_path / "temporary", tmp_path / "elsewhere"
    temporary.mkdir()
    elsewhere.mkdir()
    environment = {**server.environment, "TMPDIR": str(temporary)}
    folder.command(environment, "submit", str(folder.home / "job.toml"), cwd=elsewhere)
    ledger = folder.home / ".overnight" / "tickets.db"
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
    assert [*temporary.iterdir(), *elsewhere.iterdir()] == []
    assert folder.ledger("select batch_id from batch_jobs") == [(server.batch_ids[0],)]
