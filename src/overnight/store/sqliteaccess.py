"""`AccessStore` on SQLite."""

import sqlite3
from typing import Any

import msgspec
from msgspec.structs import replace

from overnight.core.workspace import DEFAULT, Access, Key, Rules, Workspace
from overnight.errors import UsageError
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.store.committer import Committer

_KEY_COLUMNS = "id, sha256, hint, name, workspace, role, created_at_ms, expires_at_ms, revoked_at_ms"


class SqliteAccess:
    """Shares the committer, and with it the thread and the commits, of the control store."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def access(self, *, known: int = 0) -> Access | None:
        return await self._committer.read(lambda sql: _access(sql, known))

    async def add_workspace(self, workspace: Workspace) -> None:
        await self._committer.write(lambda sql: _add_workspace(sql, workspace))

    async def set_rules(self, workspace: WorkspaceId, rules: Rules) -> None:
        await self._committer.write(lambda sql: _save(sql, replace(_workspace(sql, workspace), rules=rules)))

    async def archive_workspace(self, workspace: WorkspaceId, *, now_ms: int) -> None:
        await self._committer.write(lambda sql: _archive(sql, workspace, now_ms))

    async def add_key(self, key: Key) -> None:
        await self._committer.write(lambda sql: _add_key(sql, key))

    async def revoke_key(self, key_id: str, *, now_ms: int) -> Key:
        return await self._committer.write(lambda sql: _revoke(sql, key_id, now_ms))

    async def replace_key(self, key_id: str, by: Key, *, until_ms: int) -> None:
        await self._committer.write(lambda sql: _replace(sql, key_id, by, until_ms))

    async def secret(self, name: str, proposed: bytes) -> bytes:
        return await self._committer.write(lambda sql: _secret(sql, name, proposed))


def _access(sql: sqlite3.Connection, known: int) -> Access | None:
    (revision,) = sql.execute("SELECT revision FROM access").fetchone()
    if revision == known:
        return None
    found = sql.execute(
        "SELECT id, name, rules, created_at_ms, archived_at_ms FROM workspaces ORDER BY created_at_ms DESC"
    )
    workspaces = [_to_workspace(row) for row in found]
    own = next((item for item in workspaces if item.id == DEFAULT_WORKSPACE), DEFAULT)
    keys = sql.execute(f"SELECT {_KEY_COLUMNS} FROM keys ORDER BY created_at_ms DESC, id")
    return Access(
        revision=revision,
        workspaces=[own, *(item for item in workspaces if item.id != DEFAULT_WORKSPACE)],
        keys=[_to_key(row) for row in keys],
    )


def _to_workspace(row: Any) -> Workspace:
    return Workspace(
        id=row[0],
        name=row[1],
        rules=msgspec.json.decode(row[2], type=Rules),
        created_at_ms=row[3],
        archived_at_ms=row[4],
    )


def _to_key(row: Any) -> Key:
    return Key(**dict(zip(Key.__struct_fields__, row, strict=True)))


def _workspace(sql: sqlite3.Connection, workspace: WorkspaceId) -> Workspace:
    row = sql.execute(
        "SELECT id, name, rules, created_at_ms, archived_at_ms FROM workspaces WHERE id = ?", (workspace,)
    ).fetchone()
    if row is not None:
        return _to_workspace(row)
    if workspace == DEFAULT_WORKSPACE:
        return DEFAULT
    raise UsageError(f"there is no workspace {workspace}; `overnight workspaces list` lists them")


def _save(sql: sqlite3.Connection, item: Workspace) -> None:
    sql.execute(
        "INSERT INTO workspaces (id, name, rules, created_at_ms, archived_at_ms) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET rules = excluded.rules, archived_at_ms = excluded.archived_at_ms",
        (item.id, item.name, msgspec.json.encode(item.rules).decode(), item.created_at_ms, item.archived_at_ms),
    )
    _changed(sql)


def _changed(sql: sqlite3.Connection) -> None:
    sql.execute("UPDATE access SET revision = revision + 1")


def _add_workspace(sql: sqlite3.Connection, workspace: Workspace) -> None:
    taken = sql.execute(
        "SELECT id FROM workspaces WHERE id = ? OR name = ?", (workspace.id, workspace.name)
    ).fetchone()
    if taken is not None or DEFAULT.name == workspace.name or DEFAULT.id == workspace.id:
        raise UsageError(f"there is a workspace {workspace.name!r} already; choose another name")
    _save(sql, workspace)


def _archive(sql: sqlite3.Connection, workspace: WorkspaceId, now_ms: int) -> None:
    if workspace == DEFAULT_WORKSPACE:
        raise UsageError("the default workspace cannot be archived; revoke its keys instead")
    found = _workspace(sql, workspace)
    if found.archived_at_ms is None:
        _save(sql, replace(found, archived_at_ms=now_ms))


def _add_key(sql: sqlite3.Connection, key: Key) -> None:
    if _workspace(sql, key.workspace).archived_at_ms is not None:
        raise UsageError(f"the workspace {key.workspace} is archived; a key of it would open nothing")
    sql.execute(
        f"INSERT INTO keys ({_KEY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tuple(getattr(key, name) for name in Key.__struct_fields__),
    )
    _changed(sql)


def _key(sql: sqlite3.Connection, key_id: str) -> Key:
    row = sql.execute(f"SELECT {_KEY_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()
    if row is None:
        raise UsageError(f"there is no key {key_id[:80]!r}; `overnight keys list` lists them")
    return _to_key(row)


def _revoke(sql: sqlite3.Connection, key_id: str, now_ms: int) -> Key:
    found = _key(sql, key_id)
    if found.revoked_at_ms is not None:
        return found
    sql.execute("UPDATE keys SET revoked_at_ms = ? WHERE id = ?", (now_ms, key_id))
    _changed(sql)
    return replace(found, revoked_at_ms=now_ms)


def _replace(sql: sqlite3.Connection, key_id: str, by: Key, until_ms: int) -> None:
    found = _key(sql, key_id)
    if not found.opens(now_ms=by.created_at_ms):
        raise UsageError(f"the key {key_id} opens nothing any more; make a new one with `overnight keys create`")
    ends_ms = until_ms if found.expires_at_ms is None else min(found.expires_at_ms, until_ms)
    sql.execute("UPDATE keys SET expires_at_ms = ? WHERE id = ?", (ends_ms, key_id))
    _add_key(sql, by)


def _secret(sql: sqlite3.Connection, name: str, proposed: bytes) -> bytes:
    sql.execute("INSERT OR IGNORE INTO secrets (name, value) VALUES (?, ?)", (name, proposed))
    (kept,) = sql.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return bytes(kept)
