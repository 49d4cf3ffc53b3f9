"""Batches in a data directory that have ended as a test says, without an engine: any answer, in no time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from overnight import limits
from overnight.core.batch import Tally
from overnight.core.lease import SegmentRef
from overnight.core.usage import Bill, Cause
from overnight.ids import DEFAULT_WORKSPACE, BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.server.ingest import Origin, ingest
from overnight.store import objects, segments, splice
from overnight.store.control import LeasedSegment, SealedResults, Wanted
from overnight.store.store import Store, open_directory
from overnight.wire import problem, result
from overnight.wire.create import Request

_EVERYTHING = Wanted(requests=10**9, segments=10**6)
Answering = Callable[[Request], bytes]  # From a request to its result line.


def message(text: str = "fine", **more: Any) -> dict[str, Any]:
    """A Message with one text; `more` adds fields or replaces them."""
    usage = {
        "input_tokens": 11,
        "output_tokens": 7,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 3,
        "service_tier": "batch",
    }
    content = [{"type": "text", "text": text}]
    made = {"id": "msg_01x", "type": "message", "role": "assistant", "model": "claude-test", "content": content}
    return {**made, "stop_reason": "end_turn", "usage": usage, **more}


def succeeded(request: Request, text: str = "fine", **more: Any) -> bytes:
    """The line of an answer."""
    return result.succeeded(request.custom_id, json.dumps(message(text, **more)).encode())


def errored(request: Request, kind: str = "api_error", said: str = "it broke") -> bytes:
    """The line of a refusal."""
    return result.errored(request.custom_id, problem.encode(kind, said, request_id="req_1"))  # type: ignore[arg-type]


async def ended(
    store: Store,
    requests: Sequence[object],
    answering: Answering,
    *,
    workspace: WorkspaceId = DEFAULT_WORKSPACE,
    betas: str = "",
) -> BatchId:
    """The id of a batch of that store with these requests, ended with these results."""
    world = World()
    origin = Origin(workspace=workspace, api_version="2023-06-01", betas=betas, idempotency_key=None)
    body = bytearray(json.dumps({"requests": requests}).encode())
    created = await ingest(body, origin, store=store, world=world)
    for leased in await store.control.lease("test", wanted=_EVERYTHING, now_ms=world.clock.now_ms()):
        if leased.batch.id == created.batch.id:
            await _seal(store, leased, answering, now_ms=world.clock.now_ms())
    world.offload.close()
    return created.batch.id


def made_in(root: Path, requests: Sequence[object], answering: Answering, **more: Any) -> Callable[[], Any]:
    """`ended` in a data directory that no server uses, to be awaited."""

    async def make() -> BatchId:
        async with open_directory(root, World()) as store:
            return await ended(store, requests, answering, **more)

    return make


async def _seal(store: Store, leased: LeasedSegment, answering: Answering, *, now_ms: int) -> None:
    source, segment = leased.source, leased.lease.segment
    stored = source.inline
    if stored is None:
        assert leased.requests_key is not None
        stored = await store.objects.get(leased.requests_key, offset=source.offset, length=source.length)
    lines = [answering(request) for request in segments.unpack(stored, raw_bytes=source.raw_bytes)]
    lines.reverse()  # Answers come in another order than requests.
    piece = splice.compress(b"".join(lines))
    member = splice.member([piece])
    is_inline = len(member) <= limits.INLINE_BYTES_MAX
    key = None if is_inline else objects.results_key(segment, epoch=leased.lease.epoch)
    if key is not None:
        await store.objects.put_new(key, [member])
    sealed = SealedResults(
        length=len(member),
        raw_bytes=piece.raw_bytes,
        crc=piece.crc,
        key=key,
        inline=member if is_inline else None,
    )
    kinds = [result.parts(line[:-1])[1] for line in lines]
    tally = Tally(**{kind: kinds.count(kind) for kind in set(kinds)})
    bill = Bill(causes=_causes(segment, lines))
    await store.control.seal(leased.lease, tally, sealed, now_ms=now_ms, bill=bill)


def _causes(segment: SegmentRef, lines: Sequence[bytes]) -> tuple[Cause, ...]:
    causes = {}
    for line in lines:
        custom_id, kind, inner = result.parts(line[:-1])
        if kind == "errored":
            error = json.loads(inner)["error"]
            pair = (error["type"], error["message"])
            causes[pair] = Cause(type=pair[0], message=pair[1][:200], requests=1, example=custom_id)
    return tuple(causes.values())
