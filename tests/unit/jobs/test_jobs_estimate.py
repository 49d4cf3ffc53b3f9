"""jobs.estimate: what a run will be and cost, and tables of it."""

from decimal import Decimal

import pytest

from overnight.core.prices import Prices, Rate
from overnight.jobs.cost import Tokens
from overnight.jobs.estimate import (
    Estimate,
    Line,
    Sample,
    Scenario,
    by_scenario,
    by_volume,
    compare,
    estimate,
    table,
)
from overnight.jobs.jobfile import Batch, Currency

ONE = Prices(Decimal(1), Decimal(1), Decimal(1), Decimal(1), Decimal(1))
RATE = Rate(batch=ONE, realtime=Prices(*(price * 2 for price in ONE)))
BATCH = Batch()
PROMPT = Sample(characters=350, bytes=500)


def of(
    sample: list[Sample], rows: int, history: list[int], rate: Rate | None = RATE, batch: Batch = BATCH
) -> Estimate:
    return estimate(sample, rows=rows, max_tokens=50, history=history, rate=rate, batch=batch)


def test_an_estimate_is_complete() -> None:
    million = 1_000_000
    assert of([PROMPT], million, [10, 20, 30], batch=Batch(max_requests=100_000)) == Estimate(
        rows=million,
        batches=10,
        bytes=500 * million,
        input_tokens=100 * million,
        output_low=10 * million,
        output_likely=20 * million,
        output_high=30 * million,
        usd_low=Decimal(110),
        usd_likely=Decimal(120),
        usd_high=Decimal(130),
        usd_realtime=Decimal(240),
    )


def test_the_tokens_are_the_likely_ones() -> None:
    assert of([PROMPT], 10, [10, 20, 30]).tokens == Tokens(1_000, 200)


@pytest.mark.parametrize(
    ("sample", "input_tokens"),
    [
        pytest.param([Sample(7, 1)], 20, id="two tokens of seven characters"),
        pytest.param([Sample(1, 1)], 3, id="rounded up once, not for each row"),
        pytest.param([Sample(7, 1), Sample(21, 1)], 40, id="the mean of a sample"),
        pytest.param([Sample(7, 1, tokens=5)], 50, id="counted"),
        pytest.param([Sample(7, 1, tokens=0)], 0, id="counted nothing"),
        pytest.param([Sample(7, 1, tokens=4), Sample(7, 1)], 30, id="some counted"),
    ],
)
def test_input_is_counted_or_estimated(sample: list[Sample], input_tokens: int) -> None:
    assert of(sample, 10, []).input_tokens == input_tokens


@pytest.mark.parametrize(
    ("history", "low_likely_high"),
    [
        pytest.param([], (1, 50, 50), id="nothing known"),
        pytest.param([7], (7, 7, 7), id="one answer"),
        pytest.param(list(range(21, 0, -1)), (3, 11, 19), id="a tenth at both ends left out"),
        pytest.param([0] + [20] * 19, (19, 19, 20), id="mean below the tenth"),
        pytest.param([1] * 19 + [41], (1, 3, 3), id="mean above the ninetieth"),
        pytest.param([10, 900], (10, 30, 50), id="never beyond max_tokens"),
    ],
)
def test_output_follows_history(history: list[int], low_likely_high: tuple[int, int, int]) -> None:
    found = of([PROMPT], 1, history)
    assert (found.output_low, found.output_likely, found.output_high) == low_likely_high


@pytest.mark.parametrize(
    ("rows", "batch", "batches"),
    [
        pytest.param(100, Batch(max_requests=100), 1, id="exactly full"),
        pytest.param(101, Batch(max_requests=100), 2, id="one too many"),
        pytest.param(100, Batch(max_bytes=50_000), 1, id="exactly full by size"),
        pytest.param(101, Batch(max_bytes=50_000), 2, id="one too many by size"),
        pytest.param(20, Batch(min_batch=20), 1, id="enough for a batch"),
        pytest.param(19, Batch(min_batch=20), 0, id="too few for a batch"),
    ],
)
def test_batches_are_cut_by_count_and_size(rows: int, batch: Batch, batches: int) -> None:
    assert of([PROMPT], rows, [], batch=batch).batches == batches


def test_too_few_rows_for_a_batch_pay_the_full_price() -> None:
    batch, realtime = (
        of([PROMPT], 20, [10], batch=Batch(min_batch=20)),
        of([PROMPT], 20, [10], batch=Batch(min_batch=21)),
    )
    assert (batch.usd_low, batch.usd_likely, batch.usd_high) == (Decimal("0.0022"),) * 3
    assert (realtime.usd_low, realtime.usd_likely, realtime.usd_high) == (Decimal("0.0044"),) * 3
    assert batch.usd_realtime == realtime.usd_realtime == Decimal("0.0044")


def test_an_unknown_price_leaves_the_rest_known() -> None:
    found = of([PROMPT], 10, [20], rate=None)
    assert (found.usd_low, found.usd_likely, found.usd_high, found.usd_realtime) == (None,) * 4
    assert found.tokens == Tokens(1_000, 200)


def test_no_rows_are_nothing() -> None:
    assert of([], 0, []) == Estimate(0, 0, 0, 0, 0, 0, 0, *[Decimal(0)] * 4)


def test_rows_without_a_sample_are_not_estimated_as_free() -> None:
    with pytest.raises(AssertionError):
        of([], 10, [])


# --- Tables -------------------------------------------------------------------------------------------------------


def test_a_volume_costs_its_share() -> None:
    usd = Decimal("0.5")
    assert by_volume(Tokens(input=1_000_000), RATE, rows=4, volumes=[2]) == [
        {"rows": 2, "standard": usd * 2, "batch": usd, "savings": usd}
    ]


def test_an_unknown_model_stays_in_the_comparison() -> None:
    lines = compare(Tokens(input=1_000_000), {"known": RATE, "local": None})
    assert table(lines).splitlines() == [
        "model  standard    batch  savings",
        "known        $2       $1       $1",
        "local   unknown  unknown  unknown",
    ]


def test_a_scenario_costs_all_its_tokens() -> None:
    (line,) = by_scenario([Scenario("letters", 3, Tokens(output=3_000_000), RATE)])
    assert line == {
        "scenario": "letters",
        "rows": 3,
        "standard": Decimal(6),
        "batch": Decimal(3),
        "savings": Decimal(3),
    }


def test_a_table_is_in_the_jobs_currency() -> None:
    lines = compare(Tokens(input=1_000_000), {"known": RATE})
    assert table(lines, Currency(code="INR", per_usd=85.0, symbol="Rs ")).splitlines() == [
        "model  standard  batch  savings",
        "known    Rs 170  Rs 85    Rs 85",
    ]


def test_columns_stand_under_their_titles() -> None:
    lines: list[Line] = [{"scenario": "a", "rows": 1_000}, {"scenario": "somewhat longer", "rows": 1}]
    assert table(lines).splitlines() == [
        "scenario          rows",
        "a                1,000",
        "somewhat longer      1",
    ]


def test_no_lines_are_no_table() -> None:
    assert table([]) == ""
