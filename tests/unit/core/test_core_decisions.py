"""core.lease, core.gate, core.retry, core.ratelimit: small decisions as tables."""

import pytest

from overnight import limits
from overnight.core import gate as gates
from overnight.core import lease as leases
from overnight.core import ratelimit, retry
from overnight.core.lease import SegmentRef
from overnight.core.retry import Again, Alone, Answered, Broken, Budget, Record, Refused
from overnight.ids import BatchId

T0 = 1_780_000_000_000
SEGMENT = SegmentRef(BatchId("msgbatch_01a"), 3)
PLENTY, NOTHING = Budget(retries_left=100.0), Budget(retries_left=0.5)


# --- lease --------------------------------------------------------------------------------------------------------


def test_each_take_raises_the_epoch() -> None:
    first = leases.take(SEGMENT, worker="a", last_epoch=0, now_ms=T0)
    second = leases.take(SEGMENT, worker="b", last_epoch=first.epoch, now_ms=T0)
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.expires_at_ms == T0 + limits.LEASE_TTL_MS


def test_a_renewal_moves_the_end_by_the_time_that_passed() -> None:
    lease = leases.take(SEGMENT, worker="a", last_epoch=4, now_ms=T0)
    assert leases.ends_at_ms(now_ms=T0 + 10_000) == lease.expires_at_ms + 10_000  # Of a renewal.


def test_a_holder_stops_before_anybody_else_may_begin() -> None:
    lease = leases.take(SEGMENT, worker="a", last_epoch=0, now_ms=T0)
    trusted_ms = lease.expires_at_ms - limits.LEASE_TRUST_MARGIN_MS
    for now_ms, is_trusted, is_free in (
        (T0, True, False),
        (trusted_ms - 1, True, False),
        (trusted_ms, False, False),
        (lease.expires_at_ms - 1, False, False),
        (lease.expires_at_ms, False, True),
    ):
        assert (now_ms < leases.trusted_until_ms(now_ms=T0)) == is_trusted, now_ms
        assert leases.is_free(lease.expires_at_ms, now_ms=now_ms) == is_free, now_ms


def test_a_segment_that_nobody_had_is_free() -> None:
    assert leases.is_free(0, now_ms=T0)


# --- gate ---------------------------------------------------------------------------------------------------------


def test_an_open_gate_lets_everything_in() -> None:
    assert gates.room(gates.OPEN, now_ms=0.0, in_flight_max=64) == 64


def test_a_busy_engine_is_left_alone_then_tried_by_one() -> None:
    gate = gates.after_busy(gates.OPEN, now_ms=1000.0, asked_ms=None, jitter=1.0)
    assert gates.room(gate, now_ms=gate.closed_until_ms - 0.001, in_flight_max=64) == 0
    assert gates.room(gate, now_ms=gate.closed_until_ms, in_flight_max=64) == 1


@pytest.mark.parametrize(
    ("bursts", "longest_ms"), [(0, 1_000), (1, 2_000), (5, 32_000), (6, 60_000), (5_000, 60_000)]
)
def test_pauses_double_up_to_a_minute(bursts: int, longest_ms: int) -> None:
    before = gates.Gate(bursts=bursts)
    pauses = [gates.after_busy(before, now_ms=0.0, asked_ms=None, jitter=dice).closed_until_ms for dice in (0.0, 1.0)]
    assert pauses == [longest_ms / 2, longest_ms]


def test_a_burst_lengthens_the_pause_once() -> None:
    gate = gates.after_busy(gates.OPEN, now_ms=0.0, asked_ms=None, jitter=0.5)
    again = gates.after_busy(gate, now_ms=1.0, asked_ms=None, jitter=0.5)
    assert again == gate


@pytest.mark.parametrize(
    ("asked_ms", "closed_until_ms"), [(None, 1_000), (10, 1_000), (5_000, 5_000), (10**12, limits.RETRY_AFTER_MS_MAX)]
)
def test_an_engine_may_ask_for_a_longer_pause_up_to_an_hour(asked_ms: int | None, closed_until_ms: float) -> None:
    assert gates.after_busy(gates.OPEN, now_ms=0.0, asked_ms=asked_ms, jitter=1.0).closed_until_ms == closed_until_ms


