"""What happens to batches: counted for metrics, and told to the log by ids and counts, never by content."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from overnight.core.batch import Batch
from overnight.core.usage import NOTHING, Bill, Sums, Used
from overnight.ids import BatchId
from overnight.ports.logs import Field, tell
from overnight.ports.tracer import Tracer
from overnight.runner import tracing
from overnight.runner.segmentrun import SegmentRun

log = logging.getLogger("overnight.batches")

Event: TypeAlias = Literal["created", "canceled", "ended", "deleted"]
MODELS_MAX: Final = 100  # Names of models that sums are kept for; clients choose them. All others are one more.
OTHERS: Final = "other"
_TRACES_MAX: Final = 10_000  # Batches whose creation can still be linked to.


class Line(NamedTuple):
    """What one sum is of."""

    model: str
    engine: str
    service_tier: str


class Journal:
    """One per process, on one event loop. Counts begin at 0 with it."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.batches = Counter[Event]()
        self._used: dict[Line, Sums] = {}
        self._models: set[str] = set()
        self._traces: OrderedDict[BatchId, str] = OrderedDict()

    @property
    def used(self) -> Mapping[Line, Sums]:
        """What answers took, by model, engine and tier, as far as they are written down."""
        return self._used

    def created(self, batch: Batch, *, traceparent: str = "") -> None:
        """A batch is durable. `traceparent`: of the span in which it was made."""
        self._count("created", batch, requests=batch.requests, expires_at_ms=batch.expires_at_ms)
        if traceparent:
            self._traces[batch.id] = traceparent
            if len(self._traces) > _TRACES_MAX:
                self._traces.popitem(last=False)

    def canceled(self, batch: Batch) -> None:
        """A cancel was asked for, and is durable."""
        self._count("canceled", batch)

    def deleted(self, batch: Batch) -> None:
        """Its rows are gone."""
        self._count("deleted", batch)

    def leased(self, run: SegmentRun) -> None:
        """Work on a segment begins."""
        run.span = tracing.begin_run(self._tracer, run, created=self._traces.get(run.batch.id, ""))
        if log.isEnabledFor(logging.DEBUG):
            tell(log, logging.DEBUG, "segment leased", **_fields(run), requests=run.leased.source.requests)

    def lost(self, run: SegmentRun) -> None:
        """Somebody else has the segment: nothing of it counts here."""
        run.span.end(trouble="lease lost")
        tell(log, logging.WARNING, "segment lost", **_fields(run))

    def sealed(self, run: SegmentRun, batch: Batch, bill: Bill) -> None:
        """A segment is sealed; `batch` as it is then. With its last segment the batch has ended."""
        run.span.end()
        if log.isEnabledFor(logging.DEBUG):
            tell(log, logging.DEBUG, "segment sealed", **_fields(run))
        for used in bill.used:
            self.add(used)
        if batch.status == "ended":
            self._ended(batch)

    def _ended(self, batch: Batch) -> None:
        tally = batch.tally
        counts = {name: getattr(tally, name) for name in ("succeeded", "errored", "canceled", "expired")}
        took_ms = (batch.ended_at_ms or batch.created_at_ms) - batch.created_at_ms
        self._count("ended", batch, **counts, took_s=took_ms / 1000)
        self._traces.pop(batch.id, None)
        if tally.expired:
            tell(log, logging.WARNING, "batch expired", batch=batch.id, expired=tally.expired)

    def add(self, used: Used) -> None:
        """Somebody used so much."""
        if used.model not in self._models and len(self._models) < MODELS_MAX:
            self._models.add(used.model)
        model = used.model if used.model in self._models else OTHERS
        line = Line(model, used.engine, used.service_tier)
        self._used[line] = self._used.get(line, NOTHING).plus(used.sums)

    def _count(self, event: Event, batch: Batch, **fields: int | float) -> None:
        self.batches[event] += 1
        tell(log, logging.INFO, f"batch {event}", batch=batch.id, workspace=batch.workspace, **fields)


def _fields(run: SegmentRun) -> dict[str, Field]:
    segment = run.lease.segment
    return {"batch": segment.batch_id, "segment": segment.index, "epoch": run.lease.epoch}
