"""What the console does to a batch: cancel and delete, each asked for on a page of its own."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.errors import InvalidRequest
from overnight.server import batches as api
from overnight.server import context
from overnight.server.console import pages, session
from overnight.server.console.batch import batch_of
from overnight.server.console.batches import row_of


async def ask_cancel(http_request: HttpRequest) -> Response:
    """What a cancel would do, and the button; the batch itself if there is nothing to cancel."""
    found = await batch_of(http_request)
    if found.status != "in_progress":
        return pages.redirect(http_request, f"/console/batches/{found.id}")
    row = await row_of(context.of(http_request), found, found.workspace)
    return await pages.rendered(http_request, "cancel.html", batch=found, counts=row.counts)


async def cancel(http_request: HttpRequest) -> Response:
    """Cancel; durable before the answer. Twice, or too late, is no error."""
    workspace = session.caller_of(http_request).workspace
    batch, _ = await api.cancel_one(context.of(http_request), workspace, api.batch_id_of(http_request))
    return pages.redirect(http_request, f"/console/batches/{batch.id}")


async def ask_delete(http_request: HttpRequest) -> Response:
    """What is lost, and the button; the batch itself if it cannot be deleted yet."""
    found = await batch_of(http_request)
    if found.status != "ended":
        return pages.redirect(http_request, f"/console/batches/{found.id}")
    return await pages.rendered(http_request, "delete.html", batch=found)


async def delete(http_request: HttpRequest) -> Response:
    """Delete for good; durable before the answer. InvalidRequest while it runs, or if the box was not ticked."""
    if session.visit_of(http_request).form.get("confirm") != "yes":
        raise InvalidRequest("Nothing was deleted: tick the box to say that you mean it.")
    workspace = session.caller_of(http_request).workspace
    await api.delete_one(context.of(http_request), workspace, api.batch_id_of(http_request))
    return pages.redirect(http_request, "/console/batches")
