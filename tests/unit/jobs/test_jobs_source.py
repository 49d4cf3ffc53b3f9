"""jobs.source and jobs.values: every kind of source gives the same rows, and says what it cannot use."""

import base64
import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest

from overnight import limits
from overnight.errors import JobError, ServerTrouble
from overnight.jobs.jobfile import Source
from overnight.jobs.row import Row
from overnight.jobs.source import rows
from overnight.jobs.values import plain, row_of


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "tickets.db")) as connection:
        connection.execute("CREATE TABLE tickets (id INTEGER, subject TEXT, category TEXT)")
        connection.executemany(
            "INSERT INTO tickets VALUES (?, ?, ?)", [(1, "50% off: now", None), (2, "b", "billing"), (3, "ü", None)]
        )
        connection.commit()
    return tmp_path


def read(home: Path, environment: dict[str, str] | None = None, **settings: str) -> list[Row]:
    return list(rows(Source(**settings), home=home, environment=environment or {}))


# --- Which kind ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        pytest.param({}, "there is none", id="none"),
        pytest.param({"sql": "select 1", "glob": "*"}, "there is sql and glob", id="two"),
        pytest.param({"db": "sqlite:///a.db", "file": "a.csv"}, "a db and no sql", id="db-and-file"),
        pytest.param(
            {"db": "sqlite:///none.db", "sql": "select 1"}, "there is no SQLite file .*none.db", id="no-file"
        ),
        pytest.param({"db": "geheim", "sql": "select 1"}, "db is no database URL", id="no-url"),
        pytest.param({"db": "nodb://x", "sql": "select 1"}, "knows no database 'nodb'", id="unknown"),
        pytest.param({"db": "oracle://x", "sql": "select 1"}, "pip install", id="no-driver"),
        pytest.param({"db": "env:DB", "sql": "select 1"}, "'DB' is not set", id="no-variable"),
    ],
)
def test_a_source_that_cannot_be_is_refused_before_it_is_read(
    tmp_path: Path, settings: dict[str, str], complaint: str
) -> None:
    with pytest.raises(JobError, match=complaint) as caught:
        rows(Source(**settings), home=tmp_path, environment={})
    assert "geheim" not in str(caught.value)


# --- Databases ----------------------------------------------------------------------------------------------------


def test_rows_come_from_a_database_beside_the_job_file(tickets: Path) -> None:
    sql = "select id, subject from tickets where category is null and subject not like '%:b' order by id"
    found = read(tickets, {"DB": "sqlite:///tickets.db"}, db="env:DB", sql=sql, key="id")
    assert found == [Row(1, {"id": 1, "subject": "50% off: now"}), Row(3, {"id": 3, "subject": "ü"})]


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        pytest.param("selec 1", "syntax error", id="syntax"),
        pytest.param("select id from nowhere", "no such table: nowhere", id="table"),
        pytest.param("update tickets set id = 0", "must be a query", id="no-query"),
        pytest.param("select id, id from tickets", "several columns called id", id="twice"),
        pytest.param("select subject from tickets", "no key column 'id'; the columns are subject", id="no-key"),
        pytest.param("select null as id, 1 as a", "key column 'id' is empty", id="null-key"),
        pytest.param("select 1.5 as id", "holds 1.5", id="a-fraction"),
    ],
)
def test_a_query_that_cannot_be_used_says_why(tickets: Path, sql: str, complaint: str) -> None:
    with pytest.raises(JobError, match=complaint):
        read(tickets, db="sqlite:///tickets.db", sql=sql, key="id")
    with closing(sqlite3.connect(tickets / "tickets.db")) as connection:
        assert connection.execute("SELECT sum(id) FROM tickets").fetchone() == (6,)


def test_a_damaged_database_is_no_fault_of_the_job(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "locked.db")) as other:
        other.execute("CREATE TABLE t (id INTEGER)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ServerTrouble, match=r"locked.db: database is locked"):
            read(tmp_path, db="sqlite:///locked.db?timeout=0.01", sql="select id from t", key="id")


def test_many_rows_take_no_more_memory_than_few(tmp_path: Path) -> None:
    counting = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {})"
    sql = f"{counting} SELECT id, hex(zeroblob(500)) AS t FROM n"

    def peak(count: int) -> int:
        tracemalloc.start()
        source = Source(db="sqlite://", sql=sql.format(count), key="id")
        assert sum(1 for _ in rows(source, home=tmp_path, environment={})) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)  # Imports.
    assert peak(30_000) < 2 * peak(3_000)


