"""jobs.adopt: what became of a create that nobody confirmed."""

import pytest

from overnight import limits
from overnight.jobs.adopt import Adopt, Again, Choice, Intent, Several, Wait, choose, created_ms, instant_ms
from overnight.jobs.server import ShownBatch
from overnight.wire.batch import rfc3339

T0 = 1_780_000_000_000
INTENT = Intent(T0, requests=5)


def batch(name: str = "msgbatch_a", *, at_ms: int = T0 + 100, processing: int = 5, errored: int = 0) -> ShownBatch:
    counts = {"processing": processing, "errored": errored}
    return ShownBatch(id=name, processing_status="in_progress", request_counts=counts, created_at=rfc3339(at_ms))


OURS = batch()


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        pytest.param([OURS], Adopt(OURS), id="one"),
        pytest.param([batch("b", processing=6), OURS], Adopt(OURS), id="another has other requests"),
        pytest.param([OURS, batch("old", at_ms=T0 - 60_000)], Adopt(OURS), id="another is older"),
        pytest.param([batch("known"), OURS], Adopt(OURS), id="another is in the ledger"),
        pytest.param([batch("b"), OURS], Several(["b", "msgbatch_a"]), id="two"),
        pytest.param([batch("known")], Wait(15.0), id="only known ones"),
        pytest.param([], Wait(15.0), id="none"),
    ],
)
def test_a_batch_is_taken_for_ours_by_its_time_and_number(batches: list[ShownBatch], expected: Choice) -> None:
    assert choose(INTENT, batches, known={"known"}, now_ms=T0) == expected


def test_requests_are_counted_in_whatever_state_they_are() -> None:
    ended = batch(processing=0, errored=5)
    assert choose(INTENT, [ended], known=set(), now_ms=T0) == Adopt(ended)


@pytest.mark.parametrize(
    ("before_ms", "is_ours"),
    [pytest.param(2_000, True, id="as old as a Date header may be wrong"), pytest.param(2_001, False, id="older")],
)
def test_clocks_may_differ_by_two_seconds(before_ms: int, is_ours: bool) -> None:
    found = choose(INTENT, [batch(at_ms=T0 - before_ms)], known=set(), now_ms=T0)
    assert isinstance(found, Adopt) is is_ours


@pytest.mark.parametrize(
    ("passed_ms", "expected"),
    [
        pytest.param(0, Wait(15.0), id="at once"),
        pytest.param(limits.JOB_LISTING_LAG_MS - 4_000, Wait(4.0), id="near the end, only the rest"),
        pytest.param(limits.JOB_LISTING_LAG_MS - 1, Wait(0.001), id="a moment before"),
        pytest.param(limits.JOB_LISTING_LAG_MS, Again(), id="then it was not made"),
        pytest.param(limits.JOB_LISTING_LAG_MS * 100, Again(), id="long after"),
    ],
)
def test_a_batch_that_no_list_has_is_made_again_when_lists_cannot_lag_any_more(
    passed_ms: int, expected: Choice
) -> None:
    assert choose(INTENT, [], known=set(), now_ms=T0 + passed_ms) == expected


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-05-28T20:26:40Z", T0),
        ("2026-05-28T20:26:40.123456Z", T0 + 123),
        ("2026-05-28T22:26:40.5+02:00", T0 + 500),
    ],
)
def test_instants_are_read_as_servers_write_them(text: str, ms: int) -> None:
    assert instant_ms(text) == ms


def test_a_batch_was_made_when_it_says() -> None:
    assert created_ms(OURS) == T0 + 100
