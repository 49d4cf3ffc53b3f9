"""The statements of the console's list: pages of batches by status, time and id.

A page takes a bounded number of statements, and reads the rows it shows and those between them that the filters leave
out; with a status, a range of time, or both, an index leaves none out.
"""

import sqlite3
from typing import Any

from overnight.ids import BatchId, WorkspaceId
from overnight.store.control import Page, Sought
from overnight.store.rows import BATCH_COLUMNS, to_batch

_LAST = "\U0010ffff"  # Behind every id that begins with what stands before it.


def browse(
    sql: sqlite3.Connection,
    workspace: WorkspaceId,
    sought: Sought,
    *,
    limit: int,
    after: BatchId | None,
    before: BatchId | None,
) -> Page | None:
    """One page, newest first; None if the cursor is no batch of the workspace."""
    where, given = _where(sql, workspace, sought)
    cursor = after or before
    if cursor is not None:
        row = sql.execute("SELECT age FROM batches WHERE id = ? AND workspace = ?", (cursor, workspace)).fetchone()
        if row is None:
            return None
        where += " AND age < ?" if after is not None else " AND age > ?"
        given += row
    is_upwards = after is None and before is not None
    found = sql.execute(
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE {where} ORDER BY age {'ASC' if is_upwards else 'DESC'} LIMIT ?",
        (*given, limit + 1),
    ).fetchall()
    batches = [to_batch(row) for row in found[:limit]]
    if is_upwards:
        batches.reverse()  # A page of newer batches is still newest first.
    return Page(batches, has_more=len(found) > limit)


def _where(sql: sqlite3.Connection, workspace: WorkspaceId, sought: Sought) -> tuple[str, list[Any]]:
    """The condition without a cursor, and its values."""
    where, given = "workspace = ?", list[Any]([workspace])
    if sought.id_prefix:
        where, given = (
            "+workspace = ? AND id >= ? AND id < ?",
            [workspace, sought.id_prefix, sought.id_prefix + _LAST],
        )
    if sought.status is not None:
        where, given = f"{where} AND status = ?", [*given, sought.status]
    for at_ms, side in ((sought.since_ms, ">="), (sought.until_ms, "<")):
        if at_ms is not None:
            where, given = f"{where} AND age {side} ?", [*given, _first_age(sql, workspace, at_ms)]
    return where, given


def _first_age(sql: sqlite3.Connection, workspace: WorkspaceId, at_ms: int) -> int:
    """The age of the first batch that was made at that time or later; one more than the last age if there is none.

    Found by halving, so it takes as many steps as the number of batches has digits in base 2. Batches that were made
    while a clock was set back may fall on the wrong side.
    """
    newest = "SELECT age FROM batches WHERE workspace = ? ORDER BY age DESC LIMIT 1"
    last = sql.execute(newest, (workspace,)).fetchone()
    low, high = 0, last[0] + 1 if last else 0
    next_one = "SELECT age, created_at_ms FROM batches WHERE workspace = ? AND age >= ? ORDER BY age LIMIT 1"
    while low < high:
        middle = (low + high) // 2
        age, created_at_ms = sql.execute(next_one, (workspace, middle)).fetchone()
        if created_at_ms >= at_ms:
            high = middle
        else:
            low = age + 1
    return low
