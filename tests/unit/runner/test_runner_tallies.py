"""runner.tallies: live counts that never count twice and never go down."""

import asyncio
from pathlib import Path

from overnight.core.batch import Tally
from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.ports.offload import InlineOffload
from overnight.runner import tallies
from overnight.runner.tallies import Tallies
from overnight.store import checkpoint
from overnight.store.checkpoint import Checkpoints
from overnight.testing.simdisk import SimDisk
from overnight.wire import result

A, B = (BatchId(f"msgbatch_01{name}") for name in "ab")


def test_a_snapshot_is_of_one_batch_and_does_not_follow_later_counts() -> None:
    found = Tallies()
    found.counter(SegmentRef(A, 0))["succeeded"] += 2
    found.counter(SegmentRef(A, 1))["errored"] += 1
    found.counter(SegmentRef(B, 0))["expired"] += 9
    snapshot = found.snapshot(A)
    found.counter(SegmentRef(A, 0))["succeeded"] += 1
    assert snapshot == {0: Tally(succeeded=2), 1: Tally(errored=1)}
    assert found.snapshot(A)[0] == Tally(succeeded=3)


def test_a_forgotten_segment_begins_at_nothing() -> None:
    found = Tallies()
    found.counter(SegmentRef(A, 0))["succeeded"] += 2
    found.forget(SegmentRef(A, 0))
    found.forget(SegmentRef(A, 0))
    assert found.snapshot(A) == {}
    assert found.counter(SegmentRef(A, 0)) == {}


def test_logs_of_two_epochs_count_each_request_once() -> None:
    """A removed log may come back after a power cut: its lines are those of the newer one."""

    async def main() -> None:
        logs = Checkpoints(Path("/checkpoints"), files=SimDisk(), offload=InlineOffload())
        lines = [result.succeeded(f"r{number}", b"{}") for number in range(3)]
        for epoch, some in ((1, lines[:2]), (2, lines), (2, [result.canceled("r9")])):
            await logs.append_durably(SegmentRef(A, 0), checkpoint.frame(some), epoch=epoch)
        await logs.append_durably(SegmentRef(A, 4), checkpoint.frame(lines[:1]), epoch=1)
        found = await tallies.restored(logs)
        assert found.snapshot(A) == {0: Tally(succeeded=3, canceled=1), 4: Tally(succeeded=1)}

    asyncio.run(main())
