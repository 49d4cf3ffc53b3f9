"""The one door to the disk, with its promises. Everything but SQLite's own files goes through here.

Durable means: data fsynced, and for a new name its directory fsynced too (fsync(2), "Calling fsync() does not
necessarily ensure that the entry in the directory containing the file has also reached disk").
"""

import errno
import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Protocol

from overnight.errors import DiskFull, ObjectMissing, StoreError


class Files(Protocol):
    """A disk. Paths are absolute; bytes in, bytes out; blocking."""

    def write_new_durably(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Create `path` with the joined pieces, atomically: on return it is durable and complete, on any
        error there is no `path`. An existing `path` is left as it is (put if absent)."""
        ...

    def append_durably(self, path: Path, data: bytes) -> None:
        """Append to `path`, made if missing. On return `data` survives a power cut; on error a part may."""
        ...

    def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes from `offset`, all or `length` of them. ObjectMissing if there is no such file."""
        ...

    def list(self, directory: Path) -> list[Path]:
        """The files below `directory` at any depth, sorted; empty if it does not exist."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the file, if it is there. Not durable by itself: removing twice is harmless."""
        ...

    def remove_empty(self, directory: Path) -> None:
        """Remove the directory, if it is there and nothing is in it."""
        ...


class OsFiles:
    """The operating system's files."""

    def write_new_durably(self, path: Path, pieces: Iterable[bytes]) -> None:
        if path.exists():
            return
        part = path.with_name(path.name + ".part")
        try:
            _make_directories_durably(path.parent)
            with open(part, "wb", opener=owner_only) as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                _sync_data(file.fileno())
            part.rename(path)
            _sync_entry_or_remove(path)
        except OSError as error:
            raise _store_error(error, path) from error
        finally:
            with suppress(OSError):
                part.unlink()  # Still there only if something failed, perhaps the making of a piece.

    def append_durably(self, path: Path, data: bytes) -> None:
        try:
            is_new = not path.exists()
            if is_new:
                _make_directories_durably(path.parent)
            with open(path, "ab", buffering=0, opener=owner_only) as file:
                _append_whole(file, data)
            if is_new:
                _sync_entry_or_remove(path)
        except OSError as error:
            raise _store_error(error, path) from error

    def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path} does not exist") from error
        except OSError as error:
            raise _store_error(error, path) from error

    def list(self, directory: Path) -> list[Path]:
        return sorted(path for path in directory.rglob("*") if path.is_file())

    def remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _store_error(error, path) from error

    def remove_empty(self, directory: Path) -> None:
        with suppress(OSError):
            directory.rmdir()


def owner_only(path: str, flags: int) -> int:
    """An opener of `open`: a file that it makes is read and written by its owner alone, whatever the umask."""
    return os.open(path, flags, 0o600)


def make_for_owner(path: Path) -> None:
    """Make an empty file for its owner alone, unless there is one: SQLite asks for more, and its -wal and -shm take
    after it. OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def link_new(source: Path, path: Path) -> None:
    """Give a durable file a second name, if that is not there yet. Durable after `sync_directory`. OSError."""
    _make_directories_durably(path.parent)
    with suppress(FileExistsError):
        os.link(source, path)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. OSError."""
    _fsync_directory(directory)


def replace_durably(part: Path, path: Path) -> None:
    """Put a file that is written in the place of another: on return it is on the medium, under its name. OSError."""
    with part.open("rb") as file:
        _sync_data(file.fileno())
    part.rename(path)
    _fsync_directory(path.parent)


def _append_whole(file: FileIO, data: bytes) -> None:
    """Append all of `data` durably or, if the disk fails, none: half a record would hide every later one, and a
    whole one would be there twice when the caller tries again."""
    start = file.seek(0, os.SEEK_END)
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
        _sync_data(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(start)
        raise


def _sync_entry_or_remove(path: Path) -> None:
    """Make a new name durable. A name that might vanish must not stay, or the next writer would rely on it."""
    try:
        _fsync_directory(path.parent)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def _make_directories_durably(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True, mode=0o700)
        _fsync_directory(path.parent)


def _sync_data(descriptor: int) -> None:
    """Wait until the data is on the medium. On macOS fsync(2) stops at the drive's cache; F_FULLFSYNC does not."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the disk that holds {path.parent}")
    return StoreError(f"{path}: {error.strerror or error}")
