"""Answers into a database, by the user's own guarded statements. Into a file: `jobs.outfile`."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.engine import Connection

from overnight.errors import JobError
from overnight.jobs import jobfile
from overnight.jobs.database import Database
from overnight.jobs.row import Answer

WHERE = "[sink]"
ALWAYS = frozenset({"key", "custom_id", "state", "error", "now"})
INTEGER_END = 2**63  # The first that SQLite and a bigint cannot hold.


class Sink(Protocol):
    """A place that takes the answers of a run, some at a time."""

    def write(self, answers: Sequence[Answer], now: str) -> int:
        """Write `answers`, all or none, with `now`, a time in ISO 8601. Returns how many rows changed.

        Durable on return. Writing the same once more changes nothing.
        """
        ...


class _Statement:
    """One statement of the job file, and the names it binds."""

    def __init__(self, setting: str, sql: str) -> None:
        self.setting = setting
        self._text = text(sql)
        self._needs = self._text.compile().params.keys()

    def check(self, names: Collection[str]) -> None:
        """JobError for a name that is not among `names`."""
        for name in sorted(self._needs - ALWAYS):
            if name not in names:
                raise JobError(
                    f"{WHERE} {self.setting} names :{name}, which no answer has; there is "
                    f"{', '.join(sorted({*names, *ALWAYS}))}. A colon that begins no name is written \\:"
                )

    def values(self, answer: Answer, now: str) -> dict[str, Any]:
        names = {**answer.names, "now": now}
        return {name: _bindable(names.get(name)) for name in self._needs}

    def run(self, connection: Connection, values: Sequence[dict[str, Any]]) -> int:
        """How many rows changed. A driver that does not count says -1, which is none."""
        return max(0, connection.execute(self._text, values).rowcount) if values else 0


class SqlSink:
    """Writes to a database: `sql` for each row that succeeded, `on_error` for each other one.

    A statement names what it needs: `:now`, and everything in `Answer.names`; what a single answer does not have is
    NULL. Values are bound and never become SQL, lists and objects as JSON text. That a repeat changes nothing is the
    doing of the statement: of its `where` (`… and category is null`), or `on conflict do nothing`.
    """

    def __init__(
        self, settings: jobfile.Sink, *, home: Path, environment: Mapping[str, str], names: Collection[str] = ()
    ) -> None:
        """`names` are the fields, derived columns and columns of the source that answers of this job may have.

        With them a statement that names anything else is a JobError here, before money is spent; without them it is
        one at the first `write`. The database is not reached for yet.
        """
        if not settings.db or not settings.sql:
            raise JobError(f"{WHERE} needs both db and sql to write to a database")
        self._database = Database(settings.db, home=home, environment=environment, where=WHERE)
        self._sql = _Statement("sql", settings.sql)
        self._on_error = _Statement("on_error", settings.on_error) if settings.on_error else None
        self._names = frozenset(names)
        if names:
            self._sql.check(names)
            if self._on_error:
                self._on_error.check(names)

    def write(self, answers: Sequence[Answer], now: str) -> int:
        """As `Sink` says, in one transaction. ServerTrouble where the database is away or lost on the way; JobError,
        with the key of the row, where it refuses a row."""
        work = self._work(answers)
        try:
            with self._database.transaction() as connection:
                return sum(
                    statement.run(connection, [statement.values(answer, now) for answer in part])
                    for statement, part in work
                )
        except JobError as error:
            raise self._with_key(error, work, now) from None

    def _work(self, answers: Sequence[Answer]) -> list[tuple[_Statement, list[Answer]]]:
        succeeded = [answer for answer in answers if answer.state == "succeeded"]
        others = [answer for answer in answers if answer.state != "succeeded"]
        parts = [(self._sql, succeeded), *([(self._on_error, others)] if self._on_error else [])]
        for statement, part in parts:
            if part:
                statement.check(self._names or {name for answer in part for name in answer.names})
        return parts

    def _with_key(self, error: JobError, work: list[tuple[_Statement, list[Answer]]], now: str) -> JobError:
        """A write of many does not say which row it failed at; one by one, and undone, it does."""
        with self._database.rehearsal() as connection:
            for statement, answer in ((statement, answer) for statement, part in work for answer in part):
                try:
                    with self._database.errors():
                        statement.run(connection, [statement.values(answer, now)])
                except JobError as found:
                    return JobError(f"{found} ({statement.setting} at the row {answer.key!r})")
        return error


def _bindable(value: Any) -> Any:
    match value:
        case list() | dict() | tuple():
            return json.dumps(value, ensure_ascii=False)
        case int() if abs(value) >= INTEGER_END:
            return str(value)  # As a number SQLite's driver raises OverflowError; a numeric column takes the text.
        case _:
            return value
