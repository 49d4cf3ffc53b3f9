"""Text 000, the night: 11 pm and 6 am as two processes, the mails, what is left over, and what it cost."""

import re
from datetime import UTC, datetime
from pathlib import Path

from invoices import JOB, LINES, TEXTS, add, as_json, fill, number_of, read
from nights import Folder, Served, Time, served
from smtpbox import open_mailbox

from overnight.testing.hosted import canceled, expired, failed, text

HEADING = "=== INVOICE CLASSIFICATION RESULTS ==="
RUPEES = '[report]\ncurrency = { code = "INR", symbol = "Rs ", per_usd = 85.0 }'
MAILS = """
[[notify]]
urls = ["mailto://ADDRESS?from=night@example.org&to=finance@example.org,audit@example.org"]

[[notify]]
urls = ["mailto://ADDRESS?from=night@example.org&to=it@example.org"]
rows = "approval_required"
"""


def watched(folder: Folder) -> None:
    """Every update of an invoice leaves a row in `updates`."""
    folder.sql("create table updates (number)")
    folder.sql("create trigger t after update on invoices begin insert into updates values (new.number); end")


def local_ms(day: int, hour: int, minute: int = 0) -> int:
    """An instant of November 2026 on the clock of this machine."""
    return int(datetime(2026, 11, day, hour, minute).timestamp() * 1000)


def test_000_18_at_11_pm_everything_unprocessed_is_sent_and_the_process_ends(folder: Folder, server: Served) -> None:
    fill(folder)
    add(folder, {"INV-000": "Paid long ago"})
    folder.sql("update invoices set processed_at = '2026-01-01' where number = 'INV-000'")
    folder.job(JOB)
    server.hold()
    printed = folder.command(server.environment, "submit", "job.toml")
    assert printed.code == 0
    [batch_id] = server.batch_ids
    assert printed.lines == ["5 invoices to do", f"Batch ID: {batch_id}", "Submitted 5 invoices"]
    assert folder.ledger("select batch_id, status, total_requests from batch_jobs") == [(batch_id, "submitted", 5)]
    assert folder.ledger("select custom_id from items order by position") == [(number,) for number in TEXTS]


def test_000_19_at_6_am_another_process_writes_the_answers_to_the_database(folder: Folder, server: Served) -> None:
    fill(folder)
    folder.job(JOB)
    server.answer = read
    assert folder.command(server.environment, "submit", "job.toml").code == 0
    assert folder.sql("select count(*) from invoices where processed_at is not null") == [(0,)]
    printed = folder.command(server.environment, "collect", "job.toml", "--wait", "1m")
    assert [line for line in printed.lines if " -> " in line] == LINES
    assert printed.code == 0
    found = folder.sql("select number, department, amount from invoices where processed_at is not null")
    assert len(found) == 5
    assert found[0] == ("INV-001", "IT", 124_500)
    assert len(server.batch_ids) == 1


def test_000_20_every_team_gets_one_mail_with_what_concerns_it(folder: Folder, server: Served) -> None:
    fill(folder)
    server.double.usage(600, 100)
    server.answer = lambda params: (
        failed("invalid_request_error", "the scan is empty") if number_of(params) == "INV-004" else read(params)
    )
    with open_mailbox() as mailbox:
        folder.job(JOB + MAILS.replace("ADDRESS", mailbox.address))
        printed = folder.run(server.environment)
        mails = mailbox.by_recipient
    assert printed.code == 3
    assert {to: len(found) for to, found in mails.items()} == {
        "finance@example.org": 1,
        "audit@example.org": 1,
        "it@example.org": 1,
    }
    [finance], [it] = mails["finance@example.org"], mails["it@example.org"]
    assert finance["Subject"] == "invoices: 4 of 5 invoices, 1 failed"
    said = finance.get_content().splitlines()
    assert said[:2] == [HEADING, LINES[0]]
    assert [line for line in said if line.endswith("*** APPROVAL REQUIRED ***")] == [LINES[2], LINES[4]]
    assert "INV-004: Failed - the scan is empty" in said
    assert "5 invoices: 4 succeeded, 1 failed (1 errored)" in said
    assert "Cost: $0.0022 in batches, $0.0044 in real time, $0.0022 saved" in said
    assert [line for line in it.get_content().splitlines() if " -> " in line] == [LINES[2], LINES[4]]


