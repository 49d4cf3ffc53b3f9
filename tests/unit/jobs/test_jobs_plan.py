"""jobs.plan: from rows to a run in a real ledger; what is not asked again, and what a broken planning leaves."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from overnight import limits
from overnight.errors import JobError
from overnight.jobs import jobfile, ledger, runs, split
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.plan import Planned, Planner
from overnight.jobs.row import Key, Row
from overnight.jobs.tables import batch_jobs, events, items, metadata
from overnight.jobs.tables import runs as runs_table

LAST_YEAR, YESTERDAY, TODAY = "2025-06-01T23:00:00Z", "2026-05-31T23:00:00Z", "2026-06-01T23:00:00Z"
MONTH_AGO = "2026-05-01T23:00:00Z"
SINK = {"db": "sqlite://", "sql": "update t set v = :value where id = :key"}


class Bench:
    """A job with its ledger. A planned run is written down, and can be ended as a night would end it."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.home, self.ledger = home, ledger
        self.settings: dict[str, Any] = {"name": "j", "model": "m", "prompt": {"user": "{{ x }}"}, "sink": SINK}
        self.checked: list[list[str]] = []

    def plan(
        self,
        rows: Iterable[Row],
        run_id: str = "run_2",
        *,
        at: str = TODAY,
        anew: bool = False,
        cached_since: str | None = None,
        drop_known: bool = False,
        **settings: Any,
    ) -> Planned:
        job = Job(jobfile.read({**self.settings, **settings}), self.home)
        planner = Planner(
            job,
            self.ledger,
            run_id,
            at,
            since=MONTH_AGO,
            cached_since=cached_since,
            anew=anew,
            drop_known=drop_known,
        )
        check = lambda columns: self.checked.append([*columns])  # noqa: E731
        return planner.plan(rows, endpoint="http://127.0.0.1", reach=lambda _: None, check=check)

    def ended(self, rows: Iterable[Row], *, at: str = YESTERDAY, **values: Any) -> None:
        """An earlier run in which all rows got `values`."""
        self.plan(rows, "run_1", at=at)
        with self.ledger.begin() as connection:
            connection.execute(update(items).where(items.c.run_id == "run_1").values(**values))
            runs.change(connection, "run_1", status="ended", ended_at=at)

    def items(self, run_id: str = "run_2") -> list[Any]:
        with self.ledger.begin() as connection:
            found = select(items).where(items.c.run_id == run_id).order_by(items.c.position)
            return list(connection.execute(found))

    def batches(self) -> list[tuple[int, int]]:
        with self.ledger.begin() as connection:
            found = select(batch_jobs.c.total_requests, batch_jobs.c.bytes).order_by(batch_jobs.c.chunk)
            return [(row[0], row[1]) for row in connection.execute(found)]

    def is_empty(self) -> bool:
        with self.ledger.begin() as connection:
            return all(connection.execute(select(table)).first() is None for table in metadata.sorted_tables)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with closing(ledger.at(tmp_path / "j.db")) as found:
        yield Bench(tmp_path, found)


def planned(  # noqa: PLR0917
    rows: int, to_send: int, reused: int = 0, in_flight: int = 0, failed: int = 0, done: int = 0
) -> Planned:
    return Planned(rows, to_send, reused, in_flight, failed, done, is_rendered=True)


def row(key: Key, x: Any = None) -> Row:
    return Row(key, {"x": f"text {key}" if x is None else x})


SUCCEEDED = {"state": "succeeded", "fields": '{"value":"old"}'}
FAILED = {"state": "errored", "error_type": "invalid_request_error", "error": "no"}


# --- what is written down ---------------------------------------------------------------------------------------


