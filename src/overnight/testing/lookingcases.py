"""Claims about where a control store says that requests and results lie."""

from msgspec.structs import replace

from overnight.core.batch import Tally
from overnight.ids import BatchId
from overnight.store.control import Control
from overnight.testing.controlcases import ControlCases, case, created, leased, new_batch, results_of, sealed


class LookingCases(ControlCases):
    """Requests and results, segment by segment."""

    @case
    async def test_segments_are_told_in_order_with_results_as_far_as_sealed(self, control: Control) -> None:
        new = new_batch("a", segments=3)
        batch = (await control.create(new)).batch
        await created(control, "b", segments=2)
        held = {item.lease.segment: item for item in await leased(control)}
        (second,) = [item for ref, item in held.items() if ref.batch_id == batch.id and ref.index == 1]
        await sealed(control, second)
        found = await control.stored(batch.id)
        assert found is not None
        assert found.requests_key == new.requests_key
        assert [(item.position, item.requests, item.offset, item.length) for item in found.segments] == [
            (index, item.requests, item.offset, item.length) for index, item in enumerate(new.segments)
        ]
        assert [item.results for item in found.segments] == [None, results_of(second), None]

    @case
    async def test_what_is_inline_is_told_by_segment(self, control: Control) -> None:
        new = new_batch("a")
        inline = [replace(item, inline=b"asked") for item in new.segments]
        batch = (await control.create(replace(new, segments=inline, requests_key=None))).batch
        assert await control.inline(batch.id, 0) == (b"asked", None)
        (item,) = await leased(control)
        results = results_of(item, inline=b"answered")
        await control.seal(item.lease, Tally(succeeded=10), results, now_ms=0)
        assert await control.inline(batch.id, 0) == (b"asked", b"answered")
        assert await control.inline(batch.id, 1) == (None, None)
        found = await control.stored(batch.id)
        assert found is not None
        assert [item.results for item in found.segments] == [replace(results, inline=None)]

    @case
    async def test_a_batch_that_is_not_there_lies_nowhere(self, control: Control) -> None:
        assert await control.stored(BatchId("msgbatch_01nobody")) is None
        assert await control.inline(BatchId("msgbatch_01nobody"), 0) == (None, None)
