"""`HookStore` on SQLite, and what the end of a batch writes."""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec
from msgspec.structs import astuple

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.batch import Batch
from overnight.core.hook import Delivery, DeliveryStatus, Event, EventType, Hook
from overnight.core.usage import Sums
from overnight.errors import UsageError
from overnight.ids import WorkspaceId
from overnight.store import rows
from overnight.store.committer import Committer
from overnight.store.hooks import Due

_HOOK = ("id", "workspace", "url", "events", "created_at_ms")
_DELIVERY = Delivery.__struct_fields__
_HOOK_COLUMNS, _DELIVERY_COLUMNS = ", ".join(_HOOK), ", ".join(_DELIVERY)
_TOTALS = ", ".join(f"coalesce(sum({name}), 0)" for name in Sums.__struct_fields__)
_DUE = (
    f"SELECT {', '.join(f'deliveries.{name}' for name in _DELIVERY)}, "
    f"{', '.join(f'hooks.{name}' for name in _HOOK)}, secret "
    "FROM deliveries JOIN hooks ON hooks.id = hook_id WHERE status = 'pending' AND due_at_ms <= :now_ms "
    "AND deliveries.id NOT IN (SELECT value FROM json_each(:besides)) "
    "AND hook_id NOT IN (SELECT value FROM json_each(:besides_hooks)) ORDER BY due_at_ms LIMIT :limit"
)
_EXPIRING = (
    f"SELECT {rows.BATCH_COLUMNS} FROM batches WHERE ended_at_ms IS NULL AND expires_at_ms > :now_ms "
    "AND expires_at_ms <= :until_ms AND status = 'in_progress' "
    "AND NOT EXISTS (SELECT 1 FROM told WHERE what = 'batch.expiring ' || batches.id) "
    "AND EXISTS (SELECT 1 FROM hooks, json_each(hooks.events) "
    "WHERE hooks.workspace = batches.workspace AND value = 'batch.expiring') LIMIT :limit"
)


def note_ended(sql: sqlite3.Connection, batch: Batch, *, now_ms: int) -> None:
    """Write the deliveries of a batch's end, in the transaction that ends it and after its last bill: either it has
    ended and whoever wants to know will be told, or neither."""
    wanting = _wanting(sql, batch.workspace, "batch.ended")
    if wanting:
        found = sql.execute(f"SELECT {_TOTALS} FROM batch_usage WHERE batch_id = ?", (batch.id,)).fetchone()
        _write(
            sql,
            hooks.batch_ended(batch, Sums(**dict(zip(Sums.__struct_fields__, found, strict=True)))),
            wanting,
            now_ms=now_ms,
        )


