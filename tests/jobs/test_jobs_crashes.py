"""Whatever ends a night in the middle: nothing is paid twice, every row is written once, one mail is delivered.

Each test ends a real `overnight run` somewhere, or takes the network, the database or the disk from it, then gives
the same command again and counts what there is: batches at the server, writes by a trigger, mails in a mailbox.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nights import Folder, Params, Printed, Served, Time, served
from smtpbox import Mailbox, open_mailbox

from overnight.errors import JobError, ServerTrouble
from overnight.ports.marks import MARKS
from overnight.testing import jobcrash
from overnight.testing.hosted import Outcome, text

JOB_MARKS = tuple(mark for mark in MARKS if mark.startswith("job."))
POINTS = dict.fromkeys(JOB_MARKS, (1,)) | {
    "job.intended": (1, 4),
    "job.posted": (2, 4),
    "job.submitted": (2,),
    "job.part-applied": (2,),
}
LONG_POINTS = {
    "job.intended": (2, 3),
    "job.posted": (1, 3),
    "job.submitted": (1, 3, 4),
    "job.ended": (2, 3, 4),
    "job.part-applied": (1, 3, 4),
    "job.collected": (2, 3, 4),
    "job.sunk": (2, 3),
    "job.written": (2, 3),
}
CHOSEN = [
    (mark, count)
    for points in ([POINTS, LONG_POINTS] if os.environ.get("OVERNIGHT_LONG") else [POINTS])
    for mark, counts in points.items()
    for count in (counts if os.environ.get("OVERNIGHT_LONG") else counts[:1])
]
LIMITS = {"JOB_LISTING_LAG_MS": 400}  # How long the hosted API's list is waited for, in real time.
JOB = """
name = "tickets"
noun = "tickets"
model = "claude-haiku-4-5"

[source]
db = "sqlite:///rows.db"
sql = "select id, body from tickets where category is null order by id"
key = "id"

[prompt]
user = "{{ body }}"

[output]
choices = ["billing"]

[sink]
db = "SINK"
sql = "update tickets set category = :value where id = :key and category is null"
on_error = "update tickets set category = :state where id = :key and category is null"

[batch]
poll = 0.01
max_requests = 2
"""
MAIL = '\n[notify]\nurls = ["mailto://ADDRESS?from=night@example.org&to=team@example.org"]\n'
BATCHES = [["1", "2"], ["3"], ["3", "4"], ["5"]]  # One for each chunk, and the third row once more.
WRITES = [(1, "billing"), (2, "billing"), (3, "invalid"), (4, "billing"), (5, "billing")]
LOST_MAIL = "nobody knows whether message 1 to address 1 was delivered; it is not sent again"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests: a job is told from others by its keys."""
    with served("ours", tmp_path_factory.mktemp("ours") / "server") as found:
        yield found


