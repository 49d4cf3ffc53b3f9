"""What a line of the log says beside its words: fields of the event, and ids of what it is about.

Fields are ids, names of ours and numbers. What clients and engines wrote, prompts and answers above all, is none.
`server.logs` writes the lines.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TypeAlias

Field: TypeAlias = str | int | float | bool | None

_about: ContextVar[Mapping[str, Field]] = ContextVar("overnight_about", default=MappingProxyType({}))


@contextmanager
def about(**ids: Field) -> Iterator[None]:
    """All lines of this block, also those of functions it calls and tasks it starts, bear these ids."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def ids() -> Mapping[str, Field]:
    """What the caller is about."""
    return _about.get()


def tell(log: logging.Logger, level: int, event: str, /, **fields: Field) -> None:
    """Write one line: `event` in constant words, what varies in fields."""
    if log.isEnabledFor(level):
        log.log(level, event, extra={"fields": fields})
