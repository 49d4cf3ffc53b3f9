"""Where blocking calls (fsync, compression of a whole segment, SQL) run: a thread, or inline in simulations."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking call without stopping the event loop."""

    async def run(self, call: Callable[[], T]) -> T:
        """The value of `call()`, or its exception. A started call finishes even if the waiter is cancelled."""
        ...

    def close(self) -> None:
        """Wait for calls that are running; later calls fail."""
        ...


class ThreadOffload:
    """A small pool: the calls release the GIL (fsync, isal), so two of them fill two cores."""

    def __init__(self, *, threads: int = 4, name: str = "overnight-io") -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        self._pool.shutdown(wait=True)


class InlineOffload:
    """Runs the call at once, in the loop: the only choice under virtual time, where threads have no place."""

    async def run(self, call: Callable[[], T]) -> T:
        return call()

    def close(self) -> None:
        pass
