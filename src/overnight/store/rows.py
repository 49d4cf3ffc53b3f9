"""The statements about batches and their results, each a function of a connection inside a transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from overnight import limits
from overnight.core import batch as life
from overnight.core.batch import Batch, Tally
from overnight.core.retention import AS_THE_API, Kept
from overnight.core.schedule import Demand
from overnight.errors import Conflict, RateLimited
from overnight.ids import BatchId, WorkspaceId
from overnight.store import sqliteusage
from overnight.store.control import Created, NewBatch, Page, SealedResults

BATCH_COLUMNS = (
    "id, workspace, api_version, betas, requests, segments_open, created_at_ms, expires_at_ms, status, "
    "succeeded, errored, canceled, expired, cancel_initiated_at_ms, ended_at_ms, archived_at_ms"
)


def to_batch(row: Sequence[Any]) -> Batch:
    """A row of BATCH_COLUMNS as a Batch."""
    return Batch(
        id=row[0],
        workspace=row[1],
        api_version=row[2],
        betas=row[3],
        requests=row[4],
        segments_open=row[5],
        created_at_ms=row[6],
        expires_at_ms=row[7],
        status=row[8],
        tally=Tally(succeeded=row[9], errored=row[10], canceled=row[11], expired=row[12]),
        cancel_initiated_at_ms=row[13],
        ended_at_ms=row[14],
        archived_at_ms=row[15],
    )


def create(sql: sqlite3.Connection, new: NewBatch) -> Created:
    """Insert a batch with its segments, unless its idempotency key names one already."""
    if new.idempotency_key is not None:
        earlier = _by_idempotency_key(sql, new)
        if earlier is not None:
            return Created(earlier, is_new=False)
    batch = new.batch
    _check_queue(sql, new)
    sql.execute(
        "INSERT INTO batches (id, workspace, api_version, betas, status, requests, segments_open, created_at_ms, "
        "expires_at_ms, requests_key, idempotency_key, body_sha256, api_key) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(batch.id, batch.workspace, batch.api_version, batch.betas, batch.status, batch.requests),
            *(batch.segments_open, batch.created_at_ms, batch.expires_at_ms),
            *(new.requests_key, new.idempotency_key, new.body_sha256, new.api_key),
        ),
    )
    sql.executemany(
        "INSERT INTO segments (batch_id, position, requests, raw_bytes, offset, length, requests_inline, model) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (batch.id, position, item.requests, item.raw_bytes, item.offset, item.length, item.inline, item.model)
            for position, item in enumerate(new.segments)
        ),
    )
    return Created(batch, is_new=True)


def _check_queue(sql: sqlite3.Connection, new: NewBatch) -> None:
    if new.queue_max is None:
        return
    (waiting,) = sql.execute(
        "SELECT coalesce(sum(requests - succeeded - errored - canceled - expired), 0) FROM batches "
        "WHERE workspace = ? AND ended_at_ms IS NULL",
        (new.batch.workspace,),
    ).fetchone()
    if waiting + new.batch.requests > new.queue_max:
        raise RateLimited(
            f"This batch would exceed the limit of {new.queue_max:,} batch requests in the processing queue: "
            f"{waiting:,} are waiting. Nothing was created.",
            retry_after_s=limits.QUEUE_RETRY_S,
        )


def _by_idempotency_key(sql: sqlite3.Connection, new: NewBatch) -> Batch | None:
    row = sql.execute(
        f"SELECT {BATCH_COLUMNS}, body_sha256 FROM batches WHERE workspace = ? AND idempotency_key = ?",
        (new.batch.workspace, new.idempotency_key),
    ).fetchone()
    if row is None:
        return None
    if row[-1] != new.body_sha256:
        raise Conflict(
            f"Idempotency-Key: this key already made {row[0]} from a different body; use a new key for a new batch"
        )
    return to_batch(row)


def batch(sql: sqlite3.Connection, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
    """One batch of a workspace."""
    row = sql.execute(
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE id = ? AND workspace = ?", (batch_id, workspace)
    ).fetchone()
    return None if row is None else to_batch(row)


def by_id(sql: sqlite3.Connection, batch_id: BatchId) -> Batch | None:
    """One batch of any workspace: for the runner, never for a client."""
    row = sql.execute(f"SELECT {BATCH_COLUMNS} FROM batches WHERE id = ?", (batch_id,)).fetchone()
    return None if row is None else to_batch(row)


def save(sql: sqlite3.Connection, item: Batch) -> None:
    """Write what `core.batch` may have changed."""
    tally = item.tally
    sql.execute(
        "UPDATE batches SET status = ?, segments_open = ?, succeeded = ?, errored = ?, canceled = ?, expired = ?, "
        "cancel_initiated_at_ms = ?, ended_at_ms = ?, archived_at_ms = ? WHERE id = ?",
        (
            *(item.status, item.segments_open, tally.succeeded, tally.errored, tally.canceled, tally.expired),
            *(item.cancel_initiated_at_ms, item.ended_at_ms, item.archived_at_ms, item.id),
        ),
    )


def open_segments(sql: sqlite3.Connection, batch_id: BatchId) -> tuple[Batch, list[int]] | None:
    """The batch and its unsealed segments. Both statements see one state: nothing else writes meanwhile."""
    found = by_id(sql, batch_id)
    if found is None:
        return None
    unsealed = sql.execute("SELECT position FROM segments WHERE batch_id = ? AND is_sealed = 0", (batch_id,))
    return found, [position for (position,) in unsealed]


def open_models(sql: sqlite3.Connection, batch_id: BatchId) -> list[str]:
    """The models of its unsealed segments, each once."""
    asked = "SELECT DISTINCT model FROM segments WHERE batch_id = ? AND is_sealed = 0 AND model != '' ORDER BY model"
    return [model for (model,) in sql.execute(asked, (batch_id,))]


def page(
    sql: sqlite3.Connection,
    workspace: WorkspaceId,
    *,
    limit: int,
    after: BatchId | None,
    before: BatchId | None,
) -> Page | None:
    """A page by cursor: batches made during a walk never shift it."""
    cursor = after or before
    age = 0
    if cursor is not None:
        row = sql.execute("SELECT age FROM batches WHERE id = ? AND workspace = ?", (cursor, workspace)).fetchone()
        if row is None:
            return None
        (age,) = row
    where, order = "", "DESC"
    if after is not None:
        where = "AND age < ?"
    elif before is not None:
        where, order = "AND age > ?", "ASC"
    found = sql.execute(
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE workspace = ? {where} ORDER BY age {order} LIMIT ?",
        (workspace, *([age] if where else []), limit + 1),
    ).fetchall()
    batches = [to_batch(row) for row in found[:limit]]
    if before is not None and after is None:
        batches.reverse()  # A page of newer batches is still newest first.
    return Page(batches, has_more=len(found) > limit)


def cancel(sql: sqlite3.Connection, workspace: WorkspaceId, batch_id: BatchId, *, now_ms: int) -> Batch | None:
    """Apply CancelAsked."""
    found = batch(sql, workspace, batch_id)
    if found is None:
        return None
    changed = life.apply(found, life.CancelAsked(now_ms))
    if changed != found:
        save(sql, changed)
    return changed


def delete(sql: sqlite3.Connection, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
    """Remove an ended batch; its objects become garbage in the same transaction."""
    found = batch(sql, workspace, batch_id)
    if found is None or found.status != "ended":
        return found
    _discard_objects(sql, batch_id)
    sqliteusage.forget_batch(sql, batch_id)
    sql.execute("DELETE FROM segments WHERE batch_id = ?", (batch_id,))
    sql.execute("DELETE FROM handoff_parts WHERE batch_id = ?", (batch_id,))
    sql.execute("DELETE FROM batches WHERE id = ?", (batch_id,))
    return found


def _discard_objects(sql: sqlite3.Connection, batch_id: BatchId) -> None:
    sql.execute(
        "INSERT OR IGNORE INTO garbage "
        "SELECT requests_key FROM batches WHERE id = ?1 AND requests_key IS NOT NULL UNION ALL "
        "SELECT result_key FROM segments WHERE batch_id = ?1 AND result_key IS NOT NULL",
        (batch_id,),
    )


def results(sql: sqlite3.Connection, batch_id: BatchId) -> list[SealedResults]:
    """Where the results of a batch lie, in segment order."""
    found = sql.execute(
        "SELECT result_length, result_raw_bytes, result_crc, result_key FROM segments "
        "WHERE batch_id = ? AND is_sealed = 1 ORDER BY position",
        (batch_id,),
    )
    return [SealedResults(length=row[0], raw_bytes=row[1], crc=row[2], key=row[3]) for row in found]


def inline_results(sql: sqlite3.Connection, batch_id: BatchId) -> Mapping[int, bytes]:
    """The results that live in their rows, by segment."""
    found = sql.execute(
        "SELECT position, result_inline FROM segments WHERE batch_id = ? AND result_inline IS NOT NULL", (batch_id,)
    )
    return dict(found.fetchall())


_ENDED_BY = """
    archived_at_ms IS NULL AND ended_at_ms IS NOT NULL AND created_at_ms <= :newest_ms
    AND created_at_ms <= coalesce((SELECT value FROM json_each(:until) WHERE key = workspace), :until_else)
