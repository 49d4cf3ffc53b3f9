"""store.committer and the number of statements: what waits is committed together, and one failure is one failure."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overnight.core.batch import Tally
from overnight.errors import Conflict, LeaseLost, StoreError
from overnight.store.committer import InlineCommitter, ThreadCommitter
from overnight.store.sqlite import SqliteControl, connect
from overnight.testing.controlcases import OURS, leased, new_batch, results_of


class Traced:
    """Counts what a connection executes, by the first word of each statement."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        self.words = Counter[str]()
        self.connection.set_trace_callback(lambda sql: self.words.update([sql.split(maxsplit=1)[0]]))

    @property
    def statements(self) -> int:
        return sum(
            count for word, count in self.words.items() if word in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
        )


class Door:
    """An operation that holds the SQL thread until it is opened, so that others queue up behind it."""

    def __init__(self) -> None:
        self.entered, self.open = asyncio.Event(), threading.Event()
        self._loop = asyncio.get_running_loop()

    def operation(self, sql: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self.open.wait(30)


def test_what_waits_for_a_commit_is_committed_together(tmp_path: Path) -> None:
    async def main() -> None:
        traced = Traced(tmp_path / "control.sqlite3")
        committer = ThreadCommitter(traced.connection)
        control, door = SqliteControl(committer), Door()
        async with asyncio.TaskGroup() as group:
            group.create_task(committer.write(door.operation))
            await door.entered.wait()
            creates = [group.create_task(control.create(new_batch(f"n{number}"))) for number in range(64)]
            await asyncio.sleep(0)  # All of them are queued now.
            door.open.set()
        assert all(create.result().is_new for create in creates)
        assert traced.words["COMMIT"] == 2, "the door's own, and one for 64 creates"
        await control.close()

    asyncio.run(main())


def test_alone_an_operation_is_committed_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        traced = Traced(tmp_path / "control.sqlite3")
        control = SqliteControl(ThreadCommitter(traced.connection))
        for number in range(3):
            await control.create(new_batch(f"n{number}"))
            assert traced.words["COMMIT"] == number + 1
        await control.close()

    asyncio.run(main())


def _inserts(name: str, *, then: Callable[[], Any] = lambda: None) -> Callable[[sqlite3.Connection], Any]:
    def operation(sql: sqlite3.Connection) -> Any:
        sql.execute("INSERT INTO garbage VALUES (?)", (name,))
        return then()

    return operation


def _raises(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Conflict("no"), Conflict),
        (LeaseLost("no"), LeaseLost),
        (sqlite3.OperationalError("no"), StoreError),
        (AssertionError("I2"), AssertionError),
        (TypeError("a bug"), TypeError),
    ],
)
def test_one_failing_operation_takes_no_other_with_it(
    error: Exception, kind: type[Exception], tmp_path: Path
) -> None:
    """Not those in its commit, nor those after it; and of itself it leaves nothing."""

    async def main() -> None:
        committer, door = ThreadCommitter(connect(tmp_path / "control.sqlite3")), Door()
        async with asyncio.timeout(20):
            tasks = asyncio.gather(
                committer.write(door.operation),
                committer.write(_inserts("before")),
                committer.write(_inserts("failing", then=_raises(error))),
                committer.write(_inserts("behind")),
                return_exceptions=True,
            )
            await door.entered.wait()
            door.open.set()
            found = await tasks
            with pytest.raises(kind):
                await committer.read(lambda sql: _raises(error)())
            keys = await committer.read(lambda sql: sql.execute("SELECT key FROM garbage ORDER BY key").fetchall())
        assert [type(item) for item in found] == [type(None), type(None), kind, type(None)]
        assert keys == [("before",), ("behind",)]
        await committer.close()

    asyncio.run(main())


def test_a_commit_that_fails_fails_all_that_were_in_it_and_the_next_one_works(tmp_path: Path) -> None:
    async def main() -> None:
        committer = ThreadCommitter(connect(tmp_path / "control.sqlite3"))

        def rolls_back(sql: sqlite3.Connection) -> None:
            sql.execute("ROLLBACK")  # As SQLite does by itself when the disk fails.

        door = Door()
        tasks = asyncio.gather(
            committer.write(door.operation),
            committer.write(_inserts("lost")),
            committer.write(rolls_back),
            return_exceptions=True,
        )
        await door.entered.wait()
        door.open.set()
        found = await tasks
        assert [type(item) for item in found[1:]] == [StoreError, StoreError]
        await committer.write(_inserts("kept"))
        assert await committer.read(lambda sql: sql.execute("SELECT key FROM garbage").fetchall()) == [("kept",)]
        await committer.close()

    asyncio.run(main())


def test_a_waiter_that_goes_away_does_not_stop_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        committer, door = ThreadCommitter(connect(tmp_path / "control.sqlite3")), Door()
        async with asyncio.TaskGroup() as group:
            group.create_task(committer.write(door.operation))
            await door.entered.wait()
            gone = group.create_task(committer.write(_inserts("gone")))
            stays = group.create_task(committer.write(_inserts("stays")))
            await asyncio.sleep(0)
            gone.cancel()
            door.open.set()
        assert stays.result() is None
        count = await committer.read(lambda sql: sql.execute("SELECT count(*) FROM garbage").fetchone())
        assert count == (2,), "what was submitted is done, whoever waits for it"
        await committer.close()

    asyncio.run(main())


def test_closing_finishes_what_was_submitted(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "control.sqlite3"
        committer = ThreadCommitter(connect(path))
        writes = asyncio.gather(*(committer.write(_inserts(str(number))) for number in range(20)))
        await asyncio.sleep(0)
        await committer.close()
        await writes
        reopened = connect(path)
        assert reopened.execute("SELECT count(*) FROM garbage").fetchone() == (20,)
        reopened.close()

    asyncio.run(main())


def _statements_of_a_life(path: Path, *, requests_each: int) -> Counter[str]:
    """Of one batch of ten segments, from create to delete."""

    async def main() -> Counter[str]:
        traced = Traced(path)
        control = SqliteControl(InlineCommitter(traced.connection, before_commit=lambda: None))
        batch = (await control.create(new_batch("a", segments=10, requests_each=requests_each))).batch
        for item in await leased(control, requests=10 * requests_each):
            await control.renew("w1", now_ms=batch.created_at_ms)
            tally = Tally(succeeded=item.source.requests)
            await control.seal(item.lease, tally, results_of(item), now_ms=batch.created_at_ms)
        assert len(await control.results(batch.id)) == 10
        await control.delete(OURS, batch.id)
        await control.close()
        return traced.words

    return asyncio.run(main())


def test_statements_do_not_grow_with_requests(tmp_path: Path) -> None:
    """I8: a batch of 10 requests and one of 100,000, in equally many segments."""
    small = _statements_of_a_life(tmp_path / "small.sqlite3", requests_each=1)
    large = _statements_of_a_life(tmp_path / "large.sqlite3", requests_each=10_000)
    assert small == large
    assert small["INSERT"] >= 11, "the batch and its segments were counted"
