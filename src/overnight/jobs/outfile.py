"""Answers into one file, whole or not at all: CSV, Parquet or JSONL. The file is made anew each time."""

import csv
import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import duckdb

from overnight import limits
from overnight.errors import DiskFull, JobError
from overnight.jobs.row import Answer
from overnight.jobs.sink import INTEGER_END, WHERE
from overnight.jobs.source import OFFLINE
from overnight.ports.files import replace_durably

# What a spreadsheet takes for a formula at the begin of a cell (https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class FileSink:
    """Writes the file of a job: the columns of the source, then fields and derived columns, then `state`, `error`.

    A field hides a column of the same name. Parquet and JSONL hold values as they are. In CSV, lists and objects are
    JSON, and a text of an answer that a spreadsheet would run as a formula begins with an apostrophe: nobody may run
    anything on the desk of whoever opens the answers by writing a ticket. Columns of the source stay as they were.
    """

    def __init__(self, path: Path) -> None:
        """JobError if the suffix is none of .csv, .parquet, .jsonl."""
        self._path = path
        self._spool = path.with_name(f".{path.name}.rows")
        self._part = path.with_name(f".{path.name}.part")
        if path.suffix.lower() not in _FORMATS:
            raise JobError(f"{WHERE} file: {path} must end in one of {', '.join(_FORMATS)}")
        self._format = _FORMATS[path.suffix.lower()]

    def write_whole(self, answers: Iterable[Answer]) -> int:
        """Write `answers`, in their order, in the place of what was there. Returns how many.

        On return the file is complete and durable; on an error it is what it was. Memory does not grow with the
        number of rows. JobError if the file cannot be written, DiskFull if there is no room.
        """
        with _errors(self._path):
            try:
                count, columns = _spooled(answers, self._spool)
                self._format(self._spool, self._part, columns)
                replace_durably(self._part, self._path)
            finally:
                self._spool.unlink(missing_ok=True)
                self._part.unlink(missing_ok=True)
        return count


class _Columns(NamedTuple):
    """The columns of the file by origin, each with the kinds of its values; they are known after the last row."""

    source: dict[str, set[type]]
    answer: dict[str, set[type]]


def _spooled(answers: Iterable[Answer], spool: Path) -> tuple[int, _Columns]:
    count, columns = 0, _Columns({}, {})
    with spool.open("w", encoding="utf-8") as file:
        for answer in answers:
            count += 1
            _note(columns.source, answer.columns)
            _note(columns.answer, answer.fields)
            own = {**answer.fields, "state": answer.state, "error": answer.error}
            file.write(json.dumps([dict(answer.columns), own]) + "\n")
    for name in ("state", "error"):  # Last, also where a field has that name.
        columns.answer.pop(name, None)
        columns.answer[name] = {str}
    for name in columns.answer:
        columns.source.pop(name, None)
    return count, columns


def _note(kinds: dict[str, set[type]], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        known = kinds.setdefault(name, set())
        if value is not None:
            # A larger one has no column type, so that it makes a text of its column.
            known.add(str if type(value) is int and abs(value) >= INTEGER_END else type(value))


def _rows(spool: Path, columns: _Columns) -> Iterator[dict[str, Any]]:
    with spool.open(encoding="utf-8") as file:
        for line in file:
            source, own = json.loads(line)
            yield {name: source.get(name) for name in columns.source} | {
                name: own.get(name) for name in columns.answer
            }


def _write_csv(spool: Path, target: Path, columns: _Columns) -> None:
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns.source, *columns.answer])
        for row in _rows(spool, columns):
            writer.writerow([_cell(value, is_ours=name in columns.answer) for name, value in row.items()])


def _cell(value: Any, *, is_ours: bool) -> Any:
    match value:
        case str():
            return "'" + value if is_ours and value.startswith(FORMULA) else value
        case bool() | list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value


def _write_jsonl(spool: Path, target: Path, columns: _Columns) -> None:
    with target.open("w", encoding="utf-8") as file:
        for row in _rows(spool, columns):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_parquet(spool: Path, target: Path, columns: _Columns) -> None:
    lines = spool.with_suffix(".lines")
    try:
        _write_jsonl(spool, lines, columns)
        types = {name: _parquet_type(kinds) for name, kinds in (columns.source | columns.answer).items()}
        with duckdb.connect(":memory:", config={**OFFLINE, "threads": 1}) as connection:
            connection.read_json(
                str(lines),
                columns=types,
                format="newline_delimited",
                maximum_object_size=limits.JOB_LINE_BYTES_MAX,
            ).write_parquet(str(target), compression="zstd")
    finally:
        lines.unlink(missing_ok=True)


def _parquet_type(kinds: set[type]) -> str:
    """Text where kinds differ; what is no single value is its JSON."""
    for types, name in (({bool}, "BOOLEAN"), ({int}, "BIGINT"), ({int, float}, "DOUBLE")):
        if kinds and kinds <= types:
            return name
    return "VARCHAR"


_Format: TypeAlias = Callable[[Path, Path, _Columns], None]
_FORMATS: dict[str, _Format] = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_jsonl}


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room for {path}: the answers are kept; make room and collect again") from error
        raise JobError(f"{WHERE} file: cannot write {path}: {error.strerror}") from error
    except duckdb.Error as error:
        raise JobError(f"{WHERE} file: cannot write {path}: {str(error).partition(chr(10))[0]}") from error
