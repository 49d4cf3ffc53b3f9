"""The statements about handoffs: batches of an upstream, and which segments their requests are from."""

import sqlite3
from collections.abc import Sequence

from overnight.core.handoff import Handoff, Outstanding, Part
from overnight.core.lease import SegmentRef


def intend(sql: sqlite3.Connection, handoff: Handoff, parts: Sequence[Part]) -> None:
    """Insert a handoff with its parts."""
    sql.execute(
        "INSERT INTO handoffs (id, engine, requests, created_at_ms, upstream_id) VALUES (?, ?, ?, ?, ?)",
        (handoff.id, handoff.engine, handoff.requests, handoff.created_at_ms, handoff.upstream_id),
    )
    sql.executemany(
        "INSERT INTO handoff_parts (handoff_id, batch_id, position, members) VALUES (?, ?, ?, ?)",
        ((handoff.id, part.segment.batch_id, part.segment.index, part.members) for part in parts),
    )


def submitted(sql: sqlite3.Connection, handoff_id: str, upstream_id: str) -> None:
    """Note which batch of the upstream it is."""
    sql.execute("UPDATE handoffs SET upstream_id = ? WHERE id = ?", (upstream_id, handoff_id))


def outstanding(sql: sqlite3.Connection, engine: str) -> list[Outstanding]:
    """All handoffs of an engine, oldest first. A segment that is gone with its batch counts as sealed."""
    parts: dict[str, list[Part]] = {}
    found = sql.execute(
        "SELECT handoff_id, batch_id, position, members FROM handoff_parts JOIN handoffs ON id = handoff_id "
        "JOIN segments USING (batch_id, position) WHERE engine = ? AND is_sealed = 0 ORDER BY batch_id, position",
        (engine,),
    )
    for handoff_id, batch_id, position, members in found:
        parts.setdefault(handoff_id, []).append(Part(SegmentRef(batch_id, position), members))
    rows = sql.execute(
        "SELECT id, engine, requests, created_at_ms, upstream_id FROM handoffs WHERE engine = ? "
        "ORDER BY created_at_ms, id",
        (engine,),
    )
    return [Outstanding(_to_handoff(*row), parts.get(row[0], [])) for row in rows]


def open_parts(sql: sqlite3.Connection, handoff_id: str) -> list[SegmentRef]:
    """Which of its segments are not sealed."""
    found = sql.execute(
        "SELECT batch_id, position FROM handoff_parts JOIN segments USING (batch_id, position) "
        "WHERE handoff_id = ? AND is_sealed = 0",
        (handoff_id,),
    )
    return [SegmentRef(batch_id, position) for batch_id, position in found]


def forget(sql: sqlite3.Connection, handoff_id: str) -> None:
    """Remove a handoff and its parts."""
    sql.execute("DELETE FROM handoff_parts WHERE handoff_id = ?", (handoff_id,))
    sql.execute("DELETE FROM handoffs WHERE id = ?", (handoff_id,))


def _to_handoff(handoff_id: str, engine: str, requests: int, created_at_ms: int, upstream_id: str | None) -> Handoff:
    return Handoff(
        id=handoff_id, engine=engine, requests=requests, created_at_ms=created_at_ms, upstream_id=upstream_id
    )
