"""A backup becomes a data directory again. Nothing is written before all of it was read and found whole. Blocking."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overnight.errors import DirectoryInUse, StoreError, UsageError
from overnight.ports.files import OsFiles
from overnight.store import manifest
from overnight.store.layout import DataDirectory
from overnight.store.manifest import Digest, File, Manifest, Progress

_NAMED_MAX = 5  # Damaged files that an error names.


def opened(backup: Path) -> Manifest:
    """What a backup consists of. UsageError if there is none; StoreError if its manifest is damaged."""
    found = manifest.read(backup)
    if found is None:
        raise UsageError(f"{backup} holds no finished backup: there is no {manifest.NAME} in it")
    return found


def check(backup: Path, *, on_progress: Progress) -> Manifest:
    """Read all of a backup. StoreError that names what is missing or damaged."""
    with _shared(backup):
        return _checked(backup, on_progress)


def restore(backup: Path, target: Path, *, on_progress: Progress) -> Manifest:
    """Make the data directory `target`, which must not be there or be empty; durable on return. A server that is
    started on it recovers as after a crash. StoreError, and no usable directory, if something is damaged."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not empty; a backup is restored into a new directory")
    if target.resolve().is_relative_to(backup.resolve()):
        raise UsageError(f"{target} is in the backup; choose a place of its own")
    with _shared(backup):
        found = _checked(backup, on_progress)
        try:
            target.mkdir(parents=True, exist_ok=True, mode=0o700)
            database = next(file for file in found.files if file.path == found.database)
            for file in (*(file for file in found.files if file is not database), database):
                _copy(backup / file.path, _place(DataDirectory(target), file), file, on_progress)
        except OSError as error:
            shutil.rmtree(target, ignore_errors=True)
            raise StoreError(f"{error.filename or target}: {error.strerror}; nothing was restored") from error
        except StoreError:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return found


@contextmanager
def _shared(backup: Path) -> Iterator[None]:
    """Keep others from writing the backup. On a medium that cannot be written nobody does."""
    try:
        file = (backup / manifest.LOCK).open("rb")
    except OSError:
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(f"another process writes the backup {backup}; wait for it") from error
        yield


def _checked(backup: Path, on_progress: Progress) -> Manifest:
    found = opened(backup)
    bad = list(_damaged(backup, found, on_progress))
    if not any(file.path == found.database for file in found.files):
        bad.append(f"{found.database} is not in it")
    if bad:
        more = f" and {len(bad) - _NAMED_MAX:,} more" if len(bad) > _NAMED_MAX else ""
        raise StoreError(f"the backup {backup} is damaged: {'; '.join(bad[:_NAMED_MAX])}{more}; use another backup")
    return found


def _damaged(backup: Path, found: Manifest, on_progress: Progress) -> Iterator[str]:
    for file in found.files:
        try:
            there = manifest.described(backup / file.path, file.path, on_progress)
        except FileNotFoundError:
            yield f"{file.path} is missing"
        except OSError as error:
            yield f"{file.path}: {error.strerror}"
        else:
            if there != file:
                yield f"{file.path} is not what was written"


def _place(target: DataDirectory, file: File) -> Path:
    if file.path.startswith("control-"):
        return target.database
    if file.path.startswith("checkpoints-"):
        return target.checkpoints / Path(file.path).name
    return target.root / file.path


def _copy(source: Path, path: Path, file: File, on_progress: Progress) -> None:
    digest = Digest(on_progress)
    OsFiles().write_new_durably(path, manifest.pieces(source, digest))
    if digest.file(file.path) != file:
        with suppress(OSError):
            path.unlink()
        raise StoreError(f"{source} changed while it was read; nothing was restored")
