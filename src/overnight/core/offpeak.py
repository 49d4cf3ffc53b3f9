"""When an engine may be used for batch work: hours by the clock, a price or carbon signal, and deadlines above both.

Hours are what a clock on the wall of the time zone shows: an instant is inside a window if that clock then shows a
time inside it. So a window in the hour that is skipped in spring does not happen that day, one that reaches into it
ends or begins at the jump, and a time in the hour that is repeated in autumn counts both times. Tariffs are read off
such a clock too.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from itertools import chain
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from overnight import limits
from overnight.errors import UsageError

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
_WEEK_MS = 7 * _DAY_MS
_MONDAY_MS = 3 * _DAY_MS  # The Unix epoch was a Thursday.
_HORIZON_MS = 15 * _DAY_MS  # A weekly window that is skipped in spring is met again within two weeks.
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WINDOW = re.compile(
    r"(?P<days>[a-z]+(?:[-,][a-z]+)*)?(?:^| |$)(?:(?P<begin>[0-9]{1,2}:[0-9]{2})-(?P<end>[0-9]{1,2}:[0-9]{2}))?"
)
_HOST = re.compile(
    r"([\w-]{1,63}\.)*[\w-]{1,63}\.?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+", re.ASCII
)  # For the resolver, or IPv6.
_EXAMPLES = 'write for example "22:00-06:00", "sat,sun" or "mon-fri 22:00-06:00"'


# --- Hours --------------------------------------------------------------------------------------------------------


class Hours(Struct, frozen=True, kw_only=True):
    """The open times of a week."""

    edges_ms: tuple[int, ...]  # Opening, closing, opening, … as local time since Monday 00:00, rising.
    zone: tzinfo


ALWAYS = Hours(edges_ms=(0, _WEEK_MS), zone=UTC)


def parse(texts: Sequence[str], zone: str) -> Hours:
    """The hours that `texts` name together, in the IANA time zone `zone`. No text: always open.

    A text is days, times, or both: "22:00-06:00", "sat,sun", "mon-fri 22:00-06:00". Without days it is every day,
    without times the whole day. A window over midnight belongs to the day on which it begins; an end may be 24:00.
    The rules of the zone are read from the files of the system, here and never later.
    Raises UsageError, the operator's fault, that says what to write instead.
    """
    if not texts:
        return ALWAYS
    return Hours(edges_ms=_merged(chain.from_iterable(map(_windows, texts))), zone=_zone(zone))


def _zone(name: str) -> ZoneInfo:
    if not name:
        raise UsageError('hours need a time_zone: write one such as time_zone = "Europe/Berlin", or "UTC"')
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: "Europe" alone is a directory.
        raise UsageError(
            f'time_zone: {name!r} is not known here: write an IANA name such as "Europe/Berlin" or "UTC"; '
            "if it is one, install the time zones (tzdata) of your system"
        ) from error


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each window of one text, in the week; one over its end comes as two."""
    written = re.sub(r"\s*([-,])\s*", r"\1", " ".join(text.lower().split()))
    match = _WINDOW.fullmatch(written)
    if not written or match is None:
        raise UsageError(f"hours: {text!r} is no window: {_EXAMPLES}")
    days, begin, end = match["days"] or "mon-sun", match["begin"] or "00:00", match["end"] or "24:00"
    begin_ms, end_ms = _time_ms(begin, text), _time_ms(end, text)
    if begin_ms == _DAY_MS:
        raise UsageError(f"hours: {text!r} begins at 24:00: write 00:00, and the day after")
    if begin_ms == end_ms:
        raise UsageError(f"hours: {text!r} ends when it begins: write 00:00-24:00 for a whole day")
    length_ms = end_ms - begin_ms if end_ms > begin_ms else end_ms - begin_ms + _DAY_MS
    for day in _days(days, text):
        opens_ms = day * _DAY_MS + begin_ms
        closes_ms = opens_ms + length_ms
        yield opens_ms, min(closes_ms, _WEEK_MS)
        if closes_ms > _WEEK_MS:
            yield 0, closes_ms - _WEEK_MS


def _time_ms(written: str, text: str) -> int:
    hour, minute = map(int, written.split(":"))
    if minute > 59 or hour * 60 + minute > 24 * 60:
        raise UsageError(f"hours: {text!r}: {written} is no time of day: write 00:00 to 23:59, or 24:00 as an end")
    return (hour * 60 + minute) * _MINUTE_MS


def _days(written: str, text: str) -> Iterator[int]:
    for part in written.split(","):
        names = part.split("-")
        unknown = [name for name in names if name not in _DAYS]
        if unknown or len(names) > 2:
            wrong = unknown[0] if unknown else part
            raise UsageError(
                f"hours: {text!r}: {wrong!r} is no day: write {', '.join(_DAYS)}, or two such as mon-fri"
            )
        first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
        for step in range((last - first) % 7 + 1):
            yield (first + step) % 7


