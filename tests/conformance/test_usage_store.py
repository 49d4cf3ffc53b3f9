"""Every usage store keeps the promises of its Protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from overnight.store.committer import Committer, InlineCommitter, ThreadCommitter
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.sqliteusage import SqliteUsage
from overnight.testing.usagecases import Opened, UsageSuite


@asynccontextmanager
async def _over(committer: Committer) -> AsyncIterator[Opened]:
    control = SqliteControl(committer)
    try:
        yield Opened(control, SqliteUsage(committer))
    finally:
        await control.close()


class TestSqliteOnItsThread(UsageSuite):
    """As in production."""

    @asynccontextmanager
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        async with _over(ThreadCommitter(connect(tmp_path / "control.sqlite3"))) as opened:
            yield opened


class TestSqliteInline(UsageSuite):
    """As in simulations."""

    @asynccontextmanager
    async def opened(self, tmp_path: Path) -> AsyncIterator[Opened]:
        async with _over(
            InlineCommitter(connect(tmp_path / "control.sqlite3"), before_commit=lambda: None)
        ) as opened:
            yield opened