def test_a_later_reply_of_the_same_burst_may_ask_for_longer() -> None:
    gate = gates.after_busy(gates.OPEN, now_ms=0.0, asked_ms=None, jitter=1.0)
    longer = gates.after_busy(gate, now_ms=10.0, asked_ms=9_000, jitter=1.0)
    assert (longer.closed_until_ms, longer.bursts) == (9_010, 1)


def _broken(gate: gates.Gate, times: int, *, now_ms: float = 0.0) -> gates.Gate:
    for _ in range(times):
        gate = gates.after_broken(gate, now_ms=now_ms, jitter=1.0)
    return gate


def test_fewer_broken_attempts_than_the_breaker_takes_close_nothing() -> None:
    gate = _broken(gates.OPEN, limits.BREAKER_FAILURES - 1)
    assert gates.room(gate, now_ms=0.0, in_flight_max=64) == 64


def test_so_many_in_a_row_close_the_gate_and_one_tries_it() -> None:
    gate = _broken(gates.OPEN, limits.BREAKER_FAILURES)
    assert gate.closed_until_ms == limits.RETRY_DELAY_MS
    assert gates.room(gate, now_ms=0.0, in_flight_max=64) == 0
    assert gates.room(gate, now_ms=gate.closed_until_ms, in_flight_max=64) == 1


def test_those_that_were_inside_lengthen_no_pause_and_a_failed_try_doubles_it() -> None:
    gate = _broken(gates.OPEN, limits.BREAKER_FAILURES + 30)
    assert gate.closed_until_ms == limits.RETRY_DELAY_MS
    again = _broken(gate, 1, now_ms=gate.closed_until_ms)
    assert again.closed_until_ms == gate.closed_until_ms + 2 * limits.RETRY_DELAY_MS


def test_a_broken_attempt_ends_a_pause_for_being_busy() -> None:
    """It was taken, so there is room."""
    busy = gates.after_busy(gates.OPEN, now_ms=0.0, asked_ms=None, jitter=1.0)
    assert gates.room(_broken(busy, 1, now_ms=1.0), now_ms=1.0, in_flight_max=64) == 64


# --- retry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome", [Answered(b"{}"), Refused(status=400, type="invalid_request_error", message="no")]
)
@pytest.mark.parametrize("attempt", [1, limits.ATTEMPTS_MAX])
def test_an_answer_and_a_refusal_are_final(outcome: Answered | Refused, attempt: int) -> None:
    assert retry.decide(outcome, attempt=attempt, budget=PLENTY, jitter=0.5) == Record(outcome)


LOST = Broken(reason="the connection broke", is_lost=True)


@pytest.mark.parametrize(
    ("deaths", "was_alone", "expected"),
    [
        pytest.param(1, False, Again, id="once: an engine may be restarted"),
        pytest.param(limits.DEATHS_MAX, False, Alone, id="as often as the limit: suspect"),
        pytest.param(limits.DEATHS_MAX + 1, False, Alone, id="still not proven, for others were there"),
        pytest.param(limits.DEATHS_MAX + 1, True, Record, id="and once more, alone: its own doing"),
        pytest.param(1, True, Again, id="alone by chance, the first time"),
    ],
)
def test_a_request_that_kills_engines_runs_alone_and_is_then_given_up(
    deaths: int, was_alone: bool, expected: type[Again | Alone | Record]
) -> None:
    decision = retry.decide(LOST, attempt=deaths, budget=PLENTY, jitter=0.5, deaths=deaths, was_alone=was_alone)
    assert isinstance(decision, expected)
    if isinstance(decision, Record):
        assert isinstance(decision.outcome, Refused)
        assert (decision.outcome.status, decision.outcome.type) == (500, "api_error")


def test_a_suspect_that_is_only_refused_or_broken_is_treated_like_any_other() -> None:
    decision = retry.decide(Broken(reason="500"), attempt=3, budget=PLENTY, jitter=0.5, deaths=9, was_alone=True)
    assert isinstance(decision, Again)


