"""GET /v1/overnight/usage and /v1/overnight/batches/{id}/usage: extensions, and what `overnight usage` prints.

Days are days of UTC: what is older than two days is kept by the hour, and later by the day, and whole days never
change by that. A key sees what is of its own workspace (I7), an admin's key all of them; batches only of its own.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, TypeAlias, cast, get_args

from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core.usage import NOTHING, Sums, usd
from overnight.errors import InvalidRequest
from overnight.ids import BatchId, WorkspaceId
from overnight.limits import DAY_MS
from overnight.server import answers, batches, context
from overnight.store.control import Control
from overnight.store.store import Store
from overnight.store.usage import Asked, Column

By: TypeAlias = Literal["day", "workspace", "model", "engine", "key", "batch"]

_COLUMN: Final[Mapping[str, Column]] = {
    "workspace": "workspace",
    "model": "model",
    "engine": "engine",
    "key": "api_key",
}
_ALL_MS: Final = 2**53  # A bucket that holds all time.
_MILLION: Final = 1_000_000
_FIRST: Final = date(2000, 1, 1)  # Before it nothing was used, and arithmetic with days may end.


class UsageRow(Struct, frozen=True, kw_only=True):
    """One line of a table. Money is in US dollars, as decimals."""

    name: str  # Of what the table is by.
    requests: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    output_tokens: int
    web_searches: int
    unpriced: int  # Requests that nobody knows a price of; they are in no amount.
    usd: str
    realtime_usd: str
    saved_usd: str  # Below 0: real time elsewhere would have been cheaper.


class EngineRate(Struct, frozen=True, kw_only=True):
    """What a million tokens of a model have cost at an engine, prompts and answers together, as it was measured."""

    engine: str
    model: str
    tokens: int
    usd_per_mtok: str


class UsageTable(Struct, frozen=True, kw_only=True):
    """Usage of some days, first and last of them included."""

    since: str
    until: str
    by: By
    rows: list[UsageRow]
    total: UsageRow
    rates: list[EngineRate]
    is_cut: bool = False  # There are more batches than one table looks at.


class BatchUsage(Struct, frozen=True, kw_only=True):
    """What one batch took so far, as far as its segments are sealed. Lines are named by model, tier and engine."""

    id: str
    rows: list[UsageRow]
    total: UsageRow


class Days(Struct, frozen=True, kw_only=True):
    """From the beginning of one day to the end of another, of UTC."""

    first: date
    last: date

    @property
    def since_ms(self) -> int:
        """The first instant."""
        return _ms(self.first)

    @property
    def until_ms(self) -> int:
        """The first instant behind them."""
        return _ms(self.last) + DAY_MS


async def table(http_request: HttpRequest) -> Response:
    """GET /v1/overnight/usage?since=2026-11-01&until=2026-11-30&by=model."""
    caller, here = context.caller_of(http_request), context.of(http_request)
    query = http_request.query_params
    by = query.get("by", "day")
    if by not in get_args(By):
        raise InvalidRequest(f"by: Input should be one of {', '.join(get_args(By))}")
    days = read_days(query.get("since", "7d"), query.get("until"), now_ms=here.world.clock.now_ms())
    seen = None if caller.is_admin and by != "batch" else [caller.workspace]
    return answers.json(await made(here.store, days, cast(By, by), workspaces=seen))


async def of_batch(http_request: HttpRequest) -> Response:
    """GET /v1/overnight/batches/{id}/usage; NotFound for a batch of another workspace."""
    caller, here = context.caller_of(http_request), context.of(http_request)
    batch_id = batches.batch_id_of(http_request)
    if await here.store.control.batch(caller.workspace, batch_id) is None:
        raise batches.not_found(batch_id)
    return answers.json(await batch_usage(here.store, batch_id))


def read_days(since: str, until: str | None, *, now_ms: int) -> Days:
    """`since`: "7d", the last seven days and today among them, or a day such as 2026-11-25. `until`: the last day;
    None: today. InvalidRequest names what is wrong."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    last = today if until is None else _day(until, "until")
    count = since.removesuffix("d")
    if since.endswith("d") and count.isascii() and count.isdigit():
        if not 1 <= int(count[:9]) <= limits.USAGE_DAYS_MAX:
            raise InvalidRequest(f"since: Input should be from 1d to {limits.USAGE_DAYS_MAX}d")
        first = last - timedelta(days=int(count) - 1)
    else:
        first = _day(since, "since")
    if not timedelta(0) <= last - first < timedelta(days=limits.USAGE_DAYS_MAX):
        raise InvalidRequest(
            f"until: Input should be at most {limits.USAGE_DAYS_MAX} days from since, and not before"
        )
    return Days(first=first, last=last)


