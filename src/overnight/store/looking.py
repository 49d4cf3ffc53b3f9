"""The statements for those who look at single requests and results: where they lie, segment by segment."""

import sqlite3

from overnight.ids import BatchId
from overnight.store.control import SealedResults, Stored, StoredSegment

_SEGMENTS = """
    SELECT position, requests, raw_bytes, offset, length, is_sealed,
    result_length, result_raw_bytes, result_crc, result_key FROM segments WHERE batch_id = ? ORDER BY position
"""


def stored(sql: sqlite3.Connection, batch_id: BatchId) -> Stored | None:
    """Where the requests and results of a batch lie. No bytes are read."""
    row = sql.execute("SELECT requests_key FROM batches WHERE id = ?", (batch_id,)).fetchone()
    if row is None:
        return None
    segments = [
        StoredSegment(
            position=position,
            requests=requests,
            raw_bytes=raw_bytes,
            offset=offset,
            length=length,
            results=SealedResults(length=result[0], raw_bytes=result[1], crc=result[2], key=result[3])
            if is_sealed
            else None,
        )
        for position, requests, raw_bytes, offset, length, is_sealed, *result in sql.execute(_SEGMENTS, (batch_id,))
    ]
    return Stored(requests_key=row[0], segments=segments)


def inline(sql: sqlite3.Connection, batch_id: BatchId, position: int) -> tuple[bytes | None, bytes | None]:
    """The members of a segment that live in its row: requests, results."""
    row = sql.execute(
        "SELECT requests_inline, result_inline FROM segments WHERE batch_id = ? AND position = ?",
        (batch_id, position),
    ).fetchone()
    return (None, None) if row is None else (row[0], row[1])
