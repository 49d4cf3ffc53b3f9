"""A backup of a data directory while a server uses it.

1. Objects that are there now: hard links on the same filesystem, else copies. They never change.
2. The database at one instant (VACUUM INTO: a read transaction; a stepwise copy would begin anew with every commit
   of the server, https://www.sqlite.org/backup.html).
3. The objects that this database names and that came since step 1. One that is missing: its batch was deleted
   meanwhile and leaves the copy, or gave up its requests or results, and step 2 is done again.
4. Checkpoint logs of what is unfinished.
5. The manifest, in the place of the one before. Until then the backup before is whole; then what only it had goes.

Everything is on the medium before the manifest is. Blocking.
"""

import fcntl
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from overnight import __version__
from overnight.errors import DirectoryInUse, DirectoryTooNew, StoreError, UsageError
from overnight.ids import BatchId
from overnight.ports.files import (
    OsFiles,
    link_new,
    make_for_owner,
    owner_only,
    replace_durably,
    sync_directory,
)
from overnight.store import manifest
from overnight.store.committer import translated
from overnight.store.layout import DataDirectory
from overnight.store.manifest import Digest, File, Manifest, Progress
from overnight.store.migrations import APPLICATION_ID, STEPS
from overnight.wire.batch import rfc3339

_SNAPSHOTS_MAX: Final = 5  # Tries for one whose objects are all there; each finds what the last one lacked.
_is_object = re.compile(r"(requests|results/[A-Za-z0-9_]+)/[A-Za-z0-9_-]+\.gz").fullmatch
_NAMED = (
    "SELECT id, requests_key FROM batches WHERE requests_key IS NOT NULL UNION ALL "
    "SELECT batch_id, result_key FROM segments WHERE result_key IS NOT NULL"
)


class Written(Struct, frozen=True, kw_only=True):
    """What a backup did."""

    manifest: Manifest
    linked: int  # Objects that got a second name.
    copied: int
    kept: int  # Objects that the backup had before.


def back_up(data: Path, into: Path, *, now_ms: int, on_progress: Progress) -> Written:
    """Bring the backup in `into` up to date. UsageError if one of the places cannot be right, DirectoryInUse if
    another backup is being written there; StoreError if the disk or the database fails, and then the backup before
    is as it was."""
    source = DataDirectory(data)
    _check_places(source, into.absolute())
    try:
        with _locked(into):
            return _Writing(source, into, now_ms=now_ms, on_progress=on_progress).run()
    except OSError as error:
        raise StoreError(f"{error.filename or into}: {error.strerror}; the backup before is as it was") from error


def size(data: Path) -> int:
    """About how many bytes a backup of this directory will read."""
    directory = DataDirectory(data)
    paths = [directory.database, *directory.objects.rglob("*.gz"), *directory.checkpoints.glob("*.log")]
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _check_places(source: DataDirectory, into: Path) -> None:
    if not source.database.exists():
        raise UsageError(f"there is no data directory {source.root}; say where it is with --data")
    here, there = source.root.resolve(), into.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(f"{into} is in the data directory, or around it; a backup needs a place of its own")
    if (into / source.database.name).exists():
        raise UsageError(f"{into} is a data directory; choose another place")
    is_ours = (into / manifest.LOCK).exists()
    if into.exists() and (not into.is_dir() or (not is_ours and any(into.iterdir()))):
        raise UsageError(f"{into} holds something else than a backup; choose an empty or a new directory")
    found = manifest.read(into)
    if found is not None and found.source != str(source.root):
        raise UsageError(f"{into} is the backup of {found.source}; choose another place for {source.root}")


@contextmanager
def _locked(into: Path) -> Iterator[None]:
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(into / manifest.LOCK, "a", opener=owner_only) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DirectoryInUse(f"another process writes or reads the backup {into}; wait for it") from error
        yield


