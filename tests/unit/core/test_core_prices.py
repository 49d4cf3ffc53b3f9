"""core.prices: which price a model has."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from overnight.core.prices import BATCH_SHARE, Listed, Prices, Rate, known, listed, told

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def prices(*amounts: str) -> Prices:
    return Prices(*map(Decimal, amounts))


def usd(*amounts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, amounts))


@pytest.mark.parametrize(
    ("model", "batch", "realtime"),
    [
        pytest.param(
            "claude-haiku-4-5",
            prices("0.5", "2.5", "0.05", "0.625", "1", "10"),
            prices("1", "5", "0.1", "1.25", "2", "10"),
            id="haiku",
        ),
        pytest.param(
            "claude-haiku-4-5-20251001",
            prices("0.5", "2.5", "0.05", "0.625", "1", "10"),
            prices("1", "5", "0.1", "1.25", "2", "10"),
            id="a dated name",
        ),
        pytest.param(
            "claude-opus-4-6",
            prices("2.5", "12.5", "0.25", "3.125", "5", "10"),
            prices("5", "25", "0.5", "6.25", "10", "10"),
            id="opus",
        ),
        pytest.param(
            "claude-sonnet-4-20250514",
            prices("1.5", "7.5", "0.15", "1.875", "3", "10"),
            prices("3", "15", "0.3", "3.75", "6", "10"),
            id="retired, no batch price in the data",
        ),
        pytest.param(
            "claude-3-5-haiku-20241022",
            prices("0.4", "2", "0.04", "0.5", "0.8", "10"),
            prices("0.8", "4", "0.08", "1", "1.6", "10"),
            id="retired haiku",
        ),
        pytest.param(
            "claude-sonnet-4-5",
            prices("1.5", "7.5", "0.15", "1.875", "3", "10"),
            prices("3", "15", "0.3", "3.75", "6", "10"),
            id="short prompts",
        ),
        pytest.param(
            "gpt-4o-mini",
            prices("0.075", "0.3", "0.075", "0.075", "0.075", "10"),
            prices("0.15", "0.6", "0.075", "0.15", "0.15", "10"),
            id="cached input is no cheaper in a batch",
        ),
        pytest.param(
            "grok-4.3",
            prices("1", "2", "0.16", "1", "1"),
            prices("1.25", "2.5", "0.2", "1.25", "1.25"),
            id="not half",
        ),
        pytest.param(
            "gpt-3.5-turbo-1106",
            prices("1", "2", "1", "1", "1"),
            prices("1", "2", "1", "1", "1"),
            id="a batch costs the same",
        ),
    ],
)
def test_the_data_know_a_model(model: str, batch: Prices, realtime: Prices) -> None:
    found = known(model, at=NOW)
    assert found is not None
    assert (found.batch, found.realtime) == (batch, realtime)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("overnight-tiny", id="ours"),
        pytest.param("Qwen/Qwen2.5-7B-Instruct", id="local"),
        pytest.param("claude-haiku-4-20250514", id="a name that never was"),
        pytest.param("", id="empty"),
        pytest.param("whisper-1", id="sold by the hour"),
        pytest.param("voyage-3", id="without output"),
    ],
)
def test_what_nobody_knows_has_no_rate(model: str) -> None:
    assert known(model, at=NOW) is None


@pytest.mark.parametrize(
    ("model", "border", "batch", "realtime"),
    [
        pytest.param("claude-haiku-5-5", 100_000, ("0.25", "1.25"), ("0.5", "2.5"), id="haiku"),
        pytest.param("claude-sonnet-4-5", 200_000, ("3", "11.25"), ("6", "22.5"), id="sonnet"),
        pytest.param("grok-4.3", 199_999, ("2", "4"), ("2.5", "5"), id="grok"),
    ],
)
def test_long_prompts_have_prices_of_their_own(
    model: str, border: int, batch: tuple[str, str], realtime: tuple[str, str]
) -> None:
    rate = known(model, at=NOW)
    assert rate is not None
    assert rate.for_prompt(border) == Rate(rate.batch, rate.realtime, rate.bands)
    beyond = rate.for_prompt(border + 1)
    assert (beyond.batch[:2], beyond.realtime[:2]) == (usd(*batch), usd(*realtime))
    assert beyond.batch.cache_read < beyond.batch.input, "the band has all prices"


def test_the_list_of_an_operator_is_dated() -> None:
    first, second = told(input=1, output=1), told(input=2, output=2)
    lines = (Listed("claude-*", "2026-06-01", first), Listed("claude-*", "2026-11-01", second))
    days = ("2026-05-31", "2026-06-01", "2026-10-31", "2026-11-01", "2027-01-01")
    assert [listed(lines, "claude-x", day=day) for day in days] == [None, first, first, second, second]


def test_the_name_itself_comes_before_patterns_and_those_in_their_order() -> None:
    rates = [told(input=n, output=n) for n in range(4)]
    names = ("claude-h*", "claude-*", "claude-haiku", "*")
    lines = [Listed(name, "", rate) for name, rate in zip(names, rates, strict=True)]
    models = ("claude-haiku", "claude-haiku-9", "claude-opus", "gpt", "Claude-opus")
    assert [listed(lines, model, day="2026-11-25") for model in models] == [rates[n] for n in (2, 0, 1, 3, 3)]
    assert listed(lines[:3], "gpt", day="2026-11-25") is None


def test_the_price_is_that_of_the_day() -> None:
    """The data has grok's batch prices from this day on; before it, half is taken."""
    day = datetime(2026, 10, 14, tzinfo=UTC)
    before, after = (known("grok-4.3", at=at) for at in (day - timedelta(seconds=1), day))
    assert before is not None
    assert after is not None
    assert before.batch.input == before.realtime.input * BATCH_SHARE
    assert after.batch.input == Decimal(1)


def test_the_day_is_that_of_utc() -> None:
    east = timezone(timedelta(hours=9))
    still_the_13th = datetime(2026, 10, 14, 8, 59, tzinfo=east)
    assert known("grok-4.3", at=still_the_13th) != known("grok-4.3", at=still_the_13th + timedelta(minutes=1))


def test_a_price_that_was_told_is_halved_in_a_batch() -> None:
    rate = told(input=0.8, output=4.0, cache_read=0.08, cache_write=1.0)
    assert rate == Rate(batch=prices("0.4", "2", "0.04", "0.5", "0.5"), realtime=prices("0.8", "4", "0.08", "1", "1"))


def test_cached_tokens_without_a_price_cost_what_input_costs() -> None:
    rate = told(input=0.8, output=4.0, batch=1.0)
    assert rate == Rate(
        batch=prices("0.8", "4", "0.8", "0.8", "0.8"), realtime=prices("0.8", "4", "0.8", "0.8", "0.8")
    )
