"""GET /v1/organizations/usage_report/messages and /v1/organizations/cost_report, in the reference's shape.

Source: https://platform.claude.com/docs/en/manage-claude/usage-cost-api. Where it is silent, or we differ
(docs/how-to/cost.md): a workspace's own key may ask too, and sees only its workspace (I7); what we have no word for,
such as `inference_geo`, is null; the cost of an answer is one amount, not one for each kind of token.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core.usage import Sums
from overnight.errors import InvalidRequest
from overnight.ids import DEFAULT_WORKSPACE
from overnight.limits import DAY_MS
from overnight.server import answers, context
from overnight.server.access import Caller
from overnight.store.usage import Asked, Column, Row, UsageStore
from overnight.wire.batch import rfc3339


class _Width(NamedTuple):
    ms: int
    default: int  # Buckets of a page.
    most: int


_WIDTHS: Final = {
    "1d": _Width(DAY_MS, limits.REPORT_DAYS_DEFAULT, limits.REPORT_DAYS_MAX),
    "1h": _Width(3_600_000, limits.REPORT_HOURS_DEFAULT, limits.REPORT_HOURS_MAX),
    "1m": _Width(60_000, limits.REPORT_MINUTES_DEFAULT, limits.REPORT_MINUTES_MAX),
}
_NANO_OF_CENT: Final = 10_000_000
_COLUMNS: Final[Mapping[str, Column]] = {
    "api_key_id": "api_key",
    "model": "model",
    "service_tier": "service_tier",
    "workspace_id": "workspace",
}
_UNKNOWN: Final = (
    "account_id",
    "context_window",
    "inference_geo",
    "service_account_id",
    "speed",
)  # Always null here.
_FILTERS: Final[Mapping[str, Column]] = {
    "api_key_ids": "api_key",
    "models": "model",
    "service_tiers": "service_tier",
    "workspace_ids": "workspace",
}
_PAGED: Final = ("starting_at", "ending_at", "bucket_width", "limit", "page", "group_by")


class CacheCreated(Struct, frozen=True, kw_only=True):
    """Tokens written to prompt caches."""

    ephemeral_1h_input_tokens: int
    ephemeral_5m_input_tokens: int


class ServerTools(Struct, frozen=True, kw_only=True):
    """Uses of the server's own tools."""

    web_search_requests: int


class UsageResult(Struct, frozen=True, kw_only=True):
    """What one group used in one bucket. What it was not grouped by is null; the default workspace is null too."""

    account_id: str | None = None
    api_key_id: str | None = None
    cache_creation: CacheCreated
    cache_read_input_tokens: int
    context_window: str | None = None
    inference_geo: str | None = None
    model: str | None = None
    output_tokens: int
    server_tool_use: ServerTools
    service_account_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    uncached_input_tokens: int
    workspace_id: str | None = None


class CostResult(Struct, frozen=True, kw_only=True):
    """What one group cost in one day; `amount` in cents, exactly."""

    amount: str
    context_window: str | None = None
    cost_type: str | None = None
    currency: str = "USD"
    description: str | None = None
    model: str | None = None
    service_tier: str | None = None
    token_type: str | None = None
    workspace_id: str | None = None


class UsageBucket(Struct, frozen=True, kw_only=True):
    """A minute, an hour or a day of UTC."""

    starting_at: str
    ending_at: str
    results: list[UsageResult]


class CostBucket(Struct, frozen=True, kw_only=True):
    """A day of UTC."""

    starting_at: str
    ending_at: str
    results: list[CostResult]


class UsageReport(Struct, frozen=True, kw_only=True):
    """A page of usage, oldest bucket first."""

    data: list[UsageBucket]
    has_more: bool
    next_page: str | None


class CostReport(Struct, frozen=True, kw_only=True):
    """A page of costs, oldest day first."""

    data: list[CostBucket]
    has_more: bool
    next_page: str | None


