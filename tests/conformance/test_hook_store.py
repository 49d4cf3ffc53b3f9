"""The outbox of hooks keeps the promises of its Protocol."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from overnight.errors import StoreError
from overnight.store.committer import InlineCommitter, ThreadCommitter
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.sqlitehooks import SqliteHooks
from overnight.testing.controlcases import OURS, created, leased, sealed
from overnight.testing.hookcases import HookStoreSuite, Opened, added, all_of


class TestSqliteOnItsThread(HookStoreSuite):
    """As in production."""

    @asynccontextmanager
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        committer = ThreadCommitter(connect(tmp_path / "control.sqlite3"))
        try:
            yield Opened(SqliteHooks(committer), SqliteControl(committer))
        finally:
            await committer.close()

    def test_a_batch_whose_end_cannot_be_told_has_not_ended(self, tmp_path: Path) -> None:
        """The end and its deliveries are one transaction: an outbox that cannot be written keeps the batch open."""

        async def main() -> None:
            async with self.opened(tmp_path) as opened:
                await added(opened.hooks, "a")
                batch = await created(opened.control, "a")
                (item,) = await leased(opened.control)
                _on_the_side(tmp_path, "ALTER TABLE deliveries RENAME TO deliveries_away")
                with pytest.raises(StoreError, match="deliveries"):
                    await sealed(opened.control, item)
                _on_the_side(tmp_path, "ALTER TABLE deliveries_away RENAME TO deliveries")
                assert await opened.control.batch(OURS, batch.id) == batch
                assert (await sealed(opened.control, item)).status == "ended"
                assert len(await all_of(opened.hooks)) == 1

        asyncio.run(main())


class TestSqliteInline(HookStoreSuite):
    """As in simulations."""

    @asynccontextmanager
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        committer = InlineCommitter(connect(tmp_path / "control.sqlite3"), before_commit=lambda: None)
        try:
            yield Opened(SqliteHooks(committer), SqliteControl(committer))
        finally:
            await committer.close()


def _on_the_side(tmp_path: Path, statement: str) -> None:
    connection = sqlite3.connect(tmp_path / "control.sqlite3")
    connection.execute(statement)
    connection.close()
