"""GET /console/usage and /console/usage.csv: what was used, by whom, and what it cost.

Hours and days are those of UTC. A key sees its own workspace (I7); an admin's key all of them, or the one it chooses.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias, cast, get_args
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core.usage import NOTHING, Sums, usd
from overnight.errors import InvalidRequest
from overnight.ids import WorkspaceId
from overnight.limits import DAY_MS
from overnight.server import context, urls, usages
from overnight.server.console import chart, pages, session, shown, standing
from overnight.server.console.chart import Chart, Series
from overnight.server.context import Context
from overnight.server.exports import FORMULA
from overnight.store.usage import Asked, Column, Row
from overnight.wire.batch import rfc3339

Per: TypeAlias = Literal["hour", "day"]
By: TypeAlias = Literal["model", "engine", "workspace", "key"]
Measure: TypeAlias = Literal["usd", "tokens", "requests"]

RANGES: Final[Mapping[str, str]] = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
MEASURES: Final[Mapping[Measure, str]] = {"usd": "Cost", "tokens": "Tokens", "requests": "Requests"}
SERIES_MAX: Final = 7  # In the chart, and one more for all others: as many fills as people can tell apart.
_HOUR_MS: Final = 3_600_000
_HOURS_BACK_MS: Final = 60 * DAY_MS  # What is older is kept by the day (`store.usage.UsageStore.roll_up`).
_ALL_MS: Final = 2**53  # A bucket that holds all time.
_MILLION: Final = 1_000_000
_COLUMN: Final[Mapping[By, Column]] = {
    "model": "model",
    "engine": "engine",
    "workspace": "workspace",
    "key": "api_key",
}
_USUAL: Final = {"range": "7d", "per": "day", "by": "model", "show": "usd"}
_FIELDS: Final = ("range", "from", "to", "per", "by", "show", "workspace")
_COUNTS: Final = (
    *("requests", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "web_searches", "unpriced"),
)


class Wish(NamedTuple):
    """What is asked for, as it can be answered."""

    range: str  # One of RANGES, or "days".
    since_ms: int
    until_ms: int
    per: Per
    by: By
    show: Measure
    workspace: WorkspaceId | None  # None: all.

    @property
    def width_ms(self) -> int:
        """Of a bucket."""
        return _HOUR_MS if self.per == "hour" else DAY_MS


class Group(NamedTuple):
    """One line of the totals."""

    label: str
    sums: Sums


class Rate(NamedTuple):
    """What a million tokens of a model have cost at an engine, prompts and answers together."""

    engine: str
    model: str
    tokens: int
    usd_nano: int


async def usage(http_request: HttpRequest) -> Response:
    """The page. A field that cannot be read is said beside it, with 400, above what the other fields ask for."""
    here, caller = context.of(http_request), session.caller_of(http_request)
    given = _given(http_request)
    wish, troubles = _wish(http_request, given)
    rows = await here.store.usage.report(_asked(wish, [_COLUMN[wish.by]]))
    total = _total(rows)
    if not given["show"] and not total.usd_nano:
        wish = wish._replace(show="tokens")  # Nothing has a price: amounts would say nothing.
    groups = _groups(here, wish, rows)
    workspaces = [item.id for item in here.doors.workspaces] if wish.workspace is None else [wish.workspace]
    buckets, series = _series(here, wish, rows)
    answer = await pages.rendered(
        http_request,
        "usage.html",
        given=given,
        wish=wish,
        troubles=troubles,
        ranges=[
            (label, _query({**given, "range": name, "from": "", "to": ""}), name) for name, label in RANGES.items()
        ],
        measures=MEASURES,
        choices=here.doors.workspaces if caller.is_admin else (),
        is_admin=caller.is_admin,
        groups=groups[: limits.CONSOLE_GROUPS],
        groups_left_out=len(groups) - limits.CONSOLE_GROUPS,
        total=total,
        rates=await _rates(here, wish),
        budgets=await standing.budgets(here, workspaces),
        series=series,
        numbers=_numbers(buckets, series),
        chart=_chart(wish, buckets, series),
        said_value=_said(wish.show),
        csv_query=_query(given),
        base_url=urls.base_url(http_request, here.settings),
    )
    answer.status_code = 400 if troubles else 200
    return answer


async def download(http_request: HttpRequest) -> Response:
    """The same as CSV: a line for each bucket and group, none left out. InvalidRequest if a field cannot be read."""
    here = context.of(http_request)
    given = _given(http_request)
    wish, troubles = _wish(http_request, given)
    if troubles:
        raise InvalidRequest(" ".join(troubles.values()))
    rows = await here.store.usage.report(_asked(wish, [_COLUMN[wish.by]]))
    headers = {
        "content-disposition": 'attachment; filename="usage.csv"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "cache-control": "no-store",
    }
    return Response(_csv(here, wish, rows).encode(), media_type="text/csv; charset=utf-8", headers=headers)


def _given(http_request: HttpRequest) -> dict[str, str]:
    """What was typed and chosen. A key that sees one workspace chooses none."""
    found = {name: http_request.query_params.get(name, "").strip() for name in _FIELDS}
    return found if session.caller_of(http_request).is_admin else {**found, "workspace": ""}


def _query(given: Mapping[str, str]) -> str:
    return urlencode(_filled(given))


def _filled(given: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


# --- What is asked for ----------------------------------------------------------------------------------------------


def _wish(http_request: HttpRequest, given: Mapping[str, str]) -> tuple[Wish, dict[str, str]]:
    """What the query asks for, with what is usual in the place of what is wrong; and what that is, by field."""
    here, caller = context.of(http_request), session.caller_of(http_request)
    now_ms, troubles = here.world.clock.now_ms(), dict[str, str]()
    groups = get_args(By) if caller.is_admin else ("model", "engine", "key")
    by = _chosen("by", given, groups, troubles)
    show = _chosen("show", given, get_args(Measure), troubles)
    ranged = "days" if given["from"] or given["to"] else _chosen("range", given, tuple(RANGES), troubles)
    since_ms, until_ms = _between("7d", given, now_ms)
    try:
        since_ms, until_ms = _between(ranged, given, now_ms)
    except InvalidRequest as error:
        field, _, said = str(error).partition(": ")
        troubles["from" if field == "since" else "to"] = said.replace("since", "the first day")
    per = _chosen("per", {"per": "hour" if ranged == "24h" else "day", **_filled(given)}, get_args(Per), troubles)
    is_long = until_ms - since_ms > limits.REPORT_HOURS_MAX * _HOUR_MS
    if per == "hour" and (is_long or now_ms - since_ms > _HOURS_BACK_MS):
        troubles["per"], per = "Hours are told apart for up to 7 days, and 60 days back; these are days.", "day"
    workspace: WorkspaceId | None = caller.workspace
    if caller.is_admin:
        workspace = WorkspaceId(given["workspace"]) if given["workspace"] else None
        if workspace and workspace not in {item.id for item in here.doors.workspaces}:
            troubles["workspace"], workspace = "There is no such workspace; these are all of them.", None
    return Wish(ranged, since_ms, until_ms, cast(Per, per), cast(By, by), cast(Measure, show), workspace), troubles


def _chosen(name: str, given: Mapping[str, str], known: Sequence[str], troubles: dict[str, str]) -> str:
    """One of a list; else what is usual, and a trouble unless nothing was given."""
    value = given[name] or _USUAL[name]
    if value in known:
        return value
    troubles[name] = "There is no such choice; take one of the list."
    return _USUAL[name]


def _between(ranged: str, given: Mapping[str, str], now_ms: int) -> tuple[int, int]:
    """From the first instant until before the last one, both at the edge of a bucket."""
    if ranged == "24h":
        until_ms = now_ms - now_ms % _HOUR_MS + _HOUR_MS
        return until_ms - DAY_MS, until_ms
    if ranged == "days":
        days = usages.read_days(given["from"], given["to"] or None, now_ms=now_ms)
    else:
        days = usages.read_days(ranged, None, now_ms=now_ms)
    return days.since_ms, days.until_ms


def _asked(wish: Wish, by: Sequence[Column], *, width_ms: int | None = None) -> Asked:
    return Asked(
        since_ms=wish.since_ms,
        until_ms=wish.until_ms,
        width_ms=width_ms or wish.width_ms,
        by=by,
        only={} if wish.workspace is None else {"workspace": [wish.workspace]},
    )


# --- What is shown --------------------------------------------------------------------------------------------------


def _label(here: Context, by: By, value: str) -> str:
    """What people call the value of a column."""
    if by == "workspace":
        return here.doors.name_of(WorkspaceId(value))
    if by != "key":
        return value
    if not value:
        return "no key"
    key = next((key for key in here.doors.keys if key.id == value), None)
    return value if key is None else f"{key.name or 'unnamed'} ({key.hint})"


def _groups(here: Context, wish: Wish, rows: Sequence[Row]) -> list[Group]:
    """The sums of each group over the whole time, the largest of what is shown first."""
    sums: dict[str, Sums] = {}
    for row in rows:
        value = row.group[_COLUMN[wish.by]]
        sums[value] = sums.get(value, NOTHING).plus(row.sums)
    ordered = sorted(sums.items(), key=lambda item: (-_measured(wish.show, item[1]), item[0]))
    return [Group(_label(here, wish.by, value), found) for value, found in ordered]


def _total(rows: Sequence[Row]) -> Sums:
    total = NOTHING
    for row in rows:
        total = total.plus(row.sums)
    return total


def _series(here: Context, wish: Wish, rows: Sequence[Row]) -> tuple[list[int], list[Series]]:
    """The buckets, oldest first, and the values of the largest groups; all others are one more."""
    first_ms = wish.since_ms - wish.since_ms % wish.width_ms
    buckets = list(range(first_ms, wish.until_ms, wish.width_ms))
    column, totals = _COLUMN[wish.by], Counter[str]()
    for row in rows:
        totals[row.group[column]] += _measured(wish.show, row.sums)
    largest = sorted(totals, key=lambda value: (-totals[value], value))[:SERIES_MAX]
    lines = [[0] * len(buckets) for _ in (*largest, "others")]
    number = {value: index for index, value in enumerate(largest)}
    for row in rows:
        line = lines[number.get(row.group[column], len(largest))]
        line[(row.at_ms - first_ms) // wish.width_ms] += _measured(wish.show, row.sums)
    series = [Series(_label(here, wish.by, value), line) for value, line in zip(largest, lines, strict=False)]
    if others := len(totals) - len(largest):
        series.append(Series(f"{others:,} others", lines[-1]))
    return buckets, series


def _numbers(buckets: Sequence[int], series: Sequence[Series]) -> list[tuple[int, list[int]]]:
    """The chart as lines of a table, without buckets in which nothing was used."""
    found = [(at_ms, [each.values[index] for each in series]) for index, at_ms in enumerate(buckets)]
    return [(at_ms, values) for at_ms, values in found if any(values)]


def _chart(wish: Wish, buckets: Sequence[int], series: Sequence[Series]) -> Chart:
    length = len("2026-11-25 17:00") if wish.per == "hour" else len("2026-11-25")
    named = [rfc3339(at_ms)[:length].replace("T", " ") for at_ms in buckets]
    begin = len("2026-11-25 ") if wish.range == "24h" else len("2026-")
    return chart.drawn(named, series, shown=_said(wish.show), short=lambda name: name[begin:])


def _measured(show: Measure, sums: Sums) -> int:
    """In nano USD, tokens, or requests."""
    if show == "usd":
        return sums.usd_nano
    return sums.requests if show == "requests" else tokens(sums)


def tokens(sums: Sums) -> int:
    """All tokens, prompts and answers together."""
    cached = sums.cache_read_tokens + sums.cache_write_5m_tokens + sums.cache_write_1h_tokens
    return sums.input_tokens + cached + sums.output_tokens


def _said(show: Measure) -> Callable[[int], str]:
    return shown.usd if show == "usd" else shown.count


async def _rates(here: Context, wish: Wish) -> list[Rate]:
    """By engine and model, where anything had a cost; the dearest first."""
    found = []
    for row in await here.store.usage.report(_asked(wish, ["engine", "model"], width_ms=_ALL_MS)):
        counted = tokens(row.sums)
        if row.sums.usd_nano and counted:
            per_million = row.sums.usd_nano * _MILLION // counted
            found.append(Rate(row.group["engine"], row.group["model"], counted, per_million))
    return sorted(found, key=lambda rate: (-rate.usd_nano, rate))[: limits.CONSOLE_GROUPS]


# --- CSV ------------------------------------------------------------------------------------------------------------


def _csv(here: Context, wish: Wish, rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow((wish.per, wish.by, f"{wish.by}_id", *_COUNTS, "usd", "realtime_usd", "saved_usd"))
    for row in rows:
        value, sums = row.group[_COLUMN[wish.by]], row.sums
        money = (sums.usd_nano, sums.realtime_usd_nano, sums.realtime_usd_nano - sums.usd_nano)
        writer.writerow(
            (
                *(f"{rfc3339(row.at_ms)[:19]}Z", _cell(_label(here, wish.by, value)), _cell(value)),
                *(getattr(sums, name) for name in _COUNTS),
                *(f"{usd(amount):f}" for amount in money),
            )
        )
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
