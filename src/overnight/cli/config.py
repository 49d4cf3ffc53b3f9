"""`overnight config`."""

from pathlib import Path
from typing import Any

import click
import msgspec

from overnight.cli.settings import settings_from, settings_options
from overnight.core import offpeak
from overnight.server.config import EngineSettings

_SECRET = ("api_key", "keys")


@click.command(
    epilog="""\b
Examples:
  overnight config
  overnight config --config overnight.toml --listen 127.0.0.1:9000
"""
)
@settings_options
def config(file: Path | None, **flags: Any) -> None:
    """Print the effective settings and where each one came from; keys are not shown."""
    loaded = settings_from(file, flags)
    for name in loaded.settings.__struct_fields__:
        value = getattr(loaded.settings, name)
        shown = "(set)" if name in _SECRET and value else _plain(value)
        click.echo(f"{name} = {shown}  # {loaded.origins[name]}")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        value = [_shown(item) if isinstance(item, EngineSettings) else item for item in value]
    return msgspec.json.encode(value).decode()


def _shown(engine: EngineSettings) -> dict[str, Any]:
    """What was set of an engine, without its key, and of the address of its signal the part that holds none."""
    found = {name: value for name, value in msgspec.to_builtins(engine).items() if value}
    if engine.api_key:
        found["api_key"] = "(set)"
    if engine.signal is not None:
        found["signal"] = {**found["signal"], "url": offpeak.place(engine.signal)}
    return found
