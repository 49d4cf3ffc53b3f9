"""The statements about leases and seals: who may work on which segment, and whose results count."""

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from overnight.core import batch as life
from overnight.core import lease as leases
from overnight.core import schedule
from overnight.core.batch import Batch, Tally
from overnight.core.lease import Lease, SegmentRef
from overnight.errors import LeaseLost
from overnight.ids import WorkspaceId
from overnight.store import rows
from overnight.store.control import LeasedSegment, NewSegment, Renewal, SealedResults

_CANDIDATES_OF_WORKSPACE_MAX = 256  # The oldest ones: as many as one worker can hold.

# Workspaces with unfinished batches by a loose index scan: one index step per workspace, however long its queue is.
_WORKSPACES = """
    WITH RECURSIVE waiting(workspace) AS (
        SELECT min(workspace) FROM batches WHERE ended_at_ms IS NULL
        UNION ALL
        SELECT (SELECT min(workspace) FROM batches WHERE ended_at_ms IS NULL AND workspace > waiting.workspace)
        FROM waiting WHERE waiting.workspace IS NOT NULL
    )
    SELECT workspace FROM waiting WHERE workspace IS NOT NULL
"""
_CANDIDATES = f"""
    SELECT {rows.BATCH_COLUMNS}, age FROM batches WHERE workspace = ? AND ended_at_ms IS NULL AND EXISTS (
        SELECT 1 FROM segments
        WHERE segments.batch_id = batches.id AND is_sealed = 0 AND lease_expires_at_ms <= ? AND worker IS NOT ?
    ) ORDER BY age LIMIT {_CANDIDATES_OF_WORKSPACE_MAX}
"""
_CANCELING = f"""
    SELECT {rows.BATCH_COLUMNS}, age FROM batches WHERE status = 'canceling' AND EXISTS (
        SELECT 1 FROM segments
        WHERE segments.batch_id = batches.id AND is_sealed = 0 AND lease_expires_at_ms <= ? AND worker IS NOT ?
    ) ORDER BY age LIMIT {_CANDIDATES_OF_WORKSPACE_MAX}
"""
_FREE_SEGMENTS = """
    SELECT position, requests, raw_bytes, offset, length, requests_inline, epoch, lease_expires_at_ms
    FROM segments WHERE batch_id = ? AND is_sealed = 0 AND lease_expires_at_ms <= ? AND worker IS NOT ?
    ORDER BY position LIMIT ?
"""


class Wanted(NamedTuple):
    """How much a worker has room for."""

    requests: int
    segments: int


def candidates(sql: sqlite3.Connection, worker: str, *, now_ms: int) -> list[schedule.Candidate]:
    """The oldest batches of each workspace with a segment that is free to `worker`: one of its own that ran out
    is not, for it may still be working on it; renewal revives that one. Canceled batches come however young."""
    found = {row[-1]: row for row in sql.execute(_CANCELING, (now_ms, worker))}
    for (workspace,) in sql.execute(_WORKSPACES).fetchall():
        found |= {row[-1]: row for row in sql.execute(_CANDIDATES, (workspace, now_ms, worker))}
    return [schedule.Candidate(batch=rows.to_batch(row), age=age) for age, row in found.items()]


def has_work(sql: sqlite3.Connection, worker: str, *, wanted: Wanted, now_ms: int) -> bool:
    """Whether `lease` would find anything."""
    return wanted.segments > 0 and any(
        wanted.requests > 0 or life.kind_of_unfinished(item.batch, now_ms=now_ms) is not None
        for item in candidates(sql, worker, now_ms=now_ms)
    )


def lease(
    sql: sqlite3.Connection, worker: str, *, wanted: Wanted, served: Mapping[WorkspaceId, float], now_ms: int
) -> list[LeasedSegment]:
    """Take free segments in scheduled order until there is enough. What only needs closing is always taken:
    it needs no engine, and a busy engine must not keep a canceled batch from ending (I6)."""
    taken: list[LeasedSegment] = []
    requests_left = wanted.requests
    for candidate in schedule.order(candidates(sql, worker, now_ms=now_ms), served=served, now_ms=now_ms):
        is_closing = life.kind_of_unfinished(candidate.batch, now_ms=now_ms) is not None
        segments_left = wanted.segments - len(taken)
        if segments_left <= 0 or (requests_left <= 0 and not is_closing):
            break
        room = Wanted(candidate.batch.requests if is_closing else requests_left, segments_left)
        for item in _take(sql, candidate.batch, worker, room, now_ms=now_ms):
            taken.append(item)
            requests_left -= 0 if is_closing else item.source.requests
    return taken


