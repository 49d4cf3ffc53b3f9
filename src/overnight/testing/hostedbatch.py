"""One batch of `testing.hosted`: its rows, its counters and what a look at it shows."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from overnight import limits
from overnight.testing.hostedrows import Params
from overnight.wire import result
from overnight.wire.batch import MessageBatch, RequestCounts, Status, rfc3339
from overnight.wire.result import Kind


class Row(NamedTuple):
    """One line of the results file."""

    custom_id: str
    kind: Kind
    line: bytes


def unanswered(custom_id: str, kind: Kind) -> Row:
    """The row of a request that expired or was canceled."""
    line = result.expired(custom_id) if kind == "expired" else result.canceled(custom_id)
    return Row(custom_id, kind, line)


@dataclass
class Batch:
    """What the double knows of a batch. `rows` are the first requests of it, as far as they are done."""

    id: str
    created_at_ms: int
    version: str
    requests: list[tuple[str, Params]]
    hidden_lists: int = 0
    looks: int = 0
    rows: list[Row] = field(default_factory=list)
    results: bytes = b""
    cancel_initiated_at_ms: int | None = None
    ended_at_ms: int | None = None

    @property
    def expires_at_ms(self) -> int:
        """When what is not done expires."""
        return self.created_at_ms + limits.BATCH_LIFETIME_MS

    @property
    def status(self) -> Status:
        """One of the three."""
        if self.ended_at_ms is not None:
            return "ended"
        return "in_progress" if self.cancel_initiated_at_ms is None else "canceling"

    def archived_at_ms(self, now_ms: int) -> int | None:
        """When its results went away, if they did."""
        gone_ms = self.created_at_ms + limits.RESULTS_LIFETIME_MS
        return gone_ms if now_ms >= gone_ms else None

    def give_up_rest(self, kind: Kind) -> None:
        """What is not done expires or is canceled."""
        self.rows += [unanswered(custom_id, kind) for custom_id, _ in self.requests[len(self.rows) :]]

    def shown(self, url: str, *, now_ms: int, is_live: bool, word: str | None = None) -> MessageBatch:
        """The MessageBatch; `word` in place of its status. Its counters move at the end only, unless `is_live`."""
        is_ended = self.ended_at_ms is not None
        counts = Counter(row.kind for row in self.rows) if is_live or is_ended else Counter[Kind]()
        return MessageBatch(
            id=self.id,
            processing_status=cast(Status, word or self.status),
            request_counts=RequestCounts(
                processing=len(self.requests) - counts.total(),
                succeeded=counts["succeeded"],
                errored=counts["errored"],
                canceled=counts["canceled"],
                expired=counts["expired"],
            ),
            ended_at=_instant_or_none(self.ended_at_ms),
            created_at=_instant(self.created_at_ms),
            expires_at=_instant(self.expires_at_ms),
            archived_at=_instant_or_none(self.archived_at_ms(now_ms)),
            cancel_initiated_at=_instant_or_none(self.cancel_initiated_at_ms),
            results_url=f"{url}/v1/messages/batches/{self.id}/results" if is_ended else None,
        )


def _instant(at_ms: int) -> str:
    """As recorded from the hosted API: with an offset, where its documentation has a Z."""
    return rfc3339(at_ms).replace("Z", "+00:00")


def _instant_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else _instant(at_ms)
