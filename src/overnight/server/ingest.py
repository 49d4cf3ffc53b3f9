"""A create body becomes a durable batch: parse, sort, cut, compress, write, commit. Then 200 may be said (I1)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import NamedTuple, TypeVar

from overnight import ids, limits
from overnight.core.batch import Batch
from overnight.errors import OvernightError
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.store import objects, segments
from overnight.store.control import Created, NewBatch, NewSegment
from overnight.store.segments import Packed
from overnight.store.store import Store
from overnight.wire import create
from overnight.wire.create import Request

T = TypeVar("T")
U = TypeVar("U")
_AHEAD = 4  # Segments compressed ahead of the one being written: two cores busy, 4 MB held.


class Origin(NamedTuple):
    """Who sent a body, and under which headers."""

    workspace: WorkspaceId
    api_version: str
    betas: str
    idempotency_key: str | None
    api_key: str = ""  # The id of the key; empty if none was needed.
    queue_max: int | None = None  # Unfinished requests that the workspace may have.


async def ingest(body: bytearray, origin: Origin, *, store: Store, world: World) -> Created:
    """The batch of a create body, durable on return. InvalidRequest, Conflict and StoreErrors leave no trace."""
    now_ms = world.clock.now_ms()
    batch_id = ids.batch_id(now_ms, world.entropy.bytes(ids.BATCH_ID_ENTROPY_BYTES))
    digest = None
    if origin.idempotency_key is not None:
        digest = await world.offload.run(lambda: sha256(body).digest())
    is_small = len(body) < _SMALL_BYTES
    if is_small:
        ordered = _read_sorted(body)  # Faster than the way to another thread and back.
    else:
        ordered = await world.offload.run(lambda: _read_sorted(body))
    key, found = await _store_requests(ordered, batch_id, store=store, world=world, is_small=is_small)
    new = NewBatch(
        batch=Batch(
            id=batch_id,
            workspace=origin.workspace,
            api_version=origin.api_version,
            betas=origin.betas,
            requests=len(ordered),
            segments_open=len(found),
            created_at_ms=now_ms,
            expires_at_ms=now_ms + limits.BATCH_LIFETIME_MS,
        ),
        segments=found,
        requests_key=key,
        idempotency_key=origin.idempotency_key,
        body_sha256=digest,
        api_key=origin.api_key,
        queue_max=origin.queue_max,
    )
    try:
        created = await store.control.create(new)
    except OvernightError:
        if key is not None:
            await store.objects.remove(key)
        raise
    if key is not None and not created.is_new:
        await store.objects.remove(key)
    world.marks.reach("create.committed")
    return created


_SMALL_BYTES = 4 * limits.INLINE_BYTES_MAX  # Text this short usually compresses below the inline limit.


def _read_sorted(body: bytearray) -> list[Request]:
    return segments.sorted_by_prefix(create.read(body))


async def _store_requests(
    ordered: list[Request], batch_id: BatchId, *, store: Store, world: World, is_small: bool
) -> tuple[str | None, list[NewSegment]]:
    cuts = list(segments.cuts(ordered))
    if is_small and len(cuts) == 1:
        packed = segments.pack(ordered)
        if len(packed.member) <= limits.INLINE_BYTES_MAX:
            return None, [_segment(packed, offset=0, inline=packed.member)]
    found: list[NewSegment] = []
    key = objects.requests_key(batch_id)

    def pieces() -> Iterator[bytes]:
        offset = 0
        for packed in _ahead(lambda cut: segments.pack(ordered[cut.start : cut.stop]), cuts):
            found.append(_segment(packed, offset=offset))
            offset += len(packed.member)
            yield packed.member

    await store.objects.put_new(key, pieces())
    world.marks.reach("create.objects-durable")
    return key, found


def _segment(packed: Packed, *, offset: int, inline: bytes | None = None) -> NewSegment:
    return NewSegment(
        requests=packed.requests,
        raw_bytes=packed.raw_bytes,
        offset=offset,
        length=len(packed.member),
        inline=inline,
        model=packed.model,
    )


def _ahead(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield `work(item)` in order, two at a time, never more than a few ahead of the consumer."""
    with ThreadPoolExecutor(2, thread_name_prefix="overnight-pack") as pool:
        running: deque[Future[U]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
