"""`overnight config`."""

from pathlib import Path
from typing import Any

import click
import msgspec

from overnight.cli.settings import settings_from, settings_options

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
    found = msgspec.to_builtins(value)
    if isinstance(found, list):
        found = [_without_key(item) for item in found]
    return msgspec.json.encode(found).decode()


def _without_key(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return {
        key: "(set)" if key == "api_key" and value else value
        for key, value in item.items()
        if value not in ("", None)
    }
