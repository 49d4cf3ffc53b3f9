"""overnight.jobs.tell: every line that the five texts print, and what may not be printed."""

import json
from typing import Any

import pytest

from overnight import limits
from overnight.errors import JobError
from overnight.jobs import tell
from overnight.jobs.jobfile import Lines
from overnight.jobs.tell import Event

ID = "msgbatch_01abc"
COUNTS = {"processing": 2, "succeeded": 3, "errored": 0, "canceled": 0, "expired": 0, "total": 5, "done": 3}
LOOK = {"id": ID, "status": "in_progress", **COUNTS, "first": False}
ENDED = {**LOOK, "status": "ended", "processing": 0, "succeeded": 4, "errored": 1, "done": 5}
END = {name: fact for name, fact in ENDED.items() if name not in ("status", "first")}
BATCH = Event("batch", {"id": ID, "requests": 3, "attempt": 1})
ROW = {"key": 1, "custom_id": "req-001", "state": "succeeded", "error": "", "value": "Paris"}
FAILED = {"key": 1, "custom_id": "req-001", "state": "expired", "error": "expired"}
STATUS_OF_000 = {"first_status": "Status: {{ status }}"}
PER_ROW = {"row": "{{ custom_id }}: {{ value }}"}


def printed(event: Event, noun: str = "rows", **lines: str) -> str:
    out: list[str] = []
    tell.plain(Lines(**lines), noun, out.append)(event)
    assert all(out)
    return "\n".join(out)


@pytest.mark.parametrize(
    ("event", "noun", "lines", "text"),
    [
        pytest.param(BATCH, "", {"batch": "Batch ID: {{ id }}"}, f"Batch ID: {ID}", id="000-03 003-03"),
        pytest.param(Event("submitted", {"rows": 5}), "invoices", {}, "Submitted 5 invoices", id="000-04"),
        pytest.param(
            Event("status", {**LOOK, "first": True}), "", STATUS_OF_000, "Status: in_progress", id="000-05 003-03"
        ),
        pytest.param(
            Event("status", LOOK), "", STATUS_OF_000, "Status: in_progress | Done: 3 | Remaining: 2", id="000-06"
        ),
        pytest.param(
            Event("status", ENDED), "", STATUS_OF_000, "Status: ended | Done: 5 | Remaining: 0", id="000-07"
        ),
        pytest.param(
            BATCH,
            "",
            {"batch": "Batch ID: {{ id }}\nTotal requests: {{ requests }}"},
            f"Batch ID: {ID}\nTotal requests: 3",
            id="001-02",
        ),
        pytest.param(
            Event("status", LOOK),
            "",
            {"status": "Status: {{ status }}\nProgress: {{ succeeded }}/{{ total }}"},
            "Status: in_progress\nProgress: 3/5",
            id="001-04",
        ),
        pytest.param(Event("row", ROW), "", PER_ROW, "req-001: Paris", id="001-06 an answer"),
        pytest.param(Event("row", FAILED), "", PER_ROW, "req-001: Failed - expired", id="001-06 none"),
        pytest.param(
            BATCH,
            "",
            {"batch": "Created batch {{ id }} with {{ requests }} requests"},
            f"Created batch {ID} with 3 requests",
            id="001-10",
        ),
        pytest.param(Event("waiting", {"batches": 3}), "", {}, "Waiting for 3 batches...", id="001-13"),
        pytest.param(
            Event("retrying", {"requests": 4, "id": ID}),
            "",
            {},
            f"Retrying 4 failed requests in batch {ID}",
            id="001-16",
        ),
        pytest.param(
            BATCH,
            "",
            {"batch": "Batch submitted with ID: {{ id }}\nRequest count: {{ requests }}"},
            f"Batch submitted with ID: {ID}\nRequest count: 3",
            id="002-03",
        ),
        pytest.param(
            BATCH,
            "",
            {"batch": "Submitted batch {{ id }} with {{ requests }} requests"},
            f"Submitted batch {ID} with 3 requests",
            id="002-07",
        ),
        pytest.param(
            Event("status", LOOK),
            "",
            {"status": "Status: {{ status }} - Processing: {{ processing }}"},
            "Status: in_progress - Processing: 2",
            id="002-09 a look",
        ),
        pytest.param(
            Event("ended", END),
            "",
            {"ended": "Batch completed! Succeeded: {{ succeeded }}, Errored: {{ errored }}"},
            "Batch completed! Succeeded: 4, Errored: 1",
            id="002-09 the end",
        ),
        pytest.param(
            Event("row", {**ROW, "custom_id": "ticket-001", "category": "bug", "hours": 4}),
            "",
            {"row": "\n{{ custom_id }}: {{ {'category': category, 'hours': hours} | tojson }}"},
            '\nticket-001: {"category": "bug", "hours": 4}',
            id="002-13",
        ),
        pytest.param(
            Event("attempt_failed", {"attempt": 2, "error": "connection refused"}),
            "",
            {},
            "Attempt 2 failed: connection refused. Retrying...",
            id="002-18",
        ),
        pytest.param(
            BATCH,
            "reviews",
            {"batch": "Batch created: {{ id }} ({{ requests }} {{ noun }})"},
            f"Batch created: {ID} (3 reviews)",
            id="003-08",
        ),
        pytest.param(
            Event("status", LOOK),
            "",
            {"status": "Status: {{ status }} | Done: {{ done }}"},
            "Status: in_progress | Done: 3",
            id="003-09",
        ),
        pytest.param(BATCH, "", {"batch": "Batch submitted: {{ id }}"}, f"Batch submitted: {ID}", id="004-06"),
        pytest.param(
            Event("status", LOOK),
            "",
            {"status": "Status: {{ status }} | Succeeded: {{ succeeded }} | Processing: {{ processing }}"},
            "Status: in_progress | Succeeded: 3 | Processing: 2",
            id="004-07",
        ),
        pytest.param(
            Event("found", {"rows": 3000}),
            "tickets",
            {"found": "Classifying {{ rows }} {{ noun }}"},
            "Classifying 3000 tickets",
            id="004-10",
        ),
        pytest.param(
            Event("nothing"),
            "tickets",
            {"nothing": "No {{ noun }} to classify"},
            "No tickets to classify",
            id="004-11",
        ),
        pytest.param(Event("resuming", {"id": ID, "requests": 3}), "", {}, f"Resuming batch {ID}", id="004-13"),
        pytest.param(
            Event("collected", {"succeeded": 2990, "failed": 10, "rows": 3000}),
            "tickets",
            {"collected": "Classified {{ succeeded }} {{ noun }}"},
            "Classified 2990 tickets",
            id="004-16 collected",
        ),
        pytest.param(Event("done"), "", {}, "Done!", id="004-16 done"),
    ],
)
def test_the_lines_of_the_texts_are_printed(event: Event, noun: str, lines: dict[str, str], text: str) -> None:
    assert printed(event, noun, **lines) == text


