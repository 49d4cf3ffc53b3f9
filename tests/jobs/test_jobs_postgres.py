"""jobs.source and jobs.sink on a real PostgreSQL: what SQLite does not show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from overnight.errors import JobError, ServerTrouble
from overnight.jobs import jobfile
from overnight.jobs.row import Answer, Row
from overnight.jobs.sink import SqlSink
from overnight.jobs.source import rows

NOW = "2026-01-02T06:00:00+00:00"
UPDATE = "update tickets set category = :value, data = :data, at = :now where id = :key and category is null"


@pytest.fixture
def database(postgres_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            """create table tickets (id bigint primary key, uid uuid, subject text, amount numeric(12, 2),
            score float8, data jsonb, day date, at timestamptz, category varchar(10))"""
        )
        connection.execute(
            """insert into tickets select n, ('00000000-0000-0000-0000-00000000000' || n)::uuid, '5% :off ' || n,
            n * 100, 'NaN', '{"a": [1]}', date '2026-01-01' + n::int, null, null from generate_series(1, 3) n"""
        )
        yield connection
        connection.execute("drop table tickets")


def sink(url: str, sql: str = UPDATE, **more: str) -> SqlSink:
    settings = jobfile.Sink(db="env:DB", sql=sql, **more)
    return SqlSink(settings, home=Path("/"), environment={"DB": url}, names=("value", "data"))


def good(key: int, value: Any = "billing") -> Answer:
    return Answer(key, {}, "succeeded", {"value": value, "data": {"tags": ["ü"]}})


def written(database: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return database.execute("select category, data->'tags'->>0 from tickets order by id").fetchall()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
@pytest.mark.usefixtures("database")
def test_rows_have_plain_values_and_statements_stand_as_they_are(postgres_url: str, scheme: str) -> None:
    url = postgres_url.replace("postgresql", scheme, 1)
    sql = "select *, ' :x' as t, '1'::int as n from tickets where subject like '5% :off %' order by id limit 1"
    found = list(rows(jobfile.Source(db=url, sql=sql, key="id"), home=Path("/"), environment={}))
    columns = {
        "id": 1,
        "uid": "00000000-0000-0000-0000-000000000001",
        "subject": "5% :off 1",
        "amount": 100,
        "score": None,
        "data": {"a": [1]},
        "day": "2026-01-02",
        "at": None,
        "category": None,
        "t": " :x",
        "n": 1,
    }
    assert found == [Row(1, columns)]


@pytest.mark.usefixtures("database")
def test_rows_are_read_a_part_at_a_time(postgres_url: str) -> None:
    sql = "select n as id, 1 / (5000 - n) as x from generate_series(1, 10000) n"  # Fails at row 5000, not before.
    found = rows(jobfile.Source(db=postgres_url, sql=sql, key="id"), home=Path("/"), environment={})
    assert next(found).key == 1
    with pytest.raises(JobError, match="division by zero"):
        list(found)


def test_values_take_the_types_of_their_columns_and_a_repeat_changes_nothing(
    database: psycopg.Connection[tuple[Any, ...]], postgres_url: str
) -> None:
    writer = sink(postgres_url, on_error="update tickets set category = :state where id = :key and category is null")
    answers = [good(1), Answer(2, {}, "expired", {}, "late"), good(3)]
    assert writer.write(answers, NOW) == 3
    assert written(database) == [("billing", "ü"), ("expired", None), ("billing", "ü")]
    assert writer.write(answers, NOW) == 0


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        pytest.param("longer than ten", "value too long for type character varying", id="too-long"),
        pytest.param("a\0b", "cannot contain NUL", id="a-NUL"),
    ],
)
def test_a_row_that_the_database_refuses_is_named_and_nothing_is_written(
    database: psycopg.Connection[tuple[Any, ...]], postgres_url: str, value: str, complaint: str
) -> None:
    with pytest.raises(JobError, match=rf"{complaint}.*\(sql at the row 2\)$"):
        sink(postgres_url).write([good(1), good(2, value), good(3)], NOW)
    assert [category for category, _ in written(database)] == [None] * 3


def test_many_rows_are_counted(database: psycopg.Connection[tuple[Any, ...]], postgres_url: str) -> None:
    sql = "insert into tickets (id, category) values (:key, :value) on conflict do nothing"
    answers = [good(n) for n in range(1, 2_001)]
    assert sink(postgres_url, sql).write(answers, NOW) == 1_997  # Three are there.
    assert database.execute("select count(*) from tickets").fetchone() == (2_000,)


def test_a_database_that_is_lost_while_it_is_written_keeps_nothing_and_is_written_later(
    database: psycopg.Connection[tuple[Any, ...]], postgres_url: str
) -> None:
    suicide = (
        f"{UPDATE} and (select count(pg_terminate_backend(pg_backend_pid())) from tickets where :value = 'x') >= 0"
    )
    with pytest.raises(ServerTrouble, match=r"\[sink\] postgresql\+psycopg://postgres:\*\*\*@/postgres: "):
        sink(postgres_url, suicide).write([good(1), good(2, "x"), good(3)], NOW)
    assert [category for category, _ in written(database)] == [None] * 3
    assert sink(postgres_url).write([good(1)], NOW) == 1


def test_a_connection_that_was_lost_between_two_writes_is_not_noticed(
    database: psycopg.Connection[tuple[Any, ...]], postgres_url: str
) -> None:
    writer = sink(postgres_url)
    assert writer.write([good(1)], NOW) == 1
    database.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid()")
    assert writer.write([good(2)], NOW) == 1


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://ann:geheim@127.0.0.1:1/a", id="in-its-place"),
        pytest.param("postgresql://127.0.0.1:1/a?user=ann&password=geheim", id="as-an-option"),
        pytest.param("postgresql://ann:geheim@127.0.0.1:1/a?sslmode=geheim", id="in-the-words-of-the-driver"),
        pytest.param("postgresql://127.0.0.1:1/a?password=geheim&nonsense=geheim", id="with-an-unknown-option"),
    ],
)
def test_a_password_is_in_no_error(url: str) -> None:
    with pytest.raises((ServerTrouble, JobError)) as of_sink:
        sink(url).write([good(1)], NOW)
    with pytest.raises((ServerTrouble, JobError)) as of_source:
        list(rows(jobfile.Source(db=url, sql="select 1 as key"), home=Path("/"), environment={}))
    for caught in (of_sink, of_source):
        assert "127.0.0.1" in str(caught.value)
        assert "geheim" not in str(caught.value)
        assert caught.value.__cause__ is None  # It would be printed, with what it was called with.
