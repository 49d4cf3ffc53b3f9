"""The statements about leases and seals: who may work on which segment, and whose results count."""

import sqlite3
from collections import deque
from typing import Any

import msgspec

from overnight.core import batch as life
from overnight.core import lease as leases
from overnight.core import schedule, tokens
from overnight.core.batch import Batch, Tally
from overnight.core.lease import Lease, SegmentRef
from overnight.core.usage import Bill
from overnight.errors import LeaseLost
from overnight.ids import BatchId, WorkspaceId
from overnight.store import rows, sqlitehooks, sqliteusage
from overnight.store.control import LeasedSegment, NewSegment, Renewal, SealedResults, Wanted

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
_IS_FREE = "is_sealed = 0 AND lease_expires_at_ms <= :now_ms AND worker IS NOT :worker"
_IS_WANTED = "model NOT IN (SELECT value FROM json_each(:full))"  # Segments of several models have none.
_CANDIDATES = f"""
    SELECT {rows.BATCH_COLUMNS}, age FROM batches WHERE workspace = :workspace AND ended_at_ms IS NULL
    AND (batches.expires_at_ms <= :now_ms OR NOT :is_stopped) AND EXISTS (
        SELECT 1 FROM segments WHERE segments.batch_id = batches.id AND {_IS_FREE}
        AND (batches.expires_at_ms <= :now_ms OR {_IS_WANTED})
    ) ORDER BY age LIMIT {_CANDIDATES_OF_WORKSPACE_MAX}
"""
_CANCELING = f"""
    SELECT {rows.BATCH_COLUMNS}, age FROM batches WHERE status = 'canceling' AND EXISTS (
        SELECT 1 FROM segments WHERE segments.batch_id = batches.id AND {_IS_FREE}
    ) ORDER BY age LIMIT {_CANDIDATES_OF_WORKSPACE_MAX}
"""
_FREE_SEGMENTS = f"""
    SELECT position, requests, raw_bytes, offset, length, requests_inline, epoch, lease_expires_at_ms, model
    FROM segments WHERE batch_id = :batch_id AND {_IS_FREE} AND (:is_closing OR {_IS_WANTED})
    ORDER BY position LIMIT :limit
"""


def candidates(sql: sqlite3.Connection, worker: str, *, wanted: Wanted, now_ms: int) -> list[schedule.Candidate]:
    """The oldest batches of each workspace with a segment that is free to `worker`: one of its own that ran out
    is not, for it may still be working on it; renewal revives that one. Canceled batches come however young."""
    given = {"now_ms": now_ms, "worker": worker}
    found = {row[-1]: row for row in sql.execute(_CANCELING, given)}
    for (workspace,) in sql.execute(_WORKSPACES).fetchall():
        is_stopped = workspace in wanted.stopped
        more = {"workspace": workspace, "full": _unwanted(wanted, workspace), "is_stopped": is_stopped}
        found |= {row[-1]: row for row in sql.execute(_CANDIDATES, given | more)}
    return [schedule.Candidate(batch=rows.to_batch(row), age=age) for age, row in found.items()]


def _unwanted(wanted: Wanted, workspace: WorkspaceId) -> str:
    models = wanted.full if workspace in wanted.held else wanted.closed
    return msgspec.json.encode(sorted(models)).decode()


def has_work(sql: sqlite3.Connection, worker: str, *, wanted: Wanted, now_ms: int) -> bool:
    """Whether `lease` would find anything."""
    return wanted.segments > 0 and any(
        wanted.requests > 0
        or item.batch.workspace not in wanted.held
        or life.kind_of_unfinished(item.batch, now_ms=now_ms) is not None
        for item in candidates(sql, worker, wanted=wanted, now_ms=now_ms)
    )


