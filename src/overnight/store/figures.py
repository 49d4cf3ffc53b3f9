"""How much is open, and how old it is: for metrics, never for decisions."""

import sqlite3
from collections.abc import Mapping

from msgspec import Struct

from overnight.ids import WorkspaceId


class Open(Struct, frozen=True, kw_only=True):
    """What one workspace has unfinished."""

    batches: int
    requests: int  # Without a sealed result.
    oldest_created_at_ms: int
    nearest_expires_at_ms: int


class Figures(Struct, frozen=True, kw_only=True):
    """Everything, of one moment."""

    open: Mapping[WorkspaceId, Open]  # Of workspaces that have anything unfinished.
    hooks_pending: int  # Deliveries that are still tried.
    hooks_dead: int  # Deliveries that were given up and not removed yet.


_OPEN = """
    SELECT workspace, count(*), sum(requests - succeeded - errored - canceled - expired),
        min(created_at_ms), min(expires_at_ms)
    FROM batches WHERE ended_at_ms IS NULL GROUP BY workspace
"""


def figures(sql: sqlite3.Connection) -> Figures:
    """Grows with unfinished batches and kept deliveries."""
    (pending,) = sql.execute("SELECT count(*) FROM deliveries WHERE status = 'pending'").fetchone()
    (dead,) = sql.execute("SELECT count(*) FROM deliveries WHERE status = 'dead'").fetchone()
    return Figures(
        open={
            WorkspaceId(workspace): Open(
                batches=batches, requests=requests, oldest_created_at_ms=created, nearest_expires_at_ms=expires
            )
            for workspace, batches, requests, created, expires in sql.execute(_OPEN)
        },
        hooks_pending=pending,
        hooks_dead=dead,
    )
