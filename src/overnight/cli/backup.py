"""`overnight backup`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from overnight.cli.beside import data_option, json_option, show_json
from overnight.ports.world import World
from overnight.store import backup as backups
from overnight.store.backup import Written
from overnight.store.manifest import Progress as OnProgress


@click.command(
    epilog="""\b
Examples:
  overnight backup /mnt/backup/overnight --data /var/lib/overnight
  overnight restore /mnt/backup/overnight --check        is it whole?
"""
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@data_option
@json_option
def backup(directory: Path, root: Path, is_json: bool) -> None:
    """Back up a data directory into DIR, also while a server uses it.

    DIR holds one backup, the newest; what has not changed since the one before is not copied again. On the same
    filesystem objects are hard links: that is no second copy on the medium. Exits with 0 when all of it is on the
    medium, 2 if DIR or --data cannot be right, 4 if the disk or the database fails; then the backup before stays.
    """
    clock = (click.get_current_context().find_object(World) or World()).clock
    with progress(lambda: backups.size(root)) as on_progress:
        written = backups.back_up(root, directory, now_ms=clock.now_ms(), on_progress=on_progress)
    if is_json:
        show_json(_plain(written))
        return
    click.echo(
        f"{directory}: {_counted(written)}; {len(written.manifest.files):,} files, {written.manifest.bytes:,} bytes"
    )
    for batch_id in written.manifest.dropped:
        click.echo(f"{batch_id} is not in it: its objects are gone, as after a deletion", err=True)


def _counted(written: Written) -> str:
    parts = {"copied": written.copied, "linked": written.linked, "kept from the backup before": written.kept}
    return "objects: " + (", ".join(f"{count:,} {what}" for what, count in parts.items() if count) or "none")


def _plain(written: Written) -> dict[str, object]:
    found = written.manifest
    return {
        "created_at": found.created_at,
        "files": len(found.files),
        "bytes": found.bytes,
        "copied": written.copied,
        "linked": written.linked,
        "kept": written.kept,
        "dropped": found.dropped,
    }


@contextmanager
def progress(total_bytes: Callable[[], int]) -> Iterator[OnProgress]:
    """A bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with Progress(BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total_bytes())
        yield lambda count: bar.advance(task, count)
