"""Custom ids: legal for the API, unique in a run, and the same every time for the same key."""

import hashlib
import re
from collections.abc import Iterable

from overnight.errors import JobError
from overnight.jobs.row import Key
from overnight.limits import CUSTOM_ID_LENGTH_MAX

_is_legal = re.compile(rf"[a-zA-Z0-9_-]{{1,{CUSTOM_ID_LENGTH_MAX}}}").fullmatch
_DIGEST_LENGTH = 32  # Hex digits: 128 bits, no two alike among any number of rows.
_SHOWN = 3


def custom_id(wanted: str) -> str:
    """`wanted` if the API takes it, else a hash of it (https://platform.claude.com/docs/en/api/messages/batches/create)."""
    if _is_legal(wanted) is not None:
        return wanted
    return hashlib.sha256(wanted.encode()).hexdigest()[:_DIGEST_LENGTH]


class Unique:
    """Keys and ids of one run. A database would let a key name two rows; an answer could then reach only one."""

    def __init__(self) -> None:
        self._keys = set[Key]()
        self._ids = set[str]()
        self._repeated: list[str] = []

    def add(self, key: Key, custom_id: str) -> None:
        """Note a row; what is wrong is said by `check`, so that three rows can be named."""
        if key in self._keys:
            self._note(f"key {key!r}")
        elif custom_id in self._ids:
            self._note(f"id {custom_id!r} (of key {key!r})")
        self._keys.add(key)
        self._ids.add(custom_id)

    def check(self) -> None:
        """Raises JobError with the first rows that are there twice."""
        if self._repeated:
            raise JobError(
                f"rows must differ in their key, and in their custom id: {_listed(self._repeated)} came twice; "
                "select each row once, or set [source] key"
            )

    def _note(self, what: str) -> None:
        if len(self._repeated) < _SHOWN:
            self._repeated.append(what)


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items)