@pytest.fixture(params=["ours", "hosted"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """The hosted API is a new one for each test: batches of another job could be taken for ours."""
    if request.param == "ours":
        found: Served = request.getfixturevalue("ours")
        found.answer = answer
        yield found
    else:
        with served("hosted", tmp_path / "server") as found:
            found.answer = answer
            yield found


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[Served]:
    with served("hosted", tmp_path / "server") as found:
        found.answer = answer
        yield found


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with open_mailbox() as found:
        yield found


def answer(params: Params) -> Outcome:
    """The third row gets no category, asked again neither."""
    return text("who knows" if params["messages"][0]["content"] == "body 3" else "billing")


def prepared(folder: Folder, *, sink: str = "sqlite:///rows.db", more: str = "") -> None:
    """Five tickets, and a trigger that notes each change of a category."""
    rows = [(number, f"body {number}", None) for number in range(1, 6)]
    folder.table("tickets", ["id integer primary key", "body", "category"], rows)
    folder.sql("create table writes (id, category)")
    folder.sql(
        "create trigger noted after update on tickets begin insert into writes values (new.id, new.category); end"
    )
    folder.job(JOB.replace("SINK", sink) + more)


def writes(folder: Folder) -> list[tuple[Any, ...]]:
    return sorted(folder.sql("select id, category from writes"))


def command(folder: Folder, server: Served, **failures: Any) -> Printed:
    """`overnight run`, in a process that fails as it is told."""
    environment = server.environment | jobcrash.settings(changed_limits=LIMITS, **failures)
    return folder.command(environment, "run", "job.toml", module=jobcrash.MODULE)


def run_again(folder: Folder, server: Served) -> Printed:
    """The same command in this process, now; where a list may lag, its time passes at once."""
    return folder.run(server.environment, time=Time(now_ms=time.time_ns() // 1_000_000))


def batches(server: Served, before: int = 0) -> list[list[str]]:
    """The requests of the batches that were made after the first `before`."""
    ids = server.batch_ids
    new = ids[: len(ids) - before]
    return sorted(sorted(line["custom_id"] for line in server.results(batch_id)) for batch_id in new)


@pytest.mark.parametrize(("mark", "count"), CHOSEN)
def test_a_kill_at_any_mark_pays_nothing_twice(
    mark: str, count: int, folder: Folder, server: Served, mailbox: Mailbox
) -> None:
    prepared(folder, more=MAIL.replace("ADDRESS", mailbox.address))
    before = len(server.batch_ids)
    killed = command(folder, server, crash_at=f"{mark}:{count}")
    assert killed.code == -9, killed

    again = run_again(folder, server)

    assert again.code == 3, again  # One row is invalid.
    assert batches(server, before) == BATCHES
    assert writes(folder) == WRITES
    assert len(mailbox.mails) == (mark != "job.notice-intended")
    assert (LOST_MAIL in again.lines) == (mark in ("job.notice-intended", "job.notice-sent"))
    assert folder.ledger("select status from runs") == [("ended",)]


def test_every_mark_of_a_job_is_reached(folder: Folder, hosted: Served, mailbox: Mailbox, tmp_path: Path) -> None:
    prepared(folder, more=MAIL.replace("ADDRESS", mailbox.address))
    log = tmp_path / "marks.txt"
    assert command(folder, hosted, marks_log=log).code == 3
    assert {line.partition(" ")[0] for line in log.read_text().splitlines()} == set(JOB_MARKS)
    assert batches(hosted) == BATCHES
    assert writes(folder) == WRITES
    assert len(mailbox.mails) == 1


def test_five_deaths_in_a_row_pay_nothing_twice(folder: Folder, server: Served, mailbox: Mailbox) -> None:
    prepared(folder, more=MAIL.replace("ADDRESS", mailbox.address))
    before = len(server.batch_ids)
    for mark in ("job.intended", "job.posted", "job.part-applied", "job.sunk", "job.reported"):
        assert command(folder, server, crash_at=mark).code == -9
    assert command(folder, server).code == 3
    assert (batches(server, before), writes(folder), len(mailbox.mails)) == (BATCHES, WRITES, 1)


# --- The network --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(3, id="until-the-run-gives-up")])
@pytest.mark.parametrize("what", ["dropped", "lost", "500", "500-nothing"])
def test_an_upload_that_breaks_off_is_paid_once(what: str, times: int, folder: Folder, hosted: Served) -> None:
    prepared(folder)
    hosted.double.next_create(what, times=times)
    if times == 3 and what in ("dropped", "500-nothing"):  # Of the others the first is found in the list.
        with pytest.raises(ServerTrouble, match=f"^{hosted.url}: "):
            folder.run(hosted.environment, time=Time())
        assert hosted.batch_ids == []
    folder.run(hosted.environment, time=Time())
    assert (batches(hosted), writes(folder)) == (BATCHES, WRITES)


def test_an_answer_of_our_own_server_that_is_lost_is_asked_for_again(folder: Folder, ours: Served) -> None:
    ours.answer = answer
    prepared(folder)
    before = len(ours.batch_ids)
    ours.lose_next_create()
    folder.run(ours.environment, time=Time())
    assert (batches(ours, before), writes(folder)) == (BATCHES, WRITES)


@pytest.mark.parametrize("after_bytes", [0, 100, 700])
@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(5, id="until-the-run-gives-up")])
def test_a_download_that_breaks_off_begins_again(
    times: int, after_bytes: int, folder: Folder, hosted: Served
) -> None:
    prepared(folder)
    hosted.double.next_results("cut", after_bytes, times=times)
    if times == 5:
        with pytest.raises(ServerTrouble, match=r"the results of msgbatch_\w+ break off"):
            folder.run(hosted.environment, time=Time())
    folder.run(hosted.environment, time=Time())
    assert (batches(hosted), writes(folder)) == (BATCHES, WRITES)


# --- The database of the answers ----------------------------------------------------------------------------------


class At:
    """Does something when a mark is reached for the first time."""

    def __init__(self, mark: str, act: Callable[[], object]) -> None:
        self._mark, self._left = mark, [act]

    def reach(self, mark: str) -> None:
        if mark == self._mark and self._left:
            self._left.pop()()


def test_a_locked_database_keeps_the_answers_until_it_is_free(folder: Folder, hosted: Served) -> None:
    prepared(folder, sink="sqlite:///rows.db?timeout=0.05")
    with closing(sqlite3.connect(folder.db, isolation_level=None)) as other:
        locking = At("job.part-applied", lambda: other.execute("begin exclusive"))
        with pytest.raises(ServerTrouble, match="database is locked"):
            folder.run(hosted.environment, time=Time(), marks=locking)
    assert writes(folder) == []
    folder.run(hosted.environment, time=Time())
    assert (batches(hosted), writes(folder)) == (BATCHES, WRITES)


@pytest.mark.parametrize("mark", ["job.submitted", "job.part-applied", "job.written"])
def test_a_database_file_that_is_gone_keeps_the_answers_until_it_is_back(
    mark: str, folder: Folder, hosted: Served
) -> None:
    prepared(folder)
    away = folder.home / "away.db"
    with pytest.raises((JobError, ServerTrouble), match=r"SQLite file .*rows\.db"):
        folder.run(hosted.environment, time=Time(), marks=At(mark, lambda: folder.db.rename(away)))
    assert not folder.db.exists(), "an empty database must not take the place of theirs"
    away.rename(folder.db)
    folder.run(hosted.environment, time=Time())
    assert (batches(hosted), writes(folder)) == (BATCHES, WRITES)


@pytest.fixture
def dying_postgres(postgres_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The five tickets in a PostgreSQL that ends the session at the second change of a row, once."""
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("create table tickets (id int primary key, category text)")
        database.execute("insert into tickets select n from generate_series(1, 5) n")
        database.execute("create table writes (id int, category text)")
        database.execute("create sequence changes")  # It counts on when a transaction is undone.
        database.execute(
            """create function noted() returns trigger language plpgsql as $$ begin
            if nextval('changes') = 2 then perform pg_terminate_backend(pg_backend_pid()); end if;
            insert into writes values (new.id, new.category); return new; end $$"""
        )
        database.execute("create trigger noted before update on tickets for each row execute function noted()")
        yield database
        database.execute("drop table tickets, writes; drop sequence changes; drop function noted")


def test_a_postgresql_that_ends_our_session_keeps_the_answers(
    folder: Folder, hosted: Served, postgres_url: str, dying_postgres: psycopg.Connection[tuple[Any, ...]]
) -> None:
    prepared(folder, sink="env:DATABASE")
    environment = {**hosted.environment, "DATABASE": postgres_url}
    with pytest.raises(ServerTrouble, match=r"terminating connection|closed the connection"):
        folder.run(environment, time=Time())
    assert dying_postgres.execute("select * from writes").fetchall() == []
    # The source is another database here, in which all rows are still to do: they are answered, and are not asked.
    folder.run(environment, time=Time())
    assert dying_postgres.execute("select id, category from writes order by id").fetchall() == WRITES
    assert batches(hosted) == BATCHES


# --- The disk of the ledger ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["job.segment-planned", "job.planned", "job.posted", "job.ended", "job.sunk"])
def test_a_full_disk_ends_the_night_and_the_next_one_pays_nothing_twice(
    mark: str, folder: Folder, server: Served
) -> None:
    prepared(folder)
    before = len(server.batch_ids)
    stopped = command(folder, server, full_at=mark)
    assert stopped.code == 1, stopped
    [line] = stopped.err.splitlines()
    assert line.startswith(f"overnight: the ledger {folder.home}/.overnight/tickets.db: ")

    assert run_again(folder, server).code == 3
    assert (batches(server, before), writes(folder)) == (BATCHES, WRITES)