async def made(store: Store, days: Days, by: By, *, workspaces: Sequence[WorkspaceId] | None) -> UsageTable:
    """The table. `workspaces`: those that are seen; None: all, which a table by batch does not do."""
    only: dict[Column, Sequence[str]] = {} if workspaces is None else {"workspace": list(workspaces)}
    if by == "batch":
        rows, is_cut = await _by_batch(store, days, workspaces or ())
    else:
        rows, is_cut = await _by_column(store, days, by, only), False
    total = NOTHING
    for _, sums in rows:
        total = total.plus(sums)
    return UsageTable(
        since=days.first.isoformat(),
        until=days.last.isoformat(),
        by=by,
        rows=[_row(name, sums) for name, sums in rows],
        total=_row("total", total),
        rates=await _rates(store, days, only),
        is_cut=is_cut,
    )


async def batch_usage(store: Store, batch_id: BatchId) -> BatchUsage:
    """What a batch took."""
    used = await store.usage.of_batch(batch_id)
    total = NOTHING
    for item in used:
        total = total.plus(item.sums)
    rows = [_row(f"{item.model}, {item.service_tier}, {item.engine}", item.sums) for item in used]
    return BatchUsage(id=batch_id, rows=rows, total=_row("total", total))


async def _by_column(
    store: Store, days: Days, by: By, only: Mapping[Column, Sequence[str]]
) -> list[tuple[str, Sums]]:
    column = _COLUMN.get(by)
    asked = Asked(
        since_ms=days.since_ms,
        until_ms=days.until_ms,
        width_ms=DAY_MS if column is None else _ALL_MS,
        by=[] if column is None else [column],
        only=only,
    )
    found = await store.usage.report(asked)
    if column is None:
        return [(datetime.fromtimestamp(row.at_ms / 1000, UTC).date().isoformat(), row.sums) for row in found]
    rows = [(row.group[column], row.sums) for row in found]
    return sorted(rows, key=lambda row: (-row[1].usd_nano, row[0]))


async def _by_batch(
    store: Store, days: Days, workspaces: Sequence[WorkspaceId]
) -> tuple[list[tuple[str, Sums]], bool]:
    """Batches that were created on these days, newest first."""
    rows, is_cut = list[tuple[str, Sums]](), False
    for workspace in workspaces:
        found, has_more = await _created(store.control, days, workspace)
        is_cut = is_cut or has_more
        for batch_id in found:
            sums = NOTHING
            for used in await store.usage.of_batch(batch_id):
                sums = sums.plus(used.sums)
            rows.append((batch_id, sums))
    return rows, is_cut


async def _created(control: Control, days: Days, workspace: WorkspaceId) -> tuple[list[BatchId], bool]:
    found, after, looked_at = list[BatchId](), None, 0
    while looked_at < limits.USAGE_BATCHES_MAX:
        page = await control.page(workspace, limit=limits.USAGE_BATCHES_MAX - looked_at, after=after)
        if page is None:
            return found, True  # The last one was deleted meanwhile.
        looked_at += len(page.batches)
        found += [batch.id for batch in page.batches if days.since_ms <= batch.created_at_ms < days.until_ms]
        if not page.has_more or page.batches[-1].created_at_ms < days.since_ms:
            return found, False
        after = page.batches[-1].id
    return found, True


async def _rates(store: Store, days: Days, only: Mapping[Column, Sequence[str]]) -> list[EngineRate]:
    asked = Asked(since_ms=days.since_ms, until_ms=days.until_ms, width_ms=_ALL_MS, by=["engine", "model"], only=only)
    found = []
    for row in await store.usage.report(asked):
        sums, tokens = row.sums, _tokens(row.sums)
        if sums.usd_nano and tokens:
            per_mtok = f"{usd(sums.usd_nano * _MILLION // tokens):f}"
            found.append(
                EngineRate(engine=row.group["engine"], model=row.group["model"], tokens=tokens, usd_per_mtok=per_mtok)
            )
    return found


def _tokens(sums: Sums) -> int:
    cached = sums.cache_read_tokens + sums.cache_write_5m_tokens + sums.cache_write_1h_tokens
    return sums.input_tokens + cached + sums.output_tokens


def _row(name: str, sums: Sums) -> UsageRow:
    return UsageRow(
        name=name,
        requests=sums.requests,
        input_tokens=sums.input_tokens,
        cache_read_tokens=sums.cache_read_tokens,
        cache_write_5m_tokens=sums.cache_write_5m_tokens,
        cache_write_1h_tokens=sums.cache_write_1h_tokens,
        output_tokens=sums.output_tokens,
        web_searches=sums.web_searches,
        unpriced=sums.unpriced,
        usd=f"{usd(sums.usd_nano):f}",
        realtime_usd=f"{usd(sums.realtime_usd_nano):f}",
        saved_usd=f"{usd(sums.realtime_usd_nano - sums.usd_nano):f}",
    )


def _day(text: str, name: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{name}: Input should be a day such as 2026-11-25, not {text[:40]!r}") from error
    if found < _FIRST:
        raise InvalidRequest(f"{name}: Input should be from {_FIRST} on")
    return found


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
