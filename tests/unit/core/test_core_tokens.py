"""core.tokens: what a request will take, learnt from what earlier ones took."""

import pytest

from overnight.core import tokens
from overnight.core.tokens import Estimator, Tokens


def _after(answers: int, *, size_bytes: int, max_tokens: int, took: Tokens) -> Estimator:
    estimator = tokens.FRESH
    for _ in range(answers):
        estimator = tokens.learnt(estimator, size_bytes=size_bytes, max_tokens=max_tokens, took=took)
    return estimator


def test_before_the_first_answer_it_is_a_guess() -> None:
    assert tokens.estimated(tokens.FRESH, size_bytes=4_000, max_tokens=100) == Tokens(1_000, 25)


def test_the_first_answer_replaces_the_guess() -> None:
    estimator = _after(1, size_bytes=900, max_tokens=100, took=Tokens(300, 80))
    assert tokens.estimated(estimator, size_bytes=900, max_tokens=100) == Tokens(300, 80)


def test_what_changes_is_followed_within_two_hundred_answers() -> None:
    estimator = _after(1_000, size_bytes=900, max_tokens=100, took=Tokens(300, 80))
    for _ in range(200):
        estimator = tokens.learnt(estimator, size_bytes=900, max_tokens=100, took=Tokens(450, 10))
    found = tokens.estimated(estimator, size_bytes=900, max_tokens=100)
    assert found.input == pytest.approx(450, rel=0.05)
    assert found.output == pytest.approx(10, abs=2)


def test_one_odd_answer_moves_a_long_average_by_a_fiftieth() -> None:
    before = _after(1_000, size_bytes=900, max_tokens=100, took=Tokens(300, 80))
    after = tokens.learnt(before, size_bytes=900, max_tokens=100, took=Tokens(300, 0))
    assert after.output_share == pytest.approx(0.8 * 0.98)


def test_an_answer_that_tells_no_tokens_teaches_nothing() -> None:
    assert tokens.learnt(tokens.FRESH, size_bytes=900, max_tokens=100, took=Tokens(0, 50)) is tokens.FRESH


@pytest.mark.parametrize(
    ("size_bytes", "max_tokens", "took"),
    [
        pytest.param(900, 1, Tokens(300, 50), id="more output than was allowed"),
        pytest.param(900, 0, Tokens(300, 0), id="nothing was to be answered"),
    ],
)
def test_odd_answers_leave_an_estimator_that_estimates(size_bytes: int, max_tokens: int, took: Tokens) -> None:
    estimator = tokens.learnt(tokens.FRESH, size_bytes=size_bytes, max_tokens=max_tokens, took=took)
    assert 0.0 <= estimator.output_share <= 1.0
    assert min(tokens.estimated(estimator, size_bytes=900, max_tokens=100)) >= 1


def test_a_request_is_never_estimated_at_nothing() -> None:
    assert tokens.estimated(tokens.FRESH, size_bytes=1, max_tokens=1) == Tokens(1, 1)
    assert Tokens(3, 4).total == 7
