"""jobs.sink: guarded statements with bound values, all or none, and errors that name the row."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overnight.errors import JobError, ServerTrouble
from overnight.jobs import jobfile
from overnight.jobs.row import Answer, State
from overnight.jobs.sink import SqlSink

NOW = "2026-01-02T06:00:00Z"
UPDATE = "update tickets set category = :value, at = :now where id = :key and category is null"
ON_ERROR = "update tickets set trouble = :state || ': ' || :error where id = :key and trouble is null"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute(
            "CREATE TABLE tickets "
            "(id INTEGER PRIMARY KEY, category TEXT CHECK (category != 'bad'), at TEXT, trouble TEXT)"
        )
        connection.executemany("INSERT INTO tickets (id) VALUES (?)", [(n,) for n in range(1, 4)])
        connection.commit()
    return tmp_path


def table(home: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home / "t.db")) as connection:
        return connection.execute("SELECT category, at, trouble FROM tickets ORDER BY id").fetchall()


def sink(home: Path, *, names: tuple[str, ...] = (), **settings: str) -> SqlSink:
    return SqlSink(jobfile.Sink(db="sqlite:///t.db", **settings), home=home, environment={}, names=names)


def good(key: int, value: Any = "billing", **fields: Any) -> Answer:
    return Answer(key, {"subject": f"s{key}"}, "succeeded", {"value": value, **fields})


def bad(key: int, state: State = "expired", error: str = "too late") -> Answer:
    return Answer(key, {}, state, {}, error)


def test_answers_and_failures_are_written_by_their_own_statements(home: Path) -> None:
    writer = sink(home, sql=UPDATE, on_error=ON_ERROR)
    assert writer.write([good(1), bad(2), good(3, "tech")], NOW) == 3
    assert table(home) == [("billing", NOW, None), (None, None, "expired: too late"), ("tech", NOW, None)]


def test_a_repeat_changes_nothing(home: Path) -> None:
    writer = sink(home, sql=UPDATE, on_error=ON_ERROR)
    writer.write([good(1), bad(2)], NOW)
    before = table(home)
    assert writer.write([good(1, "other"), bad(2, "errored")], "later") == 0
    assert table(home) == before


def test_failures_change_nothing_without_on_error(home: Path) -> None:
    assert sink(home, sql=UPDATE).write([bad(1)], NOW) == 0
    assert sink(home, sql=UPDATE).write([], NOW) == 0
    assert table(home) == [(None, None, None)] * 3


def test_text_of_a_model_never_becomes_sql(home: Path) -> None:
    text = "'; drop table tickets; -- :key \\:now %s"
    assert sink(home, sql=UPDATE).write([good(1, text)], NOW) == 1
    assert table(home)[0] == (text, NOW, None)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param(["a", "ü"], '["a", "ü"]', id="list"),
        pytest.param({"a": {"b": 1}}, '{"a": {"b": 1}}', id="object"),
        pytest.param(10**30, str(10**30), id="a-number-beyond-64-bits"),
        pytest.param(2**63 - 1, str(2**63 - 1), id="the-largest"),
        pytest.param(True, "1", id="boolean"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_every_value_can_be_bound(home: Path, value: Any, stored: str | None) -> None:
    assert sink(home, sql=UPDATE).write([good(1, value)], NOW) == 1
    assert table(home)[0][0] == stored


def test_columns_of_the_source_and_derived_ones_can_be_named(home: Path) -> None:
    sql = "update tickets set category = :subject || :flag || :custom_id, trouble = ' \\:x 12:30' where id = :key"
    answer = good(2, flag=True)._replace(custom_id="t-2")
    assert sink(home, sql=sql).write([answer], NOW) == 1
    assert table(home)[1] == ("s21t-2", None, " :x 12:30")


def test_a_field_that_one_answer_does_not_have_is_null(home: Path) -> None:
    writer = sink(home, sql="update tickets set category = :note where id = :key", names=("value", "note"))
    assert writer.write([good(1, note="n"), good(2)], NOW) == 2
    assert writer.write([good(3)], NOW) == 1
    assert [row[0] for row in table(home)] == ["n", None, None]


@pytest.mark.parametrize("setting", ["sql", "on_error"])
def test_a_name_that_no_answer_has_is_found_before_anything_is_sent(home: Path, setting: str) -> None:
    statements = {"sql": UPDATE, "on_error": ON_ERROR, setting: "update tickets set at = :valeu where id = :key"}
    with pytest.raises(JobError, match=rf"\[sink\] {setting} names :valeu, which no answer has; there is .*value"):
        sink(home, names=("value",), **statements)


def test_a_name_that_no_answer_has_is_found_at_the_first_write_at_the_latest(home: Path) -> None:
    writer = sink(home, sql=UPDATE, on_error="update tickets set at = :valeu where id = :key")
    with pytest.raises(JobError, match=r"on_error names :valeu"):
        writer.write([good(1), bad(2)], NOW)
    assert table(home) == [(None, None, None)] * 3


def test_a_row_that_the_database_refuses_is_named_and_nothing_is_written(home: Path) -> None:
    writer = sink(home, sql=UPDATE, on_error=ON_ERROR)
    with pytest.raises(JobError, match=r"CHECK constraint failed.*\(sql at the row 2\)"):
        writer.write([good(1), good(2, "bad"), bad(3)], NOW)
    assert table(home) == [(None, None, None)] * 3


def test_a_failure_that_the_database_refuses_names_its_statement(home: Path) -> None:
    writer = sink(home, sql=UPDATE, on_error="update tickets set category = :error where id = :key")
    with pytest.raises(JobError, match=r"\(on_error at the row 3\)"):
        writer.write([good(1), bad(3, error="bad")], NOW)


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        pytest.param("updat tickets", "syntax error", id="syntax"),
        pytest.param("update nowhere set a = :value", "no such table: nowhere", id="table"),
    ],
)
def test_a_statement_that_cannot_be_is_the_fault_of_the_job(home: Path, sql: str, complaint: str) -> None:
    with pytest.raises(JobError, match=rf"\[sink\] sqlite:///.*{complaint}.*\(sql at"):
        sink(home, sql=sql).write([good(1)], NOW)


@pytest.fixture
def locked(home: Path) -> Iterator[Path]:
    with closing(sqlite3.connect(home / "t.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        yield home


def test_a_locked_database_is_trouble_and_no_fault_of_the_job(locked: Path) -> None:
    settings = jobfile.Sink(db="sqlite:///t.db?timeout=0.01", sql=UPDATE)
    with pytest.raises(ServerTrouble, match=r"\[sink\] sqlite:///.*t.db: database is locked"):
        SqlSink(settings, home=locked, environment={}).write([good(1)], NOW)


@pytest.mark.parametrize("settings", [{"sql": UPDATE}, {"db": "sqlite://"}, {}], ids=["no-db", "no-sql", "neither"])
def test_half_a_sink_is_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(JobError, match="needs both db and sql"):
        SqlSink(jobfile.Sink(**settings), home=tmp_path, environment={})


def test_a_database_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"there is no SQLite file .*t\.db"):
        sink(tmp_path, sql=UPDATE)
    assert list(tmp_path.iterdir()) == []