def test_000_21_a_batch_that_runs_at_6_am_is_said_to_run_and_is_collected_later(
    folder: Folder, server: Served
) -> None:
    fill(folder)
    watched(folder)
    server.answer = read
    server.hold()
    with open_mailbox() as mailbox:
        folder.job(JOB + MAILS.replace("ADDRESS", mailbox.address))
        folder.command(server.environment, "submit", "job.toml")
        early = folder.command(server.environment, "collect", "job.toml")
        assert mailbox.mails == []
        assert folder.sql("select * from updates") == []
        server.release()
        late = folder.command(server.environment, "collect", "job.toml", "--wait", "1m")
        assert {to: len(found) for to, found in mailbox.by_recipient.items()} == {
            "finance@example.org": 1,
            "audit@example.org": 1,
            "it@example.org": 1,
        }
    [batch_id] = server.batch_ids
    [(run_id,)] = folder.ledger("select id from runs")
    assert early.code == 75
    assert early.lines == [
        f"Resuming batch {batch_id}",
        "Status: in_progress",
        f"run {run_id} is not finished; collect again later",
    ]
    assert late.code == 0
    assert late.lines[late.lines.index(HEADING) + 1 :][:5] == LINES


def test_000_22_at_9_am_every_invoice_is_classified_or_says_why_not(folder: Folder, server: Served) -> None:
    fates = {
        "INV-001": failed("invalid_request_error", "no such model"),
        "INV-002": as_json("Legal", 1, "?"),
        "INV-003": text("I would rather not", stop_reason="refusal"),
        "INV-004": text('{"department": "HR", "am', stop_reason="max_tokens"),
        "INV-006": expired() if server.kind == "hosted" else text(""),
        "INV-007": canceled() if server.kind == "hosted" else text("no JSON"),
    }
    fill(folder, {**TEXTS, "INV-006": "Rs 6", "INV-007": "Rs 7"})
    folder.job(JOB)
    server.answer = lambda params: fates.get(number_of(params)) or read(params)
    printed = folder.run(server.environment)
    assert printed.code == 3
    found = folder.sql("select number, department is not null, coalesce(error, '') from invoices order by number")
    assert [(number, done) for number, done, _ in found] == [(f"INV-00{n}", int(n == 5)) for n in range(1, 8)]
    assert all(bool(error) != bool(done) for _, done, error in found), found
    assert folder.ledger("select count(*) from items where state in ('planned', 'submitted')") == [(0,)]
    for number, done, error in found:
        assert done or f"{number}: Failed - {error}" in printed.lines


def test_000_22_a_server_that_is_not_done_by_then_leaves_marked_invoices(folder: Folder, tmp_path: Path) -> None:
    time = Time(now_ms=local_ms(3, 23))
    fill(folder)
    folder.job(JOB.replace("poll = 0.01", "poll = 600") + '[limits]\ndeadline = "09:00"\n')
    with served("hosted", tmp_path / "server") as server:
        server.answer = read
        server.hold(done=2)
        printed = folder.run(server.environment, time=time)
    assert local_ms(4, 8, 30) <= time.now_ms() < local_ms(4, 9)
    assert printed.code == 3
    why = "the batch was cancelled before the request was sent"
    assert folder.sql("select number, department, error from invoices order by number") == [
        ("INV-001", "IT", None),
        ("INV-002", "HR", None),
        ("INV-003", None, why),
        ("INV-004", None, why),
        ("INV-005", None, why),
    ]


