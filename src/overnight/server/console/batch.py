"""GET /console/batches/{id}: what became of one batch, why it waits, what failed, what it cost."""

from typing import NamedTuple

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core import retention
from overnight.core.batch import Batch
from overnight.core.usage import NOTHING, Sums, Used
from overnight.ids import WorkspaceId
from overnight.server import batches as api
from overnight.server import context, urls
from overnight.server.console import pages, session
from overnight.server.console.batches import row_of
from overnight.server.context import Context


class Moment(NamedTuple):
    """One line of the timeline."""

    label: str
    at_ms: int
    is_past: bool


async def batch(http_request: HttpRequest) -> Response:
    """The page; NotFound if the workspace has no such batch."""
    here, workspace = context.of(http_request), session.caller_of(http_request).workspace
    found = await batch_of(http_request)
    row = await row_of(here, found, workspace)
    used = await here.store.usage.of_batch(found.id)
    return await pages.rendered(
        http_request,
        "batch.html",
        row=row,
        batch=row.batch,
        counts=row.counts,
        done=found.requests - row.counts.processing,
        moments=_moments(here, row.batch, workspace),
        causes=await here.store.usage.causes(found.id),
        used=used,
        total=_total(used),
        base_url=urls.base_url(http_request, here.settings),
    )


async def batch_of(http_request: HttpRequest) -> Batch:
    """The batch that the path names; NotFound if the caller's workspace has none of that id."""
    batch_id = api.batch_id_of(http_request)
    workspace = session.caller_of(http_request).workspace
    found = await context.of(http_request).store.control.batch(workspace, batch_id)
    if found is None:
        raise api.not_found(batch_id)
    return found


def _total(used: list[Used]) -> Sums:
    total = NOTHING
    for item in used:
        total = total.plus(item.sums)
    return total


def _moments(here: Context, batch: Batch, workspace: WorkspaceId) -> list[Moment]:
    """What happened to a batch and what will, by time."""
    kept_ms = retention.kept(here.doors.rules_of(workspace)).results_ms
    archives_ms = max(batch.created_at_ms + kept_ms, batch.ended_at_ms or batch.expires_at_ms)
    is_open, is_archived = batch.ended_at_ms is None, batch.archived_at_ms is not None
    now_ms = here.world.clock.now_ms()
    known = (
        ("Created", batch.created_at_ms),
        ("Cancel asked", batch.cancel_initiated_at_ms),
        ("Ended", batch.ended_at_ms),
        ("Expires", batch.expires_at_ms if is_open else None),
        ("Archived, results removed" if is_archived else "Results kept until", batch.archived_at_ms or archives_ms),
    )
    moments = [Moment(label, at_ms, at_ms <= now_ms) for label, at_ms in known if at_ms is not None]
    return sorted(moments, key=lambda moment: moment.at_ms)
