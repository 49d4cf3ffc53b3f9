"""Engines from settings: what an operator writes becomes routes."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from overnight.core import offpeak, prices
from overnight.core.prices import Listed, Rate
from overnight.engines import hub
from overnight.engines.claudebatch import ClaudeBatch
from overnight.engines.engine import Engine
from overnight.engines.messages import Messages
from overnight.engines.openai import Chat
from overnight.engines.routing import Route
from overnight.errors import UsageError
from overnight.ports.world import World
from overnight.server import config
from overnight.server.config import EngineSettings, PriceSettings, Settings

_CLAUDE_URL = "https://api.anthropic.com"
_KINDS = (
    "embedded | PATH.gguf | hf:OWNER/REPO/FILE.gguf | http(s)://HOST:PORT | chat+http(s)://HOST:PORT | claude | "
    "claude-batch | claude-batch+http(s)://HOST:PORT"
)


def routes(
    engines: Sequence[EngineSettings], *, world: World, environment: Mapping[str, str] = os.environ
) -> list[Route]:
    """The routes in the operator's order, replicas beside each other. UsageError if a spec is not one of ours, or
    lacks its key."""
    found: list[Route] = []
    for rank, settings in enumerate(engines):
        for spec in (settings.spec, *settings.replicas):
            engine, patterns = _engine(replace(settings, spec=spec), world, environment)
            found.append(
                Route(
                    engine,
                    settings.models or patterns,
                    aliases=settings.aliases,
                    rank=rank,
                    is_shared=settings.shared,
                    hours=offpeak.parse(settings.hours, settings.time_zone),
                    signal=settings.signal,
                    budget_usd_per_day=settings.budget_usd_per_day,
                    is_own=spec == "embedded" or spec.startswith("hf:") or spec.endswith(".gguf"),
                    prices={model: _rate(price) for model, price in settings.prices.items()},
                    usd_per_hour=settings.usd_per_hour,
                )
            )
    return found


def price_list(settings: Settings) -> list[Listed]:
    """The operator's prices: those of the settings, then those of the file. UsageError if that is no list."""
    read = config.read_prices(settings.prices_file) if settings.prices_file else {}
    return [
        Listed(pattern, "" if price.since is None else price.since.isoformat(), _rate(price))
        for found in (settings.prices, read)
        for pattern, told in found.items()
        for price in (told if isinstance(told, list) else [told])
    ]


def _rate(price: PriceSettings) -> Rate:
    return prices.told(
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write=price.cache_write,
        cache_write_1h=price.cache_write_1h,
        web_searches=price.web_searches,
        batch=price.batch,
    )


def _engine(settings: EngineSettings, world: World, environment: Mapping[str, str]) -> tuple[Engine, Sequence[str]]:
    """The engine, and the models it serves if the operator names none."""
    spec = settings.spec
    if spec == "embedded":
        return _embedded(None, "overnight-tiny", settings, world)
    if spec.startswith("hf:"):
        path = hub.resolve(spec)
        return _embedded(path, path.stem, settings, world)
    if spec.endswith(".gguf"):
        return _embedded(Path(spec), Path(spec).stem, settings, world)
    kind, url = _http(spec)
    variable = settings.api_key_env or ("ANTHROPIC_API_KEY" if url == _CLAUDE_URL else "")
    key = settings.api_key or environment.get(variable, "")
    if variable and not key:
        raise UsageError(f"engine {spec}: the environment variable {variable} is not set")
    given = _given(in_flight_max=settings.in_flight_max)
    return kind(url, api_key=key or None, clock=world.clock, **given), ["*"]


def _http(spec: str) -> tuple[Callable[..., Engine], str]:
    kinds: dict[str, Callable[..., Engine]] = {"": Messages, "chat+": Chat, "claude-batch+": ClaudeBatch}
    if spec in ("claude", "claude-batch"):
        return (Messages if spec == "claude" else ClaudeBatch), _CLAUDE_URL
    for prefix, kind in kinds.items():
        if spec.startswith((f"{prefix}http://", f"{prefix}https://")):
            return kind, spec.removeprefix(prefix)
    raise UsageError(f"there is no engine {spec!r}; an engine is one of {_KINDS}")


def _embedded(path: Path | None, model: str, settings: EngineSettings, world: World) -> tuple[Engine, Sequence[str]]:
    from overnight.engines.embedded import Embedded, tiny_weights  # noqa: PLC0415  Native code: only if asked for.

    given = _given(
        in_flight_max=settings.in_flight_max, context_tokens=settings.context_tokens, threads=settings.threads
    )
    engine = Embedded(path or tiny_weights(), entropy=world.entropy, model_id=model, **given)
    return engine, [model, "claude-*"]


def _given(**optional: int | None) -> dict[str, Any]:
    return {name: value for name, value in optional.items() if value is not None}
