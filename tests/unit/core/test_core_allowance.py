"""`core.allowance`: what headers of a rate's limits mean, and how long a request waits for them."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from overnight import limits
from overnight.core import allowance as allowances
from overnight.core.allowance import EXPECTED, UNKNOWN, Allowance, Sent
from overnight.core.tokens import Tokens

T0 = 5_000_000.0
ONE = Tokens(1, 1)
LONGEST_MS = limits.ALLOWANCE_WAIT_MS_MAX


def claude(**told: tuple[object, object]) -> dict[str, str]:
    """Headers by kind: limit and remaining."""
    headers = {}
    for kind, (limit, remaining) in told.items():
        headers[f"anthropic-ratelimit-{kind.replace('_', '-')}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{kind.replace('_', '-')}-remaining"] = str(remaining)
    return headers


def openai(kind: str, limit: object, remaining: object, reset: str = "1s") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{word}-{kind}": str(value) for word, value in values.items()}


def told(headers: Mapping[str, str], *, now_ms: float = T0) -> Allowance:
    """After one answer with these headers to a request that was sent just now."""
    before = allowances.spent(EXPECTED, ONE, now_ms=now_ms)
    return allowances.heard(before, headers, since=before.sent, now_ms=now_ms)


def ready(allowance: Allowance) -> Allowance:
    """The same after long use: growth holds nothing back."""
    return replace(allowance, use=100.0, next_ms=0.0)


def wait_ms(allowance: Allowance, tokens: Tokens = ONE, *, at_ms: float = 0.0) -> int:
    return allowances.wait_ms(allowance, tokens, now_ms=T0 + at_ms)


# --- Without limits -----------------------------------------------------------------------------------------------


def test_a_server_that_tells_no_limits_has_none() -> None:
    allowance = UNKNOWN
    for _ in range(1_000):
        assert wait_ms(allowance, Tokens(10**6, 10**6)) == 0
        allowance = allowances.spent(allowance, Tokens(10**6, 10**6), now_ms=T0)
        assert allowances.heard(allowance, {"content-type": "x"}, since=allowance.sent, now_ms=T0) is allowance


def test_where_limits_are_expected_requests_go_one_by_one_until_they_are_told() -> None:
    assert wait_ms(EXPECTED) == 0
    sent = allowances.spent(EXPECTED, ONE, now_ms=T0)
    assert wait_ms(sent) == 1_000
    assert wait_ms(sent, at_ms=1_000) == 0
    answered = allowances.heard(sent, claude(requests=(1_000, 999)), since=sent.sent, now_ms=T0)
    assert wait_ms(ready(answered)) == 0


def test_an_expectation_ends_with_an_answer_that_tells_none() -> None:
    sent = allowances.spent(EXPECTED, ONE, now_ms=T0)
    answered = allowances.heard(sent, {"content-type": "x"}, since=sent.sent, now_ms=T0)
    assert wait_ms(answered) == 0
    assert wait_ms(allowances.spent(answered, ONE, now_ms=T0)) == 0


# --- Headers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "tokens", "expected_ms"),
    [  # Three seconds' inflow are kept in reserve.
        pytest.param(claude(requests=(60, 0)), ONE, 4_000, id="requests"),
        pytest.param(claude(requests=(60, 4)), ONE, 0, id="some-left"),
        pytest.param(claude(input_tokens=(60_000, 0)), Tokens(5_000, 9), 8_000, id="input"),
        pytest.param(claude(output_tokens=(60_000, 0)), Tokens(9, 5_000), 8_000, id="output"),
        pytest.param(claude(tokens=(60_000, 0)), Tokens(2_000, 3_000), 8_000, id="all-tokens"),
        pytest.param(claude(requests=(60, 60), input_tokens=(60_000, 0)), Tokens(0, 0), 3_000, id="the-tightest"),
        pytest.param(openai("requests", 60, 0), ONE, 4_000, id="openai-requests"),
        pytest.param(openai("tokens", 60_000, 0, "58.5s"), Tokens(2_000, 3_000), 8_000, id="openai-tokens"),
    ],
)
def test_a_request_waits_until_what_it_takes_has_flowed_in(
    headers: dict[str, str], tokens: Tokens, expected_ms: int
) -> None:
    assert wait_ms(ready(told(headers)), tokens) == expected_ms
    assert wait_ms(ready(told(headers)), tokens, at_ms=expected_ms) == 0


@pytest.mark.parametrize(
    ("reset", "wait_for_one_ms"),
    [
        pytest.param("6s", 1_000, id="a-minute"),
        pytest.param("1m0s", 1_000, id="exactly-a-minute"),
        pytest.param("12m0s", 24_000, id="longer"),
        pytest.param("1h0m0.5s", LONGEST_MS, id="hours"),
        pytest.param("9999h", LONGEST_MS, id="years"),
        pytest.param("120", 4_000, id="plain-seconds"),
        pytest.param("720000ms", 24_000, id="milliseconds"),
        *(pytest.param(text, 1_000, id=f"no-time-{text}") for text in ("", "soon", "-5m", "nan", "1e9s", "٣h")),
    ],
)
def test_a_limit_that_is_full_later_than_in_a_minute_is_not_one_per_minute(reset: str, wait_for_one_ms: int) -> None:
    allowance = ready(told(openai("requests", 60, 30, reset)))
    empty = replace(allowance.requests or pytest.fail("no bucket"), level=0.0)
    paid = wait_ms(replace(allowance, requests=empty)) - 3_000  # Without the reserve.
    assert paid in (wait_for_one_ms, wait_for_one_ms - 3_000)


GARBAGE = ["", "-1", "nan", "inf", "1e400", "9" * 5_000, "٣", "1.5", "0x10", " 7", "seven"]


@pytest.mark.parametrize("text", GARBAGE, ids=[repr(text[:6]) for text in GARBAGE])
@pytest.mark.parametrize("family", [lambda *pair: claude(requests=pair), lambda *pair: openai("requests", *pair)])
def test_headers_that_make_no_sense_change_nothing(text: str, family: object) -> None:
    assert callable(family)
    for headers in (family(text, "0"), family("60", text), family("0", "0")):
        assert wait_ms(ready(told(headers))) == 0
    before = ready(told(claude(requests=(60, 0))))
    after = allowances.heard(before, family(text, text), since=before.sent, now_ms=T0)
    assert wait_ms(after) == wait_ms(before) == 4_000


def test_more_left_than_the_limit_is_taken_as_the_limit() -> None:
    allowance = told(claude(requests=(60, 10**12)))
    assert allowance.requests is not None
    assert allowance.requests.level == 60


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("limit", [1, 10**14])
def test_whatever_is_told_one_request_a_minute_goes(limit: int, left: int) -> None:
    allowance = told(claude(requests=(limit, left), input_tokens=(1, 0)) | {"retry-after": "9" * 15})
    tokens = Tokens(10**9, 10**9)
    for minute in range(3):
        at_ms = T0 + minute * LONGEST_MS
        assert 0 < allowances.wait_ms(allowance, tokens, now_ms=at_ms + 1) <= LONGEST_MS
        assert allowances.wait_ms(allowance, tokens, now_ms=at_ms + LONGEST_MS) == 0
        allowance = allowances.spent(allowance, tokens, now_ms=at_ms + LONGEST_MS)


# --- Reckoning ----------------------------------------------------------------------------------------------------


def test_what_was_sent_since_is_not_lost_when_an_older_answer_comes() -> None:
    first = ready(told(claude(requests=(60, 60))))
    since, allowance, now_ms = first.sent, first, T0 + 20_000
    for _ in range(50):
        allowance = allowances.spent(allowance, ONE, now_ms=now_ms)
    after = allowances.heard(allowance, claude(requests=(60, 60)), since=since, now_ms=now_ms)
    assert after.requests is not None
    assert after.requests.level == 10


def test_an_answer_to_an_earlier_request_than_the_last_heard_does_not_count() -> None:
    first = ready(told(claude(requests=(60, 50))))
    second = allowances.spent(first, ONE, now_ms=T0)
    third = allowances.spent(second, ONE, now_ms=T0)
    newest = allowances.heard(third, claude(requests=(60, 5)), since=third.sent, now_ms=T0)
    assert allowances.heard(newest, claude(requests=(60, 40)), since=second.sent, now_ms=T0 + 1) is newest


def test_less_than_thought_is_believed_at_once_and_more_only_in_time() -> None:
    first = ready(told(claude(requests=(60, 30))))
    less = allowances.heard(first, claude(requests=(60, 5)), since=first.sent, now_ms=T0)
    levels = [less.requests.level if less.requests else None]
    for after_ms in (0, 5_000, 10_000):
        since = allowances.mark(first, now_ms=T0 + after_ms)
        more = allowances.heard(first, claude(requests=(60, 50)), since=since, now_ms=T0 + after_ms)
        levels.append(more.requests.level if more.requests else None)
    assert levels == [5, 30, 35 + 0.5 * (50 - 35), 50]


def test_a_changed_limit_is_believed_at_once() -> None:
    first = ready(told(claude(requests=(60, 0))))
    after = allowances.heard(first, claude(requests=(6_000, 6_000)), since=first.sent, now_ms=T0)
    assert wait_ms(after) == 0


@pytest.mark.parametrize("input_tokens", [60_000, 10**9])
def test_a_request_as_large_as_the_bucket_or_larger_goes_alone_when_it_is_full(input_tokens: int) -> None:
    large = Tokens(input_tokens, 1)
    allowance = replace(ready(told(claude(input_tokens=(60_000, 30_000)))), sent=Sent(T0 + LONGEST_MS, 1, 1, 1))
    assert wait_ms(allowance, large) == 30_000
    assert wait_ms(allowance, large, at_ms=30_000) == 0
    after = ready(allowances.spent(allowance, large, now_ms=T0 + 30_000))
    assert wait_ms(after, at_ms=30_000) > 0


@pytest.mark.parametrize("takes", [0.1, 0.5, 1.0, 1.5])
def test_what_the_server_takes_for_one_of_our_tokens_is_learnt(takes: float) -> None:
    """Cache reads are free, estimates are wrong, others take as well."""
    allowance, left = ready(told(claude(input_tokens=(600_000, 300_000)))), 300_000.0
    for second in range(1, 121):
        now_ms = T0 + second * 1_000
        allowance = allowances.spent(allowance, Tokens(round(10_000 / takes), 1), now_ms=now_ms)
        headers = claude(input_tokens=(600_000, round(left)))  # As much is taken as flows in.
        allowance = allowances.heard(allowance, headers, since=allowance.sent, now_ms=now_ms)
    assert allowance.input is not None
    assert allowance.input.factor == pytest.approx(takes, rel=0.03)


def test_a_factor_that_a_full_bucket_disproves_falls() -> None:
    allowance = ready(told(claude(requests=(60, 60))))
    assert allowance.requests is not None
    allowance = replace(allowance, requests=replace(allowance.requests, factor=8.0))
    for second in range(1, 601):
        now_ms = T0 + second * 1_000
        allowance = allowances.spent(allowance, ONE, now_ms=now_ms)
        allowance = allowances.heard(allowance, claude(requests=(60, 60)), since=allowance.sent, now_ms=now_ms)
    assert allowance.requests is not None
    assert allowance.requests.factor == pytest.approx(1.0, abs=0.05)


# --- Growth -------------------------------------------------------------------------------------------------------


def test_from_cold_a_full_bucket_is_not_emptied_at_once() -> None:
    allowance, passed = told(claude(requests=(600, 600))), 0
    while wait_ms(allowance, at_ms=1_000) == 0:
        allowance = allowances.spent(allowance, ONE, now_ms=T0 + 1_000)
        passed += 1
    assert 1 <= passed < 600 * 0.1


def test_a_refusal_with_room_in_every_bucket_halves_what_may_pass() -> None:
    allowance = ready(told(claude(requests=(600, 600))))
    for left, use in ((600, 50.0), (0, 100.0)):
        refused = allowances.heard(
            allowance, claude(requests=(600, left)) | {"retry-after": "7"}, since=allowance.sent, now_ms=T0
        )
        assert refused.use == use
        assert wait_ms(refused) >= 7_000


def test_a_pause_that_is_asked_for_counts_even_in_an_answer_to_an_earlier_request() -> None:
    first = ready(told(claude(requests=(600, 600))))
    earlier = Sent()
    refused = allowances.heard(first, claude(requests=(600, 0)) | {"retry-after": "7"}, since=earlier, now_ms=T0)
    assert wait_ms(refused) == 7_000
