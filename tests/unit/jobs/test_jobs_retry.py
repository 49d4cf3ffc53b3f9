"""jobs.retry: what happens to a row after an attempt, as a table."""

import pytest

from overnight.jobs.retry import Attempt, Next, after, is_billing, is_failed_for_good
from overnight.jobs.row import State

TRANSIENT = ("rate_limit_error", "overloaded_error", "api_error", "timeout_error")
PERMANENT = (
    "invalid_request_error",
    "request_too_large",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "an_error_of_tomorrow",
    "",
)
POOR = "Your Credit balance is too low to access the API"
BY_THE_REQUEST = [
    *[pytest.param(Attempt("errored", 1, kind), id=kind or "no type") for kind in PERMANENT],
    pytest.param(Attempt("refused", 1), id="refused"),
    pytest.param(Attempt("truncated", 1, has_more_room=True), id="truncated with more room"),
    pytest.param(Attempt("invalid", 1, is_explained=True), id="invalid though explained"),
]


@pytest.mark.parametrize(
    ("attempt", "expected"),
    [
        *[pytest.param(Attempt("errored", 1, kind), "again", id=kind) for kind in TRANSIENT],
        pytest.param(Attempt("expired", 1), "again", id="expired"),
        pytest.param(Attempt("missing", 1), "again", id="missing"),
        pytest.param(Attempt("truncated", 1), "more_room", id="truncated"),
        pytest.param(Attempt("invalid", 1), "explained", id="invalid"),
        pytest.param(Attempt("invalid", 2, has_more_room=True), "explained", id="invalid after more room"),
        pytest.param(Attempt("truncated", 2, is_explained=True), "more_room", id="truncated after an explanation"),
    ],
)
def test_a_row_is_asked_again_in_the_way_that_may_help(attempt: Attempt, expected: Next) -> None:
    assert after(attempt, attempts_max=3) == expected
    assert after(attempt._replace(attempts=3), attempts_max=3) == "final"


@pytest.mark.parametrize("attempt", BY_THE_REQUEST)
def test_what_the_request_itself_brings_about_is_final_for_this_night_and_later_ones(attempt: Attempt) -> None:
    assert after(attempt, attempts_max=10) == "final"
    assert is_failed_for_good(attempt)


@pytest.mark.parametrize("state", ["succeeded", "canceled", "held"])
def test_these_states_are_never_asked_again_by_themselves(state: State) -> None:
    assert after(Attempt(state, 1), attempts_max=3) == "final"


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(Attempt("errored", 1, "billing_error"), id="by type"),
        pytest.param(Attempt("errored", 3, "billing_error"), id="at the last attempt"),
        pytest.param(Attempt("errored", 1, "invalid_request_error", POOR), id="by words, as the hosted API says it"),
    ],
)
def test_an_account_without_credit_pauses_a_row_and_condemns_none(attempt: Attempt) -> None:
    assert after(attempt, attempts_max=3) == "paused"
    assert not is_failed_for_good(attempt)


def test_only_a_refusal_for_money_is_one() -> None:
    assert not is_billing("invalid_request_error", "messages: field required")


def test_an_answer_that_speaks_of_money_is_no_refusal() -> None:
    assert after(Attempt("invalid", 1, error=POOR), attempts_max=3) == "explained"


@pytest.mark.parametrize(
    "attempt",
    [
        *[pytest.param(Attempt("errored", 3, kind), id=kind) for kind in TRANSIENT],
        *[
            pytest.param(Attempt(state, 3), id=state)
            for state in ("expired", "missing", "canceled", "held", "succeeded")
        ],
    ],
)
def test_bad_luck_is_no_reason_to_leave_a_row_alone_on_later_nights(attempt: Attempt) -> None:
    assert not is_failed_for_good(attempt)
