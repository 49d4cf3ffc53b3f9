"""What a job asks of its databases, counted: a machine that is shared cannot be timed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Pool, event

STEPS = 100  # Of SQLite's virtual machine, between two looks.


class Cost:
    """What SQLite was asked to do. Many rows in one call are one statement."""

    def __init__(self) -> None:
        self.statements = Counter[str]()
        self.steps = 0

    @property
    def total(self) -> int:
        return self.statements.total()

    def stepped(self) -> None:
        self.steps += STEPS


@contextmanager
def counted() -> Iterator[Cost]:
    """Everything that any database is asked in a block; it must be opened there."""
    cost = Cost()

    def on_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        cost.statements[statement] += 1

    def on_connect(connection: Any, _record: Any) -> None:
        connection.set_progress_handler(cost.stepped, STEPS)

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Pool, "connect", on_connect)
    try:
        yield cost
    finally:
        event.remove(Engine, "before_cursor_execute", on_statement)
        event.remove(Pool, "connect", on_connect)
