"""`UsageStore` on SQLite, and what a seal writes beside the results."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from overnight.core.usage import Bill, Cause, Sums, Used
from overnight.ids import BatchId, WorkspaceId
from overnight.limits import DAY_MS
from overnight.store.committer import Committer
from overnight.store.usage import Asked, Entry, Row

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
_MINUTES_KEPT_MS, _HOURS_KEPT_MS = 2 * DAY_MS, 60 * DAY_MS  # As far back as buckets of that width are asked for.
_SUMS = Sums.__struct_fields__
_COLUMNS = ", ".join(_SUMS)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in _SUMS)
_TOTALS = ", ".join(f"sum({name})" for name in _SUMS)
_PLACES = ", ".join("?" * len(_SUMS))
_KEYS = "workspace, api_key, model, engine, service_tier"

_NOTE = (
    f"INSERT INTO usage (at_ms, {_KEYS}, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, {_PLACES}) "
    f"ON CONFLICT (at_ms, {_KEYS}) DO UPDATE SET {_ADDED}"
)
_NOTE_BATCH = (
    f"INSERT INTO batch_usage (batch_id, model, engine, service_tier, {_COLUMNS}) VALUES (?, ?, ?, ?, {_PLACES}) "
    f"ON CONFLICT (batch_id, model, engine, service_tier) DO UPDATE SET {_ADDED}"
)
_NOTE_CAUSE = (
    "INSERT INTO causes (batch_id, type, message, requests, example) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (batch_id, type, message) DO UPDATE SET requests = requests + excluded.requests"
)


def note_bill(sql: sqlite3.Connection, batch_id: BatchId, bill: Bill, *, now_ms: int) -> None:
    """Write a bill down, in the transaction that seals its segment: it counts once, or not at all."""
    if not bill.used and not bill.causes:
        return
    workspace, api_key = sql.execute("SELECT workspace, api_key FROM batches WHERE id = ?", (batch_id,)).fetchone()
    _note(sql, [Entry(workspace=workspace, api_key=api_key, used=used) for used in bill.used], now_ms=now_ms)
    for used in bill.used:
        sql.execute(_NOTE_BATCH, (batch_id, used.model, used.engine, used.service_tier, *_values(used.sums)))
    for cause in bill.causes:
        sql.execute(_NOTE_CAUSE, (batch_id, cause.type, cause.message, cause.requests, cause.example))


def forget_batch(sql: sqlite3.Connection, batch_id: BatchId) -> None:
    """A batch is deleted: what is left of it are sums of its workspace."""
    sql.execute("DELETE FROM batch_usage WHERE batch_id = ?", (batch_id,))
    sql.execute("DELETE FROM causes WHERE batch_id = ?", (batch_id,))


def _note(sql: sqlite3.Connection, entries: Iterable[Entry], *, now_ms: int) -> None:
    at_ms = now_ms - now_ms % _MINUTE_MS
    for entry in entries:
        used = entry.used
        key = (at_ms, entry.workspace, entry.api_key, used.model, used.engine, used.service_tier)
        sql.execute(_NOTE, (*key, *_values(used.sums)))


def _values(sums: Sums) -> tuple[int, ...]:
    return tuple(getattr(sums, name) for name in _SUMS)


def _to_sums(row: Sequence[Any]) -> Sums:
    return Sums(**dict(zip(_SUMS, row, strict=True)))


class SqliteUsage:
    """Shares the committer of the control store."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def note(self, entries: Sequence[Entry], *, now_ms: int) -> None:
        await self._committer.write(lambda sql: _note(sql, entries, now_ms=now_ms))

    async def report(self, asked: Asked) -> list[Row]:
        return await self._committer.read(lambda sql: _report(sql, asked))

    async def of_batch(self, batch_id: BatchId) -> list[Used]:
        return await self._committer.read(lambda sql: _of_batch(sql, batch_id))

    async def causes(self, batch_id: BatchId) -> list[Cause]:
        return await self._committer.read(lambda sql: _causes(sql, batch_id))

    async def spent(self, *, since_ms: int) -> Mapping[WorkspaceId, int]:
        asked = "SELECT workspace, sum(usd_nano) FROM usage WHERE at_ms >= ? GROUP BY workspace"
        return await self._committer.read(lambda sql: dict(sql.execute(asked, (since_ms,)).fetchall()))

    async def measured(self, *, since_ms: int) -> Mapping[tuple[str, str], Sums]:
        asked = f"SELECT engine, model, {_TOTALS} FROM usage WHERE at_ms >= ? GROUP BY engine, model"
        found = await self._committer.read(lambda sql: sql.execute(asked, (since_ms,)).fetchall())
        return {(row[0], row[1]): _to_sums(row[2:]) for row in found}

    async def roll_up(self, *, now_ms: int) -> int:
        return await self._committer.write(lambda sql: _roll_up(sql, now_ms))


