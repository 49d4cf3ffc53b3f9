"""Requests handed over to another batch server: what is written down, how they are named there, what became of them.

A handoff is one batch of the upstream. It is written down before the upstream can know of it, and forgotten when no
result of it can be lost any more. Its requests bear its id in their `custom_id`, so results prove whose they are.
That is how a batch is found again whose creation was never confirmed, and why no request of it needs a row.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from overnight import ids, limits
from overnight.core.lease import SegmentRef
from overnight.core.retry import Answered, Broken, Refused
from overnight.ids import BatchId
from overnight.wire import problem

HANDOFF_ID_ENTROPY_BYTES: Final = 22
FRAME_BYTES: Final = 160  # Around the params of one request in a create body, its longest name included.
_CLOCK_SLACK_MS = 2_000  # A Date header has whole seconds, and is as old as the answer was under way.
_PREFIX = "msgbatch_"
_read_name = re.compile(r"([0-9A-Za-z]{1,32})-(\d{1,6})-(\d{1,4})-([0-9A-Za-z]{1,22})").fullmatch


class Handoff(Struct, frozen=True, kw_only=True):
    """One batch at the upstream, as it is written down."""

    id: str  # Also its Idempotency-Key, and a part of the name of each of its requests.
    engine: str  # Of whose upstream it is a batch.
    requests: int
    created_at_ms: int  # By our clock, before the upstream could know of it.
    upstream_id: str | None = None  # None: intended, and nobody knows whether it was made.


class Part(Struct, frozen=True):
    """The requests of one segment that are in a handoff, as `packed` ordinals."""

    segment: SegmentRef
    members: bytes


class Outstanding(Struct, frozen=True):
    """A handoff, and its parts whose segments are not sealed yet."""

    handoff: Handoff
    parts: list[Part]


def new_id(entropy: bytes) -> str:
    """The id of a new handoff, from `HANDOFF_ID_ENTROPY_BYTES` bytes."""
    return ids.drawn(entropy)


def with_upstream(handoff: Handoff, upstream_id: str) -> Handoff:
    """The handoff once it is known which batch of the upstream it is."""
    return replace(handoff, upstream_id=upstream_id)


# --- Which requests -----------------------------------------------------------------------------------------------


def packed(ordinals: Iterable[int]) -> bytes:
    """A set of places in a segment, one bit each: 125 bytes for 1,000 requests."""
    bits = 0
    for ordinal in ordinals:
        bits |= 1 << ordinal
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def unpacked(members: bytes) -> Iterator[int]:
    """The places that `packed` was given, in order."""
    for index, byte in enumerate(members):
        for bit in range(8):
            if byte >> bit & 1:
                yield index * 8 + bit


class Named(NamedTuple):
    """Whose a `custom_id` of the upstream is."""

    segment: SegmentRef
    ordinal: int
    handoff_id: str


def name(segment: SegmentRef, ordinal: int, handoff_id: str) -> str:
    """The `custom_id` that a request has at the upstream: legal, and unique over all batches and handoffs."""
    text = f"{segment.batch_id.removeprefix(_PREFIX)}-{segment.index}-{ordinal}-{handoff_id}"
    assert len(text) <= limits.CUSTOM_ID_LENGTH_MAX, f"{text!r} is too long for a custom_id"
    return text


def read_name(text: str) -> Named | None:
    """What `name` was given; None if this is no name of ours."""
    found = _read_name(text)
    if found is None:
        return None
    body, position, ordinal, handoff_id = found.groups()
    return Named(SegmentRef(BatchId(_PREFIX + body), int(position)), int(ordinal), handoff_id)


def fitting(sizes_bytes: Iterable[int], *, bytes_max: int) -> int:
    """How many of the first requests with params of these sizes fit into one create body."""
    held_bytes = FRAME_BYTES
    count = 0
    for size_bytes in sizes_bytes:
        held_bytes += size_bytes + FRAME_BYTES
        if held_bytes > bytes_max:
            break
        count += 1
    return count


# --- Whether the upstream has made it -----------------------------------------------------------------------------


class Shown(Struct, frozen=True, kw_only=True):
    """A batch as the upstream shows it."""

    id: str
    requests: int
    created_at_ms: int  # By its clock.
    has_ended: bool


class Prove(NamedTuple):
    """Any of these batches may be it, and their results will tell."""

    ids: list[str]


class Wait(NamedTuple):
    """A list may lag behind, or a batch that may be it still runs: look again."""

    ms: int


class Unmade(NamedTuple):
    """The upstream has not made it."""


Choice: TypeAlias = Prove | Wait | Unmade


def choose(
    handoff: Handoff, shown: Iterable[Shown], *, known: Collection[str], ahead_ms: int, searched_ms: int
) -> Choice:
    """What became of a create that was never confirmed, from the newest batches of the upstream.

    Candidates have as many requests, were created after the intent, and are not `known` to be of another handoff, or
    of nobody here. While one of them runs nothing is decided, for two would be paid. `ahead_ms` is by how much the
    upstream's clock is ahead of ours, `searched_ms` how long we have been looking.
    """
    since_ms = handoff.created_at_ms + ahead_ms - _CLOCK_SLACK_MS
    candidates = [
        one
        for one in shown
        if one.requests == handoff.requests and one.created_at_ms >= since_ms and one.id not in known
    ]
    if ended := [one.id for one in candidates if one.has_ended]:
        return Prove(ended)
    if candidates:
        return Wait(limits.HANDOFF_POLL_MS_MAX)
    left_ms = limits.HANDOFF_LISTING_LAG_MS - searched_ms
    return Wait(min(left_ms, limits.HANDOFF_LISTING_LAG_MS // 8)) if left_ms > 0 else Unmade()


def is_older(shown: Shown, handoff: Handoff, *, ahead_ms: int) -> bool:
    """Whether this batch, and so any that is listed behind it, was made before the intent."""
    return shown.created_at_ms < handoff.created_at_ms + ahead_ms - _CLOCK_SLACK_MS


def poll_ms(looks: int, *, asked_ms: int | None) -> int:
    """How long to wait after so many looks at a batch that runs: half as long again each time, or as asked."""
    own = min(limits.HANDOFF_POLL_MS * 1.5 ** min(looks, 20), limits.HANDOFF_POLL_MS_MAX)
    return max(int(own), min(asked_ms or 0, limits.RETRY_AFTER_MS_MAX))


# --- What became of a request -------------------------------------------------------------------------------------


class Unasked(NamedTuple):
    """The upstream has not worked on the request: it expired or was canceled there, or the account is at fault."""

    reason: str


Verdict: TypeAlias = Answered | Refused | Broken | Unasked

_PASSING = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
_OF_THE_ACCOUNT = frozenset({"authentication_error", "billing_error", "permission_error"})
_NO_CREDIT = "credit balance"  # The hosted API says it with a 400, as an invalid_request_error.


def verdict_of_error(envelope: bytes) -> Refused | Broken | Unasked:
    """What an errored row means, from its error envelope.

    Error types: https://platform.claude.com/docs/en/api/errors.
    """
    if not envelope:
        return Broken(reason="the upstream says no reason")
    found = problem.read(envelope, status=400)
    error = found.error
    if is_of_the_account(error.type, error.message):
        return Unasked(f"{error.type}: {error.message}")
    if error.type in _PASSING:
        return Broken(reason=error.message, type="timeout_error" if error.type == "timeout_error" else "api_error")
    return Refused(status=400, type=error.type, message=error.message, request_id=found.request_id)


def is_of_the_account(error_type: str, message: str) -> bool:
    """Whether a refusal is about our key or our money: the request is fine, and is for the operator to wait for."""
    return error_type in _OF_THE_ACCOUNT or _NO_CREDIT in message.lower()
