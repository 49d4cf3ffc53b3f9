"""The life of a batch: `in_progress -> canceling -> ended`, never backwards (invariant I5).

| from        | event         | to          | what changes                                             |
|-------------|---------------|-------------|----------------------------------------------------------|
| in_progress | CancelAsked   | canceling   | cancel_initiated_at                                      |
| canceling   | CancelAsked   | canceling   | nothing: a second cancel is the first                    |
| ended       | CancelAsked   | ended       | nothing: too late is no error                            |
| not ended   | SegmentSealed | the same    | counts; with the last segment: ended, ended_at           |
| ended       | Archived      | ended       | archived_at: the results are gone                        |

`TRANSITIONS` below is that table; ARCHITECTURE.md is checked against it. Expiry is no state of a batch: its
unfinished requests become expired results, their segments are sealed, and it ends like any other.
Source: https://platform.claude.com/docs/en/build-with-claude/batch-processing.
"""

from typing import Final, TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

from overnight import limits
from overnight.ids import BatchId, WorkspaceId
from overnight.wire.batch import MessageBatch, RequestCounts, Status, rfc3339, rfc3339_or_none
from overnight.wire.result import Kind


class Tally(Struct, frozen=True, kw_only=True):
    """How many requests ended in which way."""

    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.succeeded + self.errored + self.canceled + self.expired

    def plus(self, other: "Tally") -> "Tally":
        """The sum, kind by kind."""
        return Tally(
            succeeded=self.succeeded + other.succeeded,
            errored=self.errored + other.errored,
            canceled=self.canceled + other.canceled,
            expired=self.expired + other.expired,
        )


class Batch(Struct, frozen=True, kw_only=True):
    """One batch as the control store keeps it. Instants are ms since the Unix epoch."""

    id: BatchId
    workspace: WorkspaceId
    api_version: str
    betas: str
    requests: int
    segments_open: int
    created_at_ms: int
    expires_at_ms: int
    status: Status = "in_progress"
    tally: Tally = Tally()  # Of sealed segments only.
    cancel_initiated_at_ms: int | None = None
    ended_at_ms: int | None = None
    archived_at_ms: int | None = None


class CancelAsked(Struct, frozen=True):
    """A client called cancel."""

    at_ms: int


class SegmentSealed(Struct, frozen=True):
    """All requests of one segment have a durable result."""

    tally: Tally
    at_ms: int


class Archived(Struct, frozen=True):
    """The results of an ended batch were given up."""

    at_ms: int


Event: TypeAlias = CancelAsked | SegmentSealed | Archived

TRANSITIONS: Final[tuple[tuple[Status, str, tuple[Status, ...]], ...]] = (
    ("in_progress", "CancelAsked", ("canceling",)),
    ("canceling", "CancelAsked", ("canceling",)),
    ("ended", "CancelAsked", ("ended",)),
    ("in_progress", "SegmentSealed", ("in_progress", "ended")),
    ("canceling", "SegmentSealed", ("canceling", "ended")),
    ("ended", "Archived", ("ended",)),
)


def apply(batch: Batch, event: Event) -> Batch:
    """The next state. An event that cannot happen in a state is our own mistake and asserts."""
    match event:
        case CancelAsked(at_ms=at_ms):
            if batch.status != "in_progress":
                return batch
            return replace(batch, status="canceling", cancel_initiated_at_ms=at_ms)
        case SegmentSealed(tally=tally, at_ms=at_ms):
            return _with_segment(batch, tally, at_ms=at_ms)
        case Archived(at_ms=at_ms):
            assert batch.status == "ended", "I6: a batch ends before it is archived"
            return batch if batch.archived_at_ms is not None else replace(batch, archived_at_ms=at_ms)
        case _:
            assert_never(event)


def _with_segment(batch: Batch, tally: Tally, *, at_ms: int) -> Batch:
    assert batch.segments_open > 0, "I3: a segment is sealed once"
    assert batch.status != "ended", "I5: nothing is sealed after the end"
    counted = batch.tally.plus(tally)
    assert counted.total <= batch.requests, "I2: one result per request"
    left = batch.segments_open - 1
    if left:
        return replace(batch, tally=counted, segments_open=left)
    assert counted.total == batch.requests, "I2: every request has a result when the batch ends"
    ended_at_ms = max(at_ms, batch.created_at_ms)  # A clock that was set back must not show in the object.
    return replace(batch, tally=counted, segments_open=0, status="ended", ended_at_ms=ended_at_ms)


def is_expired(batch: Batch, *, now_ms: int) -> bool:
    """Whether unfinished requests of this batch are to become expired rows (invariant I6)."""
    return now_ms >= batch.expires_at_ms


def is_archivable(batch: Batch, *, now_ms: int, results_ms: int = limits.RESULTS_LIFETIME_MS) -> bool:
    """Whether the results have been available for as long as promised (`core.retention`)."""
    has_lived = now_ms >= batch.created_at_ms + results_ms
    return batch.status == "ended" and batch.archived_at_ms is None and has_lived


def kind_of_unfinished(batch: Batch, *, now_ms: int) -> Kind | None:
    """What a request without a result becomes now: canceled, expired, or None while it may still run."""
    if batch.status == "canceling":
        return "canceled"
    return "expired" if is_expired(batch, now_ms=now_ms) else None


def shown(batch: Batch, *, tally: Tally, results_url: str | None) -> MessageBatch:
    """A batch as the API writes it. `tally`: its counts as its client is to see them."""
    return MessageBatch(
        id=batch.id,
        processing_status=batch.status,
        request_counts=RequestCounts(
            processing=batch.requests - tally.total,
            succeeded=tally.succeeded,
            errored=tally.errored,
            canceled=tally.canceled,
            expired=tally.expired,
        ),
        ended_at=rfc3339_or_none(batch.ended_at_ms),
        created_at=rfc3339(batch.created_at_ms),
        expires_at=rfc3339(batch.expires_at_ms),
        archived_at=rfc3339_or_none(batch.archived_at_ms),
        cancel_initiated_at=rfc3339_or_none(batch.cancel_initiated_at_ms),
        results_url=results_url,
    )
