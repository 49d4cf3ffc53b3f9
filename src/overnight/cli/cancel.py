"""`overnight cancel`."""

import click

from overnight.cli.jobfind import found, is_batch, server_of
from overnight.cli.joboptions import DONE, ERROR, ends_with_code
from overnight.jobs import batches
from overnight.jobs.server import Server, ShownBatch


@click.command(
    epilog="""\b
Examples:
  overnight cancel run_2026…         all batches of a run
  overnight cancel msgbatch_01…      one batch
"""
)
@click.argument("name", metavar="RUN | BATCH")
@ends_with_code
def cancel(name: str) -> int:
    """Cancel the batches of a run, or one batch. What is answered by then is kept, and paid; `collect` takes it.

    Single requests cannot be cancelled.
    """
    if is_batch(name):
        with server_of(None) as server:
            return _cancel(server, name)
    with found(name) as what:
        with what.ledger.begin() as connection:
            waiting = batches.of_run(connection, what.run_id or "", "submitted")
        with server_of(what.job) as server:
            codes = [_cancel(server, batch.batch_id) for batch in waiting]
    if not codes:
        click.echo("there is no batch to cancel")
    return max(codes, default=DONE)


def _cancel(server: Server, batch_id: str) -> int:
    shown = server.cancel(batch_id)
    if isinstance(shown, ShownBatch):
        click.echo(f"{batch_id}: {shown.processing_status}")
        return DONE
    click.echo(f"overnight: {batch_id}: {shown.reason}", err=True)
    return ERROR
