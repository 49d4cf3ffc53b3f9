"""What `overnight doctor` looks at on this machine: the data directory, the database, objects, the disk, bounds."""

import fcntl
import os
import resource
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from overnight import limits
from overnight.cli.checkup import Finding, Findings, fail, ok, warn
from overnight.store.layout import DataDirectory
from overnight.store.migrations import APPLICATION_ID, STEPS

_FREE_BYTES_LOW: Final = 1024 * limits.MIB  # A few of the largest batches, with requests and results.
_FREE_BYTES_NONE: Final = 64 * limits.MIB
_FREE_INODES_LOW: Final = 10_000  # Ten batches of the largest size: a file for each segment of results.
_SYNCS: Final = 20
_SYNC_MS_SLOW: Final = 20.0  # A disk that turns takes about 10.
_SYNC_RATIO_NONE: Final = 3.0  # A sync that takes as long as a write alone has not been to a medium.
_WAL_BYTES_LARGE: Final = 256 * limits.MIB  # SQLite starts over at 4 MB unless a reader never ends.
_OBJECTS_SAMPLED: Final = 1_000
_FILES_EXPECTED: Final = 4_096  # A connection for each request in flight, and for each client.
_ELSEWHERE: Final = (
    frozenset(  # fsync and flock may say yes there and mean nothing (`man 5 nfs`, sqlite.org/faq.html#q5).
        ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "virtiofs", "vboxsf")
    )
)
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))


def of_directory(root: Path) -> Findings:
    """Whether there is a data directory that this user can use, and who uses it."""
    directory = DataDirectory(root)
    if not directory.root.is_dir():
        yield fail(
            "data", f"there is no directory {directory.root}", "say where it is with --data, or start a server"
        )
        return
    found = directory.root.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        yield fail("mode", f"others may enter {directory.root} ({mode:o})", f"chmod 700 {directory.root}")
    else:
        yield ok("mode", f"{mode:o}: for its owner only")
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        yield fail("owner", f"{directory.root} belongs to user {found.st_uid}", "run as that user")
    elif strangers := _of_others(directory, found.st_uid):
        yield fail(
            "owner",
            f"{strangers[0].name} belongs to another user than the directory, and so may {len(strangers) - 1:,} more",
            f"chown -R {found.st_uid} {directory.root}",
        )
    else:
        yield ok("owner", f"user {found.st_uid}")
    yield _lock(directory)


def _of_others(directory: DataDirectory, owner: int) -> list[Path]:
    found = []
    for path in directory.root.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_uid != owner:
                found.append(path)
    return found


def _lock(directory: DataDirectory) -> Finding:
    try:
        with directory.lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = file.read(20).decode("ascii", "replace").strip()
                return ok("lock", f"held by process {pid if pid.isdecimal() else 'unknown'}: a server or a command")
    except FileNotFoundError:
        return ok("lock", "nobody has used it")
    except OSError as error:
        return fail("lock", f"{directory.lock}: {error.strerror}", "give this user the right to read it")
    return ok("lock", "free: no server uses it")


# --- The disk -------------------------------------------------------------------------------------------------------


def of_disk(root: Path) -> Findings:
    """Room, speed, and whether the filesystem keeps what it promises."""
    if not root.is_dir():
        return
    yield _room(root)
    yield _filesystem(root)
    yield _syncs(root)


def _room(root: Path) -> Finding:
    found = os.statvfs(root)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    said = f"{free // limits.MIB:,} MiB and {inodes:,} files are free"
    if free < _FREE_BYTES_NONE or (found.f_files and inodes < 100):
        return fail("room", said, "make room: no batch can be accepted")
    if free < _FREE_BYTES_LOW or (found.f_files and inodes < _FREE_INODES_LOW):
        return warn("room", said, "make room, delete batches, or keep them for fewer days (docs/how-to/retention.md)")
    return ok("room", said)


def _filesystem(root: Path) -> Finding:
    kind = _kind_of(root.resolve())
    if kind in _ELSEWHERE:
        return fail(
            "filesystem", f"{root} is on {kind}", "use a local disk: locks and fsync cannot be relied on there"
        )
    if kind in _IN_MEMORY:
        return fail("filesystem", f"{root} is on {kind}", "use a disk: this one is empty after a restart")
    return ok("filesystem", kind or "unknown")


