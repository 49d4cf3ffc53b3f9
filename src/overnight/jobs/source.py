"""Where the rows of a job come from: a database, SQL over files, files, names of files, or whole requests."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec

from overnight import limits
from overnight.errors import JobError
from overnight.jobs.database import Database
from overnight.jobs.jobfile import Source
from overnight.jobs.row import Row
from overnight.jobs.values import row_of

# What a query is answered from lies on this machine: DuckDB downloads nothing, neither files nor its own parts.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# Only the separator is guessed. With the rest left to it, DuckDB skips lines that do not fit, the header too.
READ_CSV = """SELECT * FROM read_csv(?, header = true, all_varchar = true, skip = 0, quote = '"', escape = '"',
    comment = '', null_padding = false)"""
WILDCARDS = re.compile(r"[*?\[]")
WHERE = "[source]"


def rows(source: Source, *, home: Path, environment: Mapping[str, str]) -> Iterator[Row]:
    """The rows of `source`, read while they are asked for; memory stays the same for any number of rows.

    Paths count from `home`, the folder of the job file. `environment` is what `env:` names are looked up in.
    JobError at once where the source asks for no or several things or cannot be reached by what the job file says,
    and from the iterator where a row cannot be used; ServerTrouble where its database is away.
    """
    kinds = [name for name in ("sql", "file", "glob", "requests") if getattr(source, name)]
    if len(kinds) != 1:
        named = " and ".join(kinds) or "none"
        raise JobError(f"{WHERE} needs exactly one of sql, file, glob and requests; there is {named}")
    if source.db and not source.sql:
        raise JobError(f"{WHERE} has a db and no sql: say what to read")
    if source.requests:
        return _of_requests(home / source.requests)
    return (row_of(columns, source.key, where=WHERE) for columns in _columns(source, home, environment))


def _columns(source: Source, home: Path, environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    if source.db:
        return _of_database(source.sql, Database(source.db, home=home, environment=environment, where=WHERE))
    if source.sql:
        return _of_files_by_sql(source.sql, home)
    if source.glob:
        return _of_names(source.glob, home)
    return _of_files(source.file, home)


def _of_database(sql: str, database: Database) -> Iterator[dict[str, Any]]:
    with database.transaction() as connection:
        # No parameters, so that a colon or a percent sign in the statement is just that.
        reading = connection.execution_options(yield_per=limits.JOB_READ_ROWS, no_parameters=True)
        with closing(reading.exec_driver_sql(sql)) as result:
            if not result.returns_rows:
                raise JobError(f"{WHERE} sql returns no rows: it must be a query")
            names = _distinct(list(result.keys()))
            for values in result:
                yield dict(zip(names, values, strict=True))


def _of_files_by_sql(sql: str, home: Path) -> Iterator[dict[str, Any]]:
    _check_not_hidden(sql, home)
    with duckdb.connect(":memory:", config=OFFLINE) as connection:
        connection.execute("SET file_search_path = $home", {"home": str(home)})
        yield from _asked(connection, sql, where=f"{WHERE} sql")


def _check_not_hidden(sql: str, home: Path) -> None:
    """DuckDB looks into the working directory first, whatever its search path: it must decide nothing."""
    for _, name in re.findall(r"""(["'])(.+?)\1""", sql):
        here = Path(name)
        if not here.is_absolute() and here.is_file() and here.resolve() != (home / here).resolve():
            raise JobError(
                f"{WHERE} sql: {name!r} would be read from {Path.cwd()}, not from {home}: write its full path"
            )


def _asked(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[str] | None = None, *, where: str
) -> Iterator[dict[str, Any]]:
    try:
        connection.execute(sql, parameters)
        names = _distinct([column[0] for column in connection.description or ()])
        while values := connection.fetchmany(limits.JOB_READ_ROWS):
            for row in values:
                yield dict(zip(names, row, strict=True))
    except duckdb.Error as error:
        raise JobError(f"{where}: {str(error).partition(chr(10))[0]}") from error


def _distinct(names: list[str]) -> list[str]:
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise JobError(f"{WHERE} sql returns several columns called {', '.join(sorted(repeated))}: rename with AS")
    return names


def _of_files(pattern: str, home: Path) -> Iterator[dict[str, Any]]:
    found = _found(pattern, home) if WILDCARDS.search(pattern) else [home / pattern]
    for file in found:
        match file.suffix.lower():
            case ".csv" | ".tsv":
                yield from _of_csv(file)
            case ".parquet":
                yield from _of_parquet(file)
            case ".jsonl" | ".ndjson":
                yield from _of_jsonl(file)
            case suffix:
                raise JobError(
                    f"{WHERE} file: {file} ends in {suffix!r}; what can be read is csv, tsv, parquet, jsonl"
                )


def _of_csv(file: Path) -> Iterator[dict[str, Any]]:
    """Cells are text as they stand there: a guess at types would make 7 of the key 007."""
    with duckdb.connect(":memory:", config=OFFLINE) as connection:
        for columns in _asked(connection, READ_CSV, [str(file)], where=f"{WHERE} file"):
            yield {name: value or "" for name, value in columns.items()}


def _of_parquet(file: Path) -> Iterator[dict[str, Any]]:
    with duckdb.connect(":memory:", config=OFFLINE) as connection:
        yield from _asked(connection, "SELECT * FROM read_parquet(?)", [str(file)], where=f"{WHERE} file")


def _of_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    for number, value in _json_lines(file):
        if not isinstance(value, dict):
            raise JobError(f"{file}, line {number}: not a JSON object")
        yield value


def _of_requests(file: Path) -> Iterator[Row]:
    for number, value in _json_lines(file):
        match value:
            case {"custom_id": str(custom_id), "params": dict()}:
                yield Row(custom_id, {"custom_id": custom_id}, value)
            case _:
                raise JobError(f'{file}, line {number}: not {{"custom_id": "…", "params": {{…}}}}')


def _json_lines(file: Path) -> Iterator[tuple[int, Any]]:
    """The values of the lines that are not blank, and their numbers from 1."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(_lines(opened, file), 1):
                if line.strip():
                    yield number, msgspec.json.decode(line)
    except OSError as error:
        raise JobError(f"cannot read {file}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{file}, line {number}: no JSON: {error}") from error


def _lines(opened: BinaryIO, file: Path) -> Iterator[bytes]:
    number = 0
    while line := opened.readline(limits.JOB_LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > limits.JOB_LINE_BYTES_MAX:
            raise JobError(f"{file}, line {number}: longer than {limits.JOB_LINE_BYTES_MAX} bytes")
        yield line


def _of_names(pattern: str, home: Path) -> Iterator[dict[str, Any]]:
    for file in _found(pattern, home):
        path = _relative(file, home)
        yield {
            "key": path,
            "path": path,
            "name": file.name,
            "stem": file.stem,
            "suffix": file.suffix,
            "bytes": file.stat().st_size,
        }


def _relative(file: Path, home: Path) -> str:
    path = (file.relative_to(home) if file.is_relative_to(home) else file).as_posix()
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise JobError(f"{WHERE} the name of the file {path!r} is not UTF-8: rename it") from error
    return path


def _found(pattern: str, home: Path) -> list[Path]:
    """The files of a pattern, sorted. `**` follows no links to folders, so it ends; hidden files need a pattern
    with a dot of their own."""
    start, rest = home, Path(pattern)
    if rest.is_absolute():
        start, rest = Path(rest.anchor), rest.relative_to(rest.anchor)
    wants_hidden = any(_is_hidden(part) for part in rest.parts)
    found = (file for file in start.glob(rest.as_posix()) if file.is_file())
    return sorted(
        file for file in found if wants_hidden or not any(_is_hidden(part) for part in file.relative_to(start).parts)
    )


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")
