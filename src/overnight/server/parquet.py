"""Rows as a Parquet file. DuckDB writes it; it is imported when the first one is asked for.

Meanwhile the rows lie in the data directory as JSON lines, removed as soon as they are converted, and so does the
Parquet file, which has no name any more while it is read. What a crash leaves is removed before the next one is made.
"""

import errno
import glob
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

from overnight import limits
from overnight.errors import DiskFull, InvalidRequest, Overloaded, StoreError
from overnight.ports.offload import Offload

_MEMORY_BYTES = 128_000_000  # For DuckDB; it uses 60 MB for rows of usual size,
_MEMORY_PER_BYTE = 8  # and more for rows of many MB.
_ROW_GROUP_ROWS = 2048  # DuckDB's smallest: what it holds before it writes,
_ROW_GROUP_BYTES = "4MB"  # or less, if rows are long.
_OBJECT_BYTES_MIN = 1024 * 1024
_RETRY_S = 10


class ParquetFiles:
    """One per process, over a directory of its own. Bounds how many files there are at once."""

    def __init__(self) -> None:
        self._free = limits.PARQUET_FILES_MAX
        self._is_clean = False

    async def make(
        self, columns: Mapping[str, str], lines: AsyncIterator[bytes], *, directory: Path, offload: Offload
    ) -> "ParquetFile":
        """The file of rows that come as pieces of whole JSON lines; `columns`: their names and SQL types. Close it.

        Overloaded if there are `limits.PARQUET_FILES_MAX` already, InvalidRequest beyond `limits.PARQUET_BYTES_MAX`,
        DiskFull and other StoreErrors; nothing is left on disk then. Errors of `lines` pass through.
        """
        if not self._free:
            raise Overloaded("Other Parquet files are being made; try again in a moment.", retry_after_s=_RETRY_S)
        self._free -= 1
        try:
            if not self._is_clean:
                await offload.run(lambda: shutil.rmtree(directory, ignore_errors=True))
                self._is_clean = True
            return ParquetFile(self, await _made(columns, lines, directory=directory, offload=offload))
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """One file less."""
        self._free += 1


class ParquetFile:
    """An open file without a name: closing it frees its room on disk."""

    def __init__(self, files: ParquetFiles, content: BinaryIO) -> None:
        self._files, self.content = files, content
        self.length = content.seek(0, 2)
        content.seek(0)

    def close(self) -> None:
        """Remove it. Twice is once."""
        if not self.content.closed:
            self.content.close()
            self._files.give_back()


async def _made(
    columns: Mapping[str, str], lines: AsyncIterator[bytes], *, directory: Path, offload: Offload
) -> BinaryIO:
    home = await offload.run(lambda: _new_home(directory))
    try:
        paths, longest = await _spooled(home, lines, offload=offload)
        return await offload.run(lambda: _converted(home, columns, paths, longest=longest))
    finally:
        await offload.run(lambda: shutil.rmtree(home, ignore_errors=True))


def _new_home(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=directory))
    except OSError as error:
        raise _store_error(error) from error


async def _spooled(home: Path, lines: AsyncIterator[bytes], *, offload: Offload) -> tuple[list[Path], int]:
    """Write the rows down, each piece in a file of its own: DuckDB has a buffer as large as the file. The files, and
    how long the longest row is."""
    paths: list[Path] = []
    total = longest = 0
    async for piece in lines:
        total += len(piece)
        if total > limits.PARQUET_BYTES_MAX:
            raise InvalidRequest(
                f"format: these rows are over {limits.PARQUET_BYTES_MAX // limits.MIB:,} MB, too many for one "
                "Parquet file; take csv or jsonl"
            )
        longest = max(longest, *map(len, piece.split(b"\n")))
        paths.append(home / f"{len(paths):06}.rows")
        try:
            await offload.run(partial(paths[-1].write_bytes, piece))
        except OSError as error:
            raise _store_error(error) from error
    return paths, longest


def _converted(home: Path, columns: Mapping[str, str], paths: list[Path], *, longest: int) -> BinaryIO:
    import duckdb  # noqa: PLC0415  27 MB of memory that most servers never need.

    target = home / "parquet"
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": 1,
        "memory_limit": f"{_MEMORY_BYTES + _MEMORY_PER_BYTE * longest}B",
        "temp_directory": str(home / "spill"),
        "preserve_insertion_order": False,  # One thread keeps it all the same; else row groups have no bound.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    try:
        with duckdb.connect(":memory:", config=config) as connection:
            connection.read_json(
                [glob.escape(str(path)) for path in paths],
                columns=dict(columns),
                format="newline_delimited",
                maximum_object_size=max(longest + 1, _OBJECT_BYTES_MIN),
            ).write_parquet(
                str(target), compression="zstd", row_group_size=_ROW_GROUP_ROWS, row_group_size_bytes=_ROW_GROUP_BYTES
            )
        return target.open("rb")
    except OSError as error:
        raise _store_error(error) from error
    except duckdb.Error as error:
        said = str(error).partition("\n")[0]
        if "No space left" in said:
            raise DiskFull("no space left on the disk that holds the data directory") from error
        raise StoreError(f"cannot make a Parquet file: {said}") from error


def _store_error(error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("no space left on the disk that holds the data directory")
    return StoreError(f"cannot make a Parquet file: {error.strerror}")
