"""One thread owns the SQLite connection; what waits for it is committed together (group commit).

A commit under `synchronous=FULL` costs an fsync, about a thousand times the statements in it. So operations that
arrive while a commit runs form the next one: alone an operation is committed at once, under load hundreds share
one fsync (docs/adr/0006: 409 single commits a second, 21,496 rows in groups of 64). Each operation runs in
its own savepoint: one that fails takes no other with it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from overnight.errors import DiskFull, StoreError

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

GROUP_MAX = 512  # Operations in one commit: bounds how long the first of them waits for the last.


class Committer(Protocol):
    """Runs operations on the one connection."""

    async def write(self, operation: Operation[T]) -> T:
        """The value of the operation, once it is committed durably; its exception if it was rolled back."""
        ...

    async def read(self, operation: Operation[T]) -> T:
        """The value of an operation that changes nothing. Sees every write that has returned."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, then close the connection."""
        ...


class InlineCommitter:
    """Commits each operation by itself, in the caller's thread: for virtual time."""

    def __init__(self, connection: sqlite3.Connection, *, before_commit: Callable[[], None]) -> None:
        self._connection, self._before_commit = connection, before_commit

    async def write(self, operation: Operation[T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            value = operation(self._connection)
            self._before_commit()
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise
        return value

    async def read(self, operation: Operation[T]) -> T:
        return operation(self._connection)

    async def close(self) -> None:
        self._connection.close()


class _Submitted(NamedTuple):
    operation: Operation[Any]
    is_write: bool
    future: "asyncio.Future[Any]"


class _Done(NamedTuple):
    future: "asyncio.Future[Any]"
    value: Any
    error: BaseException | None


class ThreadCommitter:
    """The production committer: one thread, group commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` must be in autocommit mode and usable from another thread; it belongs to us now."""
        self._connection = connection
        self._queue: SimpleQueue[_Submitted | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._work, name="overnight-sql")
        self._thread.start()

    async def write(self, operation: Operation[T]) -> T:
        return await self._submit(operation, is_write=True)

    async def read(self, operation: Operation[T]) -> T:
        return await self._submit(operation, is_write=False)

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.shield(self._loop.run_in_executor(None, self._thread.join))

    async def _submit(self, operation: Operation[T], *, is_write: bool) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Submitted(operation, is_write, future))
        return await future

    def _work(self) -> None:
        is_open = True
        while is_open:
            group = [self._queue.get()]
            while len(group) < GROUP_MAX:
                try:
                    group.append(self._queue.get_nowait())
                except Empty:
                    break
            is_open = None not in group
            submitted = [item for item in group if item is not None]
            done = [_run(self._connection, item) for item in submitted if not item.is_write]
            done += _commit_together(self._connection, [item for item in submitted if item.is_write])
            self._loop.call_soon_threadsafe(_settle, done)
        self._connection.close()


def _settle(done: list[_Done]) -> None:
    for item in done:
        if item.future.cancelled():
            continue
        if item.error is None:
            item.future.set_result(item.value)
        else:
            item.future.set_exception(item.error)


def _run(connection: sqlite3.Connection, item: _Submitted) -> _Done:
    try:
        return _Done(item.future, item.operation(connection), None)
    except Exception as error:  # A bug in one operation is its caller's: without this thread everything would hang.
        return _Done(item.future, None, translated(error))


def _commit_together(connection: sqlite3.Connection, items: list[_Submitted]) -> list[_Done]:
    if not items:
        return []
    try:
        connection.execute("BEGIN IMMEDIATE")
        done = [_run_in_savepoint(connection, item) for item in items]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failure = translated(error)
        return [_Done(item.future, None, failure) for item in items]
    return done


def _run_in_savepoint(connection: sqlite3.Connection, item: _Submitted) -> _Done:
    connection.execute("SAVEPOINT operation")
    done = _run(connection, item)
    if done.error is not None and connection.in_transaction:
        connection.execute("ROLLBACK TO operation")
    connection.execute("RELEASE operation")  # Fails, and the whole group with it, if SQLite gave up the transaction.
    return done


def translated(error: BaseException) -> BaseException:
    """A database error as one of ours; others as they are."""
    if not isinstance(error, sqlite3.Error):
        return error
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return DiskFull("no space left on the disk that holds the control database")
    return StoreError(f"control database: {error}")
