"""jobs.prices: the job's own price, else what is known of the model."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from overnight.core.prices import Prices, Rate, known
from overnight.jobs.jobfile import Price
from overnight.jobs.prices import rate_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def prices(*usd: str) -> Prices:
    return Prices(*map(Decimal, usd))


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "overnight-tiny"])
def test_the_jobs_own_price_wins(model: str) -> None:
    price = Price(input=0.8, output=4.0, batch=0.25, cache_read=0.08, cache_write=1.0)
    rate = rate_of(model, {model: price}, at=NOW)
    assert rate == Rate(
        batch=prices("0.2", "1", "0.02", "0.25", "0.25"), realtime=prices("0.8", "4", "0.08", "1", "1")
    )


def test_the_price_of_another_model_is_not_taken() -> None:
    overrides = {"overnight-tiny": Price(input=9.0, output=9.0)}
    assert rate_of("claude-haiku-4-5", overrides, at=NOW) == rate_of("claude-haiku-4-5", {}, at=NOW)


def test_cached_tokens_without_a_price_cost_what_input_costs() -> None:
    rate = rate_of("mine", {"mine": Price(input=0.8, output=4.0)}, at=NOW)
    assert rate == Rate(
        batch=prices("0.4", "2", "0.4", "0.4", "0.4"), realtime=prices("0.8", "4", "0.8", "0.8", "0.8")
    )


def test_a_price_of_nothing_is_a_price() -> None:
    price = Price(input=0.8, output=0, cache_read=0, cache_write=0)
    rate = rate_of("mine", {"mine": price}, at=NOW)
    assert rate == Rate(batch=prices("0.4", "0", "0", "0", "0"), realtime=prices("0.8", "0", "0", "0", "0"))


def test_without_a_price_of_its_own_the_job_has_the_known_one() -> None:
    for model in ("claude-haiku-4-5", "overnight-tiny"):
        assert rate_of(model, {}, at=NOW) == known(model, at=NOW)
