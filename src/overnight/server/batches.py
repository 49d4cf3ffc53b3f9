"""POST/GET/DELETE /v1/messages/batches…: create, retrieve, list, cancel, delete.

Source: https://platform.claude.com/docs/en/api/messages/batches; where it is silent,
our choice (docs/reference/http-api.md).
"""

from collections.abc import Mapping

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import ids, limits
from overnight.core import batch as life
from overnight.core.batch import Batch, Tally
from overnight.errors import InvalidRequest, NotFound
from overnight.ids import BatchId, WorkspaceId
from overnight.server import answers, context, receive, status, urls
from overnight.server.context import Context
from overnight.server.ingest import Origin, ingest
from overnight.wire.batch import BatchPage, DeletedBatch, MessageBatch


async def create(http_request: HttpRequest) -> Response:
    """POST /v1/messages/batches. 200 is sent after batch and requests are on disk (I1)."""
    caller, here = context.admit(http_request), context.of(http_request)
    context.check_spending(http_request, caller.workspace)
    rules = here.doors.rules_of(caller.workspace)
    origin = Origin(
        workspace=caller.workspace,
        api_version=context.api_version_of(http_request),
        betas=http_request.headers.get("anthropic-beta", ""),
        idempotency_key=idempotency_key_of(http_request),
        api_key=caller.key_id,
        queue_max=rules.queue_requests_max,
        requests_max=rules.batch_requests_max,
    )
    size_bytes = receive.announced_bytes(http_request, bytes_max=limits.BATCH_BODY_BYTES_MAX)
    async with here.uploads.place(size_bytes):
        body = await receive.body(http_request, bytes_max=limits.BATCH_BODY_BYTES_MAX)
        here.world.marks.reach("create.received")
        with context.traced(http_request, "create batch") as span:
            created = await ingest(body, origin, store=here.store, world=here.world)
            span.note({"overnight.batch.id": created.batch.id, "overnight.batch.requests": created.batch.requests})
    if created.is_new:
        here.journal.created(created.batch, traceparent=span.traceparent)
    here.worker.ring(created.batch.workspace)
    batch = created.batch  # Perhaps an earlier create's, well under way.
    batch, live = await with_unsealed(here, batch, {} if created.is_new else here.tallies.snapshot(batch.id))
    return answers.json(view(batch, http_request, live=live))


async def retrieve(http_request: HttpRequest) -> Response:
    """GET /v1/messages/batches/{id}; with a header that says why, while nothing of it runs."""
    workspace = context.admit(http_request).workspace
    batch, live = await _with_live_counts(workspace, http_request)
    headers = {} if batch.status == "ended" else {"retry-after": str(limits.POLL_AFTER_S)}
    headers |= await status.waiting(context.of(http_request), batch, workspace)
    return answers.json(view(batch, http_request, live=live), headers=headers)


async def page(http_request: HttpRequest) -> Response:
    """GET /v1/messages/batches, newest first."""
    workspace, here = context.admit(http_request).workspace, context.of(http_request)
    query = http_request.query_params
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise InvalidRequest("after_id: cannot be combined with before_id")
    found = await here.store.control.page(
        workspace,
        limit=_limit(query.get("limit")),
        after=BatchId(after) if after else None,
        before=BatchId(before) if before else None,
    )
    if found is None:
        cursor = "after_id" if after else "before_id"
        raise InvalidRequest(f"{cursor}: no batch has the id {(after or before or '')[:80]}")
    data = []
    for batch in found.batches:
        live = here.tallies.snapshot(batch.id)
        if live and batch.status != "ended":
            batch, live = await with_unsealed(here, batch, live)  # noqa: PLW2901  The same batch, counted now.
        data.append(view(batch, http_request, live=live))
    return answers.json(
        BatchPage(
            data=data,
            has_more=found.has_more,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
        )
    )


async def cancel(http_request: HttpRequest) -> Response:
    """POST /v1/messages/batches/{id}/cancel; too late or twice is no error. The body, if any, is not read."""
    workspace, here = context.admit(http_request).workspace, context.of(http_request)
    batch_id = batch_id_of(http_request)
    batch, live = await cancel_one(here, workspace, batch_id)
    return answers.json(view(batch, http_request, live=live))