async def messages(http_request: HttpRequest) -> Response:
    """GET /v1/organizations/usage_report/messages: tokens by bucket and group."""
    caller, query = _begun(http_request), http_request.query_params
    _check_names(query, _FILTERS)
    by = _groups(query, (*_COLUMNS, *_UNKNOWN))
    columns = [_COLUMNS[name] for name in by if name in _COLUMNS]
    page = _page(query, widths=_WIDTHS, now_ms=context.of(http_request).world.clock.now_ms())
    rows = await _rows(context.of(http_request).store.usage, page, caller, columns, _only(query))
    found = [
        UsageBucket(**_times(page, at_ms), results=[_used(row) for row in rows[at_ms]]) for at_ms in page.buckets
    ]
    return answers.json(UsageReport(data=found, has_more=page.next_ms is not None, next_page=_token(page.next_ms)))


async def costs(http_request: HttpRequest) -> Response:
    """GET /v1/organizations/cost_report: money by day and group."""
    caller, query = _begun(http_request), http_request.query_params
    _check_names(query, {})
    by = _groups(query, ("workspace_id", "description"))
    columns: list[Column] = ["workspace"] if "workspace_id" in by else []
    columns += ["model", "service_tier"] if "description" in by else []
    page = _page(query, widths={"1d": _WIDTHS["1d"]}, now_ms=context.of(http_request).world.clock.now_ms())
    rows = await _rows(context.of(http_request).store.usage, page, caller, columns, {})
    found = [CostBucket(**_times(page, at_ms), results=[_cost(row) for row in rows[at_ms]]) for at_ms in page.buckets]
    return answers.json(CostReport(data=found, has_more=page.next_ms is not None, next_page=_token(page.next_ms)))


def cents(usd_nano: int) -> str:
    """An amount in cents as a decimal, exactly and without an exponent."""
    return f"{(Decimal(usd_nano) / _NANO_OF_CENT).normalize():f}"


# --- Asking ---------------------------------------------------------------------------------------------------------


class _Page(NamedTuple):
    since_ms: int
    until_ms: int
    width_ms: int
    next_ms: int | None  # Where the next page begins.

    @property
    def buckets(self) -> range:
        """The beginnings of all buckets, empty ones too."""
        return range(self.since_ms, self.until_ms, self.width_ms)


def _begun(http_request: HttpRequest) -> Caller:
    caller = context.caller_of(http_request)
    context.api_version_of(http_request)
    return caller


