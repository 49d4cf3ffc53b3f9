"""`overnight restore`."""

from pathlib import Path

import click

from overnight.cli.backup import progress
from overnight.errors import UsageError
from overnight.store import restore as restoring
from overnight.store.manifest import Manifest


@click.command(
    epilog="""\b
Examples:
  overnight restore /mnt/backup/overnight --data /var/lib/overnight-new
  overnight restore /mnt/backup/overnight --check        only read all of it
"""
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--data", "target", metavar="NEW", type=click.Path(path_type=Path), help="A directory to be made.")
@click.option("--check", "is_check", is_flag=True, help="Read and compare everything, write nothing.")
def restore(directory: Path, target: Path | None, is_check: bool) -> None:
    """Make a data directory from the backup in DIR.

    Every file is compared with the manifest first; a damaged backup is refused. Stop the server that has used the
    old directory before you start one on the new one. Exits with 0 when all of it is on the medium, 2 if a place
    cannot be right, 4 if the backup is damaged.
    """
    if (target is None) == (not is_check):
        raise UsageError("say either --data NEW, a directory that is not there yet, or --check")
    times = 1 if target is None else 2
    with progress(lambda: restoring.opened(directory).bytes * times) as on_progress:
        if target is None:
            found = restoring.check(directory, on_progress=on_progress)
            click.echo(f"{directory} is whole: {_told(found)}")
        else:
            found = restoring.restore(directory, target, on_progress=on_progress)
            click.echo(f"{target} is as {directory} was at {found.created_at}: {_told(found)}")


def _told(found: Manifest) -> str:
    return f"{len(found.files):,} files, {found.bytes:,} bytes, by overnight {found.version}"
