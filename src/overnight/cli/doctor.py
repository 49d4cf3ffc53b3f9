"""`overnight doctor`."""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click

from overnight.cli import doctordata, doctornet
from overnight.cli.beside import json_option, show_json
from overnight.cli.checkup import Finding, Findings, fail, ok
from overnight.cli.joboptions import printable
from overnight.cli.settings import settings_from, settings_options
from overnight.errors import UsageError
from overnight.ports.clock import Clock
from overnight.ports.world import World
from overnight.server.config import Loaded, Settings

_WELL, _ILL = 0, 1


@click.command(
    epilog="""\b
Examples:
  overnight doctor --config /etc/overnight/overnight.toml
  overnight doctor --data /var/lib/overnight --all          every object, not a sample
  overnight doctor --url https://batches.example.com        that a server is there, and takes ANTHROPIC_API_KEY
"""
)
@settings_options
@click.option("--url", metavar="URL", help="A server that should be there. Default: the one that --listen names.")
@click.option("--all", "is_full", is_flag=True, help="Look for every object that the database names.")
@json_option
def doctor(file: Path | None, url: str | None, is_full: bool, is_json: bool, **flags: Any) -> None:
    """Find out what is wrong with an installation. Changes nothing, and asks nothing of engines that costs.

    Give it the settings of the server, and run it as the user of the server. Exits with 0 if all is well, or
    could only be better, 1 if something fails.
    """
    clock = (click.get_current_context().find_object(World) or World()).clock
    found = list[Finding]()
    for finding in examined(file, flags, url=url, is_full=is_full, clock=clock):
        found.append(finding)
        if not is_json:
            _print(finding)
    verdicts = Counter(finding.verdict for finding in found)
    if is_json:
        show_json({"findings": found})
    else:
        click.echo(f"{verdicts['ok']} ok, {verdicts['warn']} warn, {verdicts['fail']} fail")
    sys.exit(_ILL if verdicts["fail"] else _WELL)


def _print(finding: Finding) -> None:
    click.echo(printable(f"{finding.verdict:<5}{finding.check}: {finding.said}"))
    if finding.todo:
        click.echo(printable(f"     -> {finding.todo}"))


def examined(file: Path | None, flags: dict[str, Any], *, url: str | None, is_full: bool, clock: Clock) -> Findings:
    """All checks, one after the other."""
    try:
        loaded = settings_from(file, flags)
    except UsageError as error:
        yield fail("settings", str(error), "correct it; `overnight config` shows where each setting comes from")
        return
    yield _settings(loaded)
    settings = loaded.settings
    root = Path(settings.data)
    yield from chain(
        doctordata.of_directory(root),
        doctordata.of_disk(root),
        doctordata.of_database(root, is_full=is_full),
        doctordata.of_machine(),
        doctornet.of_time_zones(settings),
        doctornet.hours_of(settings, clock),
        _network(settings, url, clock),
    )


def _settings(loaded: Loaded) -> Finding:
    origins = sorted({origin for origin in loaded.origins.values() if origin != "default"})
    return ok("settings", f"from {', '.join(origins)}" if origins else "all by default")


def _network(settings: Settings, url: str | None, clock: Clock) -> Iterator[Finding]:
    key = os.environ.get("ANTHROPIC_API_KEY", "")
    here = f"http://{settings.listen}" if settings.port else ""
    if url or here:
        yield from doctornet.of_server(
            (url or here).rstrip("/"), settings, key=key, is_given=url is not None, clock=clock
        )
    yield from doctornet.of_public_url(settings)
    yield from doctornet.of_engines(settings)