def test_rows_are_written_down_in_their_order_with_what_is_sent(bench: Bench) -> None:
    assert bench.plan([row(7), row("b c")]) == planned(rows=2, to_send=2)
    found = bench.items()
    assert [(item.position, item.item_key, item.state) for item in found] == [
        (0, "7", "planned"),
        (1, '"b c"', "planned"),
    ]
    with bench.ledger.begin() as connection:
        requests = runs.requests(connection, "run_2", 0)
        assert runs.source_rows(connection, "run_2", 0) == [{"x": "text 7"}, {"x": "text b c"}]
        assert runs.row_of(connection, "run_2").status == "open"
    sizes = [len(split.request(item.custom_id, params)) for item, params in zip(found, requests, strict=True)]
    assert [item.bytes for item in found] == sizes
    assert bench.batches() == [(2, sum(sizes))]
    assert bench.checked == [["x"]]


def test_rows_are_cut_into_batches_across_segments(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_SEGMENT_ROWS", 4)
    bench.plan([row(n) for n in range(10)], batch={"max_requests": 3})
    assert [item.segment for item in bench.items()] == [0] * 4 + [1] * 4 + [2] * 2
    assert [requests for requests, _ in bench.batches()] == [3, 3, 3, 1]
    assert [item.batch_job for item in bench.items()] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]


