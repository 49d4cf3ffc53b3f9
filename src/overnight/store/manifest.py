"""What a backup consists of, and whether it is still what was written.

BACKUP/
├── manifest.json        every file with its size and SHA-256, and its own; written last, atomically
├── backup-lock          held with flock(2) while a backup is written or read
├── control-<n>.sqlite3  the database at one instant
├── checkpoints-<n>/     logs of segments that were being worked on
└── objects/             as in a data directory; kept from one backup to the next, for they never change
"""

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from overnight import limits
from overnight.errors import DirectoryTooNew, StoreError
from overnight.store.migrations import STEPS

NAME: Final = "manifest.json"
LOCK: Final = "backup-lock"
Progress: TypeAlias = Callable[[int], None]  # Told how many more bytes are done.

_is_path = re.compile(
    r"objects/(requests|results/[A-Za-z0-9_]+)/[A-Za-z0-9_-]+\.gz"
    r"|checkpoints-[0-9]+/[A-Za-z0-9_-]+\.log|control-[0-9]+\.sqlite3"
).fullmatch


class File(msgspec.Struct, frozen=True):
    """One file of a backup."""

    path: str  # Below the backup, with slashes.
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `manifest.json` says."""

    format: Literal[1] = 1
    version: str  # Of the overnight that wrote it.
    schema: int  # Of the database.
    number: int  # In the names of what is replaced by the next backup.
    created_at: str
    source: str  # The data directory.
    files: list[File]
    dropped: list[str] = []  # Batches of the snapshot that are not in it: their objects are gone.
    sha256: str = ""  # Of this manifest without it.

    @property
    def database(self) -> str:
        """The path of the database."""
        return f"control-{self.number}.sqlite3"

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files)


def encode(manifest: Manifest) -> bytes:
    """The manifest, sealed by its own checksum."""
    return msgspec.json.encode(replace(manifest, sha256=_checksum(manifest)))


def _checksum(manifest: Manifest) -> str:
    return sha256(msgspec.json.encode(replace(manifest, sha256=""))).hexdigest()


def read(backup: Path) -> Manifest | None:
    """The manifest of a backup; None if there is none. StoreError if it is damaged, DirectoryTooNew if this version
    does not know what it holds."""
    try:
        stored = (backup / NAME).read_bytes()
        found = msgspec.json.decode(stored, type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{backup / NAME}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{backup / NAME} is damaged, or of another program: {error}") from error
    if found.sha256 != _checksum(found) or stored != msgspec.json.encode(found):
        raise StoreError(f"{backup / NAME} is damaged: its checksum does not match")
    if found.schema > len(STEPS):
        raise DirectoryTooNew(
            f"{backup} was written by overnight {found.version} (schema {found.schema}, "
            f"this one knows {len(STEPS)}); install that version"
        )
    for file in found.files:
        if _is_path(file.path) is None:
            raise StoreError(f"{backup / NAME} names {file.path[:100]!r}, which is no file of a backup")
    return found


def pieces(path: Path, digest: "Digest") -> Iterator[bytes]:
    """The bytes of a file, counted on the way."""
    with path.open("rb") as file:
        while piece := file.read(limits.MIB):
            digest.add(piece)
            yield piece


class Digest:
    """Size and SHA-256 of what goes by."""

    def __init__(self, on_progress: Progress) -> None:
        self.bytes = 0
        self._sha256, self._on_progress = sha256(), on_progress

    def add(self, piece: bytes) -> None:
        """One more piece."""
        self.bytes += len(piece)
        self._sha256.update(piece)
        self._on_progress(len(piece))

    def file(self, path: str) -> File:
        """The file that this was."""
        return File(path, self.bytes, self._sha256.hexdigest())


def described(path: Path, name: str, on_progress: Progress) -> File:
    """A file that is there, read to its end."""
    digest = Digest(on_progress)
    for _ in pieces(path, digest):
        pass
    return digest.file(name)
