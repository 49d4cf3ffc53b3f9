"""jobs.cost: tokens times prices, and amounts as people read them."""

from decimal import Decimal

import pytest

from overnight.core.prices import Prices, Rate
from overnight.jobs.cost import Cost, Tokens, about, cost_of, money, per_year
from overnight.jobs.jobfile import Currency

RATE = Rate(
    batch=Prices(Decimal("0.5"), Decimal("2.5"), Decimal("0.05"), Decimal("0.625"), Decimal(1)),
    realtime=Prices(Decimal(1), Decimal(5), Decimal("0.1"), Decimal("1.25"), Decimal(2)),
)
RUPEES = Currency(code="INR", per_usd=85.0, symbol="Rs ")
FRANCS = Currency(code="CHF", per_usd=0.8)


def test_tokens_add_up_by_kind() -> None:
    assert sum([Tokens(1, 2, 3, 4), Tokens(10, 20, 30, 40)], Tokens()) == Tokens(11, 22, 33, 44)


@pytest.mark.parametrize(
    ("tokens", "batch", "realtime"),
    [
        pytest.param(Tokens(input=2_000_000), "1", "2", id="input"),
        pytest.param(Tokens(output=2_000_000), "5", "10", id="output"),
        pytest.param(Tokens(cache_read=2_000_000), "0.1", "0.2", id="cache read"),
        pytest.param(Tokens(cache_write=2_000_000), "1.25", "2.5", id="cache write"),
        pytest.param(Tokens(1, 1, 1, 1), "0.000003675", "0.00000735", id="single tokens, exact"),
        pytest.param(Tokens(), "0", "0", id="nothing"),
    ],
)
def test_each_kind_of_token_has_its_price(tokens: Tokens, batch: str, realtime: str) -> None:
    assert cost_of(tokens, RATE) == Cost(Decimal(batch), Decimal(realtime))


def test_what_was_asked_in_real_time_has_the_full_price_and_saves_nothing() -> None:
    cost = cost_of(Tokens(input=1_000_000), RATE, realtime=True)
    assert cost == Cost(batch=Decimal(1), realtime=Decimal(1))
    assert cost.saved == 0


def test_a_batch_saves_the_difference() -> None:
    assert cost_of(Tokens(input=1_000_000), RATE).saved == Decimal("0.5")


def test_costs_add_up() -> None:
    mixed = cost_of(Tokens(input=1_000_000), RATE) + cost_of(Tokens(input=1_000_000), RATE, realtime=True)
    assert mixed == Cost(batch=Decimal("1.5"), realtime=Decimal(2))


def test_an_unknown_cost_stays_unknown() -> None:
    unknown = cost_of(Tokens(1, 1), None)
    assert unknown == Cost(None, None)
    assert unknown.saved is None
    assert unknown + Cost(Decimal(1), Decimal(2)) == unknown
    assert Cost(Decimal(1), Decimal(2)) + unknown == unknown


@pytest.mark.parametrize(
    ("usd", "printed"),
    [
        ("0", "$0"),
        ("30", "$30"),
        ("1500", "$1,500"),
        ("1234567.5", "$1,234,567.50"),
        ("1.2", "$1.20"),
        ("0.48", "$0.48"),
        ("0.275", "$0.28"),
        ("0.014", "$0.01"),
        ("0.01", "$0.01"),
        ("0.00999", "$0.01"),
        ("0.0040", "$0.004"),
        ("0.0031", "$0.0031"),
        ("0.00314", "$0.0031"),
        ("0.0000031", "$0.0000031"),
        ("29.999", "$30"),
        ("1E+3", "$1,000"),
    ],
)
def test_an_amount_is_printed(usd: str, printed: str) -> None:
    assert money(Decimal(usd)) == printed


@pytest.mark.parametrize(
    ("usd", "currency", "printed"),
    [
        pytest.param("0.275", RUPEES, "Rs 23.38", id="half up, after conversion"),
        pytest.param("100", RUPEES, "Rs 8,500", id="whole"),
        pytest.param("0.00001", RUPEES, "Rs 0.00085", id="below a hundredth"),
        pytest.param("0.001", RUPEES, "Rs 0.09", id="below a cent but not below a paisa"),
        pytest.param("1", FRANCS, "CHF 0.80", id="the code for want of a symbol"),
    ],
)
def test_an_amount_is_printed_in_another_currency(usd: str, currency: Currency, printed: str) -> None:
    assert money(Decimal(usd), currency) == printed


@pytest.mark.parametrize(
    ("usd", "currency", "printed"),
    [
        ("175.20", None, "~$175"),
        ("10.5", None, "~$11"),
        ("9.99", None, "~$9.99"),
        ("0.0031", None, "~$0.0031"),
        ("175.20", RUPEES, "~Rs 14,892"),
        ("12", FRANCS, "~CHF 9.60"),
    ],
)
def test_a_projection_is_printed_roughly(usd: str, currency: Currency | None, printed: str) -> None:
    assert about(Decimal(usd), currency) == printed


def test_a_year_has_365_nights() -> None:
    assert per_year(Decimal("0.48")) == Decimal("175.20")
