"""What is left of a batch in a data directory: everything is searched, also what no program reads any more.

Rows of all tables, names of files, the bytes of every file, and what is inside of gzip members, whole ones or, in the
pages of a database, as far as they can be read. Blocking. Changes nothing; a server may run meanwhile.
"""

import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from overnight import limits
from overnight.errors import StoreError
from overnight.ids import BatchId
from overnight.store.layout import DataDirectory
from overnight.store.splice import HEADER

What: TypeAlias = Literal["id", "text"]
Needles: TypeAlias = Mapping[What, tuple[bytes, ...]]

_PIECE_BYTES: Final = limits.MIB
_FRAGMENT_BYTES: Final = 2 * limits.INLINE_BYTES_MAX  # Of a database, that a member of a row may stretch over.
_STEP_BYTES: Final = 256  # A damaged member is read up to the step that breaks.
_GZIP: Final = b"\x1f\x8b"
_SQLITE: Final = b"SQLite format 3\0"


class Trace(Struct, frozen=True, kw_only=True):
    """One place where something is left, and how often it is there."""

    place: str  # A table and column, or a file of the directory.
    what: What
    count: int


def needles(batch_id: BatchId, text: str = "") -> Needles:
    """What is searched for: the id, and a text as it may stand in JSON."""
    if not text:
        return {"id": (batch_id.encode(),)}
    spelled = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return {"id": (batch_id.encode(),), "text": tuple(sorted({item.encode() for item in spelled}))}


def find(root: Path, wanted: Needles) -> Iterator[Trace]:
    """Every place where something is left, as it is found. StoreError if the directory cannot be read."""
    directory = DataDirectory(root)
    if not directory.root.is_dir():
        raise StoreError(f"there is no directory {root}; name the data directory with --data")
    if directory.database.exists():
        yield from _in_tables(directory.database, wanted)
    try:
        for path in sorted(directory.root.rglob("*")):
            yield from _in_file(path, path.relative_to(directory.root).as_posix(), wanted)
    except OSError as error:
        raise StoreError(f"{error.filename}: {error.strerror}") from error


def _traces(place: str, found: Mapping[What, int]) -> Iterator[Trace]:
    return (Trace(place=place, what=what, count=count) for what, count in found.items() if count)


# --- Rows -----------------------------------------------------------------------------------------------------------


def _in_tables(database: Path, wanted: Needles) -> Iterator[Trace]:
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as sql:
            for (table,) in sql.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            ).fetchall():
                yield from _in_table(sql, table, wanted)
    except sqlite3.Error as error:
        raise StoreError(f"{database}: {error}") from error


def _in_table(sql: sqlite3.Connection, table: str, wanted: Needles) -> Iterator[Trace]:
    quoted = table.replace('"', '""')
    rows = sql.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608  A name out of the schema, quoted.
    columns = [name for name, *_ in rows.description]
    found: dict[str, Counter[What]] = {column: Counter() for column in columns}
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            for what in _in_value(value, wanted):
                found[column][what] += 1
    for column, counted in found.items():
        yield from _traces(f"table {table}, column {column}", counted)


def _in_value(value: Any, wanted: Needles) -> Iterator[What]:
    if not isinstance(value, str | bytes):
        return
    stored = value.encode() if isinstance(value, str) else value
    texts = [stored, *inflated([stored])] if stored.startswith(_GZIP) else [stored]
    for what, spelled in wanted.items():
        if any(one in text for one in spelled for text in texts):
            yield what


# --- Files ----------------------------------------------------------------------------------------------------------


def _in_file(path: Path, name: str, wanted: Needles) -> Iterator[Trace]:
    named = path.name.encode()
    if any(one in named for one in wanted["id"]):
        yield Trace(place=f"name of {name}", what="id", count=1)
    try:
        if path.is_symlink() or not path.is_file():
            return
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
        yield from _traces(f"bytes of {name}", _counted(_pieces(path), wanted))
        if head.startswith(_GZIP):
            yield from _traces(f"inside of {name}", _counted(inflated(_pieces(path)), wanted))
        elif head == _SQLITE or name.endswith("-wal"):
            yield from _traces(f"gzip inside of {name}", _counted(_fragments(path), wanted))
    except FileNotFoundError:
        return  # A server removed it meanwhile.


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _counted(pieces: Iterable[bytes], wanted: Needles) -> Counter[What]:
    """How often each is there, also across the border of two pieces."""
    found: Counter[What] = Counter()
    tails: dict[bytes, bytes] = {}
    for piece in pieces:
        for what, spelled in wanted.items():
            for one in spelled:
                window = tails.get(one, b"") + piece
                found[what] += window.count(one)
                tails[one] = window[len(window) - len(one) + 1 :] if len(one) > 1 else b""
    return found


def inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What is inside of gzip members, one behind the other, up to the first that is damaged."""
    inflater = zlib.decompressobj(wbits=31)
    for piece in pieces:
        waiting = piece
        while waiting:
            try:
                yield inflater.decompress(waiting, _PIECE_BYTES)
            except zlib.error:
                return
            waiting = inflater.unconsumed_tail or inflater.unused_data
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=31)


def _fragments(path: Path) -> Iterator[bytes]:
    """What can be read of the members in the pages of a database, wherever one begins. Zeros stand between them."""
    held = b""
    for piece in _pieces(path):
        held += piece
        whole = len(held) - _FRAGMENT_BYTES
        yield from _fragments_of(held, until=whole)
        held = held[max(0, whole) :]
    yield from _fragments_of(held, until=len(held))


def _fragments_of(held: bytes, *, until: int) -> Iterator[bytes]:
    start = held.find(HEADER)
    while 0 <= start < until:
        yield from _readable(held[start : start + _FRAGMENT_BYTES])
        yield b"\0"
        start = held.find(HEADER, start + 1)


def _readable(fragment: bytes) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    for start in range(0, len(fragment), _STEP_BYTES):
        try:
            yield inflater.decompress(fragment[start : start + _STEP_BYTES], _PIECE_BYTES)
        except zlib.error:
            return
        if inflater.eof:
            return