def _page(query: QueryParams, *, widths: Mapping[str, _Width], now_ms: int) -> _Page:
    named = query.get("bucket_width", "1d")
    if named not in widths:
        raise InvalidRequest(f"bucket_width: Input should be {_either(list(widths))}")
    width = widths[named]
    first_ms = _instant(query, "starting_at")
    if first_ms is None:
        raise InvalidRequest("starting_at: Field required")
    since_ms = first_ms // width.ms * width.ms
    this_ms = now_ms // width.ms * width.ms + width.ms  # What is of now is shown as far as it is.
    last_ms = _instant(query, "ending_at")
    if last_ms is not None and last_ms <= first_ms:
        raise InvalidRequest("ending_at: Input should be after starting_at")
    end_ms = this_ms if last_ms is None else min(last_ms // width.ms * width.ms, this_ms)
    if (token := query.get("page")) is not None:
        since_ms = _read_token(token, since_ms=since_ms, end_ms=end_ms, width_ms=width.ms)
    until_ms = min(since_ms + _limit(query.get("limit"), width) * width.ms, end_ms)
    return _Page(since_ms, max(since_ms, until_ms), width.ms, until_ms if since_ms < until_ms < end_ms else None)


async def _rows(
    store: UsageStore, page: _Page, caller: Caller, by: Sequence[Column], only: Mapping[Column, Sequence[str]]
) -> Mapping[int, list[Row]]:
    """The lines by bucket. Whoever is no admin sees one workspace, and not that there are others."""
    asked = dict(only)
    if not caller.is_admin:
        asked["workspace"] = [
            caller.workspace for named in asked.get("workspace", [caller.workspace]) if named == caller.workspace
        ]
    found: dict[int, list[Row]] = {at_ms: [] for at_ms in page.buckets}
    if page.since_ms < page.until_ms:
        for row in await store.report(
            Asked(since_ms=page.since_ms, until_ms=page.until_ms, width_ms=page.width_ms, by=by, only=asked)
        ):
            found[row.at_ms].append(row)
    return found


def _only(query: QueryParams) -> dict[Column, Sequence[str]]:
    return {column: values for name, column in _FILTERS.items() if (values := _list(query, name))}


def _list(query: QueryParams, name: str) -> list[str]:
    """Values of a repeated key, written with or without brackets."""
    return [*query.getlist(f"{name}[]"), *query.getlist(name)]


def _groups(query: QueryParams, known: Sequence[str]) -> list[str]:
    found = _list(query, "group_by")
    for number, name in enumerate(found):
        if name not in known:
            raise InvalidRequest(f"group_by.{number}: Input should be {_either(sorted(known))}")
    return list(dict.fromkeys(found))


def _check_names(query: QueryParams, filters: Mapping[str, Column]) -> None:
    """A filter that is not understood would be a wrong answer."""
    for key in query:
        if key.removesuffix("[]") not in (*_PAGED, *filters):
            raise InvalidRequest(f"{key[:80]}: Extra inputs are not permitted")


def _instant(query: QueryParams, name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{name}: Input should be a valid datetime in RFC 3339") from error
    at = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    return max(0, int(at.timestamp() * 1000))


def _limit(text: str | None, width: _Width) -> int:
    if text is None:
        return width.default
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest("limit: Input should be a valid integer")
    if int(text[:9]) < 1:
        raise InvalidRequest("limit: Input should be greater than or equal to 1")
    if int(text[:9]) > width.most:
        raise InvalidRequest(f"limit: Input should be less than or equal to {width.most}")
    return int(text)


def _token(at_ms: int | None) -> str | None:
    return None if at_ms is None else f"page_{urlsafe_b64encode(str(at_ms).encode()).decode().rstrip('=')}"


def _read_token(token: str, *, since_ms: int, end_ms: int, width_ms: int) -> int:
    """Where a page begins; InvalidRequest unless we could have made the token for the same question."""
    coded = token.removeprefix("page_")[:40]
    try:
        at_ms = int(urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
    except ValueError as error:
        raise InvalidRequest("page: Input should be the next_page of an earlier answer") from error
    if _token(at_ms) != token or not since_ms < at_ms < end_ms or at_ms % width_ms:
        raise InvalidRequest("page: Input should be the next_page of an answer to the same question")
    return at_ms


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(f"'{name}'" for name in names[:-1])] * (len(names) > 1) + [f"'{names[-1]}'"])


# --- Answering ------------------------------------------------------------------------------------------------------


def _times(page: _Page, at_ms: int) -> dict[str, Any]:
    return {"starting_at": _second(at_ms), "ending_at": _second(at_ms + page.width_ms)}


def _second(at_ms: int) -> str:
    return f"{rfc3339(at_ms)[:19]}Z"


def _workspace(row: Row) -> str | None:
    found = row.group.get("workspace")
    return None if found == DEFAULT_WORKSPACE else found


def _used(row: Row) -> UsageResult:
    sums: Sums = row.sums
    return UsageResult(
        api_key_id=row.group.get("api_key") or None,
        model=row.group.get("model"),
        service_tier=row.group.get("service_tier"),
        workspace_id=_workspace(row),
        uncached_input_tokens=sums.input_tokens,
        cache_read_input_tokens=sums.cache_read_tokens,
        cache_creation=CacheCreated(
            ephemeral_1h_input_tokens=sums.cache_write_1h_tokens, ephemeral_5m_input_tokens=sums.cache_write_5m_tokens
        ),
        output_tokens=sums.output_tokens,
        server_tool_use=ServerTools(web_search_requests=sums.web_searches),
    )


def _cost(row: Row) -> CostResult:
    model, tier = row.group.get("model"), row.group.get("service_tier")
    return CostResult(
        amount=cents(row.sums.usd_nano),
        model=model,
        service_tier=tier,
        workspace_id=_workspace(row),
        cost_type=None if model is None else "tokens",
        description=None if model is None else f"{model} usage, {tier}",
    )
