"""What is printed and mailed when a run has ended: its rows, totals, most common errors, and what it cost."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from overnight import limits
from overnight.jobs.cost import about, money, per_year
from overnight.jobs.jobfile import Currency, Report
from overnight.jobs.row import FAILED, Answer, State
from overnight.jobs.tell import one_line, printable, span
from overnight.jobs.templates import RowLine


class Summary(NamedTuple):
    """A run that has ended. Amounts are USD, None where a price is not known."""

    job: str
    noun: str
    run: str
    rows: int
    counts: Mapping[State, int]
    skipped_in_flight: int = 0  # Rows that an unfinished run of the job has.
    skipped_failed: int = 0  # Rows that failed for good on earlier nights.
    errors: Sequence[tuple[str, int]] = ()  # The most common messages, and how many rows have each.
    batch_usd: Decimal | None = None  # What was paid.
    realtime_usd: Decimal | None = None  # What the same costs in real time.
    month_usd: Decimal | None = None  # Paid in this calendar month, this run included.
    year_usd: Decimal | None = None  # Of such nights.
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    batches: Sequence[str] = ()
    duration_s: float = 0.0

    @property
    def succeeded(self) -> int:
        """Rows with an answer."""
        return self.counts.get("succeeded", 0)

    @property
    def failed(self) -> int:
        """Rows that ended without one."""
        return sum(count for state, count in self.counts.items() if state in FAILED)

    @property
    def saved_usd(self) -> Decimal | None:
        """What batches were cheaper by."""
        if self.batch_usd is None or self.realtime_usd is None:
            return None
        return self.realtime_usd - self.batch_usd


def report(
    settings: Report, summary: Summary, answers: Iterable[Answer], *, characters_max: int | None = None
) -> Iterator[str]:
    """The lines of a report. `answers` are in the order of the source and read once.

    With a template `line` every row has its line, a failed one too (`templates.RowLine`); without one, only the first
    `limits.JOB_NAMED_MAX` failed rows are named. `characters_max` bounds the lines for rows, never the totals: what
    is left out is counted. JobError for a template that is wrong.
    """
    if settings.heading:
        yield settings.heading
    line = RowLine(settings.line, "[report] line")
    if settings.line:
        yield from _rows(line, answers, characters_max)
    else:
        yield from _failed(line, answers)
    yield _totals(summary)
    yield from _errors(summary)
    yield from _cost(summary, settings.currency)
    yield from _work(summary)


def _rows(line: RowLine, answers: Iterable[Answer], characters_max: int | None) -> Iterator[str]:
    room, shown, left_out = characters_max, 0, 0
    for answer in answers:
        text = "" if left_out else printable(line.render(answer.names))
        if room is not None:
            room -= len(text)
        if room is not None and room < 0:
            left_out += 1
        else:
            shown += 1
            yield text
    if left_out:
        yield f"… and {left_out:,} more"
    if shown or left_out:
        yield ""


def _failed(line: RowLine, answers: Iterable[Answer]) -> Iterator[str]:
    count = 0
    for answer in answers:
        if answer.state in FAILED:
            count += 1
            if count <= limits.JOB_NAMED_MAX:
                yield one_line(line.render(answer.names))
    if count > limits.JOB_NAMED_MAX:
        yield f"… and {count - limits.JOB_NAMED_MAX:,} more"
    if count:
        yield ""


def _totals(summary: Summary) -> str:
    """ "3,000 tickets: 2,990 succeeded, 10 failed (6 invalid, 4 expired)"."""
    parts = [f"{summary.succeeded:,} succeeded"]
    if summary.failed:
        counts = sorted(((count, state) for state, count in summary.counts.items() if state in FAILED), reverse=True)
        kinds = ", ".join(f"{count:,} {state}" for count, state in counts if count)
        parts.append(f"{summary.failed:,} failed ({kinds})")
    unfinished = summary.rows - summary.succeeded - summary.failed
    if unfinished:
        parts.append(f"{unfinished:,} not finished")
    return f"{summary.rows:,} {summary.noun}: {', '.join(parts)}"


def _errors(summary: Summary) -> Iterator[str]:
    if summary.errors:
        yield "Most common errors:"
    for message, count in summary.errors:
        yield f"  {count:,} × {one_line(message)}"


def _cost(summary: Summary, currency: Currency | None) -> Iterator[str]:
    if summary.batch_usd is None:
        yield "Cost: unknown, the model has no price; [prices] in the job file sets one"
        return

    def both(usd: Decimal, *, roughly: bool = False) -> str:
        shown = about if roughly else money
        return shown(usd, None) if currency is None else f"{shown(usd, None)} ({shown(usd, currency)})"

    if summary.realtime_usd is not None and summary.saved_usd is not None:
        yield (
            f"Cost: {both(summary.batch_usd)} in batches, {both(summary.realtime_usd)} in real time, "
            f"{both(summary.saved_usd)} saved"
        )
    else:
        yield f"Cost: {both(summary.batch_usd)}"
    if summary.month_usd is not None:
        yield f"This month: {both(summary.month_usd)}"
    if summary.year_usd is not None:
        saved = summary.saved_usd and f", {both(per_year(summary.saved_usd), roughly=True)} saved"
        yield f"A year of such nights: {both(summary.year_usd, roughly=True)}{saved or ''}"


def _work(summary: Summary) -> Iterator[str]:
    if summary.skipped_in_flight:
        yield f"Skipped: {summary.skipped_in_flight:,} {summary.noun} that an unfinished run has"
    if summary.skipped_failed:
        yield (
            f"Skipped: {summary.skipped_failed:,} {summary.noun} that failed for good before; --rerun asks them again"
        )
    if summary.cache_read_tokens or summary.cache_write_tokens:
        read, written = summary.cache_read_tokens, summary.cache_write_tokens
        yield f"Prompt cache: {read:,} tokens read, {written:,} written"
    named = ", ".join(summary.batches[: limits.JOB_NAMED_MAX])
    more = len(summary.batches) - limits.JOB_NAMED_MAX
    if summary.batches:
        yield f"Batches: {named}{f', … and {more:,} more' if more > 0 else ''}"
    yield f"Run: {summary.run}, {span(summary.duration_s)}"
