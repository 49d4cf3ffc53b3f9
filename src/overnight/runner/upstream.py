"""The batch endpoint of an engine, asked until it answers: while it is busy or away, everything waits."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, TypeVar

from overnight.core import gate as gates
from overnight.core import handoff as handoffs
from overnight.core.handoff import Handoff, Shown
from overnight.core.retry import Broken, Busy, Refused
from overnight.engines.claudewire import Batches, Look, Page, Stopped
from overnight.ports.world import World

T = TypeVar("T")


class Newest(NamedTuple):
    """The batches of the upstream that are not older than a handoff, and perhaps some that are."""

    shown: list[Shown]
    ahead_ms: int  # By how much its clock is ahead of ours.
    has_keys: bool  # It honours Idempotency-Key.


class Upstream:
    """One account, with one pause for everything that is asked of it."""

    def __init__(self, batches: Batches, world: World) -> None:
        self.batches = batches
        self.last_trouble = ""  # What it said when it was last busy or away; empty after a success.
        self._world = world
        self._gate = gates.OPEN

    async def retrieve(self, batch_id: str) -> Look | Refused:
        """A batch as it is now. Refused if there is none."""
        return await self._asked(lambda: self.batches.retrieve(batch_id))

    async def cancel(self, batch_id: str) -> Look | Refused:
        """Ask to cancel a batch. Refused if there is none."""
        return await self._asked(lambda: self.batches.cancel(batch_id))

    async def newest(self, handoff: Handoff) -> Newest:
        """All batches among which `handoff` may be."""
        shown, page = list[Shown](), await self._page(None)
        while True:
            shown += page.shown
            ahead_ms = 0 if page.clock_ms is None else page.clock_ms - self._world.clock.now_ms()
            if page.after_id is None or handoffs.is_older(shown[-1], handoff, ahead_ms=ahead_ms):
                return Newest(shown, ahead_ms, page.has_keys)
            page = await self._page(page.after_id)

    async def is_batch_of(self, handoff: Handoff, batch_id: str) -> bool | None:
        """Whether the results of an ended batch are those of `handoff`; None if they cannot be read now."""
        try:
            async with aclosing(self.batches.results(batch_id)) as rows:
                async for row in rows:
                    named = handoffs.read_name(row.custom_id)
                    return named is not None and named.handoff_id == handoff.id
        except Stopped as stopped:
            await self.stand_back(stopped.outcome)
            return None
        return False

    def pause_s(self) -> float:
        """How long it is to be left alone, from now."""
        return max(0.0, self._gate.closed_until_ms / 1000 - asyncio.get_running_loop().time())

    def note(self, outcome: Busy | Broken | Refused) -> None:
        """It did not do what was asked: leave it alone for a while, longer each time."""
        self.last_trouble = outcome.message if isinstance(outcome, Refused) else outcome.reason
        self._gate = gates.after_busy(
            self._gate,
            now_ms=asyncio.get_running_loop().time() * 1000,
            asked_ms=outcome.retry_after_ms if isinstance(outcome, Busy) else None,
            jitter=self._world.entropy.uniform(),
        )

    async def stand_back(self, outcome: Busy | Broken | Refused) -> None:
        """`note`, and return when that while is over."""
        self.note(outcome)
        await asyncio.sleep(self.pause_s())

    def be_well(self) -> None:
        """It did what was asked."""
        self._gate, self.last_trouble = gates.OPEN, ""

    async def _page(self, after_id: str | None) -> Page:
        while isinstance(page := await self._asked(lambda: self.batches.page(after_id)), Refused):
            await self.stand_back(page)
        return page

    async def _asked(self, ask: Callable[[], Awaitable[T | Refused | Busy | Broken]]) -> T | Refused:
        while True:
            await asyncio.sleep(self.pause_s())
            outcome = await ask()
            if not isinstance(outcome, Busy | Broken):
                self.be_well()
                return outcome
            self.note(outcome)
