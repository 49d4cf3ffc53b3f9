"""What was used, by minute, workspace, key, model and engine; and what each batch took.

Batches are written down with the results of each segment (`control.Control.seal`), people who wait once a second.
`testing.usagecases` is what every implementation must pass.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from overnight.core.usage import Cause, Sums, Used
from overnight.ids import BatchId, WorkspaceId

Column: TypeAlias = Literal["workspace", "api_key", "model", "engine", "service_tier"]


class Entry(Struct, frozen=True, kw_only=True):
    """What somebody used in one minute."""

    workspace: WorkspaceId
    api_key: str  # The id of the key; empty if none was needed.
    used: Used


class Row(Struct, frozen=True, kw_only=True):
    """One line of a report: the bucket it begins with, what it was grouped by, and the sums."""

    at_ms: int
    group: Mapping[Column, str]
    sums: Sums


class Asked(Struct, frozen=True, kw_only=True):
    """A report: from an instant until before another, in buckets of that width, counted from the epoch."""

    since_ms: int
    until_ms: int
    width_ms: int
    by: Sequence[Column] = ()
    only: Mapping[Column, Sequence[str]] = {}  # Values that count, by column.


class UsageStore(Protocol):
    """Durable sums. Older minutes become hours, then days (`roll_up`); sums of whole days never change by that."""

    async def note(self, entries: Sequence[Entry], *, now_ms: int) -> None:
        """Add to the minute of `now_ms`."""
        ...

    async def report(self, asked: Asked) -> list[Row]:
        """The lines by time, then by group; buckets in which nothing was used have none."""
        ...

    async def of_batch(self, batch_id: BatchId) -> list[Used]:
        """What a batch took so far, as far as its segments are sealed; the largest sums first."""
        ...

    async def causes(self, batch_id: BatchId) -> list[Cause]:
        """Why requests of its sealed segments came to nothing, the most frequent first."""
        ...

    async def spent(self, *, since_ms: int) -> Mapping[WorkspaceId, int]:
        """What each workspace has spent since the beginning of a day, in nano USD."""
        ...

    async def measured(self, *, since_ms: int) -> Mapping[tuple[str, str], Sums]:
        """Sums by engine and model since then: what a token has cost on own hardware."""
        ...

    async def roll_up(self, *, now_ms: int) -> int:
        """Sum up minutes that are older than two days by hour, and hours older than 60 days by day. How many rows
        went."""
        ...
