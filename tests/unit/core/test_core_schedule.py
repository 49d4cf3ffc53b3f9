"""core.schedule: which batch is next."""

from typing import Any

from overnight import limits
from overnight.core import schedule
from overnight.core.batch import Batch
from overnight.core.schedule import Candidate
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


def names(*candidates: Candidate, served: dict[WorkspaceId, float] | None = None) -> list[str]:
    return [item.batch.id for item in schedule.order(candidates, served=served or {}, now_ms=NOW)]


def test_what_only_needs_closing_comes_first() -> None:
    urgent = candidate("urgent", expires_at_ms=NOW + 1)
    canceled = candidate("canceled", age=8, status="canceling")
    expired = candidate("expired", age=9, expires_at_ms=NOW)
    assert names(candidate("old"), urgent, canceled, expired) == ["expired", "canceled", "urgent", "old"]


def test_a_deadline_in_danger_beats_fairness_and_age() -> None:
    urgent = candidate("urgent", A, age=9, expires_at_ms=NOW + schedule.URGENT_MS)
    almost = candidate("almost", A, age=8, expires_at_ms=NOW + schedule.URGENT_MS + 1)
    assert names(candidate("old", B), almost, urgent, served={A: 1e9}) == ["urgent", "old", "almost"]


def test_among_urgent_batches_the_oldest_is_first_whoever_owns_it() -> None:
    items = [
        candidate(name, space, age=age, expires_at_ms=NOW + 1) for name, space, age in (("new", B, 2), ("old", A, 1))
    ]
    assert names(*items, served={A: 1e9}) == ["old", "new"]


def test_the_workspace_that_was_served_least_is_next() -> None:
    items = [candidate("a", A, age=1), candidate("b", B, age=2), candidate("c", C, age=3)]
    assert names(*items, served={A: 300.0, B: 100.0, C: 200.0}) == ["b", "c", "a"]


def test_among_equals_the_oldest_is_first() -> None:
    assert names(candidate("new", age=2), candidate("old", age=1)) == ["old", "new"]


def test_a_whale_does_not_hold_up_ten_requests_of_another_team() -> None:
    """A has 100 segments of 1,000 requests and works since an hour; B comes with one small batch."""
    served: dict[WorkspaceId, float] = {A: 60_000.0}
    waiting = [candidate(f"whale{n}", A, age=n) for n in range(100)] + [candidate("small", B, age=1000)]
    served = schedule.lifted(served, [A, B])
    order = schedule.order(waiting, served=served, now_ms=NOW)
    first_two: list[str] = []
    for _ in range(2):  # One segment is served, then the next is chosen.
        chosen = order[0].batch
        first_two.append(chosen.id)
        served[chosen.workspace] += 1000
        order = schedule.order([item for item in order if item.batch != chosen], served=served, now_ms=NOW)
    assert "small" in first_two


def test_two_workspaces_share_in_turns() -> None:
    waiting = [candidate(f"{space}{n}", space, age=n) for n in range(50) for space in (A, B)]
    served: dict[WorkspaceId, float] = {A: 0.0, B: 0.0}
    for _ in range(40):
        chosen = schedule.order(waiting, served=served, now_ms=NOW)[0]
        waiting.remove(chosen)
        served[chosen.batch.workspace] += 1000
    assert served == {A: 20_000.0, B: 20_000.0}


def test_who_comes_late_has_saved_nothing_up() -> None:
    assert schedule.lifted({A: 500.0, B: 800.0, C: 3.0}, [A, B]) == {A: 500.0, B: 800.0, C: 3.0}
    assert schedule.lifted({A: 500.0, B: 800.0}, [A, B, C]) == {A: 500.0, B: 800.0, C: 500.0}
    assert schedule.lifted({}, [A]) == {A: 0.0}
