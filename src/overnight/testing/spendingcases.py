"""Claims about spending in a control store: a sum for each engine and day, the last one that was noted."""

from overnight.store.control import Control
from overnight.testing.controlcases import ControlCases, case

_LARGE = 10**15  # A billion dollars a day.


class SpendingCases(ControlCases):
    """What engines with a budget have cost."""

    @case
    async def test_nothing_is_spent_before_anything_is_noted(self, control: Control) -> None:
        assert await control.spent("messages here", "2026-11-25") == 0

    @case
    async def test_the_last_sum_that_was_noted_counts(self, control: Control) -> None:
        for usd_micro in (7, _LARGE, 12):
            await control.note_spent("messages here", "2026-11-25", usd_micro)
            assert await control.spent("messages here", "2026-11-25") == usd_micro

    @case
    async def test_every_engine_and_every_day_has_its_own_sum(self, control: Control) -> None:
        noted = {("messages here", "2026-11-25"): 1, ("messages here", "2026-11-26"): 2, ("other", "2026-11-25"): 3}
        for (engine, day), usd_micro in noted.items():
            await control.note_spent(engine, day, usd_micro)
        assert {key: await control.spent(*key) for key in noted} == noted
        assert await control.spent("other", "2026-11-26") == 0
