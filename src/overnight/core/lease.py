"""Leases: the right to work on one segment until a time, and the epoch that fences those whose time is over.

A lease only bounds an outage. What keeps results right is the epoch: each take of a lease raises it, and the store
refuses to seal a segment under an older one (invariant I4), however late the old holder wakes up.

    taken or renewed at T, measured before the statement was sent
    |<------------- trusted: the holder may act ------------->|<-- margin -->|  others may take it
    T                                     T + ttl - margin                    T + ttl
"""

from msgspec import Struct

from overnight import limits
from overnight.ids import BatchId


class SegmentRef(Struct, frozen=True, order=True):
    """Which segment: its batch and its place in it, counted from 0."""

    batch_id: BatchId
    index: int


class Lease(Struct, frozen=True, kw_only=True):
    """`epoch` grows with every take; `expires_at_ms` is wall clock, because it must outlive a restart."""

    segment: SegmentRef
    worker: str
    epoch: int
    expires_at_ms: int


def take(segment: SegmentRef, *, worker: str, last_epoch: int, now_ms: int) -> Lease:
    """The next lease of a segment that nobody holds."""
    return Lease(segment=segment, worker=worker, epoch=last_epoch + 1, expires_at_ms=ends_at_ms(now_ms=now_ms))


def ends_at_ms(*, now_ms: int) -> int:
    """When a lease ends that is taken or renewed now; `now_ms` is from before the statement was sent."""
    return now_ms + limits.LEASE_TTL_MS


def is_free(expires_at_ms: int, *, now_ms: int) -> bool:
    """Whether others may take a segment whose last lease ends at `expires_at_ms` (0: nobody has it)."""
    return expires_at_ms <= now_ms


def trusted_until_ms(*, now_ms: int) -> int:
    """Until when its holder may act on a lease taken or renewed now: a margin before anyone else may take over."""
    return ends_at_ms(now_ms=now_ms) - limits.LEASE_TRUST_MARGIN_MS
