"""Claims about handoffs in a control store: written down before they are sent, found again, forgotten once."""

from overnight.core.handoff import Handoff, Outstanding, Part
from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.store.control import Control
from overnight.testing.controlcases import T0, ControlCases, case, created, ended, leased, sealed


def handoff(name: str, *, engine: str = "claude-batch here", at_ms: int = T0) -> Handoff:
    """A handoff of three requests that is about to be sent."""
    return Handoff(id=name, engine=engine, requests=3, created_at_ms=at_ms)


def part(batch: str, position: int, members: bytes = b"\x07") -> Part:
    """Requests of a segment."""
    return Part(SegmentRef(BatchId(f"msgbatch_01{batch}"), position), members)


class HandoffCases(ControlCases):
    """What an upstream has, or may have."""

    @case
    async def test_an_intent_is_found_as_it_was_written_down(self, control: Control) -> None:
        await created(control, "a", segments=2)
        parts = [part("a", 0, b"\x06\xff"), part("a", 1)]
        await control.intend(handoff("h1"), parts)
        assert await control.outstanding("claude-batch here") == [Outstanding(handoff("h1"), parts)]
        assert await control.open_parts("h1") == [one.segment for one in parts]
        assert await control.outstanding("claude-batch elsewhere") == []

    @case
    async def test_a_batch_of_the_upstream_is_remembered(self, control: Control) -> None:
        await created(control, "a")
        await control.intend(handoff("h1"), [part("a", 0)])
        await control.submitted("h1", "msgbatch_theirs")
        (found,) = await control.outstanding("claude-batch here")
        assert (found.handoff.upstream_id, found.handoff.id) == ("msgbatch_theirs", "h1")

    @case
    async def test_handoffs_are_oldest_first_and_share_segments(self, control: Control) -> None:
        await created(control, "a")
        await control.intend(handoff("younger", at_ms=T0 + 1), [part("a", 0, b"\x08")])
        await control.intend(handoff("older"), [part("a", 0)])
        found = await control.outstanding("claude-batch here")
        assert [(one.handoff.id, one.parts[0].members) for one in found] == [("older", b"\x07"), ("younger", b"\x08")]

    @case
    async def test_a_part_is_shown_until_its_segment_is_sealed(self, control: Control) -> None:
        await created(control, "a", segments=2)
        await control.intend(handoff("h1"), [part("a", 0), part("a", 1)])
        first, second = await leased(control)
        await sealed(control, first)
        assert await control.open_parts("h1") == [second.lease.segment]
        (found,) = await control.outstanding("claude-batch here")
        assert found.parts == [part("a", 1)]
        await sealed(control, second)
        assert await control.outstanding("claude-batch here") == [Outstanding(handoff("h1"), [])]

    @case
    async def test_a_part_of_a_deleted_batch_is_as_sealed(self, control: Control) -> None:
        batch = await created(control, "a")
        await control.intend(handoff("h1"), [part("a", 0)])
        for item in await leased(control):
            await sealed(control, item)
        await control.delete(batch.workspace, batch.id)
        assert await control.outstanding("claude-batch here") == [Outstanding(handoff("h1"), [])]

    @case
    async def test_forgetting_takes_one_handoff_with_its_parts_and_twice_is_once(self, control: Control) -> None:
        await ended(control, "x")
        await created(control, "a")
        await control.intend(handoff("h1"), [part("a", 0)])
        await control.intend(handoff("h2", at_ms=T0 + 1), [part("a", 0, b"\x08")])
        for _ in range(2):
            await control.forget_handoff("h1")
            assert [one.handoff.id for one in await control.outstanding("claude-batch here")] == ["h2"]
        assert await control.open_parts("h1") == []
        assert len(await control.open_parts("h2")) == 1
