"""What commands that work on a data directory share, whether a server uses it or not."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from overnight.cli.joboptions import printable
from overnight.core.workspace import Access, Workspace
from overnight.errors import UsageError
from overnight.ports.world import World
from overnight.store.layout import DataDirectory
from overnight.store.store import Store, open_beside

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_WIDE = 1_000  # Columns where nobody looks: a line of a table stays a line.


def data_option(command: F) -> F:
    """--data."""
    return click.option(
        "--data",
        "root",
        metavar="DIR",
        type=click.Path(path_type=Path),
        envvar="OVERNIGHT_DATA",
        default="overnight-data",
        show_default=True,
        help="Where batches live; also $OVERNIGHT_DATA.",
    )(command)


def json_option(command: F) -> F:
    """--json."""
    return click.option("--json", "is_json", is_flag=True, help="JSON instead of text.")(command)


def in_store(root: Path, work: Callable[[Store, World], Awaitable[T]], *, makes: bool = False) -> T:
    """What `work` returns, over the store of a data directory. `makes`: a missing directory is made; otherwise it is
    a UsageError, since a command that only looks would be looking in the wrong place."""
    given = click.get_current_context().find_object(World)
    world = given or World()
    if not DataDirectory(root).database.exists():
        if not makes:
            raise UsageError(f"there is no data directory {root.absolute()}; say where it is with --data")
        click.echo(f"Making the data directory {root.absolute()}.", err=True)

    async def hold() -> T:
        async with open_beside(root, world) as store:
            return await work(store, world)

    try:
        return asyncio.run(hold())
    finally:
        if given is None:
            world.offload.close()


async def everybody(store: Store) -> Access:
    """All workspaces and keys."""
    found = await store.access.access()
    assert found is not None, "nothing is known yet"
    return found


def workspace_named(access: Access, text: str) -> Workspace:
    """A workspace by its id or its name; UsageError if there is none."""
    for workspace in access.workspaces:
        if text in (workspace.id, workspace.name):
            return workspace
    raise UsageError(f"there is no workspace {text[:100]!r}; `overnight workspaces list` lists them")


def shown_at(at_ms: int | None) -> str:
    """An instant for people; empty if there is none."""
    return "" if at_ms is None else f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout. What stands in it cannot lead a terminal."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(printable, row))
    width = None if sys.stdout.isatty() else _WIDE
    Console(markup=False, highlight=False, emoji=False, width=width).print(table)


def show_json(value: object) -> None:
    """One line of JSON on stdout."""
    click.echo(msgspec.json.encode(value).decode())
