"""What removed rows leave behind, and how it goes.

Three places. Rows of others that name a batch: deliveries of hooks. The write-ahead log, which keeps every page as it
was until it is overwritten, perhaps never (https://www.sqlite.org/wal.html): it is emptied. And the unused middle of
pages: `secure_delete` overwrites a removed cell, but not the copies that moving cells between pages has left behind
(seen in one of twenty runs of random changes, tests/unit/store/test_store_scrubbing.py): only VACUUM makes new pages.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from overnight import limits

_FORGET_DELIVERIES = """
    DELETE FROM deliveries WHERE event LIKE 'batch.%'
    AND NOT EXISTS (SELECT 1 FROM batches WHERE batches.id = json_extract(CAST(body AS TEXT), '$.data.id'))
"""
_FORGET_TOLD = """
    DELETE FROM told WHERE what LIKE 'batch.% %'
    AND NOT EXISTS (SELECT 1 FROM batches WHERE batches.id = substr(what, instr(what, ' ') + 1))
"""


def forget_events(sql: sqlite3.Connection) -> None:
    """Remove events of batches that are gone, also those that nobody was told yet: what is deleted goes nowhere."""
    sql.execute(_FORGET_DELIVERIES)
    sql.execute(_FORGET_TOLD)


def scrub(sql: sqlite3.Connection) -> bool:
    """Write the log into the database and empty it. Outside of a transaction. Whether no reader was in the way."""
    with _not_waiting(sql):
        (is_busy, _, _) = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not is_busy


def repack(sql: sqlite3.Connection) -> bool:
    """Make all pages anew. Outside of a transaction. Whether no writer was in the way. A database beyond
    `limits.REPACK_BYTES_MAX` stays as it is: that would hold up everybody for too long."""
    if _bytes(sql) > limits.REPACK_BYTES_MAX:
        return True
    with _not_waiting(sql):
        try:
            sql.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            raise
    return True


def _bytes(sql: sqlite3.Connection) -> int:
    (pages,), (page_bytes,) = (sql.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return int(pages * page_bytes)


@contextmanager
def _not_waiting(sql: sqlite3.Connection) -> Iterator[None]:
    """Who is in the way is met again in the next pass: waiting here would hold up all others."""
    (timeout_ms,) = sql.execute("PRAGMA busy_timeout").fetchone()
    sql.execute("PRAGMA busy_timeout=0")
    sql.execute("PRAGMA temp_store=MEMORY")  # What VACUUM builds is on no other disk, not even for a moment.
    try:
        yield
    finally:
        sql.execute(f"PRAGMA busy_timeout={timeout_ms}")