def _report(sql: sqlite3.Connection, asked: Asked) -> list[Row]:
    by = list(asked.by)
    where, given = "at_ms >= ? AND at_ms < ?", list[Any]([asked.since_ms, asked.until_ms])
    for column, values in asked.only.items():
        where += f" AND {column} IN ({', '.join('?' * len(values))})"
        given += values
    groups = ", ".join(["bucket", *by])
    selected = ", ".join([f"at_ms - at_ms % {int(asked.width_ms)} AS bucket", *by, _TOTALS])
    found = sql.execute(f"SELECT {selected} FROM usage WHERE {where} GROUP BY {groups} ORDER BY {groups}", given)
    return [
        Row(at_ms=row[0], group=dict(zip(by, row[1:], strict=False)), sums=_to_sums(row[1 + len(by) :]))
        for row in found
    ]


def _of_batch(sql: sqlite3.Connection, batch_id: BatchId) -> list[Used]:
    found = sql.execute(
        f"SELECT model, engine, service_tier, {_COLUMNS} FROM batch_usage WHERE batch_id = ? "
        "ORDER BY usd_nano DESC, requests DESC, model, engine",
        (batch_id,),
    )
    return [Used(model=row[0], engine=row[1], service_tier=row[2], sums=_to_sums(row[3:])) for row in found]


def _causes(sql: sqlite3.Connection, batch_id: BatchId) -> list[Cause]:
    found = sql.execute(
        "SELECT type, message, requests, example FROM causes WHERE batch_id = ? "
        "ORDER BY requests DESC, type, message",
        (batch_id,),
    )
    return [Cause(type=row[0], message=row[1], requests=row[2], example=row[3]) for row in found]


def _roll_up(sql: sqlite3.Connection, now_ms: int) -> int:
    before = sql.total_changes
    (rows_before,) = sql.execute("SELECT count(*) FROM usage").fetchone()
    for width_ms, kept_ms in ((_HOUR_MS, _MINUTES_KEPT_MS), (DAY_MS, _HOURS_KEPT_MS)):
        until_ms = (now_ms - kept_ms) // width_ms * width_ms
        odd = f"at_ms < ? AND at_ms % {width_ms} != 0"
        sql.execute(
            f"INSERT INTO usage (at_ms, {_KEYS}, {_COLUMNS}) "
            f"SELECT at_ms - at_ms % {width_ms} AS bucket, {_KEYS}, {_TOTALS} FROM usage WHERE {odd} "
            f"GROUP BY bucket, {_KEYS} ON CONFLICT (at_ms, {_KEYS}) DO UPDATE SET {_ADDED}",
            (until_ms,),
        )
        sql.execute(f"DELETE FROM usage WHERE {odd}", (until_ms,))
    if sql.total_changes == before:
        return 0
    (rows_after,) = sql.execute("SELECT count(*) FROM usage").fetchone()
    return int(rows_before - rows_after)
