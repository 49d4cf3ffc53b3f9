"""store.backup: what happens to a batch while its backup is written."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from overnight.store import backup, restore
from overnight.store.sqlite import connect

OLD, NEWER, NEWEST = "msgbatch_01old", "msgbatch_02newer", "msgbatch_03newest"


def add(root: Path, batch_id: str) -> None:
    """An ended batch with an object of requests and one of results, as a server leaves it."""
    keys = (f"requests/{batch_id}.gz", f"results/{batch_id}/0-1.gz")
    for key in keys:
        (root / "objects" / key).parent.mkdir(parents=True, exist_ok=True)
        (root / "objects" / key).write_bytes(key.encode())
    with closing(sqlite3.connect(root / "control.sqlite3", isolation_level=None)) as sql:
        sql.execute(
            "INSERT INTO batches (id, workspace, api_version, betas, status, requests, segments_open, created_at_ms, "
            "expires_at_ms, ended_at_ms, requests_key) VALUES (?, 'w', 'v', '', 'ended', 1, 0, 1, 1, 1, ?)",
            (batch_id, keys[0]),
        )
        sql.execute(
            "INSERT INTO segments (batch_id, position, requests, raw_bytes, offset, length, is_sealed, result_key) "
            "VALUES (?, 0, 1, 1, 0, 1, 1, ?)",
            (batch_id, keys[1]),
        )


def drop_requests(root: Path, batch_id: str) -> None:
    with closing(sqlite3.connect(root / "control.sqlite3", isolation_level=None)) as sql:
        sql.execute("UPDATE batches SET requests_key = NULL WHERE id = ?", (batch_id,))
    (root / "objects" / "requests" / f"{batch_id}.gz").unlink(missing_ok=True)


def delete(root: Path, batch_id: str) -> None:
    with closing(sqlite3.connect(root / "control.sqlite3", isolation_level=None)) as sql:
        sql.execute("DELETE FROM segments WHERE batch_id = ?", (batch_id,))
        sql.execute("DELETE FROM batches WHERE id = ?", (batch_id,))
    for path in root.glob(f"objects/**/*{batch_id}*/*"):
        path.unlink()
    (root / "objects" / "requests" / f"{batch_id}.gz").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("change", "dropped", "requests"),
    [(drop_requests, [], [OLD, NEWER]), (delete, [NEWEST], [OLD, NEWER])],
    ids=["requests given up", "deleted"],
)
def test_objects_that_vanish_between_the_copy_and_the_look_cost_nothing_that_is_still_there(
    change: Callable[[Path, str], None], dropped: list[str], requests: list[str], tmp_path: Path
) -> None:
    data, copy, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    data.mkdir()
    connect(data / "control.sqlite3").close()
    add(data, OLD)
    calls = 0

    def on_progress(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # The first object is being taken: two batches end meanwhile.
            add(data, NEWER)
            add(data, NEWEST)
        elif calls == 3:  # The copy of the database names both; the first object of the two is being taken.
            change(data, NEWEST)

    written = backup.back_up(data, copy, now_ms=0, on_progress=on_progress)
    assert calls > 3
    assert written.manifest.dropped == dropped
    restore.restore(copy, again, on_progress=lambda _: None)
    assert sorted(path.stem for path in again.glob("objects/requests/*")) == requests
    with closing(sqlite3.connect(again / "control.sqlite3")) as sql:
        ids = {row[0] for row in sql.execute("SELECT id FROM batches")}
        assert ids == {OLD, NEWER, NEWEST} - set(dropped)
        assert {row[0] for row in sql.execute("SELECT batch_id FROM segments")} == ids
    assert {path.parent.name for path in again.glob("objects/results/*/*")} == ids


def test_a_link_is_safe_when_the_original_is_deleted(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "backup"
    data.mkdir()
    connect(data / "control.sqlite3").close()
    add(data, OLD)
    assert backup.back_up(data, copy, now_ms=0, on_progress=lambda _: None).linked == 2
    delete(data, OLD)
    assert (copy / "objects" / "requests" / f"{OLD}.gz").read_bytes() == f"requests/{OLD}.gz".encode()
    restore.check(copy, on_progress=lambda _: None)
