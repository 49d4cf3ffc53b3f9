"""What metrics read from the store and the disk: kept for some seconds, so that many scrapers cost as much as one."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from overnight.errors import StoreError
from overnight.ports.world import World
from overnight.store.figures import Figures
from overnight.store.layout import DataDirectory
from overnight.store.store import Store

FIGURES_S: Final = 5.0
SIZES_S: Final = 60.0  # Every object is looked at for its size: a second of a thread for 100,000 of them.


class Sizes(NamedTuple):
    """What lies in the data directory, and what room its disk has, in bytes."""

    parts: Mapping[str, int]  # By what it is: database, wal, objects, checkpoints.
    free: int  # For this user.


class Stored(NamedTuple):
    """None: it could not be read."""

    figures: Figures | None
    sizes: Sizes | None


class Reading:
    """One per process, on one event loop."""

    def __init__(self, store: Store, world: World, data: Path) -> None:
        self._store, self._world, self._directory = store, world, DataDirectory(data)
        self._figures: Figures | None = None
        self._sizes: Sizes | None = None
        self._figures_until_s = self._sizes_until_s = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> Stored:
        """At most so many seconds old. What failed is tried again by the next."""
        async with self._one_at_a_time:
            now_s = asyncio.get_running_loop().time()
            if now_s >= self._figures_until_s:
                self._figures = await self._read_figures()
                self._figures_until_s = now_s + FIGURES_S if self._figures else 0.0
            if now_s >= self._sizes_until_s:
                self._sizes = await self._read_sizes()
                self._sizes_until_s = now_s + SIZES_S if self._sizes else 0.0
            return Stored(self._figures, self._sizes)

    async def _read_figures(self) -> Figures | None:
        try:
            return await self._store.control.figures()
        except StoreError:
            return None

    async def _read_sizes(self) -> Sizes | None:
        try:
            return await self._world.offload.run(lambda: sizes(self._directory))
        except OSError:
            return None


def sizes(directory: DataDirectory) -> Sizes:
    """Blocks. OSError if the directory cannot be read."""
    wal = directory.database.with_name(directory.database.name + "-wal")
    parts = {
        "database": _file_bytes(directory.database),
        "wal": _file_bytes(wal),
        "objects": _folder_bytes(directory.objects),
        "checkpoints": _folder_bytes(directory.checkpoints),
    }
    return Sizes(parts, shutil.disk_usage(directory.root).free)


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # It went meanwhile, or was never there.
        return 0


def _folder_bytes(folder: Path) -> int:
    found = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                found += _folder_bytes(Path(entry.path)) if is_folder else _file_bytes(Path(entry.path))
    except FileNotFoundError:
        return found
    return found
