"""What a run will be and cost, before it is: from a sample of its requests and the answers of earlier runs."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Final, NamedTuple, TypeAlias

from overnight.core.prices import Rate
from overnight.jobs import jobfile
from overnight.jobs.cost import Cost, Tokens, cost_of, money

CHARACTERS_PER_TOKEN: Final = Fraction(7, 2)  # English prose has about 4; names, numbers and code have fewer.
VOLUMES: Final = (10_000, 100_000, 1_000_000)
Line: TypeAlias = dict[str, str | int | Decimal | None]  # A line of a table by its titles; None is unknown.


class Sample(NamedTuple):
    """The sizes of one rendered request."""

    characters: int  # Of all text of the prompt.
    bytes: int  # As it is sent, with what a batch puts around it.
    tokens: int | None = None  # Input tokens, where a server counted them.


class Estimate(NamedTuple):
    """A run as it may be. USD; None where the model's price is unknown. Prompt caching is not foreseen."""

    rows: int
    batches: int  # 0: so few rows that they are asked in real time.
    bytes: int
    input_tokens: int
    output_low: int  # Tokens, like the next two.
    output_likely: int
    output_high: int
    usd_low: Decimal | None  # What will be paid.
    usd_likely: Decimal | None
    usd_high: Decimal | None
    usd_realtime: Decimal | None  # The likely tokens in real time.

    @property
    def tokens(self) -> Tokens:
        """What all rows together are likely to use."""
        return Tokens(self.input_tokens, self.output_likely)


class Scenario(NamedTuple):
    """A workload to compare with others."""

    name: str
    rows: int
    tokens: Tokens  # Of all rows.
    rate: Rate | None


def estimate(
    sample: Sequence[Sample],
    *,
    rows: int,
    max_tokens: int,
    history: Sequence[int],
    rate: Rate | None,
    batch: jobfile.Batch,
) -> Estimate:
    """A run of `rows` rows that are like those of `sample` (at least one, if there are rows).

    `history` is the output tokens of single rows in earlier runs. Without it an answer may be anything up to
    `max_tokens`, and that is taken as likely, so that a budget errs on the side of not spending.
    """
    assert sample or rows == 0
    size = ceil(_mean([one.bytes for one in sample]) * rows)
    given = ceil(_mean([_input_tokens(one) for one in sample]) * rows)
    output_low, output_likely, output_high = (ceil(output * rows) for output in _outputs(history, max_tokens))
    realtime = rows < batch.min_batch
    likely = cost_of(Tokens(given, output_likely), rate, realtime=realtime)
    return Estimate(
        rows=rows,
        batches=0 if realtime else ceil(max(Fraction(rows, batch.max_requests), Fraction(size, batch.max_bytes))),
        bytes=size,
        input_tokens=given,
        output_low=output_low,
        output_likely=output_likely,
        output_high=output_high,
        usd_low=cost_of(Tokens(given, output_low), rate, realtime=realtime).batch,
        usd_likely=likely.batch,
        usd_high=cost_of(Tokens(given, output_high), rate, realtime=realtime).batch,
        usd_realtime=likely.realtime,
    )


def by_volume(tokens: Tokens, rate: Rate | None, *, rows: int, volumes: Iterable[int] = VOLUMES) -> list[Line]:
    """What `volumes` of rows cost, where `rows` rows use `tokens`."""
    return [{"rows": volume, **_costs(cost_of(tokens, rate), Decimal(volume) / rows)} for volume in volumes]


def compare(tokens: Tokens, rates: Mapping[str, Rate | None]) -> list[Line]:
    """What the same tokens cost with each of some models."""
    return [{"model": model, **_costs(cost_of(tokens, rate))} for model, rate in rates.items()]


def by_scenario(scenarios: Iterable[Scenario]) -> list[Line]:
    """What different workloads cost."""
    return [{"scenario": one.name, "rows": one.rows, **_costs(cost_of(one.tokens, one.rate))} for one in scenarios]


def table(lines: Sequence[Line], currency: jobfile.Currency | None = None) -> str:
    """`lines`, all with the same titles, as text in columns: words to the left, numbers and money to the right."""
    if not lines:
        return ""
    titles = list(lines[0])
    cells = [titles, *([_cell(line[title], currency) for title in titles] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_text = [isinstance(value, str) for value in lines[0].values()]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in cells
    )


def _input_tokens(sample: Sample) -> Fraction:
    return sample.characters / CHARACTERS_PER_TOKEN if sample.tokens is None else Fraction(sample.tokens)


def _outputs(history: Sequence[int], max_tokens: int) -> tuple[Fraction, Fraction, Fraction]:
    """Low, likely and high for one row; a few extreme answers can move the mean beyond a percentile."""
    if not history:
        return Fraction(1), Fraction(max_tokens), Fraction(max_tokens)
    ordered = sorted(min(tokens, max_tokens) for tokens in history)
    mean, last = _mean(ordered), len(ordered) - 1
    return min(mean, Fraction(ordered[last // 10])), mean, max(mean, Fraction(ordered[last - last // 10]))


def _mean(numbers: Sequence[int] | Sequence[Fraction]) -> Fraction:
    return Fraction(sum(numbers)) / max(1, len(numbers))


def _costs(cost: Cost, times: Decimal = Decimal(1)) -> Line:
    values = {"standard": cost.realtime, "batch": cost.batch, "savings": cost.saved}
    return {title: None if usd is None else usd * times for title, usd in values.items()}


def _cell(value: str | int | Decimal | None, currency: jobfile.Currency | None) -> str:
    match value:
        case None:
            return "unknown"
        case Decimal():
            return money(value, currency)
        case int():
            return f"{value:,}"
        case str():
            return value