def _take(sql: sqlite3.Connection, batch: Batch, worker: str, wanted: Wanted, *, now_ms: int) -> list[LeasedSegment]:
    (requests_key,) = sql.execute("SELECT requests_key FROM batches WHERE id = ?", (batch.id,)).fetchone()
    taken: list[LeasedSegment] = []
    requests_left = wanted.requests
    for row in sql.execute(_FREE_SEGMENTS, (batch.id, now_ms, worker, wanted.segments)).fetchall():
        if requests_left <= 0:
            break
        position, requests, raw_bytes, offset, length, inline, last_epoch, expires_at_ms = row
        assert leases.is_free(expires_at_ms, now_ms=now_ms), "I4: nobody else holds it"
        held = leases.take(SegmentRef(batch.id, position), worker=worker, last_epoch=last_epoch, now_ms=now_ms)
        sql.execute(
            "UPDATE segments SET worker = ?, epoch = ?, lease_expires_at_ms = ? WHERE batch_id = ? AND position = ?",
            (worker, held.epoch, held.expires_at_ms, batch.id, position),
        )
        source = NewSegment(requests=requests, raw_bytes=raw_bytes, offset=offset, length=length, inline=inline)
        taken.append(LeasedSegment(lease=held, batch=batch, source=source, requests_key=requests_key))
        requests_left -= requests
    return taken


def renew(sql: sqlite3.Connection, worker: str, *, now_ms: int) -> Renewal:
    """One statement for all leases of a worker. One that ran out is revived: it still bears the worker's name,
    so nobody has taken it."""
    found = sql.execute(
        "UPDATE segments SET lease_expires_at_ms = ? WHERE worker = ? AND is_sealed = 0 "
        "RETURNING batch_id, position, epoch",
        (leases.ends_at_ms(now_ms=now_ms), worker),
    ).fetchall()
    canceling = sql.execute(
        "SELECT id FROM batches WHERE status = 'canceling' AND id IN "
        "(SELECT batch_id FROM segments WHERE worker = ? AND is_sealed = 0)",
        (worker,),
    ).fetchall()
    held = [(SegmentRef(batch_id, position), epoch) for batch_id, position, epoch in found]
    return Renewal(held=held, canceling=[batch_id for (batch_id,) in canceling])


def give_back(sql: sqlite3.Connection, worker: str) -> None:
    """Free all segments of a worker."""
    sql.execute(
        "UPDATE segments SET worker = NULL, lease_expires_at_ms = 0 WHERE worker = ? AND is_sealed = 0", (worker,)
    )


def seal(sql: sqlite3.Connection, lease: Lease, tally: Tally, results: SealedResults, *, now_ms: int) -> Batch:
    """Compare-and-set on the epoch, then let the batch know."""
    segment = lease.segment
    done = sql.execute(
        "UPDATE segments SET is_sealed = 1, worker = NULL, lease_expires_at_ms = 0, "
        "result_key = ?, result_length = ?, result_raw_bytes = ?, result_crc = ?, result_inline = ? "
        "WHERE batch_id = ? AND position = ? AND epoch = ? AND is_sealed = 0",
        (
            *(results.key, results.length, results.raw_bytes, results.crc, results.inline),
            *(segment.batch_id, segment.index, lease.epoch),
        ),
    )
    found = rows.by_id(sql, segment.batch_id)
    if done.rowcount != 1 or found is None:
        raise LeaseLost(f"segment {segment.index} of {segment.batch_id}: epoch {lease.epoch} is not the newest")
    changed = life.apply(found, life.SegmentSealed(tally, now_ms))
    rows.save(sql, changed)
    return changed
