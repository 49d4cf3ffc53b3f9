"""core.prices: which price a model has."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal

import pytest

from overnight.core.prices import BATCH_SHARE, Prices, Rate, known, told

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def prices(*usd: str) -> Prices:
    return Prices(*map(Decimal, usd))


@pytest.mark.parametrize(
    ("model", "batch", "realtime"),
    [
        pytest.param(
            "claude-haiku-4-5", prices("0.5", "2.5", "0.05", "0.625"), prices("1", "5", "0.1", "1.25"), id="haiku"
        ),
        pytest.param(
            "claude-haiku-4-5-20251001",
            prices("0.5", "2.5", "0.05", "0.625"),
            prices("1", "5", "0.1", "1.25"),
            id="a dated name",
        ),
        pytest.param(
            "claude-opus-4-6", prices("2.5", "12.5", "0.25", "3.125"), prices("5", "25", "0.5", "6.25"), id="opus"
        ),
        pytest.param(
            "claude-sonnet-4-20250514",
            prices("1.5", "7.5", "0.15", "1.875"),
            prices("3", "15", "0.3", "3.75"),
            id="retired, no batch price in the data",
        ),
        pytest.param(
            "claude-3-5-haiku-20241022",
            prices("0.4", "2", "0.04", "0.5"),
            prices("0.8", "4", "0.08", "1"),
            id="retired haiku",
        ),
        pytest.param(
            "claude-sonnet-4-5",
            prices("1.5", "7.5", "0.15", "1.875"),
            prices("3", "15", "0.3", "3.75"),
            id="dearer long prompts are left out",
        ),
        pytest.param(
            "gpt-4o-mini",
            prices("0.075", "0.3", "0.075", "0.075"),
            prices("0.15", "0.6", "0.075", "0.15"),
            id="cached input is no cheaper in a batch",
        ),
        pytest.param("grok-4.3", prices("1", "2", "0.16", "1"), prices("1.25", "2.5", "0.2", "1.25"), id="not half"),
        pytest.param(
            "gpt-3.5-turbo-1106", prices("1", "2", "1", "1"), prices("1", "2", "1", "1"), id="a batch costs the same"
        ),
    ],
)
def test_the_data_know_a_model(model: str, batch: Prices, realtime: Prices) -> None:
    assert known(model, at=NOW) == Rate(batch, realtime)


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
    ("cache", "batch", "realtime"), [("", "0.625", "1.25"), ("5m", "0.625", "1.25"), ("1h", "1", "2")]
)
def test_a_cache_of_an_hour_is_dearer_to_write(cache: Literal["", "5m", "1h"], batch: str, realtime: str) -> None:
    rate = known("claude-haiku-4-5", at=NOW, cache=cache)
    assert rate is not None
    assert (rate.batch.cache_write, rate.realtime.cache_write) == (Decimal(batch), Decimal(realtime))


def test_a_model_without_a_price_for_an_hour_has_its_other_price() -> None:
    assert known("gpt-4o-mini", at=NOW, cache="1h") == known("gpt-4o-mini", at=NOW)


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
    assert rate == Rate(batch=prices("0.4", "2", "0.04", "0.5"), realtime=prices("0.8", "4", "0.08", "1"))


def test_cached_tokens_without_a_price_cost_what_input_costs() -> None:
    rate = told(input=0.8, output=4.0, batch=1.0)
    assert rate == Rate(batch=prices("0.8", "4", "0.8", "0.8"), realtime=prices("0.8", "4", "0.8", "0.8"))
