"""jobs.outfile: a file of answers is whole or not there, in three formats."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from overnight.errors import DiskFull, JobError
from overnight.jobs.outfile import FileSink
from overnight.jobs.row import Answer

ANSWERS = [
    Answer(1, {"id": 1, "text": 'a,"b"\nc'}, "succeeded", {"amount": 5, "tags": ["x"], "ok": True}),
    Answer(2, {"id": 2, "text": None, "late": "l"}, "errored", {}, "no"),
    Answer(3, {"id": 3, "text": "ü"}, "succeeded", {"amount": 1.5, "tags": [], "ok": False, "more": "m"}),
]
NAMES = ["id", "text", "late", "amount", "tags", "ok", "more", "state", "error"]
SUFFIXES = [".csv", ".parquet", ".jsonl"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_jsonl_has_every_column_in_every_row(tmp_path: Path) -> None:
    assert FileSink(tmp_path / "out.jsonl").write_whole(ANSWERS) == 3
    found = lines(tmp_path / "out.jsonl")
    assert [list(row) for row in found] == [NAMES] * 3
    assert found[0] | {"late": None, "more": None} == found[0]
    assert found[0]["tags"] == ["x"]
    assert found[1] == dict.fromkeys(NAMES) | {"id": 2, "late": "l", "state": "errored", "error": "no"}


def test_csv_has_columns_of_the_source_then_fields_then_state_and_error(tmp_path: Path) -> None:
    FileSink(tmp_path / "out.csv").write_whole(ANSWERS)
    assert cells(tmp_path / "out.csv") == [
        NAMES,
        ["1", 'a,"b"\nc', "", "5", '["x"]', "true", "", "succeeded", ""],
        ["2", "", "l", "", "", "", "", "errored", "no"],
        ["3", "ü", "", "1.5", "[]", "false", "m", "succeeded", ""],
    ]


def test_parquet_has_types(tmp_path: Path) -> None:
    FileSink(tmp_path / "out.parquet").write_whole(ANSWERS)
    found = duckdb.read_parquet(str(tmp_path / "out.parquet"))
    assert found.columns == NAMES
    assert [str(kind) for kind in found.types] == [
        "BIGINT", "VARCHAR", "VARCHAR", "DOUBLE", "VARCHAR", "BOOLEAN", "VARCHAR", "VARCHAR", "VARCHAR",
    ]  # fmt: skip
    assert found.fetchall()[0] == (1, 'a,"b"\nc', None, 5.0, '["x"]', True, None, "succeeded", "")


def test_values_that_look_like_dates_or_are_of_several_kinds_stay_what_they_are(tmp_path: Path) -> None:
    values = ["2026-01-02", "007", 7, {"a": 1}, 10**30]
    FileSink(tmp_path / "out.parquet").write_whole(
        Answer(n, {}, "succeeded", {"date": "2026-01-02", "any": value}) for n, value in enumerate(values)
    )
    found = duckdb.read_parquet(str(tmp_path / "out.parquet"))
    assert str(found.types[0]) == "VARCHAR"
    assert [row[1].replace(" ", "") for row in found.fetchall()] == ["2026-01-02", "007", "7", '{"a":1}', str(10**30)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_field_hides_a_column_also_where_a_row_has_no_answer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    FileSink(path).write_whole(
        [
            Answer(1, {"id": 1, "label": "old", "state": "NY"}, "succeeded", {"label": "new"}),
            Answer(2, {"id": 2, "label": "old", "state": "CA"}, "expired", {}, "late"),
        ]
    )
    found = duckdb.sql(f"select id, label, state, error from '{path}' order by id").fetchall()
    assert [tuple(str(value or "") for value in row) for row in found] == [
        ("1", "new", "succeeded", ""),
        ("2", "", "expired", "late"),
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"], ids=repr)
def test_a_spreadsheet_runs_nothing_that_a_model_wrote(tmp_path: Path, start: str) -> None:
    text = f'{start}HYPERLINK("http://127.0.0.1")'
    FileSink(tmp_path / "out.csv").write_whole(
        [Answer(1, {"text": text}, "succeeded", {"value": text, "amount": -5}), Answer(2, {}, "errored", {}, text)]
    )
    _, first, second = cells(tmp_path / "out.csv")
    assert first == [text, "'" + text, "-5", "succeeded", ""]
    assert second[-1] == "'" + text
    FileSink(tmp_path / "out.jsonl").write_whole([Answer(1, {}, "succeeded", {"value": text})])
    assert lines(tmp_path / "out.jsonl")[0]["value"] == text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_fails_half_way_is_what_it_was_before(tmp_path: Path, suffix: str) -> None:
    def half() -> Iterator[Answer]:
        yield ANSWERS[0]
        raise RuntimeError("lost")

    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="lost"):
        FileSink(path).write_whole(half())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: b"before"}
    assert FileSink(path).write_whole(ANSWERS) == 3
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_answers_are_a_file_with_no_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    assert FileSink(path).write_whole([]) == 0
    assert path.exists()


def test_a_suffix_that_is_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"must end in one of \.csv, \.parquet, \.jsonl"):
        FileSink(tmp_path / "out.xlsx")


def test_a_folder_that_does_not_exist_is_the_fault_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"cannot write .*none/out\.csv: No such file or directory"):
        FileSink(tmp_path / "none" / "out.csv").write_whole(ANSWERS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_cannot_take_its_place_leaves_nothing_beside_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    path.mkdir()
    with pytest.raises(JobError, match="Is a directory"):
        FileSink(path).write_whole(ANSWERS)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    (tmp_path / ".out.csv.rows").symlink_to("/dev/full")  # Where rows are kept until all are there.
    with pytest.raises(DiskFull, match=r"no room for .*out\.csv"):
        FileSink(tmp_path / "out.csv").write_whole(ANSWERS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_rows_take_no_more_memory_than_few(tmp_path: Path, suffix: str) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        answers = (Answer(n, {"id": n}, "succeeded", {"value": "v" * 500}) for n in range(count))
        assert FileSink(tmp_path / f"out{suffix}").write_whole(answers) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(4_000) < 2 * peak(1_000)
