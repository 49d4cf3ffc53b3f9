"""A disk that loses power in the middle of a write, and afterwards shows only what was durable.

It keeps two states: what a running process sees, and what a power cut would leave. A call moves the second one in
steps, and between any two steps the power may go: each such place is a *moment*, counted from 1, so that a test can
enumerate them. What is left after a cut:

| cut in the middle of | durable then                                                                           |
|----------------------|----------------------------------------------------------------------------------------|
| write_new_durably    | nothing; a torn `.part` beside the name; or the whole file, though the call never returned |
| append_durably       | nothing of it; a torn part of it; all of it. A new file also: no directory entry        |
| remove               | the file, or not. A removal that returned may be undone until its directory is synced   |
| a database commit    | (`moment` around it, see `testing.simulation`) not committed, or committed and not told |

Not modelled: damage of bytes that were durable, pages that reach the medium in another order than their file, and the
inside of SQLite. It passes the same suite as the real disk (`testing.files.FilesSuite`).
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from overnight.errors import DiskFull, ObjectMissing
from overnight.ports.entropy import Entropy


class PowerCut(BaseException):
    """The machine is off. No handler of an expected error may catch it."""


class SimDisk:
    """`Files` in memory. With `entropy`, torn lengths and undone removals are rolled; without, they are the worst."""

    def __init__(self, entropy: Entropy | None = None) -> None:
        self.moments = 0  # Passed so far, over all lives.
        self.is_full = False  # While set, writes fail and leave nothing.
        self.is_off = False
        self._cut_at = 0
        self._entropy = entropy
        self._visible: dict[Path, bytes] = {}
        self._durable: dict[Path, bytes] = {}

    def cut_after(self, moments: int) -> None:
        """Lose power at this many moments from now."""
        self._cut_at = self.moments + moments

    def restore_power(self) -> None:
        """The next life begins: what is visible is what was durable."""
        self._visible = dict(self._durable)
        self.is_off, self._cut_at = False, 0

    def moment(self, left: Callable[[], None] = lambda: None) -> None:
        """A place where the power may go; `left` then says what of the current step had become durable."""
        self._check_power()
        self.moments += 1
        if self.moments == self._cut_at:
            left()
            self._undo_no_more_than_allowed()
            self.is_off = True
            raise PowerCut

    def write_new_durably(self, path: Path, pieces: Iterable[bytes]) -> None:
        self._begin_write()
        if path in self._visible:
            return
        part = path.with_name(path.name + ".part")
        data = b"".join(pieces)
        self.moment()
        self.moment(lambda: self._leave(part, self._torn(data)))
        self._visible[path] = data
        self._sync(path)
        self.moment()

    def append_durably(self, path: Path, data: bytes) -> None:
        self._begin_write()
        is_new, old = path not in self._visible, self._visible.get(path, b"")
        self.moment()
        self.moment(lambda: self._leave(path, old + self._torn(data)))
        self._visible[path] = old + data
        if is_new:
            self.moment()  # Data without a directory entry is no file.
        self._sync(path)
        self.moment()

    def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        self._check_power()
        if path not in self._visible:
            raise ObjectMissing(f"{path} does not exist")
        return self._visible[path][offset : None if length is None else offset + length]

    def list(self, directory: Path) -> list[Path]:
        self._check_power()
        return sorted(path for path in self._visible if directory in path.parents)

    def remove(self, path: Path) -> None:
        self._check_power()
        if path in self._visible:
            self.moment()
            del self._visible[path]
            self.moment(lambda: self._forget(path))

    def remove_empty(self, directory: Path) -> None:
        self._check_power()  # Directories are no more here than parts of names.

    def _check_power(self) -> None:
        if self.is_off:
            raise PowerCut

    def _begin_write(self) -> None:
        self._check_power()
        if self.is_full:
            raise DiskFull("no space left on the simulated disk")

    def _sync(self, path: Path) -> None:
        """Data and directory are on the medium: so are earlier removals from that directory."""
        self._durable[path] = self._visible[path]
        for other in [found for found in self._durable if found.parent == path.parent]:
            if other not in self._visible:
                self._forget(other)

    def _torn(self, data: bytes) -> bytes:
        share = 0.5 if self._entropy is None else self._entropy.uniform()
        return data[: int(len(data) * share)]

    def _leave(self, path: Path, data: bytes) -> None:
        self._durable[path] = data

    def _forget(self, path: Path) -> None:
        self._durable.pop(path, None)

    def _undo_no_more_than_allowed(self) -> None:
        """A removal whose directory was not synced may or may not survive."""
        for path in sorted(self._durable):
            is_part = path.suffix == ".part"
            if (
                path not in self._visible
                and not is_part
                and self._entropy is not None
                and self._entropy.uniform() < 0.5
            ):
                self._forget(path)
