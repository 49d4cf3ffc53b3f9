"""Which engine answers a model: the first route whose pattern matches, in the operator's order."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from overnight.engines.engine import Engine

_REMEMBERED_MAX = 1_000  # Model names whose answer is kept: a batch names few, a hostile one must not fill memory.


class Route(NamedTuple):
    """An engine and the models it is asked for: shell patterns such as `claude-*`, case matters."""

    engine: Engine
    patterns: Sequence[str]


class Router:
    """The routes of this installation."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self._remembered: dict[str, Engine | None] = {}

    def engine_for(self, model: str) -> Engine | None:
        """The engine that answers `model`; None if nobody does."""
        if model in self._remembered:
            return self._remembered[model]
        found = next((route.engine for route in self.routes if _matches(route, model)), None)
        if len(self._remembered) < _REMEMBERED_MAX:
            self._remembered[model] = found
        return found


def _matches(route: Route, model: str) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in route.patterns)
