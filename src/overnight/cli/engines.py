"""`overnight engines`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from overnight.cli.joboptions import DONE, ERROR, INTERRUPTED, ends_with_code, printable
from overnight.jobs.endpoint import Address, address
from overnight.jobs.jobfile import Endpoint
from overnight.jobs.server import Server
from overnight.ports.world import World
from overnight.runner.status import EngineStatus, Status

_HERE = "http://127.0.0.1:8642"
_WATCH_S = 1.0


@click.command(
    epilog="""\b
Examples:
  overnight engines                                       of the server on this machine
  overnight engines --watch                               … every second, until Ctrl-C
  overnight engines --server https://batches.example.com  of another; its key is ANTHROPIC_API_KEY
  overnight engines --json | jq '.engines[].held_by'
"""
)
@click.option("--server", metavar="URL", help=f"Default: ANTHROPIC_BASE_URL, else {_HERE}.")
@click.option("--watch", "is_watched", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.option("--json", "is_json", is_flag=True, help="JSON instead of a table; with --watch one object a line.")
@ends_with_code
def engines(server: str | None, is_watched: bool, is_json: bool) -> int:
    """What each engine of a server does now, and what holds it back. Changes nothing."""
    return shown(server, is_watched=is_watched, is_json=is_json)


def shown(server: str | None, *, is_watched: bool, is_json: bool) -> int:
    """Print the engines of a server; the exit code."""
    pause = (click.get_current_context().find_object(World) or World()).pause
    try:
        with Server(_address(server)) as asked, _printer(is_json, is_watched) as show:
            while True:
                code = _look(asked, show)
                if not is_watched:
                    return code
                pause.wait_s(_WATCH_S)
    except KeyboardInterrupt:
        return INTERRUPTED


def _address(server: str | None) -> Address:
    environment = {"ANTHROPIC_BASE_URL": _HERE, **os.environ}
    return address(Endpoint(base_url=server or ""), environment=environment)


def _look(server: Server, show: Callable[[bytes], None]) -> int:
    found = server.engines()
    if not isinstance(found, bytes):
        click.echo(f"overnight: {server.address.base_url}: {printable(found.reason)}", err=True)
        return ERROR
    try:
        show(found)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        click.echo(f"overnight: {server.address.base_url} is no server of this version: {error}", err=True)
        return ERROR
    return DONE


@contextmanager
def _printer(is_json: bool, is_watched: bool) -> Iterator[Callable[[bytes], None]]:
    """What shows an answer: as JSON, as a table on a terminal, else as lines."""
    if is_json:
        yield lambda found: click.echo(msgspec.json.encode(msgspec.json.decode(found)).decode())
    elif not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda found: click.echo("\n".join(lines(_decoded(found))))
    elif is_watched:
        with Live(console=_console(), auto_refresh=False) as live:
            yield lambda found: live.update(table(_decoded(found)), refresh=True)
    else:
        yield lambda found: _console().print(table(_decoded(found)))


def _console() -> Console:
    return Console(markup=False, highlight=False)


def _decoded(found: bytes) -> Status:
    return msgspec.json.decode(found, type=Status)


def table(status: Status) -> Table:
    """A row for each engine."""
    found = Table("engine", "window", "in flight", "people", "waiting", "per s", "why", box=None, pad_edge=False)
    for engine in status.engines:
        found.add_row(
            printable(engine.name),
            f"{engine.window:,} of {engine.window_max:,}",
            f"{engine.in_flight:,}",
            f"{engine.interactive:,}",
            "" if engine.waiting is None else f"{engine.waiting:,}",
            "" if engine.speed_per_s is None else f"{engine.speed_per_s:.1f}",
            printable(engine.held),
        )
    found.caption = _backlog(status)
    found.caption_justify = "left"
    return found


def lines(status: Status) -> list[str]:
    """A line for each engine, and one for what waits."""
    return [*map(_line, status.engines), _backlog(status)]


def _line(engine: EngineStatus) -> str:
    parts = [f"{engine.in_flight:,} in flight", f"window {engine.window:,} of {engine.window_max:,}"]
    if engine.interactive:
        parts.append(f"{engine.interactive:,} of people")
    if engine.waiting is not None:
        parts.append(f"{engine.waiting:,} waiting inside")
    if engine.speed_per_s is not None:
        parts.append(f"{engine.speed_per_s:.1f} per s")
    return printable(f"{engine.name}: {', '.join(parts)}; {engine.held}")


def _backlog(status: Status) -> str:
    backlog = status.backlog
    by_model = ", ".join(f"{model} {count:,}" for model, count in sorted(backlog.waiting.items()))
    said = f"{sum(backlog.waiting.values()):,} requests wait here{f' ({by_model})' if by_model else ''}"
    if backlog.unfinished is not None:
        said += f", {backlog.unfinished:,} are unfinished in all"
    if backlog.danger_until is not None:
        said += f"; deadlines up to {backlog.danger_until} are in danger"
    return printable(said)
