"""overnight.jobs.panel: what a terminal shows at some states of a run."""

from collections.abc import Sequence
from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console

from overnight import limits
from overnight.jobs.panel import Panel, Progress, after, view
from overnight.jobs.tell import Event

ZEROS = {"errored": 0, "canceled": 0, "expired": 0}


def batch(id_: str, requests: int) -> Event:
    return Event("batch", {"id": id_, "requests": requests, "attempt": 1})


def look(id_: str, done: int, total: int, status: str = "in_progress", errored: int = 0) -> Event:
    counts = {**ZEROS, "errored": errored, "succeeded": done - errored, "processing": total - done}
    return Event("status", {"id": id_, "status": status, **counts, "total": total, "done": done, "first": False})


def progress(events: Sequence[Event]) -> Progress:
    """After events a minute apart, from 0."""
    now = Progress()
    for minute, event in enumerate(events):
        now = after(now, event, now_s=60.0 * minute)
    return now


def shown(events: Sequence[Event], job: str = "tickets") -> str:
    console = Console(file=StringIO(), force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(view(progress(events), job=job, noun="tickets", now_s=60.0 * len(events)))
    return captured.get()


NIGHT = [
    Event("found", {"rows": 3000}),
    batch("msgbatch_1", 2000),
    batch("msgbatch_2", 1000),
    look("msgbatch_1", 2000, 2000, "ended", errored=10),
    look("msgbatch_2", 250, 1000),
]


def test_a_panel_says_how_far_a_run_is() -> None:
    lines = [line.strip("│╭╮╰╯─ ") for line in shown(NIGHT).splitlines()]
    assert lines[0] == "tickets"
    assert lines[1].endswith("2,250 of 3,000 tickets")
    assert lines[2] == "2,240 succeeded · 10 errored · 750 to go"
    assert [line.split() for line in lines[3:5]] == [
        ["msgbatch_2", "in_progress", "250/1,000", "3", "min"],
        ["msgbatch_1", "ended", "2,000/2,000"],
    ]


def test_the_bar_is_as_long_as_what_is_done() -> None:
    run = [Event("found", {"rows": 10}), batch("b", 10), look("b", 5, 10), look("b", 10, 10, "ended")]
    none, half, whole = (shown(run[:count]).splitlines()[1].count("━") for count in (2, 3, 4))
    assert none == 0
    assert whole > 40
    assert half == pytest.approx(whole / 2, abs=1)


def test_cost_and_the_last_note_are_shown() -> None:
    text = shown(
        [
            *NIGHT,
            Event("cost", {"usd": Decimal("0.32")}),
            Event("note", {"text": "first"}),
            Event("attempt_failed", {"attempt": 1, "error": "connection\nrefused"}),
        ]
    )
    assert "750 to go · $0.32" in text
    assert "Attempt 1 failed: connection refused" in text
    assert "first" not in text


def test_a_busy_server_is_shown_until_it_answers() -> None:
    busy = [*NIGHT, Event("busy", {"seconds": 30.0})]
    assert "Waiting 30 s: the server is busy" in shown(busy)
    assert "busy" not in shown([*busy, look("msgbatch_2", 300, 1000)])


def test_rows_that_are_asked_again_are_counted_once() -> None:
    retried = [*NIGHT, look("msgbatch_2", 1000, 1000, "ended"), batch("msgbatch_3", 10)]
    retried.append(Event("retrying", {"requests": 10, "id": "msgbatch_3"}))
    assert (progress(retried).done, progress(retried).total) == (2990, 3000)
    ended = progress([*retried, look("msgbatch_3", 10, 10, "ended")])
    assert (ended.done, ended.total) == (3000, 3000)


def test_a_resumed_run_has_the_rows_of_its_batches() -> None:
    now = progress([Event("resuming", {"id": "msgbatch_1", "requests": 500}), look("msgbatch_1", 20, 500)])
    assert (now.done, now.total) == (20, 500)


def test_the_end_of_a_batch_is_seen_without_a_last_look() -> None:
    end = {**ZEROS, "id": "b", "succeeded": 5, "processing": 0, "total": 5, "done": 5}
    assert "b  ended  5/5" in shown([batch("b", 5), Event("ended", end)])


@pytest.mark.parametrize(("count", "more"), [(0, ""), (1, "… and 1 more")])
def test_only_so_many_batches_have_a_line(count: int, more: str) -> None:
    total = limits.JOB_PANEL_BATCHES_MAX + count
    text = shown([batch(f"b{n:02}", 1) for n in range(total)])
    assert text.count("submitted") == limits.JOB_PANEL_BATCHES_MAX
    assert ("more" in text) == bool(more)
    assert more in text


def test_what_others_say_is_text_and_not_markup() -> None:
    text = shown(
        [look("[red]b[/red]", 0, 1, "[/]odd\x1b[2J"), Event("note", {"text": "[bold]x[/bold] \x1b[2J"})], "[j]"
    )
    for literal in ("[red]b[/red]", r"[/]odd\x1b[2J", r"[bold]x[/bold] \x1b[2J", "[j]"):
        assert literal in text
    assert "\x1b[2J" not in text


def test_a_panel_listens_and_leaves_its_last_state_behind() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80, color_system=None)
    with Panel("tickets", "tickets", console=console, now_s=lambda: 0.0) as panel:
        for event in (*NIGHT, Event("row", {"key": 1}), Event("done")):
            panel(event)
    assert isinstance(console.file, StringIO)
    assert "2,250 of 3,000 tickets" in console.file.getvalue()
