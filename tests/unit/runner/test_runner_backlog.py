"""runner.backlog: whose request an engine takes next."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from overnight.core.batch import Batch
from overnight.core.lease import Lease, SegmentRef
from overnight.core.tokens import Tokens
from overnight.ids import BatchId, WorkspaceId
from overnight.runner.backlog import Backlog
from overnight.runner.segmentrun import SegmentRun, Unsaved, Work
from overnight.store.control import LeasedSegment, NewSegment
from overnight.wire.create import Request

A, B, C = (WorkspaceId(f"wrkspc_{name}") for name in "abc")


class Taker:
    """A pool, as far as a backlog sees it."""

    def __init__(self, limit: int = 8, *, is_by_deadline: bool = False) -> None:
        self.limit, self.is_by_deadline = limit, is_by_deadline
        self.turn = min(32, max(1, limit // 4))


def works(
    name: str,
    count: int,
    *,
    of: WorkspaceId = A,
    age: int = 0,
    due_ms: int = 10**9,
    models: str = "m",
    index: int = 0,
) -> list[Work]:
    """Requests `name0`, `name1`, … of one segment; `models` has a letter for each, repeated."""
    batch = Batch(
        id=BatchId(f"msgbatch_{name}"),
        workspace=of,
        api_version="",
        betas="",
        requests=count,
        segments_open=1,
        created_at_ms=0,
        expires_at_ms=due_ms,
    )
    leased = LeasedSegment(
        lease=Lease(segment=SegmentRef(batch.id, index), worker="w", epoch=1, expires_at_ms=0),
        batch=batch,
        age=age,
        source=NewSegment(requests=count, raw_bytes=1, offset=0, length=1),
        requests_key=None,
    )
    run = SegmentRun(leased, counter=Counter(), unsaved=Unsaved(), on_done=lambda run: None)
    found = run.start(Request(f"{name}{place}", msgspec.Raw(b"{}")) for place in range(count))
    for place, work in enumerate(found):
        work.model, work.size_bytes, work.max_tokens = models[place % len(models)], 400, 40
    return found


def take(backlog: Backlog, taker: Taker, count: int) -> list[Work]:
    """So many, or what there is."""
    found: list[Work] = []
    while len(found) < count and (work := backlog.take(taker)) is not None:
        found.append(work)
    return found


def ids(found: Sequence[Work]) -> list[str]:
    return [work.custom_id for work in found]


def test_requests_come_in_their_order_and_then_none() -> None:
    backlog, taker = Backlog(), Taker()
    backlog.add(works("a", 5))
    assert backlog.waiting() == {"m": 5}
    assert ids(take(backlog, taker, 9)) == ["a0", "a1", "a2", "a3", "a4"]
    assert backlog.take(taker) is None
    assert sum(backlog.waiting().values()) == 0


def test_each_engine_continues_its_own_segment() -> None:
    backlog, one, two = Backlog(), Taker(), Taker()
    backlog.add(works("a", 100, index=0))
    backlog.add(works("b", 100, index=1))
    mixed = [(backlog.take(one), backlog.take(two)) for _ in range(50)]
    assert [work.custom_id for work, _ in mixed if work] == [f"a{place}" for place in range(50)]
    assert [work.custom_id for _, work in mixed if work] == [f"b{place}" for place in range(50)]


def test_an_engine_without_a_segment_takes_the_back_half_of_the_longest() -> None:
    backlog, one, two, three = Backlog(), Taker(), Taker(), Taker()
    backlog.add(works("a", 100))
    assert ids(take(backlog, one, 4)) == ["a0", "a1", "a2", "a3"]
    assert ids(take(backlog, two, 2)) == ["a52", "a53"], "96 wait: the last 48 of them"
    assert ids(take(backlog, three, 1)) == ["a28"], "of the first 48 the last 24"
    left = [*take(backlog, one, 99), *take(backlog, two, 99), *take(backlog, three, 99)]
    assert len({work.custom_id for work in left}) == 100 - 7


def test_a_turn_is_a_quarter_of_a_window_and_then_the_least_served_is_next() -> None:
    backlog, taker = Backlog(), Taker(limit=16)
    backlog.add(works("a", 50, of=A))
    backlog.add(works("b", 50, of=B))
    order = [custom_id[0] for custom_id in ids(take(backlog, taker, 16))]
    assert order in (list("aaaabbbbaaaabbbb"), list("bbbbaaaabbbbaaaa"))


def test_weights_divide_what_was_served() -> None:
    backlog, taker = Backlog(weights={B: 3.0}), Taker(limit=4)
    backlog.add(works("a", 400, of=A))
    backlog.add(works("b", 400, of=B))
    count = Counter(custom_id[0] for custom_id in ids(take(backlog, taker, 400)))
    assert count["b"] / count["a"] == pytest.approx(3, rel=0.05)


def test_what_a_request_took_replaces_what_was_estimated() -> None:
    backlog, taker = Backlog(), Taker()
    backlog.add(works("a", 2))
    first, second = take(backlog, taker, 2)
    assert backlog.served[A] == 2 * (100 + 2 * 10)
    backlog.settle(first, Tokens(50, 5))
    backlog.settle(second, None)
    assert backlog.served[A] == 50 + 2 * 5
    assert backlog.estimated("m", size_bytes=400, max_tokens=40) == Tokens(50, 5)


def test_a_newcomer_begins_where_the_least_served_is() -> None:
    backlog, taker = Backlog(), Taker(limit=4)
    backlog.add(works("a", 400, of=A))
    take(backlog, taker, 100)
    backlog.add(works("b", 100, of=B))
    count = Counter(custom_id[0] for custom_id in ids(take(backlog, taker, 40)))
    assert count["a"] == pytest.approx(20, abs=2)


def test_who_comes_back_is_owed_nothing_for_the_time_away() -> None:
    backlog, taker = Backlog(), Taker(limit=4)
    backlog.add(works("b", 1, of=B))
    take(backlog, taker, 1)
    backlog.add(works("a", 400, of=A))
    take(backlog, taker, 200)
    backlog.add(works("c", 100, of=B, age=9))
    count = Counter(custom_id[0] for custom_id in ids(take(backlog, taker, 40)))
    assert count["a"] == pytest.approx(20, abs=2)


def test_nor_if_all_were_away_and_it_is_the_first_to_come_back() -> None:
    backlog, taker = Backlog(), Taker(limit=4)
    backlog.add(works("b", 1, of=B))
    take(backlog, taker, 1)
    backlog.add(works("a", 200, of=A))
    assert len(take(backlog, taker, 999)) == 200
    backlog.add(works("c", 100, of=B))
    backlog.add(works("d", 100, of=A))
    count = Counter(custom_id[0] for custom_id in ids(take(backlog, taker, 40)))
    assert count["d"] == pytest.approx(20, abs=4)


@pytest.mark.parametrize(
    ("danger_ms", "is_by_deadline", "first"),
    [
        pytest.param(None, False, "old", id="nothing is in danger: the oldest"),
        pytest.param(499, False, "old", id="what is due later is in danger: none waits"),
        pytest.param(500, False, "due", id="the earliest is in danger"),
        pytest.param(None, True, "due", id="the engine works for deadlines alone"),
    ],
)
def test_the_earliest_deadline_is_first_when_it_matters(
    danger_ms: int | None, is_by_deadline: bool, first: str
) -> None:
    backlog, taker = Backlog(), Taker(is_by_deadline=is_by_deadline)
    backlog.add(works("old", 3, age=1, due_ms=900))
    backlog.add(works("due", 3, age=2, due_ms=500))
    backlog.danger_ms = danger_ms
    assert ids(take(backlog, taker, 1)) == [f"{first}0"]


def test_danger_beats_fairness() -> None:
    backlog, taker = Backlog(), Taker(limit=4)
    backlog.add(works("a", 50, of=A, due_ms=500))
    take(backlog, taker, 20)
    backlog.add(works("b", 50, of=B, due_ms=900))
    backlog.danger_ms = 500
    assert {custom_id[0] for custom_id in ids(take(backlog, taker, 30))} == {"a"}


def test_an_engine_takes_only_what_it_may() -> None:
    chat, other = Taker(), Taker()
    backlog = Backlog(lambda taker, stretch: (taker is chat) == (stretch.model == "x"))
    backlog.add(works("a", 6, models="xxy"))
    assert ids(take(backlog, chat, 9)) == ["a0", "a1", "a3", "a4"]
    assert ids(take(backlog, other, 9)) == ["a2", "a5"]


def test_what_is_put_back_is_next_in_its_old_place() -> None:
    backlog, taker = Backlog(), Taker()
    backlog.add(works("a", 6))
    taken = take(backlog, taker, 4)
    backlog.put_back([taken[3], taken[1]])
    assert ids(take(backlog, taker, 9)) == ["a1", "a3", "a4", "a5"]


def test_what_is_put_back_after_all_was_taken_waits_again_and_what_is_closed_does_not() -> None:
    backlog, taker = Backlog(), Taker()
    backlog.add(works("a", 2))
    first, second = take(backlog, taker, 2)
    first.run.record(first, "canceled", b"")
    backlog.put_back([first, second])
    assert ids(take(backlog, taker, 9)) == ["a1"]


def test_requests_that_are_closed_while_they_wait_are_passed_over_and_cost_nothing() -> None:
    backlog, taker = Backlog(), Taker()
    given = works("a", 3)
    backlog.add(given)
    given[0].run.record(given[0], "canceled", b"")
    assert ids(take(backlog, taker, 1)) == ["a1"]
    assert backlog.served[A] == 100 + 2 * 10


def test_what_an_engine_that_is_away_would_have_taken_is_anybodys() -> None:
    backlog, gone, here = Backlog(), Taker(), Taker()
    backlog.add(works("a", 100))
    take(backlog, gone, 10)
    backlog.release(gone)
    assert ids(take(backlog, here, 2)) == ["a10", "a11"], "from where it was, not the back half"


def test_a_run_that_is_forgotten_and_a_backlog_that_is_cleared_give_nothing() -> None:
    backlog, taker = Backlog(), Taker()
    given = works("a", 3)
    backlog.add(given)
    backlog.add(works("b", 3))
    backlog.forget(given[0].run)
    assert {custom_id[0] for custom_id in ids(take(backlog, taker, 1))} == {"b"}
    backlog.clear()
    assert backlog.waiting() == {}


def test_many_are_taken_up_to_a_number_or_a_size_and_one_too_large_comes_alone() -> None:
    backlog, taker = Backlog(), Taker()
    backlog.add(works("a", 10))
    assert ids(backlog.take_many(taker, requests_max=3, bytes_max=10**6)) == ["a0", "a1", "a2"]
    assert ids(backlog.take_many(taker, requests_max=9, bytes_max=1_000)) == ["a3", "a4"]
    assert ids(backlog.take_many(taker, requests_max=9, bytes_max=1)) == ["a5"]
    assert backlog.served[A] == 6 * (100 + 2 * 10), "what was put back is not charged"


def test_more_is_asked_for_before_all_engines_together_could_run_dry() -> None:
    backlog, one, two = Backlog(), Taker(limit=8), Taker(limit=8)
    calls: list[int] = []
    backlog.on_low = lambda: calls.append(sum(backlog.waiting().values()))
    backlog.add(works("a", 40, index=0))
    backlog.add(works("b", 40, index=1))
    for _ in range(40):
        backlog.take(one)
        backlog.take(two)
    assert calls[0] == pytest.approx(16, abs=2), "two windows of eight"


def test_more_is_asked_for_when_a_workspace_runs_dry_however_much_others_have() -> None:
    backlog, taker = Backlog(), Taker(limit=4)
    calls: list[int] = []
    backlog.on_low = lambda: calls.append(1)
    backlog.add(works("a", 500, of=A))
    backlog.add(works("b", 2, of=B))
    take(backlog, taker, 6)
    assert calls == [1]


def test_a_workspace_whose_last_waiting_request_was_taken_is_not_among_those_that_wait() -> None:
    """When more is asked for, it is to be leased something."""
    backlog, taker = Backlog(), Taker(limit=4)
    waiting: list[frozenset[WorkspaceId]] = []
    backlog.on_low = lambda: waiting.append(backlog.workspaces())
    backlog.add(works("a", 500, of=A))
    backlog.add(works("b", 2, of=B))
    take(backlog, taker, 6)
    assert waiting == [frozenset({A})]
