"""jobs.ledger in a real PostgreSQL: the same promises as in a file."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import insert, select, text

from overnight.errors import JobHeld, StoreError
from overnight.jobs import ledger as ledgers
from overnight.jobs.ledger import Ledger
from overnight.jobs.tables import locks, metadata, runs

T0 = 1_780_000_000_000
RUN = {"id": "run_1", "job": "j", "status": "open", "created_at": "2026-01-01T00:00:00Z"}


@pytest.fixture
def ledger(postgres_url: str, tmp_path: Path) -> Iterator[Ledger]:
    with closing(ledgers.of_url(postgres_url, home=tmp_path)) as found:
        yield found
        with found.begin() as connection:
            metadata.drop_all(connection)


def test_what_was_written_is_there_when_it_is_opened_again(ledger: Ledger, postgres_url: str, tmp_path: Path) -> None:
    with ledger.begin() as connection:
        connection.execute(insert(runs).values(RUN))
    with closing(ledgers.of_url(postgres_url, home=tmp_path)) as again, again.begin() as connection:
        assert connection.execute(select(runs.c.id)).scalars().all() == ["run_1"]


def test_the_lock_is_for_one_and_time_frees_it(ledger: Ledger) -> None:
    ledgers.take(ledger, "j", "a", T0, is_alive=lambda _: True)
    with pytest.raises(JobHeld, match=r"by a$"):
        ledgers.take(ledger, "j", "b", T0 + 59_999, is_alive=lambda _: True)
    ledgers.take(ledger, "j", "b", T0 + 60_000, is_alive=lambda _: True)
    with ledger.begin() as connection:
        row = connection.execute(select(locks)).one()
        assert (row.holder, row.until_ms) == ("b", T0 + 120_000)


def test_of_two_that_take_a_free_lock_at_once_one_gets_it(ledger: Ledger) -> None:
    together, outcomes = Barrier(2), list[str]()

    def try_it(holder: str) -> None:
        together.wait()
        try:
            ledgers.take(ledger, "j", holder, T0, is_alive=lambda _: True)
            outcomes.append("has it")
        except JobHeld:
            outcomes.append("held")

    for _ in range(10):
        outcomes.clear()
        threads = [Thread(target=try_it, args=(holder,)) for holder in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["has it", "held"]
        with ledger.begin() as connection:
            connection.execute(locks.delete())


def test_a_ledger_of_another_version_is_named_without_a_password(
    ledger: Ledger, postgres_url: str, tmp_path: Path
) -> None:
    with ledger.begin() as connection:
        connection.execute(text("alter table runs drop column shape"))
    with pytest.raises(StoreError, match=r"made by another version: it lacks runs\.shape$"):
        ledgers.of_url(postgres_url, home=tmp_path)
