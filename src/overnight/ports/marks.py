"""Named points of the way of a batch, and of a nightly job, that tests can wait for, or stop the process at.

A mark is a no-op in production. `tests/crash` runs the real process with marks that kill it, and proves
that whatever happens between two marks, nothing acknowledged is lost (ARCHITECTURE.md, "What a crash can do").
"""

from typing import Final, Protocol

MARKS: Final = (
    "create.received",
    "create.objects-durable",
    "create.committed",
    "lease.committed",
    "request.dispatched",
    "request.answered",
    "checkpoint.durable",
    "seal.object-durable",
    "seal.committed",
    "cancel.committed",
    "delete.committed",
    "handoff.intended",
    "handoff.posted",
    "handoff.submitted",
    "handoff.ended",
    "handoff.part-applied",
    "handoff.collected",
    "job.segment-planned",
    "job.planned",
    "job.intended",
    "job.posted",
    "job.submitted",
    "job.ended",
    "job.part-applied",
    "job.collected",
    "job.sunk",
    "job.written",
    "job.notice-intended",
    "job.notice-sent",
    "job.reported",
)


class Marks(Protocol):
    """Somebody who wants to know how far the work has come."""

    def reach(self, mark: str) -> None:
        """Called when the work reaches `mark`, one of MARKS; may not return."""
        ...


class NoMarks:
    """Nobody is watching."""

    def reach(self, mark: str) -> None:
        pass