def test_long_requests_make_short_segments(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_SEGMENT_BYTES", 5_000)
    bench.plan([row(n, "x" * 3_000 + str(n)) for n in range(4)])
    assert [item.segment for item in bench.items()] == [0, 0, 1, 1]


def test_a_batch_is_bounded_by_bytes_too(bench: Bench) -> None:
    bench.plan([row(n, "x" * 400 + str(n)) for n in range(3)], batch={"max_bytes": 1_200})
    assert [requests for requests, _ in bench.batches()] == [2, 1]


def test_no_rows_make_no_run(bench: Bench) -> None:
    assert bench.plan([]).is_nothing(drop_known=False)
    assert bench.is_empty()
    assert bench.checked == []


def test_whole_requests_are_not_rendered(bench: Bench) -> None:
    request = {"custom_id": "r", "params": {"model": "m", "max_tokens": 1, "messages": []}}
    found = bench.plan([Row("r", {}, request)], source={"requests": "a.jsonl"}, sink={"file": "out.csv"})
    assert found == planned(rows=1, to_send=1)._replace(is_rendered=False)


# --- what is not sent -------------------------------------------------------------------------------------------


def test_equal_requests_are_sent_once(bench: Bench) -> None:
    assert bench.plan([row(1, "a"), row(2, "b"), row(3, "a"), row(4, "a")]) == planned(rows=4, to_send=2)
    assert [item.same_as for item in bench.items()] == [None, None, 0, 0]
    assert [item.batch_job for item in bench.items()] == [1, 1, None, None]
    assert bench.batches()[0][0] == 2


def test_a_row_too_large_for_any_batch_fails_alone(bench: Bench) -> None:
    found = bench.plan([row(1), row(2, "x" * 2_000), row(3)], batch={"max_bytes": 1_000})
    assert found == planned(rows=3, to_send=2)
    large = bench.items()[1]
    assert (large.state, large.error_type, large.batch_job) == ("errored", "request_too_large", None)
    assert "a batch has room for 1000 ([batch] max_bytes)" in large.error


def test_a_document_that_is_gone_fails_its_row_alone(bench: Bench) -> None:
    (bench.home / "1.txt").write_text("a")
    bench.plan([row(1, "1.txt"), row(2, "2.txt")], prompt={"document": "{{ x }}"})
    assert [(item.state, item.error) for item in bench.items()] == [
        ("planned", ""),
        ("errored", "cannot read 2.txt: No such file or directory"),
    ]


def test_rows_of_an_unfinished_run_are_left_to_it(bench: Bench) -> None:
    bench.plan([row(1), row(2)], "run_1", at=YESTERDAY)
    assert bench.plan([row(1, "changed"), row("1x"), row(2)]) == planned(rows=1, to_send=1, in_flight=2)
    assert [item.item_key for item in bench.items()] == ['"1x"']


def test_rows_of_another_job_in_the_same_ledger_are_not_its_rows(bench: Bench) -> None:
    bench.plan([row(1)], "run_1", at=YESTERDAY, name="other")
    assert bench.plan([row(1)]) == planned(rows=1, to_send=1)


@pytest.mark.parametrize(
    ("before", "rows", "expected"),
    [
        pytest.param({**SUCCEEDED, "written": 1}, [row(1)], planned(rows=0, to_send=0, done=1), id="done"),
        pytest.param(
            {**SUCCEEDED, "written": 0}, [row(1)], planned(rows=1, to_send=0, reused=1), id="answered, not written"
        ),
        pytest.param(
            {**SUCCEEDED, "written": 1}, [row(1, "changed")], planned(rows=1, to_send=1), id="done, changed"
        ),
        pytest.param({**SUCCEEDED, "written": 1}, [row(2, "text 1")], planned(rows=1, to_send=1), id="another row's"),
        pytest.param(FAILED, [row(1)], planned(rows=0, to_send=0, failed=1), id="failed for good"),
        pytest.param(FAILED, [row(1, "changed")], planned(rows=1, to_send=1), id="failed, changed"),
        pytest.param({"state": "refused"}, [row(1)], planned(rows=0, to_send=0, failed=1), id="refused"),
        pytest.param(
            {"state": "errored", "error_type": "api_error"}, [row(1)], planned(rows=1, to_send=1), id="bad luck"
        ),
        pytest.param(
            {"state": "errored", "error_type": "billing_error"},
            [row(1)],
            planned(rows=1, to_send=1),
            id="no credit then",
        ),
        pytest.param({"state": "expired"}, [row(1)], planned(rows=1, to_send=1), id="expired"),
        pytest.param({"state": "held"}, [row(1)], planned(rows=1, to_send=1), id="no budget then"),
        pytest.param({"state": "canceled"}, [row(1)], planned(rows=1, to_send=1), id="cancelled"),
    ],
)
def test_a_row_is_asked_again_unless_that_would_pay_for_the_same(
    bench: Bench, before: dict[str, Any], rows: list[Row], expected: Planned
) -> None:
    bench.ended([row(1)], **before)
    assert bench.plan(rows) == expected
    again = bench.plan([row(1)], "run_3", anew=True)
    assert (again.reused, again.skipped_failed, again.skipped_done) == (0, 0, 0), "anew leaves nothing out"


def test_answers_older_than_the_ledger_keeps_are_forgotten(bench: Bench) -> None:
    bench.ended([row(1)], at=LAST_YEAR, **FAILED)
    assert bench.plan([row(1)]) == planned(rows=1, to_send=1)


@pytest.mark.parametrize(
    "before", [pytest.param({**SUCCEEDED, "written": 1}, id="answered"), pytest.param(FAILED, id="failed for good")]
)
def test_without_a_database_to_write_to_a_row_that_is_known_is_in_the_run_and_not_paid_again(
    bench: Bench, before: dict[str, Any]
) -> None:
    bench.settings["sink"] = {"file": "out.csv"}
    bench.ended([row(1)], **before)
    assert bench.plan([row(1), row(2)]) == planned(rows=2, to_send=1, reused=1)
    known = bench.items()[0]
    assert (known.state, known.batch_job) == (before["state"], None)


@pytest.mark.parametrize(("drop_known", "has_run"), [(True, False), (False, True)])
def test_a_run_of_known_rows_only_is_none_where_the_job_says_so(
    bench: Bench, drop_known: bool, has_run: bool
) -> None:
    bench.settings["sink"] = {"file": "out.csv"}
    bench.ended([row(1)], **SUCCEEDED)
    assert bench.plan([row(1)], drop_known=drop_known) == planned(rows=1, to_send=0, reused=1)
    with bench.ledger.begin() as connection:
        assert runs.exists(connection, "run_2") is has_run


# --- the cache --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cached_since", "to_send"),
    [
        pytest.param(None, 1, id="no cache"),
        pytest.param(MONTH_AGO, 0, id="cache"),
        pytest.param(TODAY, 1, id="a cache of answers that are newer"),
    ],
)
def test_an_answer_to_the_same_request_of_another_row_counts_where_the_job_has_a_cache(
    bench: Bench, cached_since: str | None, to_send: int
) -> None:
    bench.ended([row(1, "a")], **SUCCEEDED, written=1)
    assert bench.plan([row(2, "a")], cached_since=cached_since).to_send == to_send
    expected = ("planned", "") if to_send else ("succeeded", '{"value":"old"}')
    assert [(item.state, item.fields) for item in bench.items()] == [expected]


