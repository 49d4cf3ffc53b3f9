"""POST /v1/overnight/batches/{id}/retry: what failed of an ended batch becomes a new batch. An extension of the API.

The requests are those that were sent, with their custom_ids, api version and beta headers; results of the two batches
fit together by custom_id. Segments are read one by one, and only the chosen requests are kept, compressed.
"""

from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.batch import Batch
from overnight.errors import InvalidRequest, NoResults
from overnight.server import answers, batches, context, receive
from overnight.server import rows as reading
from overnight.server.access import Caller
from overnight.server.ingest import Origin, ingest_packed
from overnight.server.rows import Row, Rows
from overnight.store import segments
from overnight.store.control import Created
from overnight.store.segments import Packed
from overnight.wire import complaint
from overnight.wire.create import Request

Failure: TypeAlias = Literal["errored", "expired", "canceled"]
DEFAULT_TYPES: Final[tuple[Failure, ...]] = ("errored", "expired")
BODY_BYTES_MAX: Final = 4096  # Three words; anything longer is a mistake.


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    types: list[Failure] = msgspec.field(default_factory=lambda: list(DEFAULT_TYPES))


_decode = msgspec.json.Decoder(_Body).decode


async def retry(http_request: HttpRequest) -> Response:
    """200 with the new MessageBatch, after it is on disk (I1). No body is as `{}`."""
    caller, here = context.admit(http_request), context.of(http_request)
    body = await receive.body(http_request, bytes_max=BODY_BYTES_MAX)
    created = await again(
        http_request,
        caller,
        types=_types(bytes(body)),
        idempotency_key=batches.idempotency_key_of(http_request),
    )
    batch = created.batch  # Perhaps an earlier retry's, well under way.
    batch, live = await batches.with_unsealed(here, batch, {} if created.is_new else here.tallies.snapshot(batch.id))
    return answers.json(batches.view(batch, http_request, live=live))


def _types(body: bytes) -> list[Failure]:
    if not body:
        return list(DEFAULT_TYPES)
    try:
        return _decode(body).types
    except msgspec.ValidationError as error:
        raise InvalidRequest(complaint.of_validation(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(complaint.of_syntax(error)) from error


async def again(
    http_request: HttpRequest, caller: Caller, *, types: Sequence[Failure], idempotency_key: str | None
) -> Created:
    """A new batch of all requests of the batch in the path that came to one of these ends; durable on return.

    NotFound if the caller has no such batch, InvalidRequest if it has not ended, nothing is to be asked again, or
    that is too much for one batch, NoResults if its requests are no longer kept, RateLimited if the queue is full,
    SpendLimit if a budget is spent, Conflict as `ingest`.
    """
    context.check_spending(http_request, caller.workspace)
    here, batch_id = context.of(http_request), batches.batch_id_of(http_request)
    batch = await here.store.control.batch(caller.workspace, batch_id)
    if batch is None:
        raise batches.not_found(batch_id)
    _check(batch, types)
    rows = await reading.open_rows(batch_id, store=here.store, world=here.world)
    if rows is None:
        raise batches.not_found(batch_id)
    rules = here.doors.rules_of(caller.workspace)
    origin = Origin(
        workspace=caller.workspace,
        api_version=batch.api_version,
        betas=batch.betas,
        idempotency_key=idempotency_key,
        api_key=caller.key_id,
        queue_max=rules.queue_requests_max,
        requests_max=rules.batch_requests_max,
    )
    digest = sha256(f"retry {batch_id} {' '.join(sorted(set(types)))}".encode()).digest()
    async with here.uploads.place(sum(segment.length for segment in rows.segments)):
        with context.traced(http_request, "retry batch") as span:
            packed = await _packed(rows, frozenset(types))
            created = await ingest_packed(packed, origin, digest=digest, store=here.store, world=here.world)
            span.note({"overnight.batch.id": created.batch.id, "overnight.batch.requests": created.batch.requests})
    if created.is_new:
        here.journal.created(created.batch, traceparent=span.traceparent)
    here.worker.ring(created.batch.workspace)
    return created


def _check(batch: Batch, types: Sequence[Failure]) -> None:
    if batch.status != "ended":
        raise InvalidRequest(
            f"Message Batch {batch.id} has not ended. What fails of it can be asked again after that."
        )
    if batch.archived_at_ms is not None:
        raise NoResults(f"The requests of Message Batch {batch.id} are no longer kept.")
    wanted = sum(getattr(batch.tally, name) for name in set(types))
    if wanted == 0:
        raise InvalidRequest(
            f"types: no request of {batch.id} is {' or '.join(dict.fromkeys(types)) or 'of no type'}"
        )


async def _packed(rows: Rows, types: frozenset[str]) -> list[Packed]:
    """The chosen requests, compressed. Their order is that of the batch, so they are sorted by prefix already."""
    packed: list[Packed] = []
    waiting: list[Request] = []
    for segment in rows.segments:
        found = await rows.read(segment)
        waiting += await rows.world.offload.run(partial(_chosen, found, types))
        *full, last = [waiting[cut.start : cut.stop] for cut in segments.cuts(waiting)] or [[]]
        packed += [await rows.world.offload.run(partial(segments.pack, requests)) for requests in full]
        waiting = last
    if waiting:
        packed.append(await rows.world.offload.run(partial(segments.pack, waiting)))
    if not packed:
        raise NoResults(f"The requests of Message Batch {rows.batch_id} are no longer kept.")
    return packed


def _chosen(found: list[Row], types: frozenset[str]) -> list[Request]:
    return [
        Request(row.custom_id, Raw(bytes(row.params)))  # Or each would keep its whole segment in memory.
        for row in found
        if row.params is not None and row.type in types
    ]
