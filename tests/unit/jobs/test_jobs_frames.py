"""jobs.frames: a table in memory is read as rows, and the same kind comes back."""

from importlib.util import find_spec
from typing import Any

import pandas
import polars
import pytest

from overnight.errors import JobError
from overnight.jobs.frames import frame_like, frame_rows
from overnight.jobs.row import Row

RECORDS = [{"id": 1, "text": "a", "score": 0.5}, {"id": 2, "text": None, "score": None}]


def arrow(records: list[dict[str, Any]]) -> Any:
    import pyarrow  # type: ignore[import-not-found]

    return pyarrow.Table.from_pylist(records)


KINDS = [
    pytest.param(pandas.DataFrame, id="pandas"),
    pytest.param(polars.DataFrame, id="polars"),
    pytest.param(list, id="list"),
    *([pytest.param(arrow, id="arrow")] if find_spec("pyarrow") else []),  # 150 MB; not among our own tests' needs.
]


@pytest.mark.parametrize("make", KINDS)
def test_rows_come_out_in_order_with_plain_values(make: Any) -> None:
    assert list(frame_rows(make(RECORDS), "id")) == [Row(1, RECORDS[0]), Row(2, RECORDS[1])]


@pytest.mark.parametrize("make", KINDS)
def test_the_same_kind_comes_back(make: Any) -> None:
    data = make(RECORDS)
    answered = [{"id": 1, "state": "succeeded", "tags": ["x"]}, {"id": 2, "state": "errored", "error": "no"}]
    back = frame_like(data, answered)
    assert type(back) is type(data)
    full = [{"error": None, "tags": None, **record} for record in answered]
    assert [{"error": None, "tags": None, **row.columns} for row in frame_rows(back, "id")] == full


@pytest.mark.parametrize("make", KINDS)
def test_nothing_stays_nothing(make: Any) -> None:
    assert list(frame_rows(make([]), "id")) == []
    assert type(frame_like(make(RECORDS), [])) is type(make(RECORDS))


def test_columns_of_an_optional_field_are_found_beyond_the_first_rows() -> None:
    records: list[dict[str, Any]] = [{"id": n} for n in range(200)] + [{"id": 200, "late": 1}]
    assert frame_like(polars.DataFrame(), records)["late"].to_list() == [None] * 200 + [1]


def test_every_mark_of_a_missing_value_is_none() -> None:
    frame = pandas.DataFrame(
        {
            "id": [1.0, 2.0],  # What pandas makes of integers once one was missing.
            "nan": [float("nan"), 1.5],
            "nat": [pandas.NaT, pandas.Timestamp("2026-01-02")],
            "na": pandas.array([pandas.NA, 7], dtype="Int64"),
            "nested": [None, pandas.array([1, 2]).to_numpy()],
        }
    )
    first, second = frame_rows(frame, "id")
    assert first == Row(1, {"id": 1.0, "nan": None, "nat": None, "na": None, "nested": None})
    assert second == Row(2, {"id": 2.0, "nan": 1.5, "nat": "2026-01-02T00:00:00", "na": 7, "nested": [1, 2]})


@pytest.mark.parametrize("make", KINDS)
def test_a_key_that_is_missing_is_named(make: Any) -> None:
    with pytest.raises(JobError, match=r"no key column 'number'; the columns are id, text, score"):
        list(frame_rows(make(RECORDS), "number"))
    with pytest.raises(JobError, match="key column 'text' is empty"):
        list(frame_rows(make(RECORDS), "text"))


@pytest.mark.parametrize("data", ["text", 7, [1, 2], pandas.Series([1])], ids=repr)
def test_what_is_no_table_is_refused_at_once(data: Any) -> None:
    with pytest.raises(JobError, match="is no pandas or polars DataFrame"):
        frame_rows(data, "id")
