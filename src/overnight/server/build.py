"""Engines from settings: what an operator writes becomes routes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overnight.engines import hub
from overnight.engines.engine import Engine
from overnight.engines.messages import Messages
from overnight.engines.routing import Route
from overnight.errors import UsageError
from overnight.ports.world import World
from overnight.server.config import EngineSettings

_CLAUDE_URL = "https://api.anthropic.com"
_KINDS = "embedded | PATH.gguf | hf:OWNER/REPO/FILE.gguf | http(s)://HOST:PORT | claude"


def routes(
    engines: Sequence[EngineSettings], *, world: World, environment: Mapping[str, str] = os.environ
) -> list[Route]:
    """The routes in the operator's order. UsageError if a spec is not one of ours or lacks its key."""
    return [_route(settings, world, environment) for settings in engines]


def _route(settings: EngineSettings, world: World, environment: Mapping[str, str]) -> Route:
    spec = settings.spec
    if spec == "embedded":
        return _embedded(None, "overnight-tiny", settings, world)
    if spec.startswith("hf:"):
        path = hub.resolve(spec)
        return _embedded(path, path.stem, settings, world)
    if spec.endswith(".gguf"):
        return _embedded(Path(spec), Path(spec).stem, settings, world)
    if spec == "claude" or spec.startswith(("http://", "https://")):
        return _messages(settings, world, environment)
    raise UsageError(f"there is no engine {spec!r}; an engine is one of {_KINDS}")


def _embedded(path: Path | None, model: str, settings: EngineSettings, world: World) -> Route:
    from overnight.engines.embedded import Embedded, tiny_weights  # noqa: PLC0415  Native code: only if asked for.

    given = _given(
        in_flight_max=settings.in_flight_max, context_tokens=settings.context_tokens, threads=settings.threads
    )
    engine: Engine = Embedded(path or tiny_weights(), entropy=world.entropy, model_id=model, **given)
    return Route(engine, settings.models or [model, "claude-*"])


def _messages(settings: EngineSettings, world: World, environment: Mapping[str, str]) -> Route:
    is_claude = settings.spec == "claude"
    variable = settings.api_key_env or ("ANTHROPIC_API_KEY" if is_claude else "")
    key = settings.api_key or environment.get(variable, "")
    if variable and not key:
        raise UsageError(f"engine {settings.spec}: the environment variable {variable} is not set")
    engine: Engine = Messages(
        _CLAUDE_URL if is_claude else settings.spec,
        api_key=key or None,
        clock=world.clock,
        **_given(in_flight_max=settings.in_flight_max),
    )
    return Route(engine, settings.models or ["*"])


def _given(**optional: int | None) -> dict[str, Any]:
    return {name: value for name, value in optional.items() if value is not None}
