"""A user's database behind an SQLAlchemy URL: how it is reached, and whose fault its errors are."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from overnight.errors import JobError, OvernightError, ServerTrouble
from overnight.jobs.secret import resolved, shown


class Database:
    """One database. Each transaction has a connection of its own: a night is longer than a server keeps idle ones."""

    def __init__(self, setting: str, *, home: Path, environment: Mapping[str, str], where: str) -> None:
        """`setting` is a URL or `env:NAME`; an SQLite path counts from `home`. `where` begins each message.

        JobError if it is no URL, needs a driver that is not installed, or is an SQLite file that does not exist.
        """
        self._where = where
        url = _url_of(resolved(setting, environment), home, where)
        self._engine = _engine_of(url, where)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction: durable on leaving, undone on an error. JobError where the database refuses a statement,
        ServerTrouble where it cannot be reached or is lost on the way."""
        self._check_file()
        with self.errors(), self._engine.begin() as connection:
            yield connection

    def _check_file(self) -> None:
        """An SQLite file that was there at first and is gone: SQLite would make an empty one, without the tables."""
        url = self._engine.url
        if _is_file(url) and not Path(str(url.database)).is_file():
            raise ServerTrouble(f"{self._where} db: the SQLite file {url.database} is gone")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns the errors of SQLAlchemy into ours, without a password."""
        try:
            yield
        except SQLAlchemyError as error:
            raise _ours(error, self._engine.url, self._where) from None  # The cause shows what it was called with.

    @contextmanager
    def rehearsal(self) -> Iterator[Connection]:
        """A transaction that is always undone."""
        with self.errors(), self._engine.connect() as connection:
            yield connection


def _url_of(text: str, home: Path, where: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise JobError(f"{where} db is no database URL, such as postgresql://user:password@host/name") from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if _is_file(url):
        file = home / str(url.database)
        if not file.is_file():  # Else SQLite makes an empty one.
            raise JobError(f"{where} db: there is no SQLite file {file}")
        return url.set(database=str(file))
    return url


def _is_file(url: URL) -> bool:
    """Whether it is SQLite in a file with a path, not in memory and not by a URI of SQLite."""
    name = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and name != ":memory:" and not name.startswith("file:")


def _engine_of(url: URL, where: str) -> Engine:
    try:
        return create_engine(url, poolclass=NullPool, hide_parameters=True)
    except ModuleNotFoundError as error:
        package = "'overnight[postgres]'" if error.name == "psycopg" else error.name
        raise JobError(f"{where} db: {shown(url)} needs a driver: pip install {package}") from error
    except (NoSuchModuleError, ArgumentError) as error:
        raise JobError(f"{where} db: SQLAlchemy knows no database {url.drivername!r}") from error


def _ours(error: SQLAlchemyError, url: URL, where: str) -> OvernightError:
    reason = _without_passwords(str(error.orig if isinstance(error, DBAPIError) else error), url)
    kind = ServerTrouble if isinstance(error, DBAPIError) and _is_trouble(error) else JobError
    return kind(f"{where} {shown(url)}: {reason}")


def _is_trouble(error: DBAPIError) -> bool:
    """Whether the database is the matter, not the statement. SQLite says OperationalError of both."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return isinstance(error, OperationalError) and code != sqlite3.SQLITE_ERROR
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def _without_passwords(reason: str, url: URL) -> str:
    secrets = [url.password, *(value for name, value in url.query.items() if "pass" in name.lower())]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            reason = reason.replace(secret, "***")
    return " ".join(reason.split())