def test_a_reader_that_stops_early_lets_go_of_the_database(tickets: Path) -> None:
    found = rows(
        Source(db="sqlite:///tickets.db", sql="select id from tickets", key="id"), home=tickets, environment={}
    )
    assert isinstance(found, Iterator)
    next(found)
    del found
    with closing(sqlite3.connect(tickets / "tickets.db", timeout=0)) as connection:
        connection.execute("DELETE FROM tickets")
        connection.commit()


# --- SQL over files -----------------------------------------------------------------------------------------------


def test_sql_reads_files_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,amount\n1,10\n2,20\n")
    found = read(
        tmp_path, sql="select id, sum(amount)::decimal(9,2) as a from 'in.csv' group by id order by 1", key="id"
    )
    assert found == [Row(1, {"id": 1, "a": 10}), Row(2, {"id": 2, "a": 20})]


@pytest.mark.parametrize("at_home", [True, False], ids=["in-both", "only-there"])
@pytest.mark.parametrize("sql", ["from 'in.csv'", "from read_csv('in.csv')", 'from "in.csv"'])
def test_a_file_of_the_working_directory_is_never_read_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, at_home: bool
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
        (folder / "in.csv").write_text(f"id\n{folder.name}\n")
    if not at_home:
        (home / "in.csv").unlink()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(JobError, match=r"'in.csv' would be read from .*elsewhere, not from .*home"):
        read(home, sql=f"select id {sql}", key="id")
    monkeypatch.chdir(home)
    if at_home:
        assert [row.key for row in read(home, sql=f"select id {sql}", key="id")] == ["home"]


@pytest.mark.parametrize("sql", ["from 'https://127.0.0.1:1/in.csv'", "from 's3://bucket/in.parquet'"])
def test_sql_reaches_no_network(tmp_path: Path, sql: str) -> None:
    with pytest.raises(JobError, match="requires the extension httpfs"):
        read(tmp_path, sql=f"select * {sql}", key="id")


def test_a_mistake_in_sql_over_files_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^\[source\] sql: Parser Error: [^\n]+$"):
        read(tmp_path, sql="selec 1", key="id")


# --- Files --------------------------------------------------------------------------------------------------------