class SqliteHooks:
    """Shares the committer of the control store."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def add(self, hook: Hook, secret: bytes) -> None:
        await self._committer.write(lambda sql: _add(sql, hook, secret))

    async def hooks(self, workspace: WorkspaceId | None = None) -> list[Hook]:
        return await self._committer.read(lambda sql: _hooks(sql, workspace))

    async def find(self, hook_id: str) -> tuple[Hook, bytes]:
        return await self._committer.read(lambda sql: _find(sql, hook_id))

    async def remove(self, hook_id: str) -> None:
        await self._committer.write(lambda sql: _remove(sql, hook_id))

    async def announce(self, event: Event, *, now_ms: int) -> bool:
        return await self._committer.write(lambda sql: _announce(sql, event, now_ms))

    async def announce_expiring(self, *, now_ms: int) -> int:
        given = {"now_ms": now_ms, "until_ms": now_ms + limits.HOOK_EXPIRING_MS, "limit": limits.UPKEEP_BATCHES_MAX}
        found = await self._committer.read(lambda sql: sql.execute(_EXPIRING, given).fetchall())
        events = [hooks.batch_expiring(rows.to_batch(row)) for row in found]
        if events:
            await self._committer.write(lambda sql: [_announce(sql, event, now_ms) for event in events])
        return len(events)

    async def due(
        self, *, now_ms: int, limit: int, besides: Collection[str] = (), besides_hooks: Collection[str] = ()
    ) -> list[Due]:
        given = {
            "now_ms": now_ms,
            "limit": limit,
            "besides": _json(besides),
            "besides_hooks": _json(besides_hooks),
        }
        found = await self._committer.read(lambda sql: sql.execute(_DUE, given).fetchall())
        return [_to_due(row) for row in found]

    async def note(self, delivery: Delivery) -> None:
        await self._committer.write(lambda sql: _save(sql, delivery))

    async def deliveries(
        self,
        *,
        workspace: WorkspaceId | None = None,
        hook_id: str | None = None,
        status: DeliveryStatus | None = None,
        limit: int,
    ) -> list[Delivery]:
        only = {"workspace": workspace, "hook_id": hook_id, "status": status}
        given = {name: value for name, value in only.items() if value is not None}
        return await self._committer.read(lambda sql: _deliveries(sql, given, limit))

    async def resend(self, delivery_id: str, *, workspace: WorkspaceId | None = None, now_ms: int) -> Delivery:
        return await self._committer.write(lambda sql: _resend(sql, delivery_id, workspace, now_ms))

    async def counts(self) -> Mapping[DeliveryStatus, int]:
        asked = "SELECT status, count(*) FROM deliveries GROUP BY status"
        found = await self._committer.read(lambda sql: dict(sql.execute(asked).fetchall()))
        return {status: found.get(status, 0) for status in get_args(DeliveryStatus)}

    async def forget(self, *, now_ms: int) -> int:
        if not await self._committer.read(lambda sql: _has_old(sql, now_ms)):
            return 0  # The common case: no write transaction, no fsync.
        return await self._committer.write(lambda sql: _forget(sql, now_ms))


def _json(names: Collection[str]) -> str:
    return msgspec.json.encode(sorted(names)).decode()


def _to_hook(row: Sequence[Any]) -> Hook:
    return Hook(
        id=row[0],
        workspace=row[1],
        url=row[2],
        events=msgspec.json.decode(row[3], type=tuple[EventType, ...]),
        created_at_ms=row[4],
    )


def _to_delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(**dict(zip(_DELIVERY, row, strict=True)))


def _to_due(row: Sequence[Any]) -> Due:
    width = len(_DELIVERY)
    return Due(_to_delivery(row[:width]), _to_hook(row[width:-1]), bytes(row[-1]))


def _add(sql: sqlite3.Connection, hook: Hook, secret: bytes) -> None:
    (count,) = sql.execute("SELECT count(*) FROM hooks WHERE workspace = ?", (hook.workspace,)).fetchone()
    if count >= limits.HOOKS_MAX:
        raise UsageError(
            f"{hook.workspace} has {count} hooks, as many as it may; remove one with `overnight hooks delete` first"
        )
    sql.execute(
        f"INSERT INTO hooks ({_HOOK_COLUMNS}, secret) VALUES (?, ?, ?, ?, ?, ?)",
        (hook.id, hook.workspace, hook.url, msgspec.json.encode(hook.events).decode(), hook.created_at_ms, secret),
    )


def _hooks(sql: sqlite3.Connection, workspace: WorkspaceId | None) -> list[Hook]:
    found = sql.execute(
        f"SELECT {_HOOK_COLUMNS} FROM hooks WHERE ?1 IS NULL OR workspace = ?1 ORDER BY created_at_ms, id",
        (workspace,),
    )
    return [_to_hook(row) for row in found]


def _wanting(sql: sqlite3.Connection, workspace: WorkspaceId, event: EventType) -> list[Hook]:
    return [hook for hook in _hooks(sql, workspace) if event in hook.events]


def _find(sql: sqlite3.Connection, hook_id: str) -> tuple[Hook, bytes]:
    row = sql.execute(f"SELECT {_HOOK_COLUMNS}, secret FROM hooks WHERE id = ?", (hook_id,)).fetchone()
    if row is None:
        raise UsageError(f"there is no hook {hook_id[:80]!r}; `overnight hooks list` lists them")
    return _to_hook(row[:-1]), bytes(row[-1])


def _remove(sql: sqlite3.Connection, hook_id: str) -> None:
    _find(sql, hook_id)
    sql.execute("DELETE FROM deliveries WHERE hook_id = ?", (hook_id,))
    sql.execute("DELETE FROM hooks WHERE id = ?", (hook_id,))


def _announce(sql: sqlite3.Connection, event: Event, now_ms: int) -> bool:
    told = sql.execute("INSERT OR IGNORE INTO told (what, at_ms) VALUES (?, ?)", (event.what, now_ms))
    if told.rowcount == 0:
        return False
    _write(sql, event, _wanting(sql, event.workspace, event.type), now_ms=now_ms)
    return True


def _write(sql: sqlite3.Connection, event: Event, wanting: Iterable[Hook], *, now_ms: int) -> None:
    places = ", ".join("?" * len(_DELIVERY))
    sql.executemany(
        f"INSERT OR IGNORE INTO deliveries ({_DELIVERY_COLUMNS}) VALUES ({places})",
        (astuple(hooks.delivery(event, hook, now_ms=now_ms)) for hook in wanting),
    )


def _save(sql: sqlite3.Connection, item: Delivery) -> None:
    sql.execute(
        "UPDATE deliveries SET status = ?, attempts = ?, due_at_ms = ?, ended_at_ms = ?, trouble = ? WHERE id = ?",
        (item.status, item.attempts, item.due_at_ms, item.ended_at_ms, item.trouble, item.id),
    )


def _deliveries(sql: sqlite3.Connection, only: Mapping[str, str], limit: int) -> list[Delivery]:
    where = " AND ".join(f"{column} = :{column}" for column in only) or "TRUE"
    found = sql.execute(
        f"SELECT {_DELIVERY_COLUMNS} FROM deliveries WHERE {where} ORDER BY created_at_ms DESC, id LIMIT :limit",
        {**only, "limit": min(limit, limits.DELIVERIES_LIST_MAX)},
    )
    return [_to_delivery(row) for row in found]


def _resend(sql: sqlite3.Connection, delivery_id: str, workspace: WorkspaceId | None, now_ms: int) -> Delivery:
    row = sql.execute(
        f"SELECT {_DELIVERY_COLUMNS} FROM deliveries WHERE id = ?1 AND (?2 IS NULL OR workspace = ?2)",
        (delivery_id, workspace),
    ).fetchone()
    if row is None:
        raise UsageError(f"there is no delivery {delivery_id[:80]!r}; `overnight hooks deliveries` lists them")
    again = hooks.sent_again(_to_delivery(row), now_ms=now_ms)
    _save(sql, again)
    return again


_OLD = "deliveries WHERE status != 'pending' AND ended_at_ms <= ?"
_OLD_TOLD = "told WHERE at_ms <= ?"


def _old(now_ms: int) -> tuple[int, int]:
    return now_ms - limits.DELIVERIES_LIFETIME_MS, now_ms - limits.TOLD_LIFETIME_MS


def _has_old(sql: sqlite3.Connection, now_ms: int) -> bool:
    asked = f"SELECT EXISTS (SELECT 1 FROM {_OLD}) OR EXISTS (SELECT 1 FROM {_OLD_TOLD})"
    (has_old,) = sql.execute(asked, _old(now_ms)).fetchone()
    return bool(has_old)


def _forget(sql: sqlite3.Connection, now_ms: int) -> int:
    ended_ms, told_ms = _old(now_ms)
    gone = sql.execute(f"DELETE FROM {_OLD}", (ended_ms,))
    sql.execute(f"DELETE FROM {_OLD_TOLD}", (told_ms,))
    return gone.rowcount
