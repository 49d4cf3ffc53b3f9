"""GET /v1/overnight/status, and why a batch waits: an extension of the API, for operators and for the curious.

A key sees the engines, and of the backlog what its own workspace has in it (I7).
"""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.batch import Batch
from overnight.ids import WorkspaceId
from overnight.runner import status as statuses
from overnight.runner.status import Status
from overnight.server import answers, context
from overnight.server.context import Context

WAITING_HEADER = "overnight-waiting"
_HEADER_CHARACTERS_MAX = 400  # Clients and proxies take some kilobytes of headers; engines may say anything.


async def status(http_request: HttpRequest) -> Response:
    """200 with a `Status`. Without keys all of the backlog is shown."""
    workspace, here = context.workspace_of(http_request), context.of(http_request)
    return answers.json(snapshot(here, workspace))


def snapshot(here: Context, workspace: WorkspaceId) -> Status:
    """What the engines do, and what of the backlog this workspace may see."""
    return statuses.snapshot(
        here.fleet, here.worker, now_ms=here.world.clock.now_ms(), workspace=_only(here, workspace)
    )


async def waiting(here: Context, batch: Batch, workspace: WorkspaceId) -> dict[str, str]:
    """The header that says why nothing of a batch runs; none while something does, or if it is not in progress."""
    said = await why_it_waits(here, batch, workspace)
    return {WAITING_HEADER: as_header(said)} if said else {}


async def why_it_waits(here: Context, batch: Batch, workspace: WorkspaceId) -> str:
    """Why nothing of a batch runs, as a sentence; empty while something does, or if it is not in progress."""
    if batch.status != "in_progress":
        return ""
    works = statuses.works_of(here.worker, batch)
    if any(work.stop is not None for work in works):
        return ""
    models = {work.model for work in works if work.model} or await here.store.control.open_models(batch.id)
    return statuses.why_it_waits(
        here.fleet,
        here.worker,
        batch,
        models=models,
        now_ms=here.world.clock.now_ms(),
        workspace=_only(here, workspace),
    )


def as_header(said: str) -> str:
    """A sentence as the value of a header: what an engine said in it is not trusted (RFC 9110 5.5)."""
    plain = "".join(sign if " " <= sign <= "~" else "?" for sign in said)
    return plain if len(plain) <= _HEADER_CHARACTERS_MAX else plain[: _HEADER_CHARACTERS_MAX - 3] + "..."


def _only(here: Context, workspace: WorkspaceId) -> WorkspaceId | None:
    return workspace if here.doors.needs_key else None
