"""jobs.ledger: opening it, whom it belongs to, and the lock of a job."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from overnight import limits
from overnight.errors import JobError, JobHeld, StoreError
from overnight.jobs import ledger as ledgers
from overnight.jobs.ledger import Ledger
from overnight.jobs.tables import locks, metadata, runs
from overnight.ports import process

T0 = 1_780_000_000_000
SECRET = "very-secret"
RUN = {"id": "run_1", "job": "j", "status": "open", "created_at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(ledgers.at(tmp_path / "j.db")) as found:
        yield found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- opening ----------------------------------------------------------------------------------------------------


def test_a_ledger_lies_beside_its_job() -> None:
    assert ledgers.path_of(Path("/jobs"), "tickets") == Path("/jobs/.overnight/tickets.db")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_ledger_is_for_its_owner_alone(umask: int, tmp_path: Path) -> None:
    path = ledgers.path_of(tmp_path, "j")
    before = os.umask(umask)
    try:
        with closing(ledgers.at(path)) as ledger, ledger.begin() as connection:
            connection.execute(insert(runs).values(RUN))
            files = {file.name: mode(file) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert files == {"j.db": 0o600, "j.db-shm": 0o600, "j.db-wal": 0o600}


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "j.db").touch(mode=0o644)
    ledgers.at(tmp_path / "j.db").close()
    assert mode(tmp_path / "j.db") == 0o600


def test_what_a_transaction_wrote_is_there_when_the_ledger_is_opened_again(tmp_path: Path) -> None:
    with closing(ledgers.at(tmp_path / "j.db")) as ledger, ledger.begin() as connection:
        connection.execute(insert(runs).values(RUN))
    with closing(ledgers.at(tmp_path / "j.db")) as ledger, ledger.begin() as connection:
        assert connection.execute(select(runs.c.id)).scalars().all() == ["run_1"]


def test_a_transaction_that_fails_leaves_nothing(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.begin() as connection:
            connection.execute(insert(runs).values(RUN))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with ledger.begin() as connection:
        assert connection.execute(select(runs.c.id)).first() is None


def test_a_transaction_survives_a_loss_of_power(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        found = [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2], "2 is FULL"


def test_a_directory_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "50% off? #1 ?mode=memory" / "j.db"
    ledgers.at(path).close()
    assert path.stat().st_size > 0


def test_a_ledger_of_another_version_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("create table runs (id text primary key, job text)")
    with pytest.raises(StoreError) as error:
        ledgers.at(path)
    assert str(error.value).startswith(f"the ledger {path} was made by another version: it lacks runs.status, ")


def test_tables_of_others_in_the_same_database_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path)) as others:
        others.execute("create table invoices (id integer)")
    ledgers.at(path).close()
    with closing(sqlite3.connect(path)) as found:
        names = {row[0] for row in found.execute("select name from sqlite_master where type = 'table'")}
    assert names >= {"invoices", *metadata.tables}


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_text("Dear diary, " * 100)
    with pytest.raises(StoreError, match=r"j\.db cannot be opened: file is not a database"):
        ledgers.at(path)
    assert path.read_text().startswith("Dear diary")


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/j\.db: (Not a directory|File exists)"):
        ledgers.at(tmp_path / "file" / "j.db")


@pytest.mark.parametrize("given", ["sqlite:///state/j.db", "sqlite:////{tmp}/state/j.db"])
def test_a_url_of_sqlite_is_a_ledger_as_safe_as_the_usual_one(given: str, tmp_path: Path) -> None:
    url = given.replace("/{tmp}", str(tmp_path))
    with closing(ledgers.of_url(url, home=tmp_path)) as ledger, ledger.begin() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
    assert mode(tmp_path / "state" / "j.db") == 0o600


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(SECRET, id="no URL"),
        pytest.param(f"postgresql://u:{SECRET}@h:port/d", id="port"),
        pytest.param(f"postgresql://u:p@{SECRET}@h:port/d", id="a password with an @"),
        pytest.param(f"nosuch://u:{SECRET}@h/d", id="unknown database"),
        pytest.param(f"mysql://u:{SECRET}@h/d", id="no driver"),
    ],
)
def test_a_url_that_cannot_work_is_the_jobs_fault_and_shows_no_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^\[ledger\] url: ") as error:
        ledgers.of_url(url, home=tmp_path)
    assert SECRET not in str(error.value)


def test_a_database_that_cannot_be_reached_is_no_fault_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the ledger postgresql://u:\*\*\*@127\.0\.0\.1:1/d: ") as error:
        ledgers.of_url(f"postgresql://u:{SECRET}@127.0.0.1:1/d", home=tmp_path)
    assert SECRET not in str(error.value)


def test_an_error_of_the_database_quotes_no_prompt(ledger: Ledger) -> None:
    def twice() -> None:
        with ledger.begin() as connection:
            for _ in range(2):
                connection.execute(insert(runs).values(RUN | {"shape": SECRET}))

    with pytest.raises(IntegrityError) as error:
        twice()
    assert SECRET not in str(error.value)


# --- the lock -----------------------------------------------------------------------------------------------------


def held(ledger: Ledger) -> list[tuple[str, float]]:
    with ledger.begin() as connection:
        return [(row.holder, row.until_ms) for row in connection.execute(select(locks))]


def take(ledger: Ledger, holder: str, now_ms: int, *, alive: bool = True) -> None:
    ledgers.take(ledger, "j", holder, now_ms, is_alive=lambda _: alive)


def test_a_lock_is_for_one(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    with pytest.raises(JobHeld, match=r"^j is being worked on by a$"):
        take(ledger, "b", T0 + limits.JOB_LOCK_TTL_MS - 1)
    assert held(ledger) == [("a", T0 + limits.JOB_LOCK_TTL_MS)]


def test_a_lock_that_ran_out_is_free_whoever_lives(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    take(ledger, "b", T0 + limits.JOB_LOCK_TTL_MS)
    assert held(ledger) == [("b", T0 + 2 * limits.JOB_LOCK_TTL_MS)]


def test_the_lock_of_a_dead_holder_is_free_at_once(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    take(ledger, "b", T0, alive=False)
    assert held(ledger)[0][0] == "b"


def test_a_holder_may_take_its_lock_again(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    take(ledger, "a", T0 + 5)
    assert held(ledger) == [("a", T0 + 5 + limits.JOB_LOCK_TTL_MS)]


def test_jobs_in_one_ledger_have_a_lock_each(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    ledgers.take(ledger, "other", "b", T0, is_alive=lambda _: True)
    assert [holder for holder, _ in held(ledger)] == ["a", "b"]


def test_a_renewal_proves_and_prolongs(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    with ledger.begin() as connection:
        ledgers.renew(connection, "j", "a", T0 + 7)
    assert held(ledger) == [("a", T0 + 7 + limits.JOB_LOCK_TTL_MS)]


def test_who_lost_the_lock_writes_nothing(ledger: Ledger) -> None:
    def write() -> None:
        with ledger.begin() as connection:
            connection.execute(insert(runs).values(RUN))
            ledgers.renew(connection, "j", "a", T0)

    take(ledger, "a", T0)
    take(ledger, "b", T0 + limits.JOB_LOCK_TTL_MS)
    with pytest.raises(JobHeld, match=r"^j was taken over by another process"):
        write()
    with ledger.begin() as connection:
        assert connection.execute(select(runs)).first() is None


def test_a_lock_is_given_back_by_its_holder_only(ledger: Ledger) -> None:
    take(ledger, "a", T0)
    ledgers.give_back(ledger, "j", "b")
    assert held(ledger)[0][0] == "a"
    ledgers.give_back(ledger, "j", "a")
    assert held(ledger) == []


TAKE_AND_STAY = """
import sys
from pathlib import Path
from overnight.jobs import ledger
from overnight.ports import process

found = ledger.at(Path(sys.argv[1]))
ledger.take(found, "j", process.holder(), int(sys.argv[2]), is_alive=process.is_alive)
print(process.holder(), flush=True)
input()
"""


def test_the_lock_of_another_process_holds_until_that_is_killed(ledger: Ledger, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_AND_STAY, str(tmp_path / "j.db"), str(T0)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        with pytest.raises(JobHeld, match=name):
            ledgers.take(ledger, "j", process.holder(), T0, is_alive=process.is_alive)
        other.kill()
        other.wait()
        ledgers.take(ledger, "j", process.holder(), T0, is_alive=process.is_alive)
    assert held(ledger)[0][0] == process.holder()
