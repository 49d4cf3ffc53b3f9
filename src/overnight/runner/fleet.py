"""All engines of this process, each with its pool, and the way from a model's name to them."""

import asyncio
from collections.abc import Mapping, Sequence

from overnight.engines.engine import Engine
from overnight.engines.routing import Route, Router
from overnight.ports.world import World
from overnight.runner.pool import Pool


class Fleet:
    """Engines and pools. `start` before use, `close` after."""

    def __init__(self, routes: Sequence[Route], world: World) -> None:
        self.router = Router(routes)
        engines = list(dict.fromkeys(route.engine for route in routes))
        self._pools = {engine: Pool(engine, entropy=world.entropy, marks=world.marks) for engine in engines}

    @property
    def pools(self) -> Sequence[Pool]:
        """Every pool, in the operator's order."""
        return tuple(self._pools.values())

    def pool_for(self, model: str) -> Pool | None:
        """The pool of the engine that answers `model`; None if nobody does."""
        engine = self.router.engine_for(model)
        return None if engine is None else self._pools[engine]

    def trouble(self) -> Mapping[str, str]:
        """What engines that are busy or away last said, by engine name. For health."""
        return {pool.engine.name: pool.last_trouble for pool in self.pools if pool.last_trouble}

    async def start(self) -> None:
        """Make every engine ready. UsageError says which one cannot be and what to do."""
        for engine in self._engines():
            await engine.start()

    async def close(self) -> None:
        """Release every engine."""
        await asyncio.gather(*(engine.close() for engine in self._engines()))

    def _engines(self) -> Sequence[Engine]:
        return tuple(self._pools)
