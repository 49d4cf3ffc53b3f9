"""core.schedule: which batch is next."""

from typing import Any

import pytest

from overnight import limits
from overnight.core import schedule
from overnight.core.batch import Batch
from overnight.core.schedule import Candidate, Demand
from overnight.ids import BatchId, WorkspaceId
from overnight.wire.batch import Status

T0 = 1_780_000_000_000
NOW = T0 + 60_000
A, B, C = (WorkspaceId(f"wrkspc_{name}") for name in "abc")


def candidate(
    name: str, workspace: WorkspaceId = A, *, age: int = 0, status: Status = "in_progress", **more: Any
) -> Candidate:
    given = {"expires_at_ms": T0 + limits.BATCH_LIFETIME_MS, **more}
    batch = Batch(
        id=BatchId(name),
        workspace=workspace,
        api_version="",
        betas="",
        requests=100,
        segments_open=1,
        created_at_ms=T0,
        status=status,
        **given,
    )
    return Candidate(batch=batch, age=age)


def names(
    *candidates: Candidate, served: dict[WorkspaceId, float] | None = None, danger_ms: int | None = None
) -> list[str]:
    """In which order batches of one segment each are leased."""
    turns = schedule.Turns(candidates, served=served or {}, danger_ms=danger_ms, now_ms=NOW)
    order: list[str] = []
    while (item := turns.closing() or turns.next()) is not None:
        order.append(item.batch.id)
        turns.served(item, 1.0)
        turns.is_out(item)
    return order


def test_what_only_needs_closing_comes_first() -> None:
    urgent = candidate("urgent", expires_at_ms=NOW + 1)
    canceled = candidate("canceled", age=8, status="canceling")
    expired = candidate("expired", age=9, expires_at_ms=NOW)
    order = names(candidate("old"), urgent, canceled, expired, danger_ms=NOW + 1)
    assert order == ["canceled", "expired", "urgent", "old"]


def test_a_deadline_in_danger_beats_fairness_and_age() -> None:
    urgent = candidate("urgent", A, age=9, expires_at_ms=NOW + 500)
    almost = candidate("almost", A, age=8, expires_at_ms=NOW + 501)
    order = names(candidate("old", B), almost, urgent, served={A: 1e9, B: 0.0}, danger_ms=NOW + 500)
    assert order == ["urgent", "old", "almost"]


def test_in_danger_the_earliest_deadline_is_first_and_then_the_oldest_whoever_owns_it() -> None:
    items = [
        candidate(name, space, age=age, expires_at_ms=NOW + due)
        for name, space, age, due in (("new", B, 2, 9), ("old", A, 1, 9), ("first", B, 3, 8))
    ]
    assert names(*items, served={A: 1e9}, danger_ms=NOW + 9) == ["first", "old", "new"]


def test_the_workspace_that_was_served_least_is_next() -> None:
    items = [candidate("a", A, age=1), candidate("b", B, age=2), candidate("c", C, age=3)]
    assert names(*items, served={A: 300.0, B: 100.0, C: 200.0}) == ["b", "c", "a"]


def test_among_equals_the_oldest_is_first_and_a_newcomer_before_it() -> None:
    assert names(candidate("new", age=2), candidate("old", age=1)) == ["old", "new"]
    assert names(candidate("whale", A, age=1), candidate("guest", B, age=2), served={A: 5.0}) == ["guest", "whale"]


def test_a_whale_does_not_hold_up_ten_requests_of_another_team() -> None:
    """A has 100 batches and works since an hour; B comes with one small batch."""
    waiting = [candidate(f"whale{n}", A, age=n) for n in range(100)] + [candidate("small", B, age=1000)]
    assert names(*waiting, served={A: 60_000.0})[0] == "small"


def test_two_workspaces_share_in_turns() -> None:
    waiting = [candidate(f"{space}{n}", space, age=2 * n + (space == B)) for n in range(50) for space in (A, B)]
    order = names(*waiting)
    assert {name[:8] for name in order[0:2]} == {A, B}
    assert all(order[n][:8] != order[n + 1][:8] for n in range(0, 100, 2))


def test_a_workspace_that_is_left_out_is_passed_over() -> None:
    turns = schedule.Turns([candidate("a", A), candidate("b", B)], served={B: 9.0}, danger_ms=None, now_ms=NOW)
    assert turns.next(besides=frozenset({A, B})) is None
    found = turns.next(besides=frozenset({A}))
    assert found is not None
    assert found.batch.id == "b"


def test_who_comes_late_has_saved_nothing_up() -> None:
    assert schedule.lifted({A: 500.0, B: 800.0, C: 3.0}, [A, B]) == {A: 500.0, B: 800.0, C: 3.0}
    assert schedule.lifted({A: 500.0, B: 800.0}, [A, B, C]) == {A: 500.0, B: 800.0, C: 500.0}
    assert schedule.lifted({}, [A]) == {A: 0.0}


HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("demands", "per_s", "danger_ms"),
    [
        pytest.param([], 1.0, None, id="nothing waits"),
        pytest.param([(HOUR_MS, 3_185)], 1.0, None, id="it fits"),
        pytest.param([(HOUR_MS, 3_186)], 1.0, HOUR_MS, id="nine tenths of the time, less a minute"),
        pytest.param([(HOUR_MS, 2_000), (2 * HOUR_MS, 4_426)], 1.0, 2 * HOUR_MS, id="together they do not fit"),
        pytest.param([(2 * HOUR_MS, 100), (HOUR_MS, 3_600)], 1.0, HOUR_MS, id="in any order"),
        pytest.param([(-1, 9_999_999)], 1.0, None, id="over already: it only needs closing"),
        pytest.param([(HOUR_MS, 1), (HOUR_MS + 1, 10**9)], None, HOUR_MS, id="no speed known: the last hour"),
    ],
)
def test_a_deadline_is_in_danger_when_what_is_due_by_it_hardly_fits(
    demands: list[tuple[int, int]], per_s: float | None, danger_ms: int | None
) -> None:
    found = schedule.danger_until_ms(
        [Demand(NOW + due_ms, requests) for due_ms, requests in demands], per_s=per_s, now_ms=NOW
    )
    assert found == (None if danger_ms is None else NOW + danger_ms)