@pytest.mark.parametrize(
    ("event", "lines", "text"),
    [
        pytest.param(Event("busy", {"seconds": 30.0}), {}, "Waiting 30 s: the server is busy", id="busy"),
        pytest.param(Event("note", {"text": "a batch is lost"}), {}, "a batch is lost", id="note"),
        pytest.param(Event("ended", END), {}, "", id="no template, no line"),
        pytest.param(Event("row", FAILED), {}, "", id="no template for rows, nothing for a failed one"),
        pytest.param(Event("done"), {"done": "{% if false %}x{% endif %}"}, "", id="an empty line"),
        pytest.param(Event("cost", {"usd": 1}), {}, "", id="what has no line"),
        pytest.param(
            Event("status", {**LOOK, "first": True}),
            {},
            "Status: in_progress | Done: 3 | Remaining: 2",
            id="the first look is as the others unless it has a template",
        ),
    ],
)
def test_other_events_have_a_fixed_line_or_none(event: Event, lines: dict[str, str], text: str) -> None:
    assert printed(event, **lines) == text


@pytest.mark.parametrize(
    ("name", "template", "message"),
    [
        pytest.param(
            "status", "{{ statsu }}", r"\[lines\] status: there is no name 'statsu'.*; did you mean 'status'\?"
        ),
        pytest.param("found", "{{ rows", r"\[lines\] found: line 1: "),
        pytest.param("ended", "{{ status }}", r"\[lines\] ended: there is no name 'status'"),
    ],
)
def test_a_wrong_line_is_found_before_the_night(name: str, template: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        tell.plain(Lines(**{name: template}), "rows", [].append)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("red \x1b[31m", r"red \x1b[31m", id="escape"),
        pytest.param("a\r\nb\tc\n", "a\nb\tc\n", id="line ends and tabs"),
        pytest.param("over\rwritten", r"over\rwritten", id="carriage return"),
        pytest.param("\x9b31m", r"\x9b31m", id="C1"),
        pytest.param("a\u202eb", r"a\u202eb", id="reversed text"),
        pytest.param("\ud800", r"\ud800", id="half a character"),
        pytest.param("Größe 日本 🎉", "Größe 日本 🎉", id="other scripts"),
    ],
)
def test_an_answer_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert printed(Event("row", {**ROW, "value": text}), row="{{ value }}") == shown


def test_events_are_lines_of_json() -> None:
    out: list[str] = []
    listen = tell.as_json(out.append)
    listen(Event("nothing"))
    listen(Event("row", {**ROW, "value": "two\nlines, é", "event": "a column"}))
    assert out[0] == '{"event":"nothing"}'
    assert out[1].startswith('{"event":"row",')
    assert "\n" not in out[1]
    assert json.loads(out[1]) == {**ROW, "value": "two\nlines, é", "event": "row"}


def test_an_error_is_cut_to_a_line() -> None:
    longest = limits.JOB_ERROR_CHARACTERS_MAX
    assert tell.one_line("a\n  b\x07") == r"a b\x07"
    assert tell.one_line("x" * longest) == "x" * longest
    assert tell.one_line("x" * (longest + 1)) == "x" * (longest - 1) + "…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert tell.span(seconds) == text


def test_every_line_of_a_job_file_belongs_to_an_event() -> None:
    facts: dict[str, Any] = {**LOOK, "rows": 1, "requests": 1, "attempt": 1, "batches": 1, "error": "e", "failed": 0}
    for name in Lines.__struct_fields__:
        if name not in ("first_status", "row"):
            assert printed(Event(name, facts), **{name: "said"}) == "said", name
