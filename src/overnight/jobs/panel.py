"""The progress panel of a terminal: a bar over all rows, counts by kind, batches with their age, the last note."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel as Frame
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from overnight import limits
from overnight.jobs.cost import money
from overnight.jobs.tell import Event, one_line, span


class Seen(NamedTuple):
    """A batch as it was last told of."""

    since_s: float  # When it was first told of; the clock of the panel.
    total: int
    status: str = "submitted"
    done: int = 0
    kinds: Mapping[str, int] = MappingProxyType({})


class Progress(NamedTuple):
    """All that a panel shows."""

    rows: int = 0
    retried: int = 0  # Requests that are in a second batch; each is one row all the same.
    batches: Mapping[str, Seen] = MappingProxyType({})
    usd: Decimal | None = None
    busy_s: float | None = None  # The pause of a busy server, until it says something else.
    note: str = ""

    @property
    def total(self) -> int:
        """Rows of the run; until they are told, those of its batches."""
        return max(self.rows, sum(batch.total for batch in self.batches.values()) - self.retried)

    @property
    def done(self) -> int:
        """Rows that are done and not asked again."""
        return max(0, sum(batch.done for batch in self.batches.values()) - self.retried)


def after(progress: Progress, event: Event, *, now_s: float) -> Progress:
    """The progress after an event, as of `now_s`."""
    facts = event.facts
    match event.name:
        case "found":
            progress = progress._replace(rows=facts["rows"])
        case "batch" | "resuming":
            progress = _with(progress, facts["id"], Seen(now_s, facts["requests"]))
        case "retrying":
            progress = progress._replace(retried=progress.retried + facts["requests"])
        case "status" | "ended":
            progress = _with(progress, facts["id"], _looked_at(progress, facts, now_s))
        case "cost":
            progress = progress._replace(usd=facts["usd"])
        case "busy":
            progress = progress._replace(busy_s=facts["seconds"])
        case "attempt_failed":
            progress = progress._replace(note=f"Attempt {facts['attempt']} failed: {one_line(facts['error'])}")
        case "note":
            progress = progress._replace(note=one_line(facts["text"]))
    return progress


def _with(progress: Progress, id_: str, batch: Seen) -> Progress:
    return progress._replace(batches={**progress.batches, id_: batch}, busy_s=None)


def _looked_at(progress: Progress, facts: Mapping[str, Any], now_s: float) -> Seen:
    before = progress.batches.get(facts["id"], Seen(now_s, facts["total"]))
    kinds = {kind: facts[kind] for kind in ("succeeded", "errored", "canceled", "expired")}
    status = facts.get("status", "ended")
    return Seen(before.since_s, facts["total"], one_line(status), facts["done"], kinds)


def view(progress: Progress, *, job: str, noun: str, now_s: float) -> RenderableType:
    """The panel. Names, notes and words of a server are text in it, never markup."""
    counts = Table.grid(expand=True, padding=(0, 2))
    counts.add_column(ratio=1)
    counts.add_column(justify="right")
    bar = ProgressBar(total=max(progress.total, 1), completed=progress.done)
    counts.add_row(bar, Text(f"{progress.done:,} of {progress.total:,} {noun}"))
    parts: list[RenderableType] = [counts, Text(_by_kind(progress)), _batches(progress, now_s)]
    if progress.busy_s is not None:
        parts.append(Text(f"Waiting {progress.busy_s:g} s: the server is busy", style="yellow"))
    if progress.note:
        parts.append(Text(progress.note, style="dim"))
    return Frame(Group(*parts), title=Text(job), title_align="left")


def _by_kind(progress: Progress) -> str:
    counts: dict[str, int] = {}
    for batch in progress.batches.values():
        for kind, count in batch.kinds.items():
            counts[kind] = counts.get(kind, 0) + count
    words = [f"{count:,} {kind}" for kind, count in counts.items() if count or kind == "succeeded"]
    words.append(f"{progress.total - progress.done:,} to go")
    if progress.usd is not None:
        words.append(money(progress.usd))
    return " · ".join(words)


def _batches(progress: Progress, now_s: float) -> RenderableType:
    """Those that work first, in the order they were made."""
    shown = sorted(progress.batches.items(), key=lambda item: item[1].status == "ended")
    table = Table.grid(padding=(0, 2))
    for id_, batch in shown[: limits.JOB_PANEL_BATCHES_MAX]:
        done = f"{batch.done:,}/{batch.total:,}"
        age = "" if batch.status == "ended" else span(now_s - batch.since_s)
        table.add_row(Text(one_line(id_)), Text(batch.status), Text(done, justify="right"), Text(age))
    more = len(shown) - limits.JOB_PANEL_BATCHES_MAX
    return Group(table, Text(f"… and {more:,} more")) if more > 0 else table


class Panel:
    """A Listener that shows the panel of a job on a terminal while it is entered."""

    def __init__(self, job: str, noun: str, *, console: Console, now_s: Callable[[], float]) -> None:
        """`now_s` is a clock in seconds, with any start; ages are differences of it."""
        self._job, self._noun, self._now_s = job, noun, now_s
        self._progress = Progress()
        self._live = Live(self, console=console, refresh_per_second=2)

    def __enter__(self) -> "Panel":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        self._progress = after(self._progress, event, now_s=self._now_s())

    def __rich__(self) -> RenderableType:
        return view(self._progress, job=self._job, noun=self._noun, now_s=self._now_s())
