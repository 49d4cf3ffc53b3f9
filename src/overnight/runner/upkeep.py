"""What time brings: requests and results that were kept long enough are given up, objects that nothing names are
removed, and nothing of what was removed stays in the files of the database.

Expiry at 24 hours is not here: the worker that holds a segment closes it, and one that nobody holds is leased for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from overnight import limits
from overnight.core import retention
from overnight.core.workspace import Rules
from overnight.errors import StoreError
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.store.store import Store

_AGAIN_MS = 1_000  # When a reader was in the way: most take less.


class Upkeep:
    """A loop that runs every half minute, and at once when rung."""

    def __init__(
        self, store: Store, world: World, *, lifetimes: Callable[[], Mapping[WorkspaceId, Rules]] = dict
    ) -> None:
        """`lifetimes`: the rules of workspaces as they are now; one that is missing has none of its own."""
        self.trouble = ""
        self._store, self._world, self._lifetimes = store, world, lifetimes
        self._wake = asyncio.Event()
        self._is_clean = False  # What a process before this one removed may still be in the log.
        self._is_packed = True
        self._packed_at_ms = 0
        self._summed_at_ms = 0

    def ring(self) -> None:
        """A batch was deleted: its objects can go."""
        self._removed()
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.once()
                self.trouble = ""
            except StoreError as error:
                self.trouble = str(error)
            with suppress(TimeoutError):
                async with asyncio.timeout((limits.UPKEEP_EVERY_MS if self._is_clean else _AGAIN_MS) / 1000):
                    await self._wake.wait()

    async def once(self) -> None:
        """One pass: everything that is due now."""
        now_ms = self._world.clock.now_ms()
        await self._give_up(now_ms)
        await self._remove_garbage()
        await self._scrub(now_ms)
        if now_ms - self._summed_at_ms >= limits.UPKEEP_HOURLY_MS:
            await self._store.usage.roll_up(now_ms=now_ms)
            self._summed_at_ms = now_ms

    async def _give_up(self, now_ms: int) -> None:
        control, batches_max = self._store.control, limits.UPKEEP_BATCHES_MAX
        kept = {workspace: retention.kept(rules) for workspace, rules in self._lifetimes().items()}
        while await control.archive(now_ms=now_ms, batches_max=batches_max, kept=kept):
            self._removed()
        while await control.drop_requests(now_ms=now_ms, batches_max=batches_max, kept=kept):
            self._removed()

    async def _remove_garbage(self) -> None:
        control = self._store.control
        while keys := await control.garbage(limit=limits.UPKEEP_BATCHES_MAX):
            for key in keys:
                await self._store.objects.remove(key)
            await control.forget_garbage(keys)  # After the removal: a crash in between removes twice.
            self._removed()

    async def _scrub(self, now_ms: int) -> None:
        """Empty the log in the pass that removed something; make new pages once an hour at the most."""
        if self._is_clean and self._is_packed:
            return
        repack = not self._is_packed and now_ms - self._packed_at_ms >= limits.UPKEEP_HOURLY_MS
        if self._is_clean and not repack:
            return
        self._is_clean = True  # Before the first await: what is removed meanwhile makes it False again.
        control = self._store.control
        await control.forget_events()
        if repack:
            self._is_packed, self._packed_at_ms = True, now_ms
            self._is_packed &= await control.repack()
        self._is_clean &= await control.scrub()

    def _removed(self) -> None:
        self._is_clean = self._is_packed = False
