"""The flags that `serve` and `config` share, and the settings they lead to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from overnight.server.config import Loaded, load

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Add the flags of a server to a command."""
    options = (
        click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file with settings."),
        click.option("--listen", metavar="HOST:PORT", help="Where to listen; port 0 picks a free one."),
        click.option("--data", metavar="DIR", help="Where batches live. Made if missing."),
        click.option(
            "--engine",
            "engines",
            metavar="SPEC",
            multiple=True,
            help="embedded | PATH.gguf | hf:OWNER/REPO/FILE.gguf | http(s)://HOST:PORT | claude. May be repeated.",
        ),
        click.option("--public-url", metavar="URL", help="What clients reach this server by; begins results_url."),
        click.option(
            "--request-counts",
            type=click.Choice(["live", "at_end"]),
            help="Counts while a batch runs: as they are, or zeros until the end as the hosted API has it.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def settings_from(file: Path | None, flags: dict[str, Any]) -> Loaded:
    """The effective settings of a command that was called with these flags."""
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if "engines" in given:
        given["engines"] = [{"spec": spec} for spec in given["engines"]]
    return load(file, os.environ, given)
