"""What a job says while it works: events, and the two ways to print them, lines to read and lines of JSON.

Events, with their facts:

found(rows), nothing, batch(id, requests, attempt), submitted(rows), resuming(id, requests),
status(id, status, processing, succeeded, errored, canceled, expired, total, done, first), waiting(batches),
ended(the same without status and first), retrying(requests, id), attempt_failed(attempt, error), busy(seconds),
row(`Answer.names`), collected(succeeded, failed, rows), cost(usd), note(text), done.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from overnight import limits
from overnight.jobs.jobfile import Lines
from overnight.jobs.templates import RowLine, Template


class Event(NamedTuple):
    """Something happened."""

    name: str
    facts: Mapping[str, Any] = MappingProxyType({})


Listener: TypeAlias = Callable[[Event], None]

_COUNTS: Final = ("processing", "succeeded", "errored", "canceled", "expired", "total", "done")
_FACTS: Final[dict[str, tuple[str, ...]]] = {
    "found": ("rows",),
    "nothing": (),
    "batch": ("id", "requests", "attempt"),
    "submitted": ("rows",),
    "resuming": ("id", "requests"),
    "first_status": ("id", "status", *_COUNTS, "first"),
    "status": ("id", "status", *_COUNTS, "first"),
    "waiting": ("batches",),
    "ended": ("id", *_COUNTS),
    "retrying": ("requests", "id"),
    "attempt_failed": ("attempt", "error"),
    "collected": ("succeeded", "failed", "rows"),
    "done": (),
}
_FIXED: Final = {
    "busy": Template("Waiting {{ '%g' % seconds }} s: the server is busy", "busy"),
    "note": Template("{{ text }}", "note"),
}
# Control characters would let a model's answer rewrite a terminal, and reversed text hide what is there.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(lines: Lines, noun: str, write: Callable[[str], None]) -> Listener:
    """Prints events by the templates of `lines`; what renders to nothing prints nothing.

    `write` gets a line without its end. JobError, here and not at night, for a template that names what is not told.
    """
    templates = {**_FIXED, "row": RowLine(lines.row, "[lines] row")}
    for name, facts in _FACTS.items():
        templates[name] = Template(getattr(lines, name), f"[lines] {name}", of="name")
        templates[name].check(("noun", *facts))

    def listen(event: Event) -> None:
        is_first = event.name == "status" and event.facts["first"] and event.facts["status"] != "ended"
        template = templates.get("first_status" if is_first and lines.first_status else event.name)
        if template is None or (event.name == "row" and not lines.row):
            return
        line = template.render({"noun": noun, **event.facts})
        if line:
            write(printable(line))

    return listen


def as_json(write: Callable[[str], None]) -> Listener:
    """Writes an object a line: {"event": name, …facts}. A column that is called `event` is not in it."""

    def listen(event: Event) -> None:
        write(msgspec.json.encode({"event": "", **event.facts} | {"event": event.name}).decode())

    return listen


def printable(text: str) -> str:
    """`text` with control characters spelled out, as `\\x1b`; line ends and tabs stay."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """An error to show: printable, on one line, cut at `limits.JOB_ERROR_CHARACTERS_MAX`."""
    line = " ".join(printable(text).split())
    cut = limits.JOB_ERROR_CHARACTERS_MAX
    return line if len(line) <= cut else f"{line[: cut - 1]}…"


def span(seconds: float) -> str:
    """A time to read: "45 s", "12 min", "3 h 5 min"."""
    minutes = round(seconds) // 60
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