def _merged(windows: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    edges: list[int] = []
    for opens_ms, closes_ms in sorted(windows):
        if edges and opens_ms <= edges[-1]:
            edges[-1] = max(edges[-1], closes_ms)
        else:
            edges += (opens_ms, closes_ms)
    return tuple(edges)


def is_open(hours: Hours, now_ms: int) -> bool:
    """Whether an instant, ms since the Unix epoch, is inside a window."""
    return _at(hours, now_ms, _offset_ms(hours.zone, now_ms))[0]


def next_change_ms(hours: Hours, now_ms: int) -> int | None:
    """The first instant after `now_ms` at which the hours open or close; None if they are always open."""
    was_open = is_open(hours, now_ms)
    pieces = _pieces(hours, now_ms, now_ms + _HORIZON_MS)
    return next((begin_ms for begin_ms, _, is_inside in pieces if is_inside != was_open), None)


def open_ms(hours: Hours, start_ms: int, stop_ms: int) -> int:
    """How much of the time between two instants is open, exactly; 0 if the second is not after the first."""
    return sum(end_ms - begin_ms for begin_ms, end_ms, is_inside in _pieces(hours, start_ms, stop_ms) if is_inside)


def shown(hours: Hours, now_ms: int) -> str:
    """The next change for people: "opens today 22:00 Europe/Berlin", "open until Monday 06:00 UTC", "always open"."""
    change_ms = next_change_ms(hours, now_ms)
    if change_ms is None:
        return "always open"
    change, now = (datetime.fromtimestamp(at_ms // 1000, hours.zone) for at_ms in (change_ms, now_ms))
    days = (change.date() - now.date()).days
    day = ("today", "tomorrow")[days] if days < 2 else _DAY_NAMES[change.weekday()]
    if days > 6:
        day = change.date().isoformat()
    verb = "open until" if is_open(hours, now_ms) else "opens"
    return f"{verb} {day} {change:%H:%M} {hours.zone}"


def _pieces(hours: Hours, at_ms: int, stop_ms: int) -> Iterator[tuple[int, int, bool]]:
    """The time between two instants, cut where the hours or the offset of the zone change: begin, end, is open."""
    while at_ms < stop_ms:
        offset_ms = _offset_ms(hours.zone, at_ms)
        steady_ms = min(stop_ms, _steady_until_ms(hours.zone, at_ms, offset_ms))
        while at_ms < steady_ms:
            is_inside, left_ms = _at(hours, at_ms, offset_ms)
            end_ms = min(steady_ms, at_ms + left_ms)
            yield at_ms, end_ms, is_inside
            at_ms = end_ms


def _at(hours: Hours, at_ms: int, offset_ms: int) -> tuple[bool, int]:
    """Whether an instant is open, and how long the clock on the wall leaves it so."""
    position_ms = (at_ms + offset_ms + _MONDAY_MS) % _WEEK_MS
    passed = bisect_right(hours.edges_ms, position_ms)
    next_ms = hours.edges_ms[passed] if passed < len(hours.edges_ms) else _WEEK_MS
    return passed % 2 == 1, next_ms - position_ms


def _offset_ms(zone: tzinfo, at_ms: int) -> int:
    offset = datetime.fromtimestamp(at_ms // 1000, zone).utcoffset()
    assert offset is not None, "the datetime has a zone"
    return round(offset.total_seconds() * 1000)


def _steady_until_ms(zone: tzinfo, at_ms: int, offset_ms: int) -> int:
    """Until when the offset stays, at most a day: no zone changes it and changes it back within one."""
    steady_ms, other_ms = at_ms, at_ms + _DAY_MS
    if _offset_ms(zone, other_ms) == offset_ms:
        return other_ms
    while other_ms - steady_ms > 1:  # `zoneinfo` does not tell when an offset changes.
        middle_ms = (steady_ms + other_ms) // 2
        if _offset_ms(zone, middle_ms) == offset_ms:
            steady_ms = middle_ms
        else:
            other_ms = middle_ms
    return other_ms


# --- Deadlines ----------------------------------------------------------------------------------------------------


class Due(Struct, frozen=True, kw_only=True, gc=False):
    """Work with one deadline. `work_ms`: what the whole engine needs for it, without other work."""

    deadline_ms: int
    work_ms: float


def share(hours: Hours, *, now_ms: int, due: Iterable[Due], is_cheap: bool = True) -> float:
    """The part of an engine's capacity that batch work may use now, 0 to 1. Round requests in flight up.

    1 while the hours are open and the signal is low. Else 0 as long as all work, earliest deadline first and with
    `limits.OFF_PEAK_SAFETY`, fits into open time before its deadline. What does not fit is spread evenly over the
    closed time before that deadline, so it begins early and small. A high signal says nothing of later, so it is
    taken to stay high for `limits.SIGNAL_BELIEVED_MS`, and the hours count from there.

    Asked again while work goes on, it keeps every deadline that running all the time from now on would keep. Work
    that arrives later is not foreseen: where waiting has left too much, a deadline can be missed.
    """
    if is_cheap and is_open(hours, now_ms):
        return 1.0
    counted_ms = now_ms if is_cheap else now_ms + limits.SIGNAL_BELIEVED_MS
    needed_ms, free_ms, found = 0.0, 0, 0.0
    for one in sorted(due, key=lambda one: one.deadline_ms):
        needed_ms += one.work_ms * limits.OFF_PEAK_SAFETY
        free_ms += open_ms(hours, counted_ms, one.deadline_ms)
        counted_ms = max(counted_ms, one.deadline_ms)
        closed_ms = max(0, one.deadline_ms - now_ms) - free_ms
        lacking_ms = needed_ms - free_ms
        if lacking_ms > 0:
            found = max(found, 1.0 if lacking_ms >= closed_ms else lacking_ms / closed_ms)
    return found


# --- Signal -------------------------------------------------------------------------------------------------------


class Signal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number on the web, a price or the carbon of power, up to which an engine is used freely."""

    url: str  # Asked by GET. May hold a key in its query: never shown.
    at_most: float  # In the unit of the number.
    field: str = ""  # Where it stands in the JSON: "data.0.price"; -1 is the last of a list; empty: it is all of it.
    every_s: Annotated[float, Meta(ge=10, le=86_400)] = 300.0  # Between two readings.


class Reading(Struct, frozen=True, gc=False):
    """The signal was read."""

    value: float


class Miss(Struct, frozen=True, gc=False):
    """It could not be read. `reason` is for operators, and quotes nothing of the answer."""

    reason: str


Found: TypeAlias = Reading | Miss


class Seen(Struct, frozen=True, kw_only=True):
    """What is known of a signal. `value` None: nothing that counts."""

    value: float | None = None
    misses: int = 0  # In a row.
    trouble: str = ""  # Of the last miss; empty after a reading.


UNSEEN = Seen()


def check(signal: Signal) -> None:
    """Raise UsageError, which does not repeat the URL, for a signal that cannot be asked."""
    try:
        parts = urlsplit(signal.url)
        is_host = _HOST.fullmatch(parts.hostname or "") is not None
        is_address = parts.scheme in ("http", "https") and is_host and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", signal.url):
        raise UsageError('signal: url is no address: write one such as "https://prices.example.com/now"')
    if "@" in parts.netloc:
        raise UsageError("signal: url holds a user name or password, which is not sent: take it out")
    if not math.isfinite(signal.at_most):
        raise UsageError("signal: at_most is no finite number: write the value up to which batch work may run")


def place(signal: Signal) -> str:
    """Scheme and host of a checked signal: what of its URL may be shown."""
    parts = urlsplit(signal.url)
    return f"{parts.scheme}://{parts.netloc}"


def read(body: bytes, *, field: str) -> Found:
    """The number at `field` of a JSON document; a text that holds a number counts as one."""
    try:
        here = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Miss("the answer is not JSON")
    try:
        for part in field.split(".") if field else ():
            here = _inside(here, part)
    except (LookupError, ValueError):
        return Miss(f"the answer has no {field!r}")
    value = math.nan
    if isinstance(here, int | float | str) and not isinstance(here, bool):
        with suppress(ValueError, OverflowError):
            value = float(here)
    return Reading(value) if math.isfinite(value) else Miss(f"{field or 'the answer'!r} is no number")


def _inside(here: Any, part: str) -> Any:
    if isinstance(here, list):
        return here[int(part)]
    if isinstance(here, dict):
        return here[part]
    raise LookupError(part)


def after(seen: Seen, found: Found) -> Seen:
    """What is known after one more try. The last value counts until `limits.SIGNAL_MISSES_MAX` misses in a row."""
    if isinstance(found, Reading):
        return Seen(value=found.value)
    misses = seen.misses + 1
    value = seen.value if misses < limits.SIGNAL_MISSES_MAX else None
    meanwhile = "hours alone decide" if value is None else f"the last value, {value:g}, still counts"
    return Seen(value=value, misses=misses, trouble=f"{found.reason} ({misses} in a row; {meanwhile})")


def is_cheap(signal: Signal, seen: Seen) -> bool:
    """Whether the signal lets batch work run. One that is unknown does: it must not stop the night."""
    return seen.value is None or seen.value <= signal.at_most