class _Writing:
    """One backup that is being written."""

    def __init__(self, source: DataDirectory, into: Path, *, now_ms: int, on_progress: Progress) -> None:
        self._source, self._into, self._now_ms, self._on_progress = source, into, now_ms, on_progress
        earlier = manifest.read(into)
        self._number = earlier.number + 1 if earlier else 1
        self._known = {file.path: file for file in earlier.files} if earlier else {}
        self._objects: dict[str, File] = {}
        self._changed: set[Path] = set()  # Directories with new names that are not durable yet.
        self._linked = self._copied = self._kept = 0

    def run(self) -> Written:
        """Write it; what it did."""
        for path in sorted(self._source.objects.rglob("*.gz")):
            self._take(path.relative_to(self._source.objects).as_posix())
        with closing(_opened(self._source.database)) as live:
            schema = _schema(live, self._source.database)
            named, dropped = self._snapshot(live)
        files = [self._objects[key] for key in sorted(named)]
        files.append(manifest.described(self._database, self._database.name, self._on_progress))
        files += self._logs()
        for directory in sorted(self._changed):
            sync_directory(directory)
        written = Manifest(
            version=__version__,
            schema=schema,
            number=self._number,
            created_at=rfc3339(self._now_ms),
            source=str(self._source.root),
            files=files,
            dropped=sorted(dropped),
        )
        part = self._into / f"{manifest.NAME}.part"
        with open(part, "wb", opener=owner_only) as file:
            file.write(manifest.encode(written))
        replace_durably(part, self._into / manifest.NAME)
        _sweep(self._into, {file.path for file in files})
        return Written(manifest=written, linked=self._linked, copied=self._copied, kept=self._kept)

    @property
    def _database(self) -> Path:
        return self._into / f"control-{self._number}.sqlite3"

    # --- Objects ------------------------------------------------------------------------------------------------

    def _take(self, key: str) -> bool:
        """Have an object in the backup; whether it is there."""
        if key in self._objects:
            return True
        if _is_object(key) is None:
            return False
        path, name = self._into / "objects" / key, f"objects/{key}"
        known = self._known.get(name)
        try:
            if known is not None and path.stat().st_size == known.bytes:
                self._on_progress(known.bytes)
                self._objects[key], self._kept = known, self._kept + 1
                return True
        except FileNotFoundError:
            pass  # Somebody removed it from the backup: it is taken again.
        found = self._fetch(self._source.objects / key, path, name)
        if found is not None:
            self._objects[key] = found
        return found is not None

    def _fetch(self, source: Path, path: Path, name: str) -> File | None:
        path.unlink(missing_ok=True)  # What a backup that broke off has left, or one that is damaged.
        try:
            try:
                link_new(source, path)
            except FileNotFoundError:
                return None
            except OSError:  # Another filesystem, or one without links.
                digest = Digest(self._on_progress)
                OsFiles().write_new_durably(path, manifest.pieces(source, digest))
                self._copied += 1
                return digest.file(name)
            self._linked += 1
            self._changed.add(path.parent)
            return manifest.described(path, name, self._on_progress)
        except FileNotFoundError:
            return None

    # --- The database -------------------------------------------------------------------------------------------

    def _snapshot(self, live: sqlite3.Connection) -> tuple[set[str], set[BatchId]]:
        """Make the copy; the objects it names, and the batches that were taken out of it."""
        part = self._into / f"{self._database.name}.part"
        for is_last in (*[False] * (_SNAPSHOTS_MAX - 1), True):
            part.unlink(missing_ok=True)
            make_for_owner(part)
            with _translating(part):
                live.execute("VACUUM INTO ?", (str(part),))
            with closing(_opened(part)) as copy:
                named = _named(copy)
                incomplete = {batch for batch, key in named if not self._take(key)}
                if not is_last and any(_is_there(live, batch) for batch in incomplete):
                    continue
                _drop(copy, incomplete)
            break
        replace_durably(part, self._database)
        return {key for batch, key in named if batch not in incomplete}, incomplete

    def _logs(self) -> list[File]:
        """Checkpoint logs of segments that are unfinished in the copy. One of an epoch that began later stays away:
        the next holder would take that epoch, and find the log of another in its place."""
        with closing(_opened(self._database)) as copy:
            open_epochs = copy.execute(
                "SELECT batch_id, position, epoch FROM segments WHERE is_sealed = 0"
            ).fetchall()
        last = {f"{batch_id}-{position}": epoch for batch_id, position, epoch in open_epochs}
        folder, files = f"checkpoints-{self._number}", list[File]()
        for log in sorted(self._source.checkpoints.glob("*.log")):
            segment, _, epoch = log.stem.rpartition("-")
            if segment not in last or int(epoch) > last[segment]:
                continue
            path, digest = self._into / folder / log.name, Digest(self._on_progress)
            path.unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # Sealed meanwhile: its results are in no copy, it is asked again.
                OsFiles().write_new_durably(path, manifest.pieces(log, digest))
                files.append(digest.file(f"{folder}/{log.name}"))
        return files


def _opened(path: Path) -> sqlite3.Connection:
    with _translating(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA secure_delete=ON")
        return connection


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {translated(error)}") from error


def _schema(sql: sqlite3.Connection, path: Path) -> int:
    with _translating(path):
        (application_id,) = sql.execute("PRAGMA application_id").fetchone()
        (version,) = sql.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path} is not a database of overnight; say where the data directory is with --data")
    if version > len(STEPS):
        raise DirectoryTooNew(f"{path} was written by a newer overnight; back it up with that version")
    return int(version)


def _named(copy: sqlite3.Connection) -> list[tuple[BatchId, str]]:
    return copy.execute(_NAMED).fetchall()


def _is_there(live: sqlite3.Connection, batch_id: BatchId) -> bool:
    return live.execute("SELECT 1 FROM batches WHERE id = ?", (batch_id,)).fetchone() is not None


def _drop(copy: sqlite3.Connection, batches: Iterable[BatchId]) -> None:
    """Take batches out of the copy, whichever tables its schema has."""
    tables = [
        table
        for (table,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        if any(column == "batch_id" for _, column, *_ in copy.execute(f"PRAGMA table_info({table})"))
    ]
    for batch_id in batches:
        for table in tables:
            copy.execute(f"DELETE FROM {table} WHERE batch_id = ?", (batch_id,))  # noqa: S608  Of our own schema.
        copy.execute("DELETE FROM batches WHERE id = ?", (batch_id,))


def _sweep(into: Path, named: set[str]) -> None:
    """Remove what only the backup before had."""
    for path in sorted(into.glob("objects/**/*.gz*")) + sorted(into.glob("control-*.sqlite3*")):
        if path.relative_to(into).as_posix() not in named:
            path.unlink(missing_ok=True)
            if path.parent.parent.name == "results":
                with suppress(OSError):
                    path.parent.rmdir()
    folders = {name.partition("/")[0] for name in named}
    for folder in into.glob("checkpoints-*"):
        if folder.name not in folders:
            shutil.rmtree(folder)
