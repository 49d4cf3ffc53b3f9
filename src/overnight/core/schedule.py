"""Which batch is worked on next: one pure function over what is waiting.

Order of rules: what only needs closing (canceled, expired) goes first, for it costs no engine time; then a batch
whose deadline is in danger; then the workspace that was served least, so that one team's whale does not hold up
another's ten requests; then the oldest batch. Inside a batch segments go in prefix order.
(Fairness after the Virtual Token Counter, arXiv 2401.00588, counted in requests here.)
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from overnight.core.batch import Batch, kind_of_unfinished
from overnight.ids import WorkspaceId

URGENT_MS = 3_600_000  # The last hour before expires_at: the hosted API ends most batches within an hour.


class Candidate(Struct, frozen=True, kw_only=True):
    """A batch with segments that nobody holds. `age` grows with creation: smaller is older."""

    batch: Batch
    age: int


def order(candidates: Iterable[Candidate], *, served: Mapping[WorkspaceId, float], now_ms: int) -> list[Candidate]:
    """The candidates, the one to serve first in front. `served` is work done per workspace, in requests."""

    def rank(candidate: Candidate) -> tuple[bool, bool, float, int]:
        batch = candidate.batch
        is_closing = kind_of_unfinished(batch, now_ms=now_ms) is not None
        is_urgent = batch.expires_at_ms - now_ms <= URGENT_MS
        share = 0.0 if is_urgent else served.get(batch.workspace, 0.0)
        return (not is_closing, not is_urgent, share, candidate.age)

    return sorted(candidates, key=rank)


def lifted(served: Mapping[WorkspaceId, float], active: Iterable[WorkspaceId]) -> dict[WorkspaceId, float]:
    """`served` with newcomers raised to the least of the active ones: nobody saves up service by staying away."""
    present = list(active)
    floor = min((served[workspace] for workspace in present if workspace in served), default=0.0)
    return {**served, **{workspace: max(served.get(workspace, floor), floor) for workspace in present}}
