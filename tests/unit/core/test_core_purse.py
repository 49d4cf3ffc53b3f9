"""core.purse: what fits into a day's budget, what it was, and when the next day begins."""

from decimal import Decimal

import pytest

from overnight.core import purse as purses
from overnight.core.prices import told
from overnight.core.purse import Purse
from overnight.core.tokens import Tokens
from overnight.wire.message import Usage

NOON = 1_780_056_000_000  # 2026-05-29 12:00 UTC.
MIDNIGHT = NOON + 12 * 3_600_000
RATE = told(input=3.0, output=15.0, cache_read=0.3, cache_write=3.75)


def usd(amount: str) -> Decimal:
    return Decimal(amount) * purses.USD


def purse(budget: float = 20.0) -> Purse:
    return purses.of_day(budget, now_ms=NOON)


@pytest.mark.parametrize(
    ("spent", "reserved", "likely", "does_fit"),
    [
        pytest.param("0", "0", "20", True, id="all of it"),
        pytest.param("0", "0", "20.000001", False, id="a millionth more"),
        pytest.param("12", "5", "3", True, id="what is left"),
        pytest.param("12", "5", "3.01", False, id="reserved money is not there"),
        pytest.param("20", "0", "0", True, id="what costs nothing"),
        pytest.param("20.5", "0", "0", False, id="people spent more than there was"),
    ],
)
def test_a_request_fits_into_what_is_neither_spent_nor_reserved(
    spent: str, reserved: str, likely: str, does_fit: bool
) -> None:
    held = purses.after_taken(purses.after_spent(purse(), usd(spent)), usd(reserved))
    assert purses.fits(held, usd(likely)) == does_fit


def test_the_true_cost_replaces_what_was_reserved() -> None:
    held = purses.after_taken(purses.after_taken(purse(), usd("2")), usd("3"))
    held = purses.after_left(held, usd("2"), cost=usd("0.5"))
    assert (held.reserved, held.spent) == (usd("3"), usd("0.5"))


def test_after_one_was_turned_away_nothing_is_taken_until_that_one_would_fit() -> None:
    held = purses.after_turned_away(purses.after_taken(purse(), usd("15")), usd("6"))
    assert purses.is_shut(held)
    assert not purses.is_over(held), "the one inside may turn out cheaper"
    assert not purses.is_shut(purses.after_left(held, usd("15"), cost=usd("14")))
    dear = purses.after_left(held, usd("15"), cost=usd("14.5"))
    assert purses.is_shut(dear)
    assert purses.is_over(dear)


def test_a_request_that_fits_on_no_day_shuts_nothing() -> None:
    held = purses.after_turned_away(purse(), usd("20.01"))
    assert not purses.is_shut(held)


def test_a_day_is_one_of_utc() -> None:
    assert [purses.day_of(at) for at in (NOON, MIDNIGHT - 1, MIDNIGHT)] == ["2026-05-29", "2026-05-29", "2026-05-30"]
    assert [purses.next_day_ms(at) for at in (NOON, MIDNIGHT - 1)] == [MIDNIGHT, MIDNIGHT]
    assert purses.next_day_ms(MIDNIGHT) == MIDNIGHT + 24 * 3_600_000


def test_a_new_day_has_a_new_budget_of_which_only_what_is_inside_is_reserved() -> None:
    held = purses.after_taken(purses.after_spent(purse(), usd("18")), usd("1"))
    held = purses.after_turned_away(held, usd("20"))
    assert purses.after_midnight(held, now_ms=MIDNIGHT - 1) == held
    fresh = purses.after_midnight(held, now_ms=MIDNIGHT)
    assert (fresh.day, fresh.spent, fresh.reserved) == ("2026-05-30", 0, usd("1"))
    assert not purses.is_shut(fresh)


def test_a_clock_that_is_set_back_opens_no_budget_twice() -> None:
    held = purses.after_spent(purse(), usd("20"))
    assert purses.after_midnight(held, now_ms=NOON - 86_400_000) == held


@pytest.mark.parametrize(("is_batched", "dollars"), [(False, "4.5"), (True, "2.25")])
def test_what_a_request_will_likely_cost(is_batched: bool, dollars: str) -> None:
    tokens = Tokens(input=1_000_000, output=100_000)
    assert purses.likely_cost(RATE, tokens, is_batched=is_batched) == usd(dollars)


@pytest.mark.parametrize(
    ("usage", "micro"),
    [
        pytest.param(Usage(input_tokens=100, output_tokens=10), "450", id="plain"),
        pytest.param(Usage(cache_read_input_tokens=1_000), "300", id="read from a cache"),
        pytest.param(Usage(cache_creation_input_tokens=100), "375", id="written to a cache"),
        pytest.param(
            Usage(input_tokens=1, cache_creation_input_tokens=None, cache_read_input_tokens=None), "3", id="null"
        ),
        pytest.param(
            Usage(input_tokens=100, output_tokens=10, service_tier="batch"), "225", id="half, out of a batch"
        ),
        pytest.param(Usage(input_tokens=100, service_tier="standard"), "300", id="in real time"),
        pytest.param(Usage(), "0", id="nothing told"),
        pytest.param(Usage(input_tokens=-100, output_tokens=10), "150", id="below nothing"),
    ],
)
def test_what_an_answer_cost(usage: Usage, micro: str) -> None:
    assert purses.true_cost(RATE, usage) == Decimal(micro)


def test_many_small_answers_add_up_exactly() -> None:
    """0.1 USD for a million tokens is a tenth of a millionth for one: floats and whole millionths would drift."""
    cheap = told(input=0.1, output=0.1)
    held = purse()
    for _ in range(10_000):
        held = purses.after_spent(held, purses.true_cost(cheap, Usage(input_tokens=1)))
    assert held.spent == 1_000
