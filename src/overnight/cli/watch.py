"""`overnight watch`."""

import click

from overnight.cli.jobfind import found, is_batch, server_of
from overnight.cli.joboptions import DONE, ERROR, INTERRUPTED, ends_with_code
from overnight.jobs import batches, runs
from overnight.jobs.look import next_wait_s
from overnight.jobs.server import Refused, Server, ShownBatch
from overnight.ports.clock import SystemPause


@click.command(
    epilog="""\b
Examples:
  overnight watch tickets.toml         the batches of its unfinished runs
  overnight watch msgbatch_01…         one batch, whoever made it
"""
)
@click.argument("name", metavar="JOB.toml | RUN | BATCH")
@click.option("--poll", type=float, default=0.0, help="Seconds between looks; default: 1, growing to 300.")
@ends_with_code
def watch(name: str, poll: float) -> int:
    """Show how far batches are until they have ended. Changes nothing, and stops at Ctrl-C."""
    try:
        if is_batch(name):
            with server_of(None) as server:
                return _watch(server, [name], poll)
        with found(name) as what, server_of(what.job) as server:
            with what.ledger.begin() as connection:
                named = [what.run_id] if what.run_id else runs.open_runs(connection, what.job.settings.name)
                waiting = [b.batch_id for one in named for b in batches.of_run(connection, one, "submitted")]
            return _watch(server, waiting, poll)
    except KeyboardInterrupt:
        return INTERRUPTED


def _watch(server: Server, batch_ids: list[str], poll: float) -> int:
    pause, seconds, left = SystemPause(), 0.0, list(batch_ids)
    while left:
        for batch_id in list(left):
            shown = server.retrieve(batch_id)
            if isinstance(shown, ShownBatch):
                click.echo(_line(shown))
                if shown.processing_status == "ended":
                    left.remove(batch_id)
            elif isinstance(shown, Refused):
                click.echo(f"overnight: {batch_id}: {shown.message}", err=True)
                return ERROR
            else:
                click.echo(f"{batch_id}: {shown.reason}; looking again later")
        if left:
            seconds = next_wait_s(seconds, fixed=poll, uniform=0.0)
            pause.wait_s(seconds)
    return DONE


def _line(shown: ShownBatch) -> str:
    counts = " | ".join(f"{name.capitalize()}: {count}" for name, count in shown.request_counts.items() if count)
    return f"{shown.id}: {shown.processing_status} | {counts}"
