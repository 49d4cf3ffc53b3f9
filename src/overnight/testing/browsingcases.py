"""Claims about the list of the console: which batches are found, in which order, and page by page."""

from overnight.core.batch import Batch
from overnight.ids import BatchId
from overnight.limits import DAY_MS
from overnight.store.control import Control, Sought
from overnight.testing.controlcases import OURS, T0, THEIRS, ControlCases, case, created, ended


async def _found(control: Control, sought: Sought) -> list[BatchId]:
    page = await control.browse(OURS, sought, limit=100)
    assert page is not None
    return [batch.id for batch in page.batches]


async def _days(control: Control) -> list[Batch]:
    """A batch of ours for each of three days, and one of theirs between."""
    made = [await ended(control, "aaaaaaaaa1")]
    await created(control, "aaaaaaaaa2", workspace=THEIRS, at_ms=T0 + 1)
    made.append(await created(control, "bbbbbbbbb1", at_ms=T0 + DAY_MS))
    made.append(await created(control, "bbbbbbbbb2", at_ms=T0 + 2 * DAY_MS))
    return made


class BrowsingCases(ControlCases):
    """Batches as people look for them."""

    @case
    async def test_what_is_sought_is_found_newest_first_in_the_own_workspace(self, control: Control) -> None:
        old, middle, new = [batch.id for batch in await _days(control)]
        await control.cancel(OURS, new, now_ms=T0)
        cases = [
            (Sought(), [new, middle, old]),
            (Sought(status="ended"), [old]),
            (Sought(status="canceling"), [new]),
            (Sought(id_prefix="msgbatch_01aaaaaaaaa"), [old]),
            (Sought(id_prefix="msgbatch_01bbbbbbbbb"), [new, middle]),
            (Sought(id_prefix="msgbatch_01bbbbbbbbb", status="in_progress"), [middle]),
            (Sought(id_prefix="msgbatch_01_________"), []),
            (Sought(since_ms=T0), [new, middle, old]),
            (Sought(since_ms=T0 + 1), [new, middle]),
            (Sought(since_ms=T0 + 2 * DAY_MS + 1), []),
            (Sought(until_ms=T0), []),
            (Sought(until_ms=T0 + DAY_MS), [old]),
            (Sought(since_ms=T0 + DAY_MS, until_ms=T0 + 2 * DAY_MS, status="in_progress"), [middle]),
        ]
        for sought, expected in cases:
            assert await _found(control, sought) == expected, sought

    @case
    async def test_what_is_sought_has_pages_in_both_directions(self, control: Control) -> None:
        old, middle, new = [batch.id for batch in await _days(control)]
        first = await control.browse(OURS, Sought(), limit=2)
        assert first is not None
        assert ([batch.id for batch in first.batches], first.has_more) == ([new, middle], True)
        rest = await control.browse(OURS, Sought(), limit=2, after=middle)
        assert rest is not None
        assert ([batch.id for batch in rest.batches], rest.has_more) == ([old], False)
        back = await control.browse(OURS, Sought(), limit=1, before=old)
        assert back is not None
        assert ([batch.id for batch in back.batches], back.has_more) == ([middle], True)

    @case
    async def test_a_batch_of_others_or_of_nobody_is_no_cursor_to_browse_by(self, control: Control) -> None:
        await _days(control)
        for cursor in (BatchId("msgbatch_01aaaaaaaaa2"), BatchId("msgbatch_01nobody")):
            assert await control.browse(OURS, Sought(), limit=2, after=cursor) is None
            assert await control.browse(OURS, Sought(), limit=2, before=cursor) is None
        nothing = await control.browse(OURS, Sought(since_ms=T0 + 9 * DAY_MS), limit=2)
        assert nothing is not None
        assert nothing.batches == []