@pytest.mark.parametrize(("attempt", "longest_ms"), [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (5, 16_000)])
def test_a_broken_attempt_is_made_again_later_each_time(attempt: int, longest_ms: int) -> None:
    delays = [retry.decide(Broken(reason="x"), attempt=attempt, budget=PLENTY, jitter=dice) for dice in (0.0, 1.0)]
    assert delays == [Again(longest_ms // 2), Again(longest_ms)]


@pytest.mark.parametrize(("kind", "status"), [("api_error", 500), ("timeout_error", 504)])
def test_the_last_attempt_that_breaks_is_an_errored_row(kind: str, status: int) -> None:
    broken = Broken(reason="connection lost", type=kind)  # type: ignore[arg-type]
    decision = retry.decide(broken, attempt=limits.ATTEMPTS_MAX, budget=PLENTY, jitter=0.5)
    assert isinstance(decision, Record)
    assert isinstance(decision.outcome, Refused)
    assert (decision.outcome.status, decision.outcome.type) == (status, kind)
    assert decision.outcome.message == f"connection lost ({limits.ATTEMPTS_MAX} attempts)"


def test_without_budget_retries_come_later_and_are_not_fewer() -> None:
    last = limits.ATTEMPTS_MAX - 1
    for attempt in range(1, limits.ATTEMPTS_MAX):
        decision = retry.decide(Broken(reason="x"), attempt=attempt, budget=NOTHING, jitter=1.0)
        assert decision == Again(limits.RETRY_DELAY_MS_MAX), attempt
    assert isinstance(retry.decide(Broken(reason="x"), attempt=last + 1, budget=NOTHING, jitter=1.0), Record)


def test_five_first_attempts_earn_one_retry() -> None:
    budget = Budget(retries_left=0.0)
    for _ in range(5):
        budget = retry.after_first_attempt(budget)
    assert budget.retries_left == pytest.approx(1.0)
    assert retry.after_retry(budget).retries_left == pytest.approx(0.0)
    assert retry.after_retry(Budget(retries_left=0.3)).retries_left == 0.0


def test_a_budget_does_not_grow_without_end() -> None:
    budget = Budget()
    for _ in range(10_000):
        budget = retry.after_first_attempt(budget)
    assert budget.retries_left == 100 * limits.RETRY_BUDGET_FLOOR


# --- rate limit -----------------------------------------------------------------------------------------------------


def test_a_full_bucket_lets_a_minutes_worth_pass_then_no_more() -> None:
    bucket, remaining = ratelimit.full(60, now_ms=T0), []
    for _ in range(60):
        verdict = ratelimit.take(bucket, per_minute=60, now_ms=T0)
        assert verdict.is_allowed
        bucket, remaining = verdict.bucket, [*remaining, verdict.remaining]
    assert remaining == list(range(59, -1, -1))
    refused = ratelimit.take(bucket, per_minute=60, now_ms=T0)
    assert (refused.is_allowed, refused.remaining, refused.retry_after_s) == (False, 0, 1)
    assert refused.reset_at_ms == T0 + 60_000


@pytest.mark.parametrize("per_minute", [1, 7, 60, 1_000])
def test_who_waits_as_told_may_pass(per_minute: int) -> None:
    empty = ratelimit.Bucket(tokens=0.0, at_ms=T0)
    refused = ratelimit.take(empty, per_minute=per_minute, now_ms=T0)
    assert refused.retry_after_s >= 1
    after_ms = T0 + refused.retry_after_s * 1000
    assert ratelimit.take(refused.bucket, per_minute=per_minute, now_ms=after_ms).is_allowed


def test_a_bucket_is_never_more_than_full_and_time_never_empties_it() -> None:
    bucket = ratelimit.take(ratelimit.full(10, now_ms=T0), per_minute=10, now_ms=T0 + 10**9).bucket
    assert bucket.tokens == 9.0
    assert ratelimit.take(bucket, per_minute=10, now_ms=T0).bucket.tokens == 8.0, "a clock set back takes nothing"
