"""core.handoff: names that prove whose a result is, and what became of a create that was never confirmed."""

import pytest

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.core.handoff import (
    HANDOFF_ID_ENTROPY_BYTES,
    Choice,
    Handoff,
    Named,
    Prove,
    Shown,
    Unasked,
    Unmade,
    Wait,
)
from overnight.core.lease import SegmentRef
from overnight.core.retry import Broken, Refused
from overnight.ids import BATCH_ID_ENTROPY_BYTES, BatchId, batch_id
from overnight.wire import problem
from overnight.wire.create import CUSTOM_ID_PATTERN

T0 = 1_780_000_000_000
HANDOFF = Handoff(id="h", engine="e", requests=10, created_at_ms=T0)
LAG_MS = limits.HANDOFF_LISTING_LAG_MS


def test_the_longest_name_is_a_legal_custom_id_and_says_what_it_was_given() -> None:
    segment = SegmentRef(batch_id(T0, bytes(BATCH_ID_ENTROPY_BYTES)), limits.BATCH_REQUESTS_MAX - 1)
    handoff_id = handoffs.new_id(bytes(range(HANDOFF_ID_ENTROPY_BYTES)))
    name = handoffs.name(segment, limits.SEGMENT_REQUESTS_MAX - 1, handoff_id)
    assert len(name) <= limits.CUSTOM_ID_LENGTH_MAX
    assert set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-"), CUSTOM_ID_PATTERN
    assert handoffs.read_name(name) == Named(segment, limits.SEGMENT_REQUESTS_MAX - 1, handoff_id)


def test_a_name_that_would_be_too_long_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="too long"):
        handoffs.name(SegmentRef(BatchId("msgbatch_" + "x" * 60), 0), 0, "h")


@pytest.mark.parametrize(
    "text", ["", "invoice-17", "a-1-2", "a-1-2-h-3", "a-x-2-h", "a--2-h", "ä-1-2-h", "a-1-2-h\n"]
)
def test_other_peoples_custom_ids_are_no_names(text: str) -> None:
    assert handoffs.read_name(text) is None


@pytest.mark.parametrize("ordinals", [[], [0], [7, 8], [999], list(range(1000)), [0, 63, 64, 500]])
def test_a_set_of_places_is_kept_in_a_bit_each(ordinals: list[int]) -> None:
    members = handoffs.packed(ordinals)
    assert list(handoffs.unpacked(members)) == ordinals
    assert len(members) <= 125


def test_a_body_of_what_fits_is_within_its_bound() -> None:
    sizes = [100] * 50
    count = handoffs.fitting(sizes, bytes_max=5_000)
    longest = "x" * limits.CUSTOM_ID_LENGTH_MAX
    frame = len(f'{{"custom_id":"{longest}","params":}},')
    assert 0 < count < 50
    assert count * (100 + frame) + len('{"requests":[]}') <= 5_000
    assert handoffs.fitting(sizes, bytes_max=10**6) == 50
    assert handoffs.fitting([10_000, 1], bytes_max=5_000) == 0


def shown(name: str, *, requests: int = 10, at_ms: int = T0 + 5, has_ended: bool = False) -> Shown:
    return Shown(id=name, requests=requests, created_at_ms=at_ms, has_ended=has_ended)


CHOICES = [
    pytest.param([], 0, Wait(LAG_MS // 8), id="none yet: a list may lag"),
    pytest.param([], LAG_MS - 10, Wait(10), id="none yet, and nearly certain"),
    pytest.param([], LAG_MS, Unmade(), id="none: not made"),
    pytest.param([shown("a")], LAG_MS * 9, Wait(limits.HANDOFF_POLL_MS_MAX), id="one that runs: nothing is decided"),
    pytest.param([shown("a", has_ended=True)], 0, Prove(["a"]), id="one that has ended: its results tell"),
    pytest.param(
        [shown("a"), shown("b", has_ended=True), shown("c", has_ended=True)], 0, Prove(["b", "c"]), id="several"
    ),
    pytest.param([shown("known", has_ended=True)], LAG_MS, Unmade(), id="that of another handoff"),
    pytest.param([shown("a", requests=11)], LAG_MS, Unmade(), id="another number of requests"),
    pytest.param([shown("a", at_ms=T0 - 2_001)], LAG_MS, Unmade(), id="made before the intent"),
    pytest.param(
        [shown("a", at_ms=T0 - 2_000)], LAG_MS, Wait(limits.HANDOFF_POLL_MS_MAX), id="made in the same second"
    ),
]


@pytest.mark.parametrize(("batches", "searched_ms", "choice"), CHOICES)
def test_what_became_of_a_create(batches: list[Shown], searched_ms: int, choice: Choice) -> None:
    found = handoffs.choose(HANDOFF, batches, known={"known"}, ahead_ms=0, searched_ms=searched_ms)
    assert found == choice


def test_the_upstreams_clock_counts_not_ours() -> None:
    batches = [shown("a", at_ms=T0 + 3_600_000)]
    assert isinstance(handoffs.choose(HANDOFF, batches, known=(), ahead_ms=3_600_000, searched_ms=LAG_MS), Wait), (
        "an hour ahead"
    )
    assert handoffs.choose(HANDOFF, batches, known=(), ahead_ms=2 * 3_600_000, searched_ms=LAG_MS) == Unmade()
    assert handoffs.is_older(batches[0], HANDOFF, ahead_ms=2 * 3_600_000)
    assert not handoffs.is_older(batches[0], HANDOFF, ahead_ms=3_600_000)


def test_looks_become_rarer_and_heed_what_the_upstream_asks() -> None:
    waits = [handoffs.poll_ms(looks, asked_ms=None) for looks in range(40)]
    assert waits[0] == limits.HANDOFF_POLL_MS
    assert waits == sorted(waits)
    assert waits[-1] == limits.HANDOFF_POLL_MS_MAX
    assert handoffs.poll_ms(0, asked_ms=10_000) == 10_000
    assert handoffs.poll_ms(30, asked_ms=10_000) == limits.HANDOFF_POLL_MS_MAX
    assert handoffs.poll_ms(0, asked_ms=10**12) == limits.RETRY_AFTER_MS_MAX


VERDICTS = [
    ("invalid_request_error", "max_tokens: too large", Refused),
    ("not_found_error", "model: x", Refused),
    ("api_error", "Internal server error", Broken),
    ("overloaded_error", "Overloaded", Broken),
    ("rate_limit_error", "slow down", Broken),
    ("timeout_error", "too slow", Broken),
    ("authentication_error", "API key is invalid.", Unasked),
    ("permission_error", "no", Unasked),
    ("billing_error", "pay", Unasked),
    ("invalid_request_error", "Your credit balance is too low to access the Anthropic API.", Unasked),
]


@pytest.mark.parametrize(("error_type", "said", "kind"), VERDICTS, ids=[f"{row[0]}: {row[1]}" for row in VERDICTS])
def test_what_an_errored_row_means(error_type: str, said: str, kind: type) -> None:
    verdict = handoffs.verdict_of_error(problem.encode(error_type, said, request_id="req_1"))
    assert isinstance(verdict, kind)
    if isinstance(verdict, Refused):
        assert (verdict.type, verdict.message, verdict.request_id) == (error_type, said, "req_1")


def test_an_errored_row_that_says_nothing_is_no_fault_of_the_request() -> None:
    assert isinstance(handoffs.verdict_of_error(b""), Broken)
