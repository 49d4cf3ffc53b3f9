"""Whether a batch that a server has is the one whose creation was never confirmed. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, TypeAlias

from overnight import limits
from overnight.jobs.server import ShownBatch

_CLOCK_SLACK_MS = 2_000  # A Date header has whole seconds, and is as old as the answer was under way.


class Adopt(NamedTuple):
    """This is it, as far as can be known before its results are compared."""

    batch: ShownBatch


class Again(NamedTuple):
    """The server has not made it: create it again."""


class Wait(NamedTuple):
    """A list may lag behind: look again."""

    seconds: float


class Several(NamedTuple):
    """More than one may be it: a person decides."""

    ids: list[str]


Choice: TypeAlias = Adopt | Again | Wait | Several


class Intent(NamedTuple):
    """A create that was begun: when, by the server's clock, and with how many requests."""

    at_ms: int
    requests: int


def choose(intent: Intent, batches: Iterable[ShownBatch], *, known: set[str], now_ms: int) -> Choice:
    """What became of `intent`, from the newest batches of a server. All times by its clock.

    Candidates are batches that no ledger row has, created after the intent, with as many requests. A batch of another
    job may look like this; the ids of its results will tell, and its rows are then sent after all.
    """
    found = [
        batch
        for batch in batches
        if batch.id not in known
        and batch.total == intent.requests
        and created_ms(batch) >= intent.at_ms - _CLOCK_SLACK_MS
    ]
    if len(found) == 1:
        return Adopt(found[0])
    if found:
        return Several([batch.id for batch in found])
    left_ms = intent.at_ms + limits.JOB_LISTING_LAG_MS - now_ms
    return Again() if left_ms <= 0 else Wait(min(left_ms, limits.JOB_LISTING_LAG_MS // 8) / 1000)


def created_ms(batch: ShownBatch) -> int:
    """When a batch was made, ms since the epoch by the server's clock."""
    return instant_ms(batch.created_at)


def instant_ms(text: str) -> int:
    """RFC 3339 as ms since the epoch."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)
