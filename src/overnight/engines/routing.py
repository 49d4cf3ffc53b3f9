"""Which engines answer a model: every route whose pattern matches, in the operator's order of preference."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from overnight.core.offpeak import ALWAYS, Hours, Signal
from overnight.core.prices import Rate
from overnight.engines.engine import Engine

_REMEMBERED_MAX = 1_000  # Model names whose answer is kept: a batch names few, a hostile one must not fill memory.


class Route(NamedTuple):
    """An engine, and the models it is asked for: shell patterns such as `claude-*`, case matters."""

    engine: Engine
    patterns: Sequence[str]
    aliases: Mapping[str, str] = {}  # Names that callers use, and what this engine calls them.
    rank: int = 0  # The lowest is preferred; replicas of one engine have the same.
    is_shared: bool = False  # It takes its part of the work; otherwise only what those before it cannot do.
    hours: Hours = ALWAYS  # When it may be used for batches.
    signal: Signal | None = None
    budget_usd_per_day: float | None = None  # Of all its replicas together, for batches.
    is_own: bool = False  # It runs in this process: nobody charges for it.
    usd_per_hour: float | None = None  # What each of its replicas costs.
    prices: Mapping[str, Rate] = {}  # Of models by the engine's names, in the place of what is known of them.


class Router:
    """The routes of this installation."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(sorted(routes, key=lambda route: route.rank))
        self._remembered: dict[str, tuple[Route, ...]] = {}

    def routes_for(self, model: str) -> tuple[Route, ...]:
        """The routes to engines that answer `model`, preferred ones first; empty if nobody does."""
        if model in self._remembered:
            return self._remembered[model]
        found = tuple(route for route in self.routes if _matches(route, model))
        if len(self._remembered) < _REMEMBERED_MAX:
            self._remembered[model] = found
        return found

    def is_spare(self, engine: Engine) -> bool:
        """Whether, of all models that were asked for so far, `engine` has none of its own to answer."""
        ways = [(routes[0].rank, route) for routes in self._remembered.values() for route in routes]
        own = [(first, route) for first, route in ways if route.engine is engine]
        return bool(own) and all(route.rank > first and not route.is_shared for first, route in own)


def _matches(route: Route, model: str) -> bool:
    return model in route.aliases or any(fnmatchcase(model, pattern) for pattern in route.patterns)
