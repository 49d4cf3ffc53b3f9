"""A create body becomes a durable batch: parse, sort, cut, compress, write, commit. Then 200 may be said (I1)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    requests_max: int | None = None  # That one batch of the workspace may have.


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
    create.check_count(len(ordered), origin.requests_max)
    key, found = await _store_requests(ordered, batch_id, store=store, world=world, is_small=is_small)
    held = _Held(batch_id, now_ms, key, found)
    return await _create(held, origin, digest, store=store, world=world)


async def ingest_packed(
    packed: Sequence[Packed], origin: Origin, *, digest: bytes, store: Store, world: World
) -> Created:
    """The batch of requests that were sorted, cut and compressed before; `digest` stands for the body. Durable on
    return. InvalidRequest, Conflict, RateLimited and StoreErrors leave no trace."""
    create.check_count(sum(item.requests for item in packed), origin.requests_max)
    now_ms = world.clock.now_ms()
    batch_id = ids.batch_id(now_ms, world.entropy.bytes(ids.BATCH_ID_ENTROPY_BYTES))
    key, found = await _store_packed(packed, batch_id, store=store, world=world)
    held = _Held(batch_id, now_ms, key, found)
    return await _create(held, origin, None if origin.idempotency_key is None else digest, store=store, world=world)


class _Held(NamedTuple):
    """A batch whose requests are on disk."""

    batch_id: BatchId
    now_ms: int
    key: str | None
    segments: list[NewSegment]


async def _create(held: _Held, origin: Origin, digest: bytes | None, *, store: Store, world: World) -> Created:
    new = NewBatch(
        batch=Batch(
            id=held.batch_id,
            workspace=origin.workspace,
            api_version=origin.api_version,
            betas=origin.betas,
            requests=sum(segment.requests for segment in held.segments),
            segments_open=len(held.segments),
            created_at_ms=held.now_ms,
            expires_at_ms=held.now_ms + limits.BATCH_LIFETIME_MS,
        ),
        segments=held.segments,
        requests_key=held.key,
        idempotency_key=origin.idempotency_key,
        body_sha256=digest,
        api_key=origin.api_key,
        queue_max=origin.queue_max,
    )
    try:
        created = await store.control.create(new)
    except OvernightError:
        if held.key is not None:
            await store.objects.remove(held.key)
        raise
    if held.key is not None and not created.is_new:
        await store.objects.remove(held.key)
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
    ahead = _ahead(lambda cut: segments.pack(ordered[cut.start : cut.stop]), cuts)
    return await _store_object(ahead, batch_id, store=store, world=world)


async def _store_packed(
    packed: Sequence[Packed], batch_id: BatchId, *, store: Store, world: World
) -> tuple[str | None, list[NewSegment]]:
    if len(packed) == 1 and len(packed[0].member) <= limits.INLINE_BYTES_MAX:
        return None, [_segment(packed[0], offset=0, inline=packed[0].member)]
    return await _store_object(packed, batch_id, store=store, world=world)


async def _store_object(
    packed: Iterable[Packed], batch_id: BatchId, *, store: Store, world: World
) -> tuple[str, list[NewSegment]]:
    found: list[NewSegment] = []
    key = objects.requests_key(batch_id)

    def pieces() -> Iterator[bytes]:
        offset = 0
        for item in packed:
            found.append(_segment(item, offset=offset))
            offset += len(item.member)
            yield item.member

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
