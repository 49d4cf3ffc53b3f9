"""Immutable objects under string keys: request bodies and results. The only package that names their keys.

Written once, read many times, removed; never changed. Compare-and-set lives in SQL, so put-if-absent is all an
object store needs (docs/adr/0001). `testing.stores.ObjectsSuite` is what every implementation must pass.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from overnight.core.lease import SegmentRef
from overnight.errors import StoreError
from overnight.ids import BatchId
from overnight.ports.files import Files
from overnight.ports.offload import Offload

# A `.part` is what a crash leaves of an object that was being written: it is listed and removed like one.
_is_key = re.compile(r"([A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(\.gz)?(\.part)?").fullmatch


class Objects(Protocol):
    """A flat space of immutable objects."""

    async def put_new(self, key: str, pieces: Iterable[bytes]) -> None:
        """Store the joined pieces, drawn while writing, perhaps in another thread. Durable on return; on any
        error there is no object. If `key` exists it is
        kept as it is: keys carry a batch id or an epoch, so whoever wrote it wrote the same."""
        ...

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """The object, or `length` bytes of it from `offset`. ObjectMissing if there is none."""
        ...

    async def remove(self, key: str) -> None:
        """Remove the object; removing what is not there is fine."""
        ...

    async def keys(self) -> list[str]:
        """All keys, sorted. Used when the store is opened, to find what a crash left behind."""
        ...


def requests_key(batch_id: BatchId) -> str:
    """Where all request segments of a batch lie."""
    return f"requests/{batch_id}.gz"


def results_key(segment: SegmentRef, *, epoch: int) -> str:
    """Where the results of one segment lie, as the holder of `epoch` wrote them."""
    return f"results/{segment.batch_id}/{segment.index}-{epoch}.gz"


class LocalObjects:
    """Objects as files below one directory, each fsynced with its directory before `put_new` returns."""

    def __init__(self, root: Path, *, files: Files, offload: Offload) -> None:
        self._root, self._files, self._offload = root, files, offload

    async def put_new(self, key: str, pieces: Iterable[bytes]) -> None:
        await self._offload.run(lambda: self._files.write_new_durably(self._path(key), pieces))

    async def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return await self._offload.run(lambda: self._files.read(self._path(key), offset=offset, length=length))

    async def remove(self, key: str) -> None:
        await self._offload.run(lambda: self._remove(self._path(key)))

    def _remove(self, path: Path) -> None:
        self._files.remove(path)
        if path.parent.parent != self._root:  # The folder of one batch bears its id, and goes with its last object.
            self._files.remove_empty(path.parent)

    async def keys(self) -> list[str]:
        paths = await self._offload.run(lambda: self._files.list(self._root))
        keys = (path.relative_to(self._root).as_posix() for path in paths)
        return [key for key in keys if _is_key(key)]  # A file manager may have left its own there.

    def _path(self, key: str) -> Path:
        if _is_key(key) is None:
            raise StoreError(f"{key!r} is not an object key")
        return self._root / key