def _kind_of(path: Path) -> str:
    """By the longest mount point that holds it; empty where there is no /proc/mounts."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    held = [
        (len(point), kind) for point, kind in mounts if path.is_relative_to(point.encode().decode("unicode_escape"))
    ]
    return max(held)[1] if held else ""


class _Speed(NamedTuple):
    write_ms: float
    sync_ms: float


def _syncs(root: Path) -> Finding:
    """A sync is compared with a write on the same disk: how fast a disk should be, nobody knows."""
    try:
        speed = _measured(root)
    except OSError as error:
        return fail("sync", f"cannot write there: {error.strerror}", "give this user the right and the room to write")
    ratio = speed.sync_ms / max(speed.write_ms, 0.001)
    said = f"a commit takes {speed.sync_ms:.2f} ms, {ratio:,.0f} times a write alone"
    if ratio < _SYNC_RATIO_NONE:
        return warn("sync", said, "fsync seems to do nothing there: a power cut may lose what was acknowledged")
    if speed.sync_ms > _SYNC_MS_SLOW:
        return warn("sync", said, "a faster disk takes more batches a second")
    return ok("sync", said)


def _measured(root: Path) -> _Speed:
    with tempfile.TemporaryFile(dir=root) as file:
        write_ms, sync_ms = list[float](), list[float]()
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), b"\0" * 4096)
            written = time.perf_counter()
            os.fsync(file.fileno())
            write_ms.append((written - began) * 1000)
            sync_ms.append((time.perf_counter() - written) * 1000)
    return _Speed(sorted(write_ms)[_SYNCS // 2], sorted(sync_ms)[_SYNCS // 2])


# --- The database ---------------------------------------------------------------------------------------------------


def of_database(root: Path, *, is_full: bool) -> Findings:
    """Whether the database is ours, whole, and names nothing that is not there."""
    path = DataDirectory(root).database
    if not root.is_dir():
        return
    if not path.exists():
        yield warn("database", f"there is no {path.name} in {root}", "a server makes it when it starts")
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as sql:
            version = yield from _identity(sql)
            if version is None:
                return
            (said,) = sql.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                yield fail("whole", f"the database is damaged: {said}", "restore a backup (docs/how-to/backup.md)")
                return
            yield ok("whole", "quick_check found nothing")
            yield _log(path)
            yield from _objects(sql, DataDirectory(root), is_full=is_full)
    except sqlite3.Error as error:
        yield fail("database", f"{path.name}: {error}", "restore a backup (docs/how-to/backup.md)")


def _identity(sql: sqlite3.Connection) -> Generator[Finding, None, int | None]:
    (application_id,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        yield fail("database", "it is not one of overnight", "say where the data directory is with --data")
        return None
    if version > len(STEPS):
        todo = "install the version of overnight that wrote it"
        yield fail("database", f"schema {version}; this overnight knows {len(STEPS)}", todo)
        return None
    if version < len(STEPS):
        todo = "back it up; the next start of a server brings it up to date"
        yield warn("database", f"schema {version} of an older overnight; this one has {len(STEPS)}", todo)
    else:
        yield ok("database", f"schema {version}")
    return int(version)


def _log(path: Path) -> Finding:
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > _WAL_BYTES_LARGE:
        todo = "something reads the database and does not end: find it with `fuser`, and end it"
        return warn("log", f"{wal.name} has {size // limits.MIB:,} MiB", todo)
    return ok("log", f"{size // limits.MIB:,} MiB wait to be written into the database")


_NAMED = """
    SELECT id, requests_key FROM batches WHERE requests_key IS NOT NULL
    UNION ALL SELECT batch_id, result_key FROM segments WHERE result_key IS NOT NULL
"""


def _objects(sql: sqlite3.Connection, directory: DataDirectory, *, is_full: bool) -> Findings:
    limit = -1 if is_full else _OBJECTS_SAMPLED
    named = sql.execute(f"SELECT * FROM ({_NAMED}) ORDER BY random() LIMIT ?", (limit,)).fetchall()  # noqa: S608  Constants.
    missing = [(batch, key) for batch, key in named if not (directory.objects / key).is_file()]
    missing = [(batch, key) for batch, key in missing if _is_still_named(sql, batch, key)]
    if missing:
        batch, key = missing[0]
        said = f"{len(missing):,} of {len(named):,} objects that were looked at are missing, such as {key}"
        yield fail("objects", said, f"restore a backup, or delete {batch}: what it lacks cannot be made again")
    else:
        sampled = "" if is_full or len(named) < _OBJECTS_SAMPLED else ", a sample; --all looks at all"
        yield ok("objects", f"{len(named):,} are there{sampled}")
    yield _foreign(directory)


def _is_still_named(sql: sqlite3.Connection, batch_id: str, key: str) -> bool:
    """A server may have removed it between two looks."""
    asked = f"SELECT 1 FROM ({_NAMED}) WHERE id = ? AND requests_key = ?"  # noqa: S608  Constants.
    return sql.execute(asked, (batch_id, key)).fetchone() is not None


def _foreign(directory: DataDirectory) -> Finding:
    known = {"lock", "objects", "checkpoints", *(directory.database.name + end for end in ("", "-wal", "-shm"))}
    strangers = sorted(path.name for path in directory.root.iterdir() if path.name not in known)
    if strangers:
        todo = "move it elsewhere: a data directory is for overnight alone"
        return warn(
            "strangers", f"{strangers[0]!r} is not of overnight, nor may be {len(strangers) - 1:,} more", todo
        )
    return ok("strangers", "nothing of others is there")


# --- Bounds of the process ------------------------------------------------------------------------------------------


def of_machine() -> Findings:
    """Open files, and memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES_EXPECTED:
        todo = f"ulimit -n {_FILES_EXPECTED}, or LimitNOFILE= of systemd, for the server"
        yield warn("open files", f"{soft:,} at once; a busy server has up to {_FILES_EXPECTED:,}", todo)
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at once")
    memory = _memory_bytes()
    wanted = limits.UPLOADS_BYTES_MAX + limits.LEASED_BYTES_MAX + limits.REPACK_BYTES_MAX
    if memory and memory < wanted:
        said = f"{memory // limits.MIB:,} MiB; the largest batches need {wanted // limits.MIB:,}"
        yield warn("memory", said, "send smaller batches, or give it more")
    else:
        yield ok("memory", f"{memory // limits.MIB:,} MiB" if memory else "unknown")


def _memory_bytes() -> int:
    """Of the machine, or of the control group if that has less; 0 if nobody says."""
    if sys.platform == "win32":
        return 0
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found)
