"""What every `ports.files.Files` must do. Subclass `FilesSuite`, say what `files` is, and let pytest collect it.

What a power cut leaves is not asked here: only a simulated disk can answer (tests/sim), or a machine that is pulled
off the wall.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.errors import ObjectMissing
from overnight.ports.files import Files


class Interrupted(Exception):
    """What a source of pieces may raise."""


class FilesSuite:
    """`files` makes a disk; everything happens below pytest's `tmp_path`."""

    def files(self) -> Files:
        """The disk under test."""
        raise NotImplementedError

    def test_a_written_file_is_read_whole_and_in_ranges(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "deep" / "er" / "a.gz"
        files.write_new_durably(path, [b"01", b"", b"2345"])
        assert files.read(path) == b"012345"
        assert files.read(path, offset=2) == b"2345"
        assert files.read(path, offset=1, length=3) == b"123"
        assert files.read(path, offset=4, length=9) == b"45"
        assert files.read(path, offset=9) == b""
        assert files.read(path, length=0) == b""

    def test_a_file_may_be_empty(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "empty.gz"
        files.write_new_durably(path, [])
        assert (files.read(path), files.list(tmp_path)) == (b"", [path])

    def test_an_existing_file_is_left_as_it_is_and_its_pieces_may_stay_undrawn(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "a.gz"
        files.write_new_durably(path, [b"first"])
        files.write_new_durably(path, [b"second, longer"])
        assert files.read(path) == b"first"

    def test_a_write_whose_pieces_fail_leaves_nothing(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "a.gz"

        def pieces() -> Iterator[bytes]:
            yield b"half"
            raise Interrupted

        with pytest.raises(Interrupted):
            files.write_new_durably(path, pieces())
        with pytest.raises(ObjectMissing):
            files.read(path)
        assert files.list(tmp_path) == []
        files.write_new_durably(path, [b"whole"])
        assert files.read(path) == b"whole"

    def test_appends_add_up_and_make_the_file(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "logs" / "a.log"
        for data in (b"one", b"", b"two"):
            files.append_durably(path, data)
        assert files.read(path) == b"onetwo"

    def test_a_missing_file_is_an_error_of_its_own(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectMissing):
            self.files().read(tmp_path / "nothing")

    def test_a_list_is_sorted_and_goes_to_any_depth(self, tmp_path: Path) -> None:
        files = self.files()
        found = [tmp_path / "below" / name for name in ("a/z.gz", "b.gz", "c/d/e.gz")]
        for path in (found[2], found[0], found[1]):
            files.write_new_durably(path, [b"x"])
        files.write_new_durably(tmp_path / "beside.gz", [b"x"])
        assert files.list(tmp_path / "below") == found
        assert files.list(tmp_path / "belo") == []

    def test_only_an_empty_directory_is_removed_as_one(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "below" / "a.gz"
        files.write_new_durably(path, [b"first"])
        files.remove_empty(path.parent)
        assert files.read(path) == b"first"
        files.remove(path)
        for _ in range(2):
            files.remove_empty(path.parent)
        assert not path.parent.exists()
        files.write_new_durably(path, [b"second"])
        assert files.read(path) == b"second"

    def test_removing_twice_is_harmless_and_the_name_is_free_again(self, tmp_path: Path) -> None:
        files, path = self.files(), tmp_path / "a.gz"
        files.write_new_durably(path, [b"first"])
        files.remove(path)
        files.remove(path)
        assert files.list(tmp_path) == []
        files.write_new_durably(path, [b"second"])
        assert files.read(path) == b"second"
