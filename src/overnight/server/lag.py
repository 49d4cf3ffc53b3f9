"""How late the event loop is: everything in this process waits for it, so a lag here is felt everywhere."""

import asyncio
from collections import deque
from typing import Final

EVERY_S: Final = 0.5
_KEPT: Final = 120  # Looks, a minute together: longer than most scrapes are apart, so that none is missed.


class Lag:
    """Looks twice a second while it runs."""

    def __init__(self) -> None:
        self._seen_s = deque[float](maxlen=_KEPT)

    @property
    def most_s(self) -> float:
        """By how much a timer was late at worst in the last minute."""
        return max(self._seen_s, default=0.0)

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self._seen_s.append(max(0.0, loop.time() - due_s))
