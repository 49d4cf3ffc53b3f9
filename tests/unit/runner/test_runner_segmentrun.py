"""runner.segmentrun: one result a request, whatever comes first (I2)."""

from collections import Counter

from runs import begun, kinds, run_of

from overnight.core.batch import Tally
from overnight.runner.segmentrun import SegmentRun, Unsaved
from overnight.wire import result

LINE = result.succeeded("r0", b'{"first":1}')


def test_the_first_result_wins() -> None:
    done: list[SegmentRun] = []
    run = run_of(2, done=done)
    work, _ = begun(run, ["a", "b"])
    run.record(work, "succeeded", LINE)
    run.record(work, "errored", result.errored("r0", b"{}"))
    assert (run.lines, run.tally(), done) == ([LINE], Tally(succeeded=1), [])


def test_it_tells_once_that_it_is_done() -> None:
    done: list[SegmentRun] = []
    run = run_of(2, done=done)
    works = begun(run, ["a", "b"])
    for work in works * 2:
        run.record(work, "succeeded", result.succeeded(work.custom_id, b"{}"))
        run.check_done()
    run.close_all("expired")
    assert done == [run]
    assert run.tally() == Tally(succeeded=2)


def test_it_is_not_done_before_it_has_started() -> None:
    done: list[SegmentRun] = []
    run = run_of(1, done=done)
    run.check_done()
    assert done == []


def test_closing_gives_every_open_request_its_row() -> None:
    done: list[SegmentRun] = []
    run = run_of(3, done=done)
    first, *_ = begun(run, "abc")
    run.record(first, "succeeded", LINE)
    run.close_all("expired")
    assert kinds(run) == {"r0": "succeeded", "r1": "expired", "r2": "expired"}
    assert done == [run]


def test_earlier_results_close_their_requests_once_and_replace_the_restored_counts() -> None:
    run = run_of(3)
    begun(run, "abc")
    run._counter.update({"succeeded": 2})  # As the store's opening counted them.
    lines = [
        (row, row_bytes) for row_bytes in (LINE, LINE, result.canceled("r9")) for row in result.read_lines(row_bytes)
    ]
    assert [line for _, _, line in run.restore(lines)] == [LINE]
    assert (run.tally(), sorted(run.open)) == (Tally(succeeded=1), ["r1", "r2"])


def test_bytes_that_are_not_saved_are_counted_until_they_are() -> None:
    unsaved = Unsaved()
    run = run_of(2, unsaved=unsaved)
    first, second = begun(run, "ab")
    run.record(first, "succeeded", LINE)
    lines = run.take_lines()
    assert (lines, unsaved.bytes) == ([LINE], 0)
    run.record(second, "canceled", result.canceled("r1"))
    run.put_back(lines)
    assert run.lines == [LINE, result.canceled("r1")], "in the order in which they came"
    assert unsaved.bytes == sum(map(len, run.lines))


def test_an_abandoned_run_records_nothing_more() -> None:
    done: list[SegmentRun] = []
    unsaved = Unsaved()
    run = run_of(2, done=done, unsaved=unsaved)
    first, second = begun(run, "ab")
    run.record(first, "succeeded", LINE)
    run.abandon()
    run.record(second, "succeeded", result.succeeded("r1", b"{}"))
    assert (run.lines, unsaved.bytes, done) == ([], 0, [])
    assert run._counter == Counter(succeeded=1)