def test_cells_of_a_csv_are_text_as_they_stand_there(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id;amount;note\n007;1.10;\n2;x;"a\nb"\n')
    assert read(tmp_path, file="in.csv", key="id") == [
        Row("007", {"id": "007", "amount": "1.10", "note": ""}),
        Row("2", {"id": "2", "amount": "x", "note": "a\nb"}),
    ]


def test_values_of_jsonl_and_parquet_keep_their_types(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 7, "at": "2026-01-01T00:00:00Z", "tags": ["a"], "x": null}\n\n')
    assert read(tmp_path, file="in.jsonl", key="id") == [
        Row(7, {"id": 7, "at": "2026-01-01T00:00:00Z", "tags": ["a"], "x": None})
    ]
    duckdb.sql("select 7 as id, date '2026-01-01' as at, ['a'] as tags").write_parquet(str(tmp_path / "in.parquet"))
    assert read(tmp_path, file="in.parquet", key="id") == [Row(7, {"id": 7, "at": "2026-01-01", "tags": ["a"]})]


def test_a_pattern_reads_files_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "a [1], b"  # What a pattern would take for a wildcard, and DuckDB for a list.
    folder.mkdir()
    (folder / "2.jsonl").write_text('{"id": 2}\n')
    (folder / "1.csv").write_text("id\n1\n")
    assert [row.key for row in read(folder, file="*.*", key="id")] == ["1", 2]
    assert read(folder, file="*.parquet", key="id") == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        pytest.param("none.csv", None, "No files found", id="no-csv"),
        pytest.param("none.parquet", None, "No files found", id="no-parquet"),
        pytest.param("none.jsonl", None, "cannot read .*none.jsonl: No such file", id="no-jsonl"),
        pytest.param("in.xlsx", b"x", "what can be read is csv", id="suffix"),
        pytest.param("in.csv", b"id,a\n1,2,3,4\n", "no key column 'id'; the columns are id,a", id="ragged"),
        pytest.param("in.parquet", b"no parquet", "in.parquet", id="no-such-format"),
        pytest.param("in.jsonl", b'{"id": 1}\n[]\n', "in.jsonl, line 2: not a JSON object", id="a-list"),
        pytest.param("in.jsonl", b'{"id": 1}\n\n{"id": \n', "in.jsonl, line 3: no JSON", id="half-a-line"),
        pytest.param("in.jsonl", b'{"id": "\xff"}\n', "in.jsonl, line 1: no JSON", id="no-utf-8"),
        pytest.param("in.csv", b"id,a\n,2\n", "key column 'id' is empty", id="empty-key"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(JobError, match=complaint):
        read(tmp_path, file=name, key="id")


def test_a_line_beyond_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_LINE_BYTES_MAX", 20)
    (tmp_path / "in.jsonl").write_text('{"id": 1, "a": "1"}\n{"id": 2, "a": "12"}\n')
    with pytest.raises(JobError, match=r"line 2: longer than 20 bytes"):
        read(tmp_path, file="in.jsonl", key="id")


# --- Names of files -----------------------------------------------------------------------------------------------


def test_each_file_of_a_pattern_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.tar.gz").write_bytes(b"12345")
    (tmp_path / "a.pdf").write_bytes(b"1")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "c.pdf").write_bytes(b"1")
    first, second = read(tmp_path, glob="**/*")
    path = "b/two.tar.gz"
    assert first.key == "a.pdf"
    assert second == Row(
        path, {"key": path, "path": path, "name": "two.tar.gz", "stem": "two.tar", "suffix": ".gz", "bytes": 5}
    )
    assert [row.key for row in read(tmp_path, glob=".hidden/*")] == [".hidden/c.pdf"]
    assert [row.key for row in read(tmp_path, glob="*.pdf", key="stem")] == ["a"]
    assert [row.key for row in read(tmp_path / "b", glob=str(tmp_path / "*.pdf"))] == [str(tmp_path / "a.pdf")]
    assert read(tmp_path, glob="*.png") == []


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [row.key for row in read(tmp_path, glob="**/*.txt")] == ["a.txt"]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.txt").write_text("x")
    with pytest.raises(JobError, match="is not UTF-8"):
        read(tmp_path, glob="*.txt")


# --- Requests -----------------------------------------------------------------------------------------------------


def test_requests_are_passed_on_as_they_are(tmp_path: Path) -> None:
    request = {"custom_id": "req-1", "params": {"model": "m", "messages": []}}
    (tmp_path / "in.jsonl").write_text(json.dumps(request) + "\n")
    assert read(tmp_path, requests="in.jsonl") == [Row("req-1", {"custom_id": "req-1"}, request)]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('{"custom_id": 1, "params": {}}', id="a-number"),
        pytest.param('{"custom_id": "a"}', id="no-params"),
        pytest.param('{"custom_id": "a", "params": []}', id="a-list"),
        pytest.param('"a"', id="a-text"),
        pytest.param("{", id="no-json"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a", "params": {}}\n' + line + "\n")
    with pytest.raises(JobError, match=r"in\.jsonl, line 2: "):
        read(tmp_path, requests="in.jsonl")


# --- Values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, None),
        (True, True),
        (Decimal("124500.00"), 124500),
        (Decimal("1.5"), 1.5),
        (Decimal("NaN"), None),
        (float("nan"), None),
        (float("inf"), None),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (time(3, 4), "03:04:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\0\xff", base64.b64encode(b"\0\xff").decode()),
        (memoryview(b"a"), "YQ=="),
        ({"a": [Decimal(1), (b"a",)]}, {"a": [1, ["YQ=="]]}),
    ],
)
def test_values_become_what_json_has(value: Any, found: Any) -> None:
    result = plain(value, "a", where="here")
    assert (result, type(result)) == (found, type(found))
    assert json.loads(json.dumps(result, allow_nan=False)) == found


def test_a_value_that_json_has_no_form_for_names_its_column() -> None:
    with pytest.raises(JobError, match="here column 'a' holds a timedelta"):
        plain(timedelta(days=1), "a", where="here")


@pytest.mark.parametrize("key", [True, 1.5, ["a"], "", None], ids=repr)
def test_a_key_is_a_text_or_an_integer(key: Any) -> None:
    with pytest.raises(JobError, match="a key is a text or an integer"):
        row_of({"id": key}, "id", where="here")
