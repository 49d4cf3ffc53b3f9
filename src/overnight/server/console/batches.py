"""GET /console/batches: the batches of a workspace, newest first, and those of them that are looked for."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, get_args
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core.batch import Batch
from overnight.errors import InvalidRequest
from overnight.ids import BatchId, WorkspaceId
from overnight.server import batches as api
from overnight.server import context, status, urls
from overnight.server.console import pages, session
from overnight.server.context import Context
from overnight.store.control import ID_PREFIX_MIN, Page, Sought
from overnight.wire.batch import RequestCounts, Status

_FILTERS = ("status", "id", "from", "to")


class Row(NamedTuple):
    """One batch of the list, as it is now."""

    batch: Batch
    counts: RequestCounts
    waiting: str  # Why nothing of it runs; empty if something does.


async def batches(http_request: HttpRequest) -> Response:
    """One page of the list. A filter that cannot be read is said above a list without it."""
    here, workspace = context.of(http_request), session.caller_of(http_request).workspace
    given = {name: http_request.query_params.get(name, "").strip() for name in _FILTERS}
    trouble, sought = "", Sought()
    try:
        sought = _sought(given)
    except InvalidRequest as error:
        trouble = str(error)
    after, before = (http_request.query_params.get(name, "") for name in ("after", "before"))
    found = await _page(here, workspace, sought, after=after, before=before)
    answer = await pages.rendered(
        http_request,
        "batches.html",
        rows=[await row_of(here, batch, workspace) for batch in found.batches],
        given=given,
        is_filtered=any(given.values()),
        trouble=trouble,
        links=_links(given, found, after=after, before=before),
        base_url=urls.base_url(http_request, here.settings),
    )
    answer.status_code = 400 if trouble else 200
    return answer


async def row_of(here: Context, batch: Batch, workspace: WorkspaceId) -> Row:
    """A batch with its counts as they are now. Unlike the API it counts live also where that says zero to the end."""
    live = here.tallies.snapshot(batch.id)
    if batch.status != "ended" and live:
        batch, live = await api.with_unsealed(here, batch, live)
    tally = batch.tally
    if batch.status != "ended":
        for unsealed in live.values():
            tally = tally.plus(unsealed)
    counts = RequestCounts(
        processing=batch.requests - tally.total,
        succeeded=tally.succeeded,
        errored=tally.errored,
        canceled=tally.canceled,
        expired=tally.expired,
    )
    return Row(batch, counts, await status.why_it_waits(here, batch, workspace))


async def _page(here: Context, workspace: WorkspaceId, sought: Sought, *, after: str, before: str) -> Page:
    """The page beside a cursor; the newest one if its batch is gone, or there is no cursor."""
    if after or before:
        found = await here.store.control.browse(
            workspace,
            sought,
            limit=limits.CONSOLE_BATCHES,
            after=BatchId(after) if after else None,
            before=None if after else BatchId(before),
        )
        if found is not None:
            return found
    newest = await here.store.control.browse(workspace, sought, limit=limits.CONSOLE_BATCHES)
    assert newest is not None, "only a cursor can be gone"
    return newest


def _links(given: dict[str, str], found: Page, *, after: str, before: str) -> dict[str, str]:
    """The queries of the pages beside this one; empty where there is none."""
    filters = {name: value for name, value in given.items() if value}
    is_newer = bool(before) and not after
    has_newer, has_older = found.has_more if is_newer else bool(after), is_newer or found.has_more
    first, last = (found.batches[0].id, found.batches[-1].id) if found.batches else ("", "")
    return {
        "newest": f"?{urlencode(filters)}" if after or before else "",
        "newer": f"?{urlencode({**filters, 'before': first})}" if has_newer and first else "",
        "older": f"?{urlencode({**filters, 'after': last})}" if has_older and last else "",
    }


def _sought(given: dict[str, str]) -> Sought:
    if given["status"] not in ("", *get_args(Status)):
        raise InvalidRequest("There is no such status; choose one of the list.")
    prefix = given["id"]
    if prefix and len(prefix) < ID_PREFIX_MIN:
        raise InvalidRequest(f"Type at least the first {ID_PREFIX_MIN} characters of an id.")
    since, until = _day(given["from"]), _day(given["to"])
    return Sought(
        status=given["status"] or None,  # type: ignore[arg-type]  # Checked above.
        id_prefix=prefix,
        since_ms=None if since is None else _ms(since),
        until_ms=None if until is None else _ms(until + timedelta(days=1)),
    )


def _day(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidRequest("A day is written as 2026-11-25.") from error
    if not 1970 <= found.year <= 2999:
        raise InvalidRequest("A day is written as 2026-11-25.")
    return found


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000