def lease(sql: sqlite3.Connection, worker: str, *, wanted: Wanted, now_ms: int) -> list[LeasedSegment]:
    """Take free segments in scheduled order until there is enough. What only needs closing is always taken:
    it needs no engine, and a busy engine must not keep a canceled batch from ending (I6)."""
    found = candidates(sql, worker, wanted=wanted, now_ms=now_ms)
    turns = schedule.Turns(found, served=wanted.served, danger_ms=wanted.danger_ms, now_ms=now_ms)
    taking = _Taking(sql, worker, wanted, now_ms=now_ms)
    while (closing := turns.closing()) is not None and taking.has_room:
        while taking.one(closing, is_closing=True) is not None and taking.has_room:
            pass
        turns.is_out(closing)
    requests_left, held = wanted.requests, wanted.held
    while taking.has_room:
        candidate = turns.next(besides=held if requests_left <= 0 else frozenset())
        if candidate is None:
            break
        segment = taking.one(candidate, is_closing=False)
        if segment is None:
            turns.is_out(candidate)
            continue
        weight = wanted.weights.get(candidate.batch.workspace, 1.0)
        turns.served(candidate, segment.source.raw_bytes / tokens.FRESH.bytes_per_token / weight)
        requests_left -= segment.source.requests
        held |= {candidate.batch.workspace}
    return taking.taken


class _Taking:
    """Segments that are being leased in one transaction."""

    def __init__(self, sql: sqlite3.Connection, worker: str, wanted: Wanted, *, now_ms: int) -> None:
        self.taken: list[LeasedSegment] = []
        self._sql, self._worker, self._wanted, self._now_ms = sql, worker, wanted, now_ms
        self._free: dict[BatchId, tuple[str | None, deque[tuple[Any, ...]]]] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more may be taken."""
        return len(self.taken) < self._wanted.segments

    def one(self, candidate: schedule.Candidate, *, is_closing: bool) -> LeasedSegment | None:
        """Lease the next free segment of a batch; None if it has none."""
        batch = candidate.batch
        if batch.id not in self._free:
            self._free[batch.id] = self._look(batch, is_closing=is_closing)
        requests_key, free = self._free[batch.id]
        if not free:
            return None
        position, requests, raw_bytes, offset, length, inline, last_epoch, expires_at_ms, model = free.popleft()
        assert leases.is_free(expires_at_ms, now_ms=self._now_ms), "I4: nobody else holds it"
        held = leases.take(
            SegmentRef(batch.id, position), worker=self._worker, last_epoch=last_epoch, now_ms=self._now_ms
        )
        self._sql.execute(
            "UPDATE segments SET worker = ?, epoch = ?, lease_expires_at_ms = ? WHERE batch_id = ? AND position = ?",
            (self._worker, held.epoch, held.expires_at_ms, batch.id, position),
        )
        source = NewSegment(
            requests=requests, raw_bytes=raw_bytes, offset=offset, length=length, inline=inline, model=model
        )
        self.taken.append(
            LeasedSegment(lease=held, batch=batch, age=candidate.age, source=source, requests_key=requests_key)
        )
        return self.taken[-1]

    def _look(self, batch: Batch, *, is_closing: bool) -> tuple[str | None, deque[tuple[Any, ...]]]:
        (requests_key,) = self._sql.execute("SELECT requests_key FROM batches WHERE id = ?", (batch.id,)).fetchone()
        given = {
            "batch_id": batch.id,
            "now_ms": self._now_ms,
            "worker": self._worker,
            "is_closing": is_closing,
            "full": _unwanted(self._wanted, batch.workspace),
            "limit": self._wanted.segments - len(self.taken),
        }
        return requests_key, deque(self._sql.execute(_FREE_SEGMENTS, given).fetchall())


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


def give_back(sql: sqlite3.Connection, worker: str, *, only: SegmentRef | None) -> None:
    """Free all segments of a worker, or one."""
    where, which = ("", ()) if only is None else (" AND batch_id = ? AND position = ?", (only.batch_id, only.index))
    sql.execute(
        f"UPDATE segments SET worker = NULL, lease_expires_at_ms = 0 WHERE worker = ? AND is_sealed = 0{where}",
        (worker, *which),
    )


def seal(
    sql: sqlite3.Connection, lease: Lease, tally: Tally, results: SealedResults, *, now_ms: int, bill: Bill
) -> Batch:
    """Compare-and-set on the epoch, then let the batch know, write its bill down, and whom to tell of its end."""
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
    sqliteusage.note_bill(sql, segment.batch_id, bill, now_ms=now_ms)
    if changed.status == "ended":
        sqlitehooks.note_ended(sql, changed, now_ms=now_ms)
    return changed
