"""Live counts: how many requests of a segment that is still being worked on have a result.

Counts of sealed segments are in SQL; these are the rest. A reader takes its snapshot *before* it asks SQL which
segments are unsealed, and a worker forgets a tally *after* its seal is committed: so nothing is counted twice and
no count ever goes down.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping

from overnight.core.batch import Tally
from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.store.checkpoint import Checkpoints
from overnight.wire import result


class Tallies:
    """Mutable, one per process: the worker writes, the server reads, both on one event loop."""

    def __init__(self) -> None:
        self._of_batch = defaultdict[BatchId, dict[int, Counter[str]]](dict)

    def counter(self, segment: SegmentRef) -> "Counter[str]":
        """The counter of a segment by result kind, empty at first; the caller increments it."""
        return self._of_batch[segment.batch_id].setdefault(segment.index, Counter())

    def forget(self, segment: SegmentRef) -> None:
        """The segment is sealed or somebody else's."""
        counters = self._of_batch.get(segment.batch_id, {})
        counters.pop(segment.index, None)
        if not counters:
            self._of_batch.pop(segment.batch_id, None)

    def snapshot(self, batch_id: BatchId) -> Mapping[int, Tally]:
        """The counts by segment index, as they are now."""
        counters = self._of_batch.get(batch_id, {})
        return {index: Tally(**counter) for index, counter in counters.items()}


async def restored(checkpoints: Checkpoints) -> Tallies:
    """The tallies that checkpoint logs of an earlier process hold, so that counts do not drop at a restart."""
    tallies = Tallies()
    seen = set[tuple[SegmentRef, str]]()
    for segment, epoch in await checkpoints.all():
        for _, lines in await checkpoints.read(segment, epoch=epoch):
            for line in result.read_lines(lines):
                if (segment, line.custom_id) not in seen:
                    seen.add((segment, line.custom_id))
                    tallies.counter(segment)[line.result.type] += 1
    return tallies