"""


def archivable(sql: sqlite3.Connection, *, now_ms: int, limit: int, kept: Mapping[WorkspaceId, Kept]) -> list[Batch]:
    """Batches whose results have been kept as long as promised."""
    shorter = {key: item.results_ms for key, item in kept.items() if item.results_ms < AS_THE_API.results_ms}
    given = _until(shorter, now_ms=now_ms, default_ms=now_ms - AS_THE_API.results_ms)
    found = sql.execute(
        f"SELECT {BATCH_COLUMNS} FROM batches WHERE {_ENDED_BY} ORDER BY created_at_ms LIMIT :limit",
        {**given, "limit": limit},
    )
    return [
        item
        for item in map(to_batch, found)
        if life.is_archivable(item, now_ms=now_ms, results_ms=kept.get(item.workspace, AS_THE_API).results_ms)
    ]


def _until(lifetimes_ms: Mapping[WorkspaceId, int], *, now_ms: int, default_ms: int) -> dict[str, object]:
    """By when a batch must have been made, by workspace."""
    until = {workspace: now_ms - lifetime_ms for workspace, lifetime_ms in lifetimes_ms.items()}
    return {
        "until": msgspec.json.encode(until).decode(),
        "until_else": default_ms,
        "newest_ms": max([default_ms, *until.values()]),
    }


_HAS_REQUESTS = """
    (requests_key IS NOT NULL
     OR EXISTS (SELECT 1 FROM segments WHERE batch_id = batches.id AND requests_inline IS NOT NULL))