def test_000_23_the_report_shows_both_prices_and_what_was_saved(folder: Folder, server: Served) -> None:
    """Claude Haiku 4.5: 5 x (600 x $1 + 100 x $5) / 1,000,000 = $0.0055 in real time."""
    fill(folder)
    folder.job(JOB)
    server.answer = read
    server.double.usage(600_000, 100_000)
    printed = folder.run(server.environment)
    assert "Cost: $2.75 in batches, $5.50 in real time, $2.75 saved" in printed.lines


def test_000_24_5000_invoices_cost_less_than_500_rupees(folder: Folder, tmp_path: Path) -> None:
    """5,000 x (600 x $1 + 100 x $5) / 2,000,000 = $2.75. Costs about 10 s: the number is the point.

    The job has worked in the month before: the first row of a new job is asked alone, in real time.
    """
    time = Time(now_ms=local_ms(1, 12) - 5 * 24 * 3600 * 1000)
    fill(folder)
    folder.job(JOB.replace("[report]", RUPEES))
    with served("hosted", tmp_path / "server") as server:
        server.answer = read
        server.double.usage(600, 100)
        folder.run(server.environment, time=time)
        add(folder, {f"INV-{number:05}": f"Bank charges {number}" for number in range(5_000)})
        time.jump_to(local_ms(5, 12))
        printed = folder.run(server.environment, time=time)
    assert "5,000 invoices: 5,000 succeeded" in printed.lines
    assert (
        "Cost: $2.75 (Rs 233.75) in batches, $5.50 (Rs 467.50) in real time, $2.75 (Rs 233.75) saved" in printed.lines
    )
    assert "This month: $2.75 (Rs 233.75)" in printed.lines


def test_000_24_a_month_is_the_sum_of_its_nights(folder: Folder, server: Served) -> None:
    time = Time(now_ms=int(datetime(2026, 11, 29, 18, tzinfo=UTC).timestamp() * 1000))
    fill(folder, {"INV-001": "Rs 1"})
    folder.job(JOB.replace("[report]", RUPEES))
    server.answer = read
    server.double.usage(600_000, 100_000)
    months = []
    for night in range(3):
        printed = folder.run(server.environment, time=time)
        months += [line for line in printed.lines if line.startswith("This month")]
        add(folder, {f"INV-10{night}": f"Rs {night}"})
        time.jump_to(time.now_ms() + 24 * 3600 * 1000)
    assert months == ["This month: $0.55 (Rs 46.75)", "This month: $1.10 (Rs 93.50)", "This month: $0.55 (Rs 46.75)"]


def test_000_25_running_either_job_again_changes_nothing(folder: Folder, server: Served) -> None:
    fill(folder)
    watched(folder)
    server.answer = read
    server.hold()
    with open_mailbox() as mailbox:
        folder.job(JOB + MAILS.replace("ADDRESS", mailbox.address))
        folder.submit(server.environment)
        again = folder.submit(server.environment)
        assert "Batch ID" not in " ".join(again.lines)
        server.release()
        folder.collect(server.environment, wait_s=1e6)
        updated, mails = folder.sql("select number from updates order by number"), len(mailbox.mails)
        assert updated == [(number,) for number in TEXTS]
        assert mails == 3
        assert folder.collect(server.environment) == (0, [], "")
        assert folder.submit(server.environment).lines == ["No invoices to do"]
        assert folder.collect(server.environment) == (0, [], "")
        assert folder.sql("select number from updates order by number") == updated
        assert len(mailbox.mails) == mails
    assert len(server.batch_ids) == 1


def test_000_25_a_second_collect_at_the_same_time_does_nothing(folder: Folder, server: Served) -> None:
    fill(folder)
    watched(folder)
    folder.job(JOB)
    server.answer = read
    server.hold()
    folder.submit(server.environment)
    with folder.started(server.environment, "collect", "job.toml", "--wait", "1m") as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("Status"):
                break
        second = folder.command(server.environment, "collect", "job.toml")
        server.release()
        out, _ = first.communicate(timeout=60)
    assert second.code == 0
    assert second.lines == []
    assert re.match("overnight: invoices is being worked on by ", second.err)
    assert HEADING in out
    assert folder.sql("select number from updates order by number") == [(number,) for number in TEXTS]
