"""The control store: which batches exist, which segment is whose, what has been sealed. Never a request.

Statements grow with batches and segments, not with requests (invariant I8). Every method is one transaction; when
a writing method returns, its change survives a power cut (I1). `testing.stores.ControlSuite` is what every
implementation must pass. Instants are ms since the Unix epoch and always come from the caller.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct

from overnight.core.batch import Batch, Tally
from overnight.core.handoff import Handoff, Outstanding, Part
from overnight.core.lease import Lease, SegmentRef
from overnight.core.retention import Kept
from overnight.core.schedule import Demand
from overnight.core.usage import NO_BILL, Bill
from overnight.ids import BatchId, WorkspaceId
from overnight.store.figures import Figures
from overnight.wire.batch import Status


class NewSegment(Struct, frozen=True, kw_only=True):
    """Where the requests of one segment lie. If `inline` holds them, offset and length say nothing."""

    requests: int
    raw_bytes: int
    offset: int
    length: int
    inline: bytes | None = None
    model: str = ""  # That all of its requests name; empty if they name several.


class NewBatch(Struct, frozen=True, kw_only=True):
    """A batch whose requests are already durable."""

    batch: Batch
    segments: Sequence[NewSegment]
    requests_key: str | None  # None: all segments are inline.
    idempotency_key: str | None = None
    body_sha256: bytes | None = None  # Set together with the key.
    api_key: str = ""  # The id of the key that made it; empty if none was needed.
    queue_max: int | None = None  # Unfinished requests that its workspace may have with it.


class Created(Struct, frozen=True):
    """The batch, and whether this call made it (False: an earlier one under the same idempotency key did)."""

    batch: Batch
    is_new: bool


class Page(Struct, frozen=True):
    """Some batches, newest first, and whether more lie in the direction asked for."""

    batches: list[Batch]
    has_more: bool


ID_PREFIX_MIN: Final = 15  # Of an id that is looked for: with fewer characters it is that of months of batches.


class Sought(Struct, frozen=True, kw_only=True):
    """Which batches somebody looks for; all conditions together."""

    status: Status | None = None
    id_prefix: str = ""  # How its id begins; empty, or `ID_PREFIX_MIN` characters and more.
    since_ms: int | None = None  # Made at that time or later,
    until_ms: int | None = None  # and before this one.


class LeasedSegment(Struct, frozen=True, kw_only=True):
    """A segment under a fresh lease, with all a worker needs to run it."""

    lease: Lease
    batch: Batch
    age: int  # Of the batch: smaller is older.
    source: NewSegment
    requests_key: str | None


class SealedResults(Struct, frozen=True, kw_only=True):
    """The results of one segment: a gzip member of `length` bytes, inline or under `key`."""

    length: int
    raw_bytes: int
    crc: int
    key: str | None = None
    inline: bytes | None = None


class StoredSegment(Struct, frozen=True, kw_only=True):
    """Where one segment lies: `length` bytes from `offset` of the requests of its batch, unless they are inline."""

    position: int
    requests: int
    raw_bytes: int
    offset: int
    length: int
    results: SealedResults | None  # Without inline bytes; None: it is not sealed.


class Stored(Struct, frozen=True, kw_only=True):
    """Where a batch lies. Once it is archived it has no segments."""

    requests_key: str | None  # None: the requests are inline, or no longer kept.
    segments: list[StoredSegment]


class Wanted(Struct, frozen=True, kw_only=True):
    """What a worker has room for, and what decides whose turn it is (`core.schedule`)."""

    requests: int
    segments: int
    closed: frozenset[str] = frozenset()  # Models whose engines take nothing now.
    stopped: frozenset[WorkspaceId] = frozenset()  # Workspaces that may start nothing now: their budget is spent.
    full: frozenset[str] = frozenset()  # Models of which no more is wanted: their engines have enough, or are closed.
    held: frozenset[WorkspaceId] = frozenset()  # Whose requests wait here. Of each other one segment is taken anyway,
    # unless its model is closed: it is not to wait for what the others have here already.
    served: Mapping[WorkspaceId, float] = {}  # Work per workspace, by weight.
    weights: Mapping[WorkspaceId, float] = {}  # Of workspaces whose weight is not 1.
    danger_ms: int | None = None  # Batches due by then come first.


class Renewal(Struct, frozen=True, kw_only=True):
    """What a worker still holds after a renewal, and which of its batches were canceled meanwhile."""

    held: list[tuple[SegmentRef, int]]  # With the epoch.
    canceling: list[BatchId]


class Control(Protocol):
    """Durable state of batches and segments."""

    async def create(self, new: NewBatch) -> Created:
        """Add a batch with its segments. Conflict if its idempotency key was used with another body; RateLimited, and
        nothing is added, if the workspace would have more than `queue_max` unfinished requests."""
        ...

    async def batch(self, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
        """One batch of a workspace; None also if it belongs to another (I7)."""
        ...

    async def open_segments(self, batch_id: BatchId) -> tuple[Batch, list[int]] | None:
        """The batch and the indexes of its unsealed segments, from one snapshot."""
        ...

    async def open_models(self, batch_id: BatchId) -> list[str]:
        """The models of the unsealed segments of a batch. Segments of several models do not count."""
        ...

    async def page(
        self, workspace: WorkspaceId, *, limit: int, after: BatchId | None = None, before: BatchId | None = None
    ) -> Page | None:
        """One page; at most one cursor. None if the cursor is no batch of the workspace."""
        ...

    async def browse(
        self,
        workspace: WorkspaceId,
        sought: Sought,
        *,
        limit: int,
        after: BatchId | None = None,
        before: BatchId | None = None,
    ) -> Page | None:
        """As `page`, of the batches that are sought; quick with any number of batches."""
        ...

    async def cancel(self, workspace: WorkspaceId, batch_id: BatchId, *, now_ms: int) -> Batch | None:
        """Apply CancelAsked; the batch as it is then, None if there is none."""
        ...

    async def delete(self, workspace: WorkspaceId, batch_id: BatchId) -> Batch | None:
        """Remove an ended batch and note its objects as garbage. Returns the batch as it was, so a caller sees
        by its status whether it was removed; None if there is none."""
        ...

    async def results(self, batch_id: BatchId) -> list[SealedResults]:
        """The sealed results of a batch in segment order, without inline bytes."""
        ...

    async def inline_results(self, batch_id: BatchId) -> Mapping[int, bytes]:
        """The inline members of a batch's results, by segment index."""
        ...

    async def stored(self, batch_id: BatchId) -> Stored | None:
        """Where requests and results of a batch lie, in segment order; None if there is no such batch."""
        ...

    async def inline(self, batch_id: BatchId, position: int) -> tuple[bytes | None, bytes | None]:
        """The members of a segment that are inline: its requests, its results. None: elsewhere, or nowhere."""
        ...

    async def lease(self, worker: str, *, wanted: Wanted, now_ms: int) -> list[LeasedSegment]:
        """Take free segments of unfinished batches in the order of `core.schedule`, until they hold
        `wanted.requests` requests or there are `wanted.segments`. Each take raises the segment's epoch.
        Segments of canceled and expired batches count no requests: they are taken even if none are wanted."""
        ...

    async def demands(self) -> list[Demand]:
        """What unfinished batches still want, summed up by deadline; those within ten minutes by the earliest."""
        ...

    async def renew(self, worker: str, *, now_ms: int) -> Renewal:
        """Extend all leases of a worker that nobody else has taken."""
        ...

    async def give_back(self, worker: str, *, only: SegmentRef | None = None) -> None:
        """Free all segments a worker holds, or only one, for anybody to take at once; epochs stay."""
        ...

    async def seal(
        self, lease: Lease, tally: Tally, results: SealedResults, *, now_ms: int, bill: Bill = NO_BILL
    ) -> Batch:
        """Record the results of a segment and what they cost, and end the batch with its last one (I3). The batch as
        it is then.

        LeaseLost if the epoch is not the newest or the segment is sealed or gone (I4); nothing changes then.
        """
        ...

    async def intend(self, handoff: Handoff, parts: Sequence[Part]) -> None:
        """Write down a handoff that is about to be sent; its parts are of unsealed segments."""
        ...

    async def submitted(self, handoff_id: str, upstream_id: str) -> None:
        """Note which batch of the upstream a handoff became."""
        ...

    async def outstanding(self, engine: str) -> list[Outstanding]:
        """The handoffs of an engine that are not forgotten, oldest first, with their parts as far as unsealed."""
        ...

    async def open_parts(self, handoff_id: str) -> list[SegmentRef]:
        """The segments of a handoff that are not sealed; none if it is forgotten."""
        ...

    async def forget_handoff(self, handoff_id: str) -> None:
        """Its results are durable, or it was never made: what is left of its requests is nobody's. Twice is once."""
        ...

    async def spent(self, engine: str, day: str) -> int:
        """What was noted for an engine on a day of UTC (ISO text), in millionths of a US dollar; 0 if nothing."""
        ...

    async def note_spent(self, engine: str, day: str, usd_micro: int) -> None:
        """Note what an engine has cost on a day, all in all. Twice is once."""
        ...

    async def archive(self, *, now_ms: int, batches_max: int, kept: Mapping[WorkspaceId, Kept] = {}) -> list[BatchId]:
        """Archive ended batches whose results were kept long enough, and note their objects as garbage: after 29
        days, or as `kept` has it for their workspace. Which ones."""
        ...

    async def drop_requests(
        self, *, now_ms: int, batches_max: int, kept: Mapping[WorkspaceId, Kept]
    ) -> list[BatchId]:
        """Give up the requests of ended batches of workspaces that keep them for less long than results, which stay.
        Which ones."""
        ...

    async def forget_events(self) -> None:
        """Forget what was told, or is to be told, of batches that are gone."""
        ...

    async def scrub(self) -> bool:
        """Leave nothing of removed rows in the log of the database. False if readers were in the way: then it is to
        be called again."""
        ...

    async def repack(self) -> bool:
        """Leave nothing of removed rows in unused parts of pages, once `scrub` has emptied the log. It holds up
        everybody, a second for 170 MB. False if a writer was in the way."""
        ...

    async def garbage(self, *, limit: int) -> list[str]:
        """Keys of objects that no row names any more."""
        ...

    async def forget_garbage(self, keys: Sequence[str]) -> None:
        """Those objects are removed."""
        ...

    async def note_orphans(self, keys: Sequence[str]) -> int:
        """Of these object keys, note as garbage those that no row names; how many. Only right while nothing
        is being created or sealed: when the store is opened."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """For health: batches and segments that are not ended, as `batches_open`, `segments_open`."""
        ...

    async def figures(self) -> Figures:
        """For metrics: what is unfinished, by workspace, and deliveries of hooks."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, then release the database."""
        ...
