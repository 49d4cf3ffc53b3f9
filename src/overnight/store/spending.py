"""The statements about spending: what an engine with a budget has cost, by day."""

import sqlite3


def spent(sql: sqlite3.Connection, engine: str, day: str) -> int:
    """Millionths of a US dollar; 0 if nothing is noted."""
    row = sql.execute("SELECT usd_micro FROM spending WHERE engine = ? AND day = ?", (engine, day)).fetchone()
    return 0 if row is None else int(row[0])


def note_spent(sql: sqlite3.Connection, engine: str, day: str, usd_micro: int) -> None:
    """Replace what is noted."""
    sql.execute(
        "INSERT INTO spending (engine, day, usd_micro) VALUES (?, ?, ?) "
        "ON CONFLICT (engine, day) DO UPDATE SET usd_micro = excluded.usd_micro",
        (engine, day, usd_micro),
    )
