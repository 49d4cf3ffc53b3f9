"""What time brings: results are archived after 29 days, and objects that nothing names are removed.

Expiry at 24 hours is not here: the worker that holds a segment closes it, and one that nobody holds is leased for it.
"""

import asyncio
from contextlib import suppress

from overnight import limits
from overnight.errors import StoreError
from overnight.ports.world import World
from overnight.store.store import Store


class Upkeep:
    """A loop that runs every half minute, and at once when rung."""

    def __init__(self, store: Store, world: World) -> None:
        self.trouble = ""
        self._store, self._world = store, world
        self._wake = asyncio.Event()

    def ring(self) -> None:
        """A batch was deleted: its objects can go."""
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
                async with asyncio.timeout(limits.UPKEEP_EVERY_MS / 1000):
                    await self._wake.wait()

    async def once(self) -> None:
        """One pass: everything that is due now."""
        control, now_ms = self._store.control, self._world.clock.now_ms()
        while await control.archive(now_ms=now_ms, batches_max=limits.UPKEEP_BATCHES_MAX):
            pass
        while keys := await control.garbage(limit=limits.UPKEEP_BATCHES_MAX):
            for key in keys:
                await self._store.objects.remove(key)
            await control.forget_garbage(keys)  # After the removal: a crash in between removes twice.
