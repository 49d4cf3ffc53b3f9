"""Every store of workspaces and keys keeps the promises of its Protocol."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from overnight.store.access import AccessStore
from overnight.store.committer import InlineCommitter, ThreadCommitter
from overnight.store.sqlite import connect
from overnight.store.sqliteaccess import SqliteAccess
from overnight.testing.accesscases import AccessSuite


class TestSqliteOnItsThread(AccessSuite):
    """As in production."""

    @asynccontextmanager
    async def access(self, tmp_path: Path) -> AsyncIterator[AccessStore]:
        committer = ThreadCommitter(connect(tmp_path / "control.sqlite3"))
        try:
            yield SqliteAccess(committer)
        finally:
            await committer.close()


class TestSqliteInline(AccessSuite):
    """As in simulations."""

    @asynccontextmanager
    async def access(self, tmp_path: Path) -> AsyncIterator[AccessStore]:
        committer = InlineCommitter(connect(tmp_path / "control.sqlite3"), before_commit=lambda: None)
        try:
            yield SqliteAccess(committer)
        finally:
            await committer.close()
