"""The ledger of a job: what was intended, what a server said, what became of every row. Opening it, and its lock.

SQLite beside the job file by default, with WAL and `synchronous=FULL`: a transaction that returned survives a crash
and a loss of power. It holds prompts and answers, so its file is for its owner alone.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, delete, event, exc, insert, inspect, select, update
from sqlalchemy.engine import URL, Engine, make_url

from overnight import limits
from overnight.errors import JobError, JobHeld, StoreError
from overnight.jobs import tables
from overnight.jobs.secret import shown
from overnight.jobs.tables import locks


class Ledger:
    """One database. Every `with ledger.begin()` is one transaction."""

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self.where = where

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction; what it did is durable when it ends. StoreError if the database cannot do it."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except exc.OperationalError as error:
            raise StoreError(f"the ledger {self.where}: {error.orig}") from error

    def close(self) -> None:
        """Give back its connections."""
        self._engine.dispose()


def path_of(home: Path, job: str) -> Path:
    """The ledger of a job whose file lies in `home`: a reboot clears no directory there."""
    return home / ".overnight" / f"{job}.db"


def at(path: Path) -> Ledger:
    """The SQLite ledger at `path`, made if it is missing, mode 0600 in a directory of mode 0700."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
        os.close(descriptor)
    except OSError as error:
        raise StoreError(f"the ledger {path}: {error.strerror}") from error
    url = URL.create("sqlite", database=str(path))  # Not a text: a path may have a "?".
    engine = create_engine(url, connect_args={"timeout": 60}, hide_parameters=True)
    event.listen(engine, "connect", _durable)
    event.listen(engine, "begin", _immediate)
    return _opened(engine, str(path))


def of_url(text: str, *, home: Path) -> Ledger:
    """A ledger in any database that SQLAlchemy knows; an SQLite path counts from `home`, and is as `at` makes it.

    JobError if `text` is no URL, or needs a driver that is not installed.
    """
    try:
        url = make_url(text)
        if url.get_backend_name() == "sqlite" and url.database:
            return at(home / url.database)
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise JobError(f"[ledger] url: {shown(text)} needs a driver: pip install {error.name}") from error
    except (exc.ArgumentError, ValueError):  # Its message may quote a password.
        raise JobError(f"[ledger] url: SQLAlchemy cannot use {shown(text)}") from None
    return _opened(engine, shown(url))


def _opened(engine: Engine, where: str) -> Ledger:
    with ExitStack() as undo:
        undo.callback(engine.dispose)
        ledger = Ledger(engine, where)
        try:
            with ledger.begin() as connection:
                tables.metadata.create_all(connection)
            missing = _missing(engine)
        except exc.SQLAlchemyError as error:
            raise StoreError(f"the ledger {where} cannot be opened: {getattr(error, 'orig', error)}") from error
        if missing:
            raise StoreError(f"the ledger {where} was made by another version: it lacks {', '.join(missing)}")
        undo.pop_all()
    return ledger


def _missing(engine: Engine) -> list[str]:
    return [
        f"{table.name}.{column.name}"
        for table in tables.metadata.sorted_tables
        for column in table.columns
        if column.name not in {found["name"] for found in inspect(engine).get_columns(table.name)}
    ]


def _durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN below is the only one.
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # A deferred one that begins to write may fail without waiting.


def take(ledger: Ledger, job: str, holder: str, now_ms: int, *, is_alive: Any) -> None:
    """Take the lock of a job, or renew it. JobHeld if somebody else works on it.

    `is_alive(holder)`: False if it is known that a holder is gone, so that a crash costs no wait.
    """
    until = float(now_ms + limits.JOB_LOCK_TTL_MS)
    found = select(locks.c.holder, locks.c.until_ms).where(locks.c.job == job).with_for_update()
    try:
        with ledger.begin() as connection:
            row = connection.execute(found).first()
            if row is None:
                connection.execute(insert(locks).values(job=job, holder=holder, until_ms=until))
                return
            if row.holder != holder and row.until_ms > now_ms and is_alive(row.holder):
                raise JobHeld(f"{job} is being worked on by {row.holder}")
            connection.execute(update(locks).where(locks.c.job == job).values(holder=holder, until_ms=until))
    except exc.IntegrityError as error:  # SQLite locks the database; others let two insert at once.
        raise JobHeld(f"{job} was taken by another process at this moment") from error


def renew(connection: Connection, job: str, holder: str, now_ms: int) -> None:
    """Prove within a transaction that the lock is still ours, and for how long. JobHeld if it was lost."""
    until = float(now_ms + limits.JOB_LOCK_TTL_MS)
    mine = (locks.c.job == job) & (locks.c.holder == holder)
    if connection.execute(update(locks).where(mine).values(until_ms=until)).rowcount != 1:
        raise JobHeld(f"{job} was taken over by another process while this one stood still")


def give_back(ledger: Ledger, job: str, holder: str) -> None:
    """Free the lock, if it is ours."""
    with ledger.begin() as connection:
        connection.execute(delete(locks).where((locks.c.job == job) & (locks.c.holder == holder)))
