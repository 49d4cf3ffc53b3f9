"""store.layout, store.sqlite, store.migrations, store.store: who may open a data directory, and what opening does."""

import asyncio
import multiprocessing
import os
import sqlite3
import stat
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from overnight.core.lease import SegmentRef
from overnight.errors import DirectoryInUse, DirectoryTooNew, StoreError
from overnight.ids import BatchId
from overnight.ports.world import World
from overnight.store import checkpoint, layout
from overnight.store.layout import DataDirectory
from overnight.store.migrations import APPLICATION_ID, STEPS
from overnight.store.sqlite import connect
from overnight.store.store import open_directory
from overnight.testing.controlcases import OURS, created, leased, new_batch, sealed


def test_one_server_at_a_time_and_the_second_learns_who_has_it(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    with layout.take(directory), pytest.raises(DirectoryInUse, match=f"pid {os.getpid()}.*--data"):
        layout.take(directory)
    with layout.take(directory):
        pass


def _take_and_die(root: Path) -> None:
    layout.take(DataDirectory(root))
    os._exit(0)


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(tmp_path,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    with layout.take(DataDirectory(tmp_path)):
        pass


def test_the_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    with layout.take(DataDirectory(tmp_path / "data")):
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--data"):
        layout.take(DataDirectory(tmp_path / "file" / "data"))


def _schema(path: Path) -> tuple[object, ...]:
    with closing(sqlite3.connect(path)) as sql:
        ids = [sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        return (*ids, *sql.execute("SELECT name, sql FROM sqlite_master ORDER BY name"))


def test_a_new_database_is_brought_to_the_newest_schema_and_opened_again_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite3"
    connect(path).close()
    first = _schema(path)
    assert first[:2] == (APPLICATION_ID, len(STEPS))
    connect(path).close()
    assert _schema(path) == first


def test_every_older_database_is_migrated(tmp_path: Path) -> None:
    connect(tmp_path / "newest.sqlite3").close()
    for version in range(1, len(STEPS) + 1):
        path = tmp_path / f"{version}.sqlite3"
        with closing(sqlite3.connect(path)) as sql:
            sql.executescript("".join(STEPS[:version]))
            sql.execute(f"PRAGMA application_id={APPLICATION_ID}")
            sql.execute(f"PRAGMA user_version={version}")
        connect(path).close()
        assert _schema(path) == _schema(tmp_path / "newest.sqlite3")


def test_a_database_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite3"
    connect(path).close()
    with closing(sqlite3.connect(path)) as sql:
        sql.execute(f"PRAGMA user_version={len(STEPS) + 1}")
    before = sha256(path.read_bytes())
    with pytest.raises(DirectoryTooNew, match=r"newer overnight.*Nothing was changed"):
        connect(path)
    assert sha256(path.read_bytes()).digest() == before.digest()


@pytest.mark.parametrize("statement", ["CREATE TABLE recipes (name TEXT)", "PRAGMA user_version=3"])
def test_a_database_of_another_program_is_refused_and_not_touched(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite3"
    with closing(sqlite3.connect(path)) as sql:
        sql.execute(statement)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not one of overnight"):
        connect(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite3"
    path.write_bytes(b"my novel, chapter one. " * 100)
    with pytest.raises(StoreError, match=r"control\.sqlite3"):
        connect(path)
    assert path.read_bytes() == b"my novel, chapter one. " * 100


def test_commits_are_durable_and_deleted_content_is_overwritten(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "control.sqlite3")) as sql:
        found = {
            name: sql.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


def test_opening_frees_the_leases_of_the_process_that_died(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_directory(tmp_path, World()) as store:
            await created(store.control, "a")
            (held,) = await leased(store.control, "w1")
        async with open_directory(tmp_path, World()) as store:
            (again,) = await leased(store.control, "w2")
            assert (held.lease.epoch, again.lease.epoch) == (1, 2)

    asyncio.run(main())


def test_opening_clears_away_what_a_crash_left(tmp_path: Path) -> None:
    """Objects that no row names, a half-written one, logs of sealed segments; and a stranger's file is left alone."""

    async def main() -> None:
        async with open_directory(tmp_path, World()) as store:
            batch = await created(store.control, "a", segments=2)
            first, _ = await leased(store.control, "w1")
            await sealed(store.control, first)
            await store.objects.put_new(f"requests/{batch.id}.gz", [b"kept"])
            await store.objects.put_new(f"results/{batch.id}/0-1.gz", [b"kept"])
            await store.objects.put_new("requests/msgbatch_01lost.gz", [b"lost"])
            (tmp_path / "objects" / "requests" / "msgbatch_01torn.gz.part").write_bytes(b"torn")
            (tmp_path / "objects" / ".DS_Store").write_bytes(b"not ours")
            for segment in (SegmentRef(batch.id, 0), SegmentRef(batch.id, 1), SegmentRef(BatchId("msgbatch_01b"), 0)):
                await store.checkpoints.append_durably(segment, checkpoint.frame([b"x\n"]), epoch=1)
        async with open_directory(tmp_path, World()) as store:
            garbage = await store.control.garbage(limit=10)
            assert sorted(garbage) == ["requests/msgbatch_01lost.gz", "requests/msgbatch_01torn.gz.part"]
            for key in garbage:
                await store.objects.remove(key)
            assert await store.objects.keys() == [f"requests/{batch.id}.gz", f"results/{batch.id}/0-1.gz"]
            assert await store.checkpoints.all() == [(SegmentRef(batch.id, 1), 1)]
            assert await store.control.batch(OURS, new_batch("a").batch.id) is not None

    asyncio.run(main())
    assert (tmp_path / "objects" / ".DS_Store").exists()
