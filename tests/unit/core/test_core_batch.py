"""core.batch: the life of a batch (I2, I3, I5)."""

from typing import Any, get_args

import pytest

from overnight import limits
from overnight.core import batch as life
from overnight.core.batch import TRANSITIONS, Archived, Batch, CancelAsked, Event, SegmentSealed, Tally
from overnight.ids import BatchId, WorkspaceId
from overnight.wire.batch import Status

T0 = 1_780_000_000_000
STATUSES: tuple[Status, ...] = get_args(Status)
EVENTS: dict[str, Event] = {
    "CancelAsked": CancelAsked(T0 + 5),
    "SegmentSealed": SegmentSealed(Tally(succeeded=3, errored=1), T0 + 5),
    "Archived": Archived(T0 + 5),
}


def batch(**changes: Any) -> Batch:
    given: dict[str, Any] = {
        "id": BatchId("msgbatch_01a"),
        "workspace": WorkspaceId("wrkspc_a"),
        "api_version": "2023-06-01",
        "betas": "",
        "requests": 10,
        "segments_open": 2,
        "created_at_ms": T0,
        "expires_at_ms": T0 + limits.BATCH_LIFETIME_MS,
    }
    return Batch(**{**given, **changes})


def batch_in(status: Status, *, segments_open: int = 2) -> Batch:
    if status == "ended":
        return batch(status=status, segments_open=0, tally=Tally(succeeded=10), ended_at_ms=T0 + 1)
    asked = T0 + 1 if status == "canceling" else None
    done = Tally(succeeded=6) if segments_open == 1 else Tally()
    return batch(status=status, segments_open=segments_open, tally=done, cancel_initiated_at_ms=asked)


@pytest.mark.parametrize(("status", "event", "results"), TRANSITIONS)
def test_every_transition_of_the_table_happens(status: Status, event: str, results: tuple[Status, ...]) -> None:
    found = {life.apply(batch_in(status, segments_open=left), EVENTS[event]).status for left in (2, 1)}
    assert found == set(results)


@pytest.mark.parametrize(
    ("status", "event"),
    [(s, e) for s in STATUSES for e in EVENTS if (s, e) not in {(row[0], row[1]) for row in TRANSITIONS}],
)
def test_what_the_table_does_not_name_asserts_and_changes_nothing(status: Status, event: str) -> None:
    before = batch_in(status)
    with pytest.raises(AssertionError, match=r"I[0-9]"):
        life.apply(before, EVENTS[event])
    assert before == batch_in(status)


def test_the_table_never_goes_backwards() -> None:
    """I5."""
    assert all(STATUSES.index(to) >= STATUSES.index(status) for status, _, results in TRANSITIONS for to in results)


def test_a_cancel_is_noted_once() -> None:
    first = life.apply(batch(), CancelAsked(T0 + 5))
    assert (first.status, first.cancel_initiated_at_ms) == ("canceling", T0 + 5)
    assert life.apply(first, CancelAsked(T0 + 9)) == first


def test_a_cancel_after_the_end_changes_nothing() -> None:
    assert life.apply(batch_in("ended"), CancelAsked(T0 + 9)) == batch_in("ended")


def test_the_batch_ends_with_its_last_segment() -> None:
    one = life.apply(batch(), SegmentSealed(Tally(succeeded=4, errored=2), T0 + 5))
    assert (one.status, one.segments_open, one.ended_at_ms) == ("in_progress", 1, None)
    two = life.apply(one, SegmentSealed(Tally(canceled=3, expired=1), T0 + 6))
    assert (two.status, two.segments_open, two.ended_at_ms) == ("ended", 0, T0 + 6)
    assert two.tally == Tally(succeeded=4, errored=2, canceled=3, expired=1)


@pytest.mark.parametrize(
    ("segments_open", "tally"),
    [(2, Tally(succeeded=11)), (1, Tally(succeeded=9)), (1, Tally(succeeded=11)), (0, Tally(succeeded=10))],
)
def test_counts_that_do_not_add_up_assert(segments_open: int, tally: Tally) -> None:
    """I2, I3."""
    with pytest.raises(AssertionError, match=r"I[23]"):
        life.apply(batch(segments_open=segments_open), SegmentSealed(tally, T0))


def test_a_clock_that_was_set_back_does_not_show() -> None:
    ended = life.apply(batch(segments_open=1), SegmentSealed(Tally(succeeded=10), T0 - 1000))
    assert ended.ended_at_ms == T0


def test_an_archived_batch_is_not_archived_again() -> None:
    archived = life.apply(batch_in("ended"), Archived(T0 + 5))
    assert archived.archived_at_ms == T0 + 5
    assert life.apply(archived, Archived(T0 + 9)) == archived


@pytest.mark.parametrize(
    ("item", "now_ms", "kind"),
    [
        (batch(), T0 + limits.BATCH_LIFETIME_MS - 1, None),
        (batch(), T0 + limits.BATCH_LIFETIME_MS, "expired"),
        (batch_in("canceling"), T0, "canceled"),
        (batch_in("canceling"), T0 + limits.BATCH_LIFETIME_MS, "canceled"),
    ],
)
def test_what_an_unfinished_request_becomes(item: Batch, now_ms: int, kind: str | None) -> None:
    assert life.kind_of_unfinished(item, now_ms=now_ms) == kind


@pytest.mark.parametrize(
    ("item", "now_ms", "is_due"),
    [
        (batch_in("ended"), T0 + limits.RESULTS_LIFETIME_MS - 1, False),
        (batch_in("ended"), T0 + limits.RESULTS_LIFETIME_MS, True),
        (batch(), T0 + limits.RESULTS_LIFETIME_MS, False),
        (life.apply(batch_in("ended"), Archived(T0)), T0 + limits.RESULTS_LIFETIME_MS, False),
    ],
)
def test_what_is_archived(item: Batch, now_ms: int, is_due: bool) -> None:
    assert life.is_archivable(item, now_ms=now_ms) == is_due
