"""The figures that users were promised, from our prices and our printing."""

from datetime import UTC, datetime
from decimal import Decimal

from overnight.core.prices import Rate
from overnight.jobs.cost import Tokens, about, cost_of, money, per_year
from overnight.jobs.estimate import Sample, Scenario, by_scenario, by_volume, compare, estimate, table
from overnight.jobs.jobfile import Batch, Currency, Price
from overnight.jobs.prices import rate_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)
RUPEES = Currency(code="INR", per_usd=85.0, symbol="Rs ")


def rate(model: str, **overrides: Price) -> Rate:
    found = rate_of(model, overrides, at=NOW)
    assert found is not None
    return found


def test_000_23_a_batch_costs_half_of_real_time() -> None:
    cost = cost_of(Tokens(input=3_000, output=1_000), rate("claude-haiku-4-5"))
    assert cost.batch is not None
    assert cost.realtime is not None
    assert cost.saved is not None
    assert cost.batch * 2 == cost.realtime
    assert [money(usd) for usd in (cost.batch, cost.realtime, cost.saved)] == ["$0.004", "$0.008", "$0.004"]


def test_000_24_a_month_of_5000_invoices_is_below_500_rupees() -> None:
    invoice = Tokens(input=600, output=100)
    month = sum([invoice] * 5_000, Tokens())
    cost = cost_of(month, rate("claude-haiku-4-5")).batch
    assert cost is not None
    assert (money(cost), money(cost, RUPEES)) == ("$2.75", "Rs 233.75")
    assert cost * Decimal(85) < 500


def test_001_07_costs_by_volume() -> None:
    lines = by_volume(Tokens(input=500, output=100), rate("claude-sonnet-4-20250514"), rows=1)
    assert table(lines).splitlines() == [
        "     rows  standard   batch  savings",
        "   10,000       $30     $15      $15",
        "  100,000      $300    $150     $150",
        "1,000,000    $3,000  $1,500   $1,500",
    ]


def test_001_24_models_compared_for_one_workload() -> None:
    prompt = Sample(characters=1_750, bytes=2_000)  # 500 tokens.
    models = ["claude-haiku-4-5", "claude-sonnet-4-20250514", "claude-opus-4-6"]
    workload = estimate([prompt], rows=10_000, max_tokens=1_024, history=[100], rate=None, batch=Batch())
    assert table(compare(workload.tokens, {model: rate(model) for model in models})).splitlines() == [
        "model                     standard  batch  savings",
        "claude-haiku-4-5               $10     $5       $5",
        "claude-sonnet-4-20250514       $30    $15      $15",
        "claude-opus-4-6                $50    $25      $25",
    ]


def test_003_11_costs_by_scenario() -> None:
    haiku, sonnet = rate("claude-3-5-haiku-20241022"), rate("claude-sonnet-4-20250514")
    opus = rate("claude-opus-4-1")
    lines = by_scenario(
        [
            Scenario("classifications (Haiku)", 1_000, Tokens(input=1_000_000, output=100_000), haiku),
            Scenario("summaries (Sonnet)", 500, Tokens(input=2_500_000, output=500_000), sonnet),
            Scenario("analyses (Opus)", 100, Tokens(input=5_000_000, output=1_000_000), opus),
        ]
    )
    assert table(lines).splitlines() == [
        "scenario                  rows  standard  batch  savings",
        "classifications (Haiku)  1,000     $1.20  $0.60    $0.60",
        "summaries (Sonnet)         500       $15  $7.50    $7.50",
        "analyses (Opus)            100      $150    $75      $75",
    ]


def test_004_19_a_night_of_3000_tickets_and_a_year_of_nights() -> None:
    night = Tokens(input=3_000 * 400)
    tickets = "claude-haiku-4-5"
    printed = []
    for found in (rate(tickets, **{tickets: Price(input=0.80, output=4.00)}), rate(tickets)):
        cost = cost_of(night, found)
        assert cost.batch is not None
        assert cost.realtime is not None
        assert cost.saved is not None
        printed.append([money(cost.realtime), money(cost.batch), f"{about(per_year(cost.saved))}/year"])
    assert printed == [["$0.96", "$0.48", "~$175/year"], ["$1.20", "$0.60", "~$219/year"]]