def test_a_failure_is_never_an_answer_of_the_cache(bench: Bench) -> None:
    bench.ended([row(1, "a")], **FAILED)
    assert bench.plan([row(2, "a")], cached_since=MONTH_AGO).to_send == 1


# --- what breaks planning ---------------------------------------------------------------------------------------


def breaking(rows: list[Row], error: BaseException) -> Iterator[Row]:
    yield from rows
    raise error


@pytest.mark.parametrize("error", [JobError("the source broke"), KeyboardInterrupt(), MemoryError()])
def test_planning_that_breaks_leaves_no_run(
    bench: Bench, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_SEGMENT_ROWS", 2)
    with pytest.raises(type(error)):
        bench.plan(breaking([row(1), row(2), row(3)], error))
    assert bench.is_empty()


def test_a_column_that_is_missing_in_a_late_row_leaves_no_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_SEGMENT_ROWS", 1)
    with pytest.raises(JobError, match="there is no column 'x'"):
        bench.plan([row(1), row(2), Row(3, {"y": 1})])
    assert bench.is_empty()


def test_a_planning_that_was_killed_is_removed_by_the_next_night(bench: Bench) -> None:
    bench.plan([row(1)], "run_1")
    with bench.ledger.begin() as connection:  # What a kill -9 leaves.
        runs.change(connection, "run_1", status="planning")
        connection.execute(insert(events).values(run_id="run_1", at=TODAY, name="x"))
    assert bench.plan([row(1)]) == planned(rows=1, to_send=1), "its rows are not in flight"
    with bench.ledger.begin() as connection:
        assert runs.unfinished(connection, "j") == ["run_2"]
        assert connection.execute(select(runs_table.c.id)).scalars().all() == ["run_2"]
        for table in (items, batch_jobs, events):
            assert "run_1" not in connection.execute(select(table.c.run_id)).scalars().all()


@pytest.mark.parametrize("segment_rows", [1, 2, 1_000])
def test_keys_that_are_there_twice_are_named_and_leave_no_run(
    bench: Bench, segment_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_SEGMENT_ROWS", segment_rows)
    with pytest.raises(JobError, match=r"key 1.* came twice"):
        bench.plan([row(key, f"{n}") for n, key in enumerate([1, 2, 3, 1, 2, 3])])
    assert bench.is_empty()


def test_three_keys_that_are_there_twice_are_named(bench: Bench) -> None:
    with pytest.raises(JobError, match=r"key 1, key 2, key 3 came twice"):
        bench.plan([row(key) for key in (1, 2, 3, 4, 1, 2, 3, 4)])


def test_two_rows_with_one_custom_id_are_named(bench: Bench) -> None:
    with pytest.raises(JobError, match=r"id 'same' \(of key 2\) came twice"):
        bench.plan([row(1), row(2)], id="same")
    assert bench.is_empty()


def test_a_key_in_flight_that_is_there_twice_is_named_as_well(bench: Bench) -> None:
    bench.plan([row(1)], "run_1", at=YESTERDAY)
    with pytest.raises(JobError, match="key 1 came twice"):
        bench.plan([row(1), row(1)])