"""


def with_old_requests(
    sql: sqlite3.Connection, *, now_ms: int, limit: int, kept: Mapping[WorkspaceId, Kept]
) -> list[BatchId]:
    """Ended batches that still have requests which their workspace wants to be gone, but whose results stay."""
    shorter = {key: item.requests_ms for key, item in kept.items() if item.requests_ms < item.results_ms}
    if not shorter:
        return []
    given = _until(shorter, now_ms=now_ms, default_ms=-1)
    found = sql.execute(
        f"SELECT id FROM batches WHERE {_ENDED_BY} AND {_HAS_REQUESTS} ORDER BY created_at_ms LIMIT :limit",
        {**given, "limit": limit},
    )
    return [batch_id for (batch_id,) in found]


def drop_requests(sql: sqlite3.Connection, batch_ids: Sequence[BatchId]) -> None:
    """Give up the requests of ended batches."""
    for batch_id in batch_ids:
        sql.execute(
            "INSERT OR IGNORE INTO garbage "
            "SELECT requests_key FROM batches WHERE id = ? AND requests_key IS NOT NULL",
            (batch_id,),
        )
        sql.execute("UPDATE batches SET requests_key = NULL WHERE id = ?", (batch_id,))
        sql.execute(
            "UPDATE segments SET requests_inline = NULL WHERE batch_id = ? AND requests_inline IS NOT NULL",
            (batch_id,),
        )


def archive(sql: sqlite3.Connection, due: Sequence[Batch], *, now_ms: int) -> None:
    """Give up the requests and results of these batches; the batches stay visible."""
    for item in due:
        _discard_objects(sql, item.id)
        sql.execute("DELETE FROM segments WHERE batch_id = ?", (item.id,))
        sql.execute("DELETE FROM causes WHERE batch_id = ?", (item.id,))  # Words of engines may quote requests.
        sql.execute("DELETE FROM handoff_parts WHERE batch_id = ?", (item.id,))
        sql.execute("UPDATE batches SET requests_key = NULL WHERE id = ?", (item.id,))
        save(sql, life.apply(item, life.Archived(now_ms)))


def garbage(sql: sqlite3.Connection, *, limit: int) -> list[str]:
    """Keys to remove, in no particular order."""
    return [key for (key,) in sql.execute("SELECT key FROM garbage LIMIT ?", (limit,))]


def forget_garbage(sql: sqlite3.Connection, keys: Sequence[str]) -> None:
    """They are removed."""
    sql.executemany("DELETE FROM garbage WHERE key = ?", ((key,) for key in keys))


def note_orphans(sql: sqlite3.Connection, keys: Sequence[str]) -> int:
    """Objects of creates and seals that a crash cut short, noted for removal."""
    before = sql.total_changes
    sql.executemany(
        "INSERT OR IGNORE INTO garbage SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM batches WHERE requests_key = ?1 "
        "AND id = ?2) AND NOT EXISTS (SELECT 1 FROM segments WHERE result_key = ?1 AND batch_id = ?2)",
        ((key, key.split("/")[1].removesuffix(".gz")) for key in keys),
    )
    return sql.total_changes - before


def counts(sql: sqlite3.Connection) -> Mapping[str, int]:
    """How much is waiting or running."""
    (batches,) = sql.execute("SELECT count(*) FROM batches WHERE ended_at_ms IS NULL").fetchone()
    (segments,) = sql.execute("SELECT count(*) FROM segments WHERE is_sealed = 0").fetchone()
    return {"batches_open": batches, "segments_open": segments}


_DEMANDS = """
    SELECT min(expires_at_ms), sum(requests - succeeded - errored - canceled - expired)
    FROM batches WHERE ended_at_ms IS NULL AND status = 'in_progress' GROUP BY expires_at_ms / 600000
"""


def demands(sql: sqlite3.Connection) -> list[Demand]:
    """What unfinished batches still want, by deadline."""
    return [Demand(*row) for row in sql.execute(_DEMANDS)]
