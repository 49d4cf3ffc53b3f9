"""The control store on SQLite: WAL, `synchronous=FULL`, one connection, few hand-written statements.

The transitions are not written in SQL: a transaction reads rows, asks `core`, and writes what `core` decided.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from overnight.core.batch import Batch, Tally
from overnight.core.handoff import Handoff, Outstanding, Part
from overnight.core.lease import Lease, SegmentRef
from overnight.core.retention import Kept
from overnight.core.schedule import Demand
from overnight.core.usage import NO_BILL, Bill
from overnight.errors import DirectoryTooNew, StoreError
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.files import make_for_owner
from overnight.store import browsing, figures, handoffs, leasing, looking, rows, scrubbing, spending
from overnight.store.committer import Committer, translated
from overnight.store.control import (
    Created,
    LeasedSegment,
    NewBatch,
    Page,
    Renewal,
    SealedResults,
    Sought,
    Stored,
    Wanted,
)
from overnight.store.figures import Figures
from overnight.store.migrations import APPLICATION_ID, STEPS


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the database, bring its schema up to date, and free all leases.

    The caller holds the lock of the data directory, so every lease in it belongs to a process that is gone.
    DirectoryTooNew if a newer version wrote it; StoreError if it is not ours or cannot be written.
    """
    try:
        with suppress(OSError):  # SQLite says what is wrong.
            make_for_owner(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {translated(error)}") from error
    return connection


def connect_beside(path: Path) -> sqlite3.Connection:
    """Open the database while a server uses it: nothing is recovered and no lease is freed. StoreError if the server
    is of another version."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != len(STEPS):
            connection.close()
            raise StoreError(f"{path} is used by a server of another version of overnight; restart that one first")
        _set_up(connection)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {translated(error)}") from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application_id != APPLICATION_ID and (tables or version):
        raise StoreError(f"{path} is a SQLite database, but not one of overnight; choose another --data directory")
    if version > len(STEPS):
        raise DirectoryTooNew(
            f"{path} was written by a newer overnight (schema {version}, this one knows {len(STEPS)}); "
            "install that version or choose another --data directory. Nothing was changed."
        )
    connection.execute("PRAGMA journal_mode=WAL")
    _set_up(connection)
    for number, step in enumerate(STEPS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {step} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={number}; COMMIT;"
        )
    connection.execute(
        "UPDATE segments SET worker = NULL, lease_expires_at_ms = 0 WHERE worker IS NOT NULL AND is_sealed = 0"
    )


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("PRAGMA synchronous=FULL")  # An acknowledged batch survives a power cut (I1).
    connection.execute("PRAGMA fullfsync=ON")  # macOS: through the drive's cache; elsewhere without effect.
    connection.execute("PRAGMA checkpoint_fullfsync=ON")
    connection.execute("PRAGMA secure_delete=ON")  # What a client deletes is not left in free pages.


class SqliteControl:
    """`Control` on one SQLite database. The committer owns the connection."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def create(self, new: NewBatch) -> Created:
        return await self._committer.write(lambda sql: rows.create(sql, new))

    async def batch(self, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
        return await self._committer.read(lambda sql: rows.batch(sql, workspace, batch_id))

    async def open_segments(self, batch_id: BatchId) -> tuple[Batch, list[int]] | None:
        return await self._committer.read(lambda sql: rows.open_segments(sql, batch_id))

    async def open_models(self, batch_id: BatchId) -> list[str]:
        return await self._committer.read(lambda sql: rows.open_models(sql, batch_id))

    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: BatchId | None = None, before: BatchId | None = None
    ) -> Page | None:
        return await self._committer.read(
            lambda sql: rows.page(sql, workspace, limit=limit, after=after, before=before)
        )

    async def browse(
        self,
        workspace: WorkspaceId,
        sought: Sought,
        *,
        limit: int,
        after: BatchId | None = None,
        before: BatchId | None = None,
    ) -> Page | None:
        return await self._committer.read(
            lambda sql: browsing.browse(sql, workspace, sought, limit=limit, after=after, before=before)
        )

    async def cancel(self, workspace: WorkspaceId, batch_id: BatchId, *, now_ms: int) -> Batch | None:
        return await self._committer.write(lambda sql: rows.cancel(sql, workspace, batch_id, now_ms=now_ms))

    async def delete(self, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
        return await self._committer.write(lambda sql: rows.delete(sql, workspace, batch_id))

    async def results(self, batch_id: BatchId) -> list[SealedResults]:
        return await self._committer.read(lambda sql: rows.results(sql, batch_id))

    async def inline_results(self, batch_id: BatchId) -> Mapping[int, bytes]:
        return await self._committer.read(lambda sql: rows.inline_results(sql, batch_id))

    async def stored(self, batch_id: BatchId) -> Stored | None:
        return await self._committer.read(lambda sql: looking.stored(sql, batch_id))

    async def inline(self, batch_id: BatchId, position: int) -> tuple[bytes | None, bytes | None]:
        return await self._committer.read(lambda sql: looking.inline(sql, batch_id, position))

    async def lease(self, worker: str, *, wanted: Wanted, now_ms: int) -> list[LeasedSegment]:
        has_work = await self._committer.read(lambda sql: leasing.has_work(sql, worker, wanted=wanted, now_ms=now_ms))
        if not has_work:
            return []  # The common case of an idle or full server: no write transaction, no fsync.
        return await self._committer.write(lambda sql: leasing.lease(sql, worker, wanted=wanted, now_ms=now_ms))

    async def demands(self) -> list[Demand]:
        return await self._committer.read(rows.demands)

    async def renew(self, worker: str, *, now_ms: int) -> Renewal:
        return await self._committer.write(lambda sql: leasing.renew(sql, worker, now_ms=now_ms))

    async def give_back(self, worker: str, *, only: SegmentRef | None = None) -> None:
        await self._committer.write(lambda sql: leasing.give_back(sql, worker, only=only))

    async def seal(
        self, lease: Lease, tally: Tally, results: SealedResults, *, now_ms: int, bill: Bill = NO_BILL
    ) -> Batch:
        return await self._committer.write(
            lambda sql: leasing.seal(sql, lease, tally, results, now_ms=now_ms, bill=bill)
        )

    async def intend(self, handoff: Handoff, parts: Sequence[Part]) -> None:
        await self._committer.write(lambda sql: handoffs.intend(sql, handoff, parts))

    async def submitted(self, handoff_id: str, upstream_id: str) -> None:
        await self._committer.write(lambda sql: handoffs.submitted(sql, handoff_id, upstream_id))

    async def outstanding(self, engine: str) -> list[Outstanding]:
        return await self._committer.read(lambda sql: handoffs.outstanding(sql, engine))

    async def open_parts(self, handoff_id: str) -> list[SegmentRef]:
        return await self._committer.read(lambda sql: handoffs.open_parts(sql, handoff_id))

    async def forget_handoff(self, handoff_id: str) -> None:
        await self._committer.write(lambda sql: handoffs.forget(sql, handoff_id))

    async def spent(self, engine: str, day: str) -> int:
        return await self._committer.read(lambda sql: spending.spent(sql, engine, day))

    async def note_spent(self, engine: str, day: str, usd_micro: int) -> None:
        await self._committer.write(lambda sql: spending.note_spent(sql, engine, day, usd_micro))

    async def archive(self, *, now_ms: int, batches_max: int, kept: Mapping[WorkspaceId, Kept] = {}) -> list[BatchId]:
        due = await self._committer.read(
            lambda sql: rows.archivable(sql, now_ms=now_ms, limit=batches_max, kept=kept)
        )
        if not due:
            return []
        await self._committer.write(lambda sql: rows.archive(sql, due, now_ms=now_ms))
        return [batch.id for batch in due]

    async def drop_requests(
        self, *, now_ms: int, batches_max: int, kept: Mapping[WorkspaceId, Kept]
    ) -> list[BatchId]:
        due = await self._committer.read(
            lambda sql: rows.with_old_requests(sql, now_ms=now_ms, limit=batches_max, kept=kept)
        )
        if due:
            await self._committer.write(lambda sql: rows.drop_requests(sql, due))
        return due

    async def forget_events(self) -> None:
        await self._committer.write(scrubbing.forget_events)

    async def scrub(self) -> bool:
        return await self._committer.read(scrubbing.scrub)

    async def repack(self) -> bool:
        return await self._committer.read(scrubbing.repack)

    async def garbage(self, *, limit: int) -> list[str]:
        return await self._committer.read(lambda sql: rows.garbage(sql, limit=limit))

    async def forget_garbage(self, keys: Sequence[str]) -> None:
        await self._committer.write(lambda sql: rows.forget_garbage(sql, keys))

    async def note_orphans(self, keys: Sequence[str]) -> int:
        return await self._committer.write(lambda sql: rows.note_orphans(sql, keys))

    async def counts(self) -> Mapping[str, int]:
        return await self._committer.read(rows.counts)

    async def figures(self) -> Figures:
        return await self._committer.read(figures.figures)

    async def close(self) -> None:
        await self._committer.close()
