"""store.scrubbing: nothing of removed rows is left in the files of the database, and readers hold up nobody."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from overnight import limits
from overnight.store import scrubbing
from overnight.store.sqlite import connect

SEEDS = range(40)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sqlite3"


@pytest.fixture
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(path)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        yield connection


def add(sql: sqlite3.Connection, batch_id: str, *blobs: bytes) -> None:
    sql.execute(
        "INSERT INTO batches (id, workspace, api_version, betas, status, requests, segments_open, created_at_ms, "
        "expires_at_ms) VALUES (?, 'w', 'v', '', 'ended', 1, 0, 1, 1)",
        (batch_id,),
    )
    sql.executemany(
        "INSERT INTO segments (batch_id, position, requests, raw_bytes, offset, length, requests_inline) "
        "VALUES (?, ?, 1, 1, 0, 0, ?)",
        ((batch_id, position, blob) for position, blob in enumerate(blobs)),
    )


def remove(sql: sqlite3.Connection, batch_id: str) -> None:
    sql.execute("DELETE FROM segments WHERE batch_id = ?", (batch_id,))
    sql.execute("DELETE FROM batches WHERE id = ?", (batch_id,))


def everything(path: Path) -> bytes:
    return b"".join(found.read_bytes() for found in path.parent.glob(f"{path.name}*"))


def changed(sql: sqlite3.Connection, seed: int) -> set[str]:
    """Batches that are gone after many of them came and went."""
    dice = random.Random(seed)
    here, gone = list[str](), set[str]()
    sql.execute("BEGIN")
    for number in range(600):
        if dice.random() < 0.6 or not here:
            here.append(f"msgbatch_01{seed:02}{number:020}")
            sizes = dice.choices((10, 300, 1500, 4000, 12000), k=dice.choice((1, 1, 1, 5, 60)))
            add(sql, here[-1], *(here[-1].encode() + dice.randbytes(size) for size in sizes))
        elif dice.random() < 0.4:
            result = dice.randbytes(dice.choice((10, 800, 3000)))
            sql.execute("UPDATE segments SET result_inline = ? WHERE batch_id = ?", (result, dice.choice(here)))
        else:
            batch_id = here.pop(dice.randrange(len(here)))
            remove(sql, batch_id)
            gone.add(batch_id)
    sql.execute("COMMIT")
    return gone


def left(path: Path, gone: set[str]) -> set[str]:
    held = everything(path)
    return {batch_id for batch_id in gone if batch_id.encode() in held}


def test_what_was_removed_stays_in_the_log_until_that_is_emptied(path: Path, sql: sqlite3.Connection) -> None:
    add(sql, "msgbatch_01gone", b"secret")
    remove(sql, "msgbatch_01gone")
    assert left(path, {"msgbatch_01gone"})
    assert scrubbing.scrub(sql)
    assert not left(path, {"msgbatch_01gone"})
    assert path.with_name(path.name + "-wal").stat().st_size == 0


def test_a_reader_is_not_waited_for(path: Path, sql: sqlite3.Connection) -> None:
    add(sql, "msgbatch_01gone", b"secret")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM batches").fetchall()
        remove(sql, "msgbatch_01gone")
        assert not scrubbing.scrub(sql)
        assert left(path, {"msgbatch_01gone"})
        assert sql.execute("PRAGMA busy_timeout").fetchone() == (5000,)
    assert scrubbing.scrub(sql)
    assert not left(path, {"msgbatch_01gone"})


def test_a_writer_is_not_waited_for_either(path: Path, sql: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert not scrubbing.repack(sql)
    assert scrubbing.repack(sql)


def left_behind(path: Path, sql: sqlite3.Connection) -> set[str]:
    """Batches of which something is left although they are removed and the log is empty. Which changes leave
    something depends on the version of SQLite: one in about twenty of these does."""
    for seed in SEEDS:
        gone = changed(sql, seed)
        assert scrubbing.scrub(sql)
        if found := left(path, gone):
            return found
    raise AssertionError("SQLite has learned to overwrite all of it; repacking can go")


def test_moved_cells_leave_copies_that_only_new_pages_are_without(path: Path, sql: sqlite3.Connection) -> None:
    found = left_behind(path, sql)
    assert scrubbing.repack(sql)
    assert scrubbing.scrub(sql)
    assert not left(path, found)


def test_a_large_database_is_not_repacked(
    path: Path, sql: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = left_behind(path, sql)
    monkeypatch.setattr(limits, "REPACK_BYTES_MAX", path.stat().st_size - 1)
    assert scrubbing.repack(sql)
    assert scrubbing.scrub(sql)
    assert left(path, found) == found


def test_events_of_batches_that_are_gone_are_forgotten(path: Path, sql: sqlite3.Connection) -> None:
    add(sql, "msgbatch_01here")
    for number, (event, body) in enumerate(
        [
            ("batch.ended", '{"data":{"id":"msgbatch_01gone"}}'),
            ("batch.ended", '{"data":{"id":"msgbatch_01here"}}'),
            ("budget.reached", '{"data":{"workspace":"w"}}'),
        ]
    ):
        sql.execute(
            "INSERT INTO deliveries VALUES (?, 'h', 'w', ?, ?, 'pending', 0, 1, 1, NULL, '')",
            (str(number), event, body.encode()),
        )
    told = ["batch.expiring msgbatch_01gone", "batch.expiring msgbatch_01here", "budget.reached w day 2026-11-25"]
    sql.executemany("INSERT INTO told VALUES (?, 1)", ((what,) for what in told))
    scrubbing.forget_events(sql)
    assert [row[0] for row in sql.execute("SELECT id FROM deliveries ORDER BY id")] == ["1", "2"]
    assert [row[0] for row in sql.execute("SELECT what FROM told ORDER BY what")] == told[1:]
