"""`overnight traces`."""

import sys
from pathlib import Path

import click

from overnight.cli.beside import data_option, json_option, show_json
from overnight.cli.joboptions import printable
from overnight.errors import UsageError
from overnight.ids import BatchId, is_batch_id
from overnight.store import traces as searching
from overnight.store.traces import Trace

_NOTHING, SOMETHING = 0, 1


@click.command(
    epilog="""\b
Examples:
  overnight traces msgbatch_01… --data /var/lib/overnight
  overnight traces msgbatch_01… --text "Jane Doe"        a phrase that was in its requests
  overnight traces msgbatch_01… --data /mnt/backup       what a backup still has
"""
)
@click.argument("batch_id", metavar="BATCH")
@click.option("--text", metavar="PHRASE", default="", help="Search for this too, also inside of what is compressed.")
@data_option
@json_option
def traces(batch_id: str, text: str, root: Path, is_json: bool) -> None:
    """Search a data directory for all that is left of a batch. Changes nothing.

    Searched are the rows of all tables, the names of all files and every byte of them, also inside of gzip. A phrase
    is found in whichever batch it is. Exits with 0 if nothing is left, 1 if something is; a server that runs needs
    up to half a minute after a deletion, and up to an hour if there was one just before.
    """
    if not is_batch_id(batch_id):
        raise UsageError(f"{batch_id[:80]!r} is no id of a batch")
    if not root.is_dir():
        raise UsageError(f"there is no directory {root.absolute()}; say where it is with --data")
    found = list(searching.find(root, searching.needles(BatchId(batch_id), text)))
    if is_json:
        show_json({"batch": batch_id, "traces": found})
    else:
        _print(batch_id, found)
    sys.exit(SOMETHING if found else _NOTHING)


def _print(batch_id: str, found: list[Trace]) -> None:
    for trace in found:
        what = "the id" if trace.what == "id" else "the text"
        click.echo(printable(f"{trace.place}: {what}, {trace.count:,} times"))
    click.echo(f"Found in {len(found):,} places." if found else f"Nothing is left of {batch_id}.")
