"""Every store keeps the promises of its Protocol."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from overnight.ports.files import OsFiles
from overnight.ports.offload import InlineOffload, ThreadOffload
from overnight.store.committer import InlineCommitter, ThreadCommitter
from overnight.store.control import Control
from overnight.store.objects import LocalObjects, Objects
from overnight.store.sqlite import SqliteControl, connect
from overnight.testing.memory import MemoryObjects
from overnight.testing.simdisk import SimDisk
from overnight.testing.stores import ControlSuite, ObjectsSuite


class TestSqliteOnItsThread(ControlSuite):
    """As in production."""

    @asynccontextmanager
    async def control(self, tmp_path: Path) -> AsyncIterator[Control]:
        control = SqliteControl(ThreadCommitter(connect(tmp_path / "control.sqlite3")))
        try:
            yield control
        finally:
            await control.close()


class TestSqliteInline(ControlSuite):
    """As in simulations."""

    @asynccontextmanager
    async def control(self, tmp_path: Path) -> AsyncIterator[Control]:
        connection = connect(tmp_path / "control.sqlite3")
        control = SqliteControl(InlineCommitter(connection, before_commit=lambda: None))
        try:
            yield control
        finally:
            await control.close()


class TestLocalObjects(ObjectsSuite):
    @asynccontextmanager
    async def objects(self, tmp_path: Path) -> AsyncIterator[Objects]:
        offload = ThreadOffload()
        yield LocalObjects(tmp_path / "objects", files=OsFiles(), offload=offload)
        offload.close()


class TestLocalObjectsOnTheSimulatedDisk(ObjectsSuite):
    @asynccontextmanager
    async def objects(self, tmp_path: Path) -> AsyncIterator[Objects]:
        yield LocalObjects(tmp_path, files=SimDisk(), offload=InlineOffload())


class TestMemoryObjects(ObjectsSuite):
    def objects(self, tmp_path: Path) -> AbstractAsyncContextManager[Objects]:
        return _memory()


@asynccontextmanager
async def _memory() -> AsyncIterator[Objects]:
    yield MemoryObjects()
