"""store.checkpoint: which logs there are."""

import asyncio
from pathlib import Path

from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.ports.offload import InlineOffload
from overnight.store import checkpoint
from overnight.store.checkpoint import Checkpoints
from overnight.testing.simdisk import SimDisk

A, B = (BatchId(f"msgbatch_01{name}") for name in "ab")


def logs() -> Checkpoints:
    return Checkpoints(Path("/checkpoints"), files=SimDisk(), offload=InlineOffload())


async def written(found: Checkpoints, segment: SegmentRef, *, epoch: int, lines: list[bytes]) -> None:
    await found.append_durably(segment, checkpoint.frame(lines), epoch=epoch)


def test_each_epoch_has_a_log_of_its_own() -> None:
    async def main() -> None:
        found, segment = logs(), SegmentRef(A, 10)
        for epoch in (2, 11):
            await written(found, segment, epoch=epoch, lines=[b"epoch %d\n" % epoch])
        await written(found, segment, epoch=11, lines=[b"more\n"])
        await written(found, SegmentRef(A, 1), epoch=1, lines=[b"other\n"])
        await written(found, SegmentRef(B, 10), epoch=3, lines=[b"other\n"])
        assert await found.epochs(segment) == [2, 11]
        assert [raw for _, raw in await found.read(segment, epoch=11)] == [b"epoch 11\n", b"more\n"]
        assert await found.all() == [(SegmentRef(A, 1), 1), (segment, 2), (segment, 11), (SegmentRef(B, 10), 3)]
        await found.remove(segment, epoch=2)
        await found.remove(segment, epoch=2)
        assert await found.epochs(segment) == [11]

    asyncio.run(main())


def test_a_log_that_is_not_there_has_no_frames() -> None:
    assert asyncio.run(logs().read(SegmentRef(A, 0), epoch=1)) == []