async def cancel_one(here: Context, workspace: WorkspaceId, batch_id: BatchId) -> tuple[Batch, Mapping[int, Tally]]:
    """The batch, canceled unless it had ended; durable, and its worker knows. With it the counts of its unsealed
    segments before the worker knew: the answer to a cancel changes none. NotFound if the workspace has none."""
    batch = await here.store.control.cancel(workspace, batch_id, now_ms=here.world.clock.now_ms())
    if batch is None:
        raise not_found(batch_id)
    here.world.marks.reach("cancel.committed")
    _, live = await with_unsealed(here, batch, here.tallies.snapshot(batch.id))
    if batch.status == "canceling":
        here.journal.canceled(batch)
        here.worker.cancel(batch_id)
    return batch, live


async def delete(http_request: HttpRequest) -> Response:
    """DELETE /v1/messages/batches/{id}, of ended batches only; its objects are removed right after."""
    workspace, here = context.admit(http_request).workspace, context.of(http_request)
    batch_id = batch_id_of(http_request)
    await delete_one(here, workspace, batch_id)
    return answers.json(DeletedBatch(id=batch_id))


async def delete_one(here: Context, workspace: WorkspaceId, batch_id: BatchId) -> None:
    """Delete an ended batch, durably; its objects go right after. NotFound, or InvalidRequest while it runs."""
    batch = await here.store.control.delete(workspace, batch_id)
    if batch is None:
        raise not_found(batch_id)
    if batch.status != "ended":
        raise InvalidRequest("In progress batches cannot be deleted. Consider canceling the batch instead.")
    here.world.marks.reach("delete.committed")
    here.journal.deleted(batch)
    here.upkeep.ring()


def batch_id_of(http_request: HttpRequest) -> BatchId:
    """The id in the path; NotFound if no id can look like that."""
    text = http_request.path_params["batch_id"]
    if not ids.is_batch_id(text):
        raise not_found(text)
    return BatchId(text)


def not_found(batch_id: str) -> NotFound:
    """The API's words."""
    return NotFound(f"Message Batch {batch_id[:80]} not found.")


async def _with_live_counts(workspace: WorkspaceId, http_request: HttpRequest) -> tuple[Batch, Mapping[int, Tally]]:
    here, batch_id = context.of(http_request), batch_id_of(http_request)
    live = here.tallies.snapshot(batch_id)  # Before SQL is asked: see `runner.tallies`.
    batch = await here.store.control.batch(workspace, batch_id)
    if batch is None:
        raise not_found(batch_id)
    return (batch, {}) if batch.status == "ended" else await with_unsealed(here, batch, live)


async def with_unsealed(here: Context, batch: Batch, live: Mapping[int, Tally]) -> tuple[Batch, Mapping[int, Tally]]:
    """The batch, and of these counts those of its unsealed segments, from one snapshot."""
    if not live:
        return batch, {}
    found = await here.store.control.open_segments(batch.id)
    if found is None:
        return batch, {}
    unsealed = set(found[1])
    return found[0], {index: tally for index, tally in live.items() if index in unsealed}


def view(batch: Batch, http_request: HttpRequest, *, live: Mapping[int, Tally]) -> MessageBatch:
    """A batch as its client sees it. `live` are the counts of its unsealed segments."""
    settings = context.of(http_request).settings
    tally = batch.tally
    if batch.status != "ended":
        for unsealed in live.values():
            tally = tally.plus(unsealed)
        if settings.request_counts == "at_end":
            tally = Tally()
    has_results = batch.status == "ended" and batch.archived_at_ms is None
    base = urls.base_url(http_request, settings)
    url = f"{base}/v1/messages/batches/{batch.id}/results" if has_results else None
    return life.shown(batch, tally=tally, results_url=url)


def _limit(text: str | None) -> int:
    if text is None:
        return limits.LIST_LIMIT_DEFAULT
    if not text.isascii() or not text.isdigit():
        raise InvalidRequest("limit: Input should be a valid integer")
    if int(text[:9]) < 1:
        raise InvalidRequest("limit: Input should be greater than or equal to 1")
    if int(text[:9]) > limits.LIST_LIMIT_MAX:
        raise InvalidRequest(f"limit: Input should be less than or equal to {limits.LIST_LIMIT_MAX}")
    return int(text)


def idempotency_key_of(http_request: HttpRequest) -> str | None:
    """`Idempotency-Key`, None without one; InvalidRequest if it is empty or too long."""
    key = http_request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= limits.IDEMPOTENCY_KEY_LENGTH_MAX:
        raise InvalidRequest(f"Idempotency-Key: should have 1 to {limits.IDEMPOTENCY_KEY_LENGTH_MAX} characters")
    return key
