"""The real disk and the simulated one keep the same promises; else green simulations would mean nothing."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overnight.errors import ObjectMissing, StoreError
from overnight.ports.files import Files, OsFiles
from overnight.testing.files import FilesSuite
from overnight.testing.simdisk import PowerCut, SimDisk


class TestOsFiles(FilesSuite):
    def files(self) -> Files:
        return OsFiles()


class TestSimDisk(FilesSuite):
    def files(self) -> Files:
        return SimDisk()


@contextmanager
def _files_end_at(size_bytes: int) -> Iterator[None]:
    """As on a full disk: a write is cut short, then the next one fails."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_an_append_that_fails_half_way_leaves_nothing_of_itself(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / "a.log"
    files.append_durably(path, b"first")
    with _files_end_at(8), pytest.raises(StoreError, match=r"a\.log"):
        files.append_durably(path, b"second")
    files.append_durably(path, b"third")
    assert files.read(path) == b"firstthird"


def test_a_new_file_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    files, path = OsFiles(), tmp_path / "a.gz"
    with _files_end_at(8), pytest.raises(StoreError, match=r"a\.gz"):
        files.write_new_durably(path, [b"0123456789" * 10_000])
    assert files.list(tmp_path) == []


def test_a_disk_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        OsFiles().read(tmp_path)
    assert not isinstance(caught.value, ObjectMissing)


@pytest.mark.parametrize(
    ("moments", "left"),
    [(1, None), (2, b"fir"), (3, b"first!"), (4, b"first!"), (5, b"first!sec"), (6, b"first!second")],
)
def test_a_cut_append_leaves_nothing_a_part_or_all(moments: int, left: bytes | None) -> None:
    disk, path = SimDisk(), Path("/logs/a.log")
    disk.cut_after(moments + (moments > 2))  # A new file has one moment more: no directory entry.

    def append_both() -> None:
        for data in (b"first!", b"second"):
            disk.append_durably(path, data)

    with pytest.raises(PowerCut):
        append_both()
    assert _left(disk, path) == left


def test_a_new_file_without_its_directory_entry_is_gone() -> None:
    disk, path = SimDisk(), Path("/logs/a.log")
    disk.cut_after(3)
    with pytest.raises(PowerCut):
        disk.append_durably(path, b"data")
    assert _left(disk, path) is None


@pytest.mark.parametrize(("moments", "left", "part"), [(1, None, None), (2, None, b"wh"), (3, b"whole", None)])
def test_a_cut_new_file_is_whole_or_not_there(moments: int, left: bytes | None, part: bytes | None) -> None:
    disk, path = SimDisk(), Path("/objects/a.gz")
    disk.cut_after(moments)
    with pytest.raises(PowerCut):
        disk.write_new_durably(path, [b"wh", b"ole"])
    assert (_left(disk, path), _left(disk, Path("/objects/a.gz.part"))) == (left, part)


def test_a_removal_is_undone_until_its_directory_is_synced() -> None:
    disk, path = SimDisk(), Path("/objects/a.gz")
    disk.write_new_durably(path, [b"x"])
    disk.remove(path)
    disk.restore_power()
    assert disk.read(path) == b"x"
    disk.remove(path)
    disk.write_new_durably(Path("/objects/b.gz"), [b"y"])
    disk.restore_power()
    assert _left(disk, path) is None


def test_a_disk_without_power_does_nothing() -> None:
    disk, path = SimDisk(), Path("/objects/a.gz")
    disk.cut_after(1)
    for attempt in (
        lambda: disk.write_new_durably(path, [b"x"]),
        lambda: disk.write_new_durably(path, [b"x"]),
        lambda: disk.append_durably(path, b"x"),
        lambda: disk.remove(path),
        lambda: disk.read(path),
        lambda: disk.list(path.parent),
    ):
        with pytest.raises(PowerCut):
            attempt()
    assert _left(disk, path) is None


def _left(disk: SimDisk, path: Path) -> bytes | None:
    disk.restore_power()
    return disk.read(path) if path in disk.list(path.parent) else None
