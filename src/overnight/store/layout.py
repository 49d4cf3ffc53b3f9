"""What lies where in a data directory, and who may use it.

overnight-data/
├── lock             held with flock(2) by the one server that uses the directory
├── control.sqlite3  batches, segments, leases (WAL beside it)
├── objects/         requests/<batch>.gz, results/<batch>/<segment>-<epoch>.gz: immutable
└── checkpoints/     <batch>-<segment>-<epoch>.log: results of segments that are being worked on
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from overnight.errors import DirectoryInUse, StoreError
from overnight.ports.files import owner_only


class DataDirectory:
    """The paths of one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.lock = self.root / "lock"
        self.database = self.root / "control.sqlite3"
        self.objects = self.root / "objects"
        self.checkpoints = self.root / "checkpoints"
        self.exports = self.root / "exports"  # Nothing in it outlives the process that made it.


def take(directory: DataDirectory) -> IO[str]:
    """Make the directory if needed, only for its owner, and lock it until the returned file is closed.

    DirectoryInUse if another process has it; StoreError if it cannot be written. The lock dies with the process.
    """
    try:
        directory.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(directory.lock, "a+", encoding="ascii", opener=_no_link)  # noqa: SIM115  The caller holds it.
    except OSError as error:
        raise _cannot_write(directory, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read(20).strip()
        file.close()
        raise DirectoryInUse(
            f"the data directory {directory.root} is in use by another server (pid {holder or 'unknown'}); "
            "stop that one or choose another directory with --data"
        ) from error
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:
        with suppress(OSError):
            file.close()  # Tries to write once more.
        raise _cannot_write(directory, error) from error
    return file


def _no_link(path: str, flags: int) -> int:
    """As `owner_only`, but never through a symbolic link: what it leads to would be emptied."""
    return owner_only(path, flags | os.O_NOFOLLOW)


def _cannot_write(directory: DataDirectory, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write to the data directory {directory.root}: {error.strerror}; "
        "choose another with --data, or give this user the right and the room to write there"
    )
