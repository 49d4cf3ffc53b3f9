"""`overnight status`."""

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from overnight.cli import engines
from overnight.cli.jobfind import Found, found, is_batch, job_files, server_of
from overnight.cli.joboptions import DONE, ERROR, ends_with_code, printable
from overnight.errors import UsageError
from overnight.jobs import batches, runs
from overnight.jobs.runs import encode
from overnight.jobs.server import ShownBatch

_RUNS_SHOWN = 10


@click.command(
    epilog="""\b
Examples:
  overnight status                     the latest runs of every job in this directory
  overnight status tickets.toml        … of one job
  overnight status run_2026…           one run, batch by batch
  overnight status msgbatch_01…        one batch, asked of the server, and why it waits
  overnight status --engines           the engines of the server, as `overnight engines`
"""
)
@click.argument("name", metavar="[JOB.toml | RUN | BATCH]", required=False)
@click.option("--json", "is_json", is_flag=True, help="JSON instead of a table.")
@click.option("--engines", "of_engines", is_flag=True, help="What the engines of the server do.")
@ends_with_code
def status(name: str | None, is_json: bool, of_engines: bool) -> int:
    """How far runs and batches are, from the ledger; a batch is asked of the server. Changes nothing."""
    if of_engines:
        return engines.shown(None, is_watched=False, is_json=is_json)
    if name is not None and is_batch(name):
        return _of_batch(name, is_json)
    names = [name] if name else [str(path) for path in job_files(Path())]
    if not names:
        raise UsageError("there is no job with a ledger in this directory; name a job file, a run or a batch")
    for one in names:
        with found(one) as what:
            _show(what, is_json)
    return DONE


def _of_batch(batch_id: str, is_json: bool) -> int:
    with server_of(None) as server:
        shown = server.retrieve(batch_id)
    if not isinstance(shown, ShownBatch):
        click.echo(f"overnight: {batch_id}: {shown.reason}", err=True)
        return ERROR
    if is_json:
        click.echo(encode(shown))
        return DONE
    click.echo(f"Status: {shown.processing_status}")
    if shown.waiting:
        click.echo(f"Waiting: {printable(shown.waiting)}")
    for count in ("processing", "succeeded", "errored", "canceled", "expired"):
        click.echo(f"{count.capitalize()}: {shown.count(count)}")
    return DONE


def _show(what: Found, is_json: bool) -> None:
    with what.ledger.begin() as connection:
        shown = (
            [runs.row_of(connection, what.run_id)]
            if what.run_id
            else runs.latest(connection, what.job.settings.name, limit=_RUNS_SHOWN)
        )
        lines = [
            {
                "run": run.id,
                "job": run.job,
                "status": run.status,
                "created_at": run.created_at,
                "rows": run.rows,
                "counts": runs.counts(connection, run.id),
                "cost_usd": run.cost_usd if run.cost_known else None,
                "batches": [
                    {"id": batch.batch_id, "status": batch.status, **batches.counts(batch)}
                    for batch in batches.of_run(connection, run.id)
                ],
            }
            for run in shown
        ]
    if is_json:
        for line in lines:
            click.echo(encode(line))
    else:
        _print(lines, with_batches=what.run_id is not None)


def _print(lines: list[dict[str, object]], *, with_batches: bool) -> None:
    table = Table("run", "status", "rows", "states", box=None, pad_edge=False)
    for line in lines:
        counts: dict[str, int] = line["counts"]  # type: ignore[assignment]
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        table.add_row(str(line["run"]), str(line["status"]), str(line["rows"]), states)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    if with_batches:
        table = Table("batch", "status", "processing", "succeeded", "errored", box=None, pad_edge=False)
        for batch in lines[0]["batches"]:  # type: ignore[attr-defined]
            table.add_row(batch["id"] or "(not sent)", batch["status"], *(str(batch[name]) for name in _COUNTS))
        console.print(table)


_COUNTS = ("processing", "succeeded", "errored")
