"""core.charge: what an answer costs, every figure by hand. A token at 1 USD for a million is 1,000 nano USD."""

from decimal import Decimal

import pytest

from overnight.core import charge
from overnight.core.prices import Band, Prices, Rate, told
from overnight.core.usage import COUNT_MAX, UNPRICED, Cost, Sums, of_answer
from overnight.wire.message import CacheCreation, ServerToolUse, Usage

# Claude's proportions: a write is 1.25 times the input for five minutes, 2 times for an hour, a read a tenth.
HAIKU = told(input=1.0, output=5.0, cache_read=0.1, cache_write=1.25, cache_write_1h=2.0, web_searches=10.0)
DEAR = told(input=100.0, output=100.0)


def written(five_minutes: int, hour: int) -> Usage:
    total = five_minutes + hour
    return Usage(cache_creation_input_tokens=total, cache_creation=CacheCreation(five_minutes, hour))


@pytest.mark.parametrize(
    ("usage", "batch", "realtime"),
    [
        pytest.param(Usage(input_tokens=100, output_tokens=10), 75_000, 150_000, id="100 x 1 + 10 x 5"),
        pytest.param(Usage(cache_read_input_tokens=1_000), 50_000, 100_000, id="1000 x 0.1, read"),
        pytest.param(Usage(cache_creation_input_tokens=100), 62_500, 125_000, id="100 x 1.25, written, not told how"),
        pytest.param(written(100, 0), 62_500, 125_000, id="100 x 1.25, for five minutes"),
        pytest.param(written(0, 100), 100_000, 200_000, id="100 x 2, for an hour"),
        pytest.param(written(60, 40), 77_500, 155_000, id="60 x 1.25 + 40 x 2, both"),
        pytest.param(
            Usage(input_tokens=10, server_tool_use=ServerToolUse(3)), 30_005_000, 30_010_000, id="3 searches in full"
        ),
        pytest.param(Usage(input_tokens=-100, output_tokens=2), 5_000, 10_000, id="below nothing is nothing"),
        pytest.param(Usage(cache_creation_input_tokens=None, cache_read_input_tokens=None), 0, 0, id="null"),
    ],
)
def test_an_answer_costs_the_sum_of_its_kinds_of_tokens(usage: Usage, batch: int, realtime: int) -> None:
    assert charge.cost(usage, rate=HAIKU, public=None, is_batch=True) == Cost(batch, realtime)
    assert charge.cost(usage, rate=HAIKU, public=None, is_batch=False) == Cost(realtime, realtime)


@pytest.mark.parametrize(
    ("tier", "paid"),
    [(None, 50_000), ("batch", 50_000), ("standard", 100_000), ("priority", 100_000)],
)
def test_what_the_server_counts_in_another_tier_was_paid_in_full(tier: str | None, paid: int) -> None:
    usage = Usage(input_tokens=100, service_tier=tier)
    assert charge.cost(usage, rate=HAIKU, public=None, is_batch=True) == Cost(paid, 100_000)


def test_real_time_is_compared_by_the_name_that_the_caller_uses() -> None:
    usage = Usage(input_tokens=100)
    assert charge.cost(usage, rate=HAIKU, public=DEAR, is_batch=True) == Cost(50_000, 10_000_000)
    assert charge.own_cost(usage, 7, public=DEAR) == Cost(7, 10_000_000)


def test_hours_that_nobody_can_compare_are_compared_with_themselves() -> None:
    assert charge.own_cost(Usage(input_tokens=100), 7, public=None) == Cost(7, 7)


def test_an_answer_that_nobody_knows_a_price_of_is_unpriced_and_compared_with_nothing() -> None:
    usage = Usage(input_tokens=100)
    assert charge.cost(usage, rate=None, public=DEAR, is_batch=True) == UNPRICED
    assert of_answer(usage, UNPRICED).unpriced == 1


@pytest.mark.parametrize(
    ("usage", "paid"),
    [
        pytest.param(Usage(input_tokens=1_000, output_tokens=1), 1_005_000, id="at the border"),
        pytest.param(Usage(input_tokens=1_001, output_tokens=1), 2_012_000, id="beyond it: all of it, 1001 x 2 + 10"),
        pytest.param(
            Usage(input_tokens=1, cache_read_input_tokens=500, cache_creation_input_tokens=500, output_tokens=1),
            # 1 x 2 + 500 x 2 + 500 x 2 + 10: cached tokens are tokens of the prompt.
            2_012_000,
            id="with what is cached",
        ),
        pytest.param(Usage(output_tokens=5_000), 25_000_000, id="a long answer is no long prompt"),
        pytest.param(Usage(input_tokens=10_001), 30_003_000, id="the band above it"),
    ],
)
def test_a_long_prompt_has_the_price_of_its_length_for_everything(usage: Usage, paid: int) -> None:
    def flat(input: int, output: int) -> Prices:
        return Prices(*map(Decimal, (input, output, input, input, input)))

    bands = (Band(1_000, flat(1, 5), flat(2, 10)), Band(10_000, flat(2, 9), flat(3, 18)))
    rate = Rate(batch=flat(0, 0), realtime=flat(1, 5), bands=bands)
    assert charge.cost(usage, rate=rate, public=None, is_batch=False).usd_nano == paid


def test_half_a_nano_is_rounded_to_even() -> None:
    """At 0.005 USD a token costs 5 nano, in a batch 2.5."""
    rate = told(input=0.005, output=0.0)
    paid = [charge.cost(Usage(input_tokens=n), rate=rate, public=None, is_batch=True).usd_nano for n in (1, 2, 3)]
    assert paid == [2, 5, 8]


def test_tokens_of_own_hardware_cost_what_they_have_cost_lately() -> None:
    measured = Sums(input_tokens=600, cache_read_tokens=100, output_tokens=300, usd_nano=5_000)
    assert charge.by_tokens(Usage(input_tokens=7, output_tokens=3), measured) == 50
    assert charge.by_tokens(Usage(input_tokens=7), Sums(requests=1)) is None


def test_a_server_that_tells_nonsense_breaks_no_sum() -> None:
    usage = Usage(input_tokens=10**30, output_tokens=10**30, cache_creation_input_tokens=10**30)
    cost = charge.cost(usage, rate=DEAR, public=None, is_batch=True)
    sums = of_answer(usage, cost)
    assert (sums.input_tokens, sums.output_tokens, sums.cache_write_5m_tokens) == (COUNT_MAX,) * 3
    assert cost.usd_nano == 10**13
    assert max(COUNT_MAX, 10**13) * 100_000 < 2**63, "a batch of them fits the columns"


def test_a_budget_counts_the_same_to_the_millionth() -> None:
    usage = Usage(input_tokens=10, output_tokens=1, server_tool_use=ServerToolUse(1), service_tier="batch")
    paid = charge.cost(usage, rate=HAIKU, public=None, is_batch=True).usd_nano
    # 10 x 0.5 + 1 x 2.5 millionths, and a search for a cent.
    assert charge.usd_micro(HAIKU, usage) == Decimal("10007.5") == Decimal(paid or 0) / 1000
