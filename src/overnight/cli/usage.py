"""`overnight usage`."""

import asyncio
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast, get_args

import click
import msgspec
from rich.console import Console
from rich.table import Table

from overnight.cli.joboptions import DONE, ERROR, ends_with_code, printable
from overnight.errors import InvalidRequest, UsageError
from overnight.ids import BatchId, is_batch_id
from overnight.jobs.endpoint import address
from overnight.jobs.jobfile import Endpoint
from overnight.jobs.server import Server
from overnight.ports.world import World
from overnight.server import usages
from overnight.server.usages import BatchUsage, By, EngineRate, UsageRow, UsageTable
from overnight.store.layout import DataDirectory
from overnight.store.store import Store, open_beside

T = TypeVar("T", UsageTable, BatchUsage)
_HERE = "http://127.0.0.1:8642"
_COUNTS = (
    *("requests", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"),
    *("output_tokens", "web_searches", "unpriced"),
)
_MONEY = ("usd", "realtime_usd", "saved_usd")


@click.command(
    epilog="""\b
Examples:
  overnight usage                                     the last seven days, of the server on this machine
  overnight usage --since 2026-11-01 --until 2026-11-30 --by workspace --format csv
  overnight usage --by engine                         what tokens have cost on own hardware
  overnight usage --data overnight-data --by key      without a server, or beside one
  overnight usage msgbatch_01…                        one batch
"""
)
@click.argument("batch", metavar="[BATCH]", default="")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Read a data directory, not a server.")
@click.option("--url", metavar="URL", help=f"Ask this server. Default: ANTHROPIC_BASE_URL, else {_HERE}.")
@click.option("--since", metavar="7d|DAY", default="7d", show_default=True, help="So many days, or from this day on.")
@click.option("--until", metavar="DAY", help="The last day. Default: today. Days are days of UTC.")
@click.option("--by", type=click.Choice(get_args(By)), default="day", show_default=True, help="One line for each.")
@click.option("--format", "form", type=click.Choice(("table", "csv", "json")), default="table", show_default=True)
@ends_with_code
def usage(batch: str, data: Path | None, url: str | None, form: str, **days: str | None) -> int:
    """What was used: requests, tokens, what they cost, and what real time would have cost.

    Over HTTP with OVERNIGHT_API_KEY, or ANTHROPIC_API_KEY; an admin's key sees all workspaces. Changes nothing.
    """
    if data is not None and url is not None:
        raise UsageError("--data and --url: one of them")
    if batch and not is_batch_id(batch):
        raise UsageError(f"{batch[:80]!r} is no batch; their names begin with msgbatch_")
    query = {name: value for name, value in days.items() if value is not None}
    found: UsageTable | BatchUsage | None
    if data is not None:
        found = _read(data, batch, query)
    elif batch:
        found = _asked(url, BatchUsage, batch, {})
    else:
        found = _asked(url, UsageTable, "", query)
    if found is None:
        return ERROR
    _show(found, form)
    return DONE


def _read(data: Path, batch: str, query: dict[str, str]) -> UsageTable | BatchUsage:
    """What a data directory says. UsageError if it is none, or the days are wrong."""
    if not DataDirectory(data).database.is_file():
        raise UsageError(f"--data: {data} is no data directory of a server")
    world = click.get_current_context().find_object(World) or World()

    async def read() -> UsageTable | BatchUsage:
        async with open_beside(data, world) as store:
            return await (usages.batch_usage(store, BatchId(batch)) if batch else _table(store, world, **query))

    try:
        return asyncio.run(read())
    except InvalidRequest as error:
        raise UsageError(f"--{error}") from error
    finally:
        world.offload.close()


async def _table(store: Store, world: World, *, since: str, by: str, until: str | None = None) -> UsageTable:
    days = usages.read_days(since, until, now_ms=world.clock.now_ms())
    seen = None
    if by == "batch":
        access = await store.access.access()
        seen = [workspace.id for workspace in access.workspaces] if access is not None else []
    return await usages.made(store, days, cast(By, by), workspaces=seen)


def _asked(url: str | None, kind: type[T], batch: str, query: dict[str, str]) -> T | None:
    """What a server says; None after its trouble was told on stderr."""
    environment = {"ANTHROPIC_BASE_URL": _HERE, **os.environ}
    if key := os.environ.get("OVERNIGHT_API_KEY"):
        environment["ANTHROPIC_API_KEY"] = key
    with Server(address(Endpoint(base_url=url or ""), environment=environment)) as server:
        found = server.usage_of(batch) if batch else server.usage(query)
        where = server.address.base_url
    if not isinstance(found, bytes):
        click.echo(f"overnight: {where}: {printable(found.reason)}", err=True)
        return None
    try:
        return msgspec.json.decode(found, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        click.echo(f"overnight: {where} is no server of this version: {error}", err=True)
        return None


def _show(found: UsageTable | BatchUsage, form: str) -> None:
    if form == "json":
        click.echo(msgspec.json.encode(found).decode())
    elif form == "csv":
        _csv(found.rows)
    else:
        _print(found)


def _csv(rows: Sequence[UsageRow]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("name", *_COUNTS, *_MONEY))
    for row in rows:
        writer.writerow((_cell(row.name), *(getattr(row, name) for name in (*_COUNTS, *_MONEY))))


def _cell(name: str) -> str:
    """A name that no spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _print(found: UsageTable | BatchUsage) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    shown = Table(box=None, pad_edge=False)
    shown.add_column("batch" if isinstance(found, BatchUsage) else found.by, no_wrap=True)
    for title in ("requests", "input", "cached", "output", "cost", "real time", "saved", "unpriced"):
        shown.add_column(title, justify="right", no_wrap=True)
    for row in (*found.rows, found.total):
        cached = row.cache_read_tokens + row.cache_write_5m_tokens + row.cache_write_1h_tokens
        counts = (row.requests, row.input_tokens, cached, row.output_tokens)
        money = (_usd(amount) for amount in (row.usd, row.realtime_usd, row.saved_usd))
        shown.add_row(
            printable(row.name),
            *(f"{count:,}" for count in counts),
            *money,
            f"{row.unpriced:,}" if row.unpriced else "",
        )
    console.print(shown)
    if isinstance(found, UsageTable):
        for rate in found.rates:
            console.print(_rate(rate))
        if found.is_cut:
            console.print("There are more batches; ask for fewer days.")


def _rate(rate: EngineRate) -> str:
    return printable(f"{rate.model} at {rate.engine}: {_usd(rate.usd_per_mtok)} USD for a million tokens")


def _usd(amount: str) -> str:
    """To the cent; below it as exact as it is."""
    return f"{float(amount):,.2f}" if abs(float(amount)) >= 1 else amount
