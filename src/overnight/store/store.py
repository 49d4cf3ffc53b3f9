"""The whole store in one hand. Opening it is recovery: there is no other code path after a crash.

On opening, leases of the process that died are freed, objects that no row names are noted for removal, and
checkpoint logs of segments that were sealed are removed. Logs of unsealed segments stay: whoever leases the segment
next continues from them.
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from overnight.core.lease import SegmentRef
from overnight.errors import DirectoryInUse
from overnight.ids import BatchId
from overnight.ports.world import World
from overnight.store import layout
from overnight.store.access import AccessStore
from overnight.store.checkpoint import Checkpoints
from overnight.store.committer import Committer, ThreadCommitter
from overnight.store.control import Control
from overnight.store.hooks import HookStore
from overnight.store.objects import LocalObjects, Objects
from overnight.store.sqlite import SqliteControl, connect, connect_beside
from overnight.store.sqliteaccess import SqliteAccess
from overnight.store.sqlitehooks import SqliteHooks
from overnight.store.sqliteusage import SqliteUsage
from overnight.store.usage import UsageStore


@dataclass(frozen=True)
class Store:
    """Everything durable."""

    control: Control
    objects: Objects
    checkpoints: Checkpoints
    access: AccessStore
    usage: UsageStore
    hooks: HookStore


@asynccontextmanager
async def open_directory(root: Path, world: World) -> AsyncIterator[Store]:
    """The recovered store of a data directory, locked for this process until the block ends.

    Raises a StoreError that says what to do if the directory cannot be used; nothing in it is changed then.
    """
    directory = layout.DataDirectory(root)
    async with AsyncExitStack() as stack:
        stack.enter_context(layout.take(directory))
        store = _over(directory, ThreadCommitter(connect(directory.database)), world)
        stack.push_async_callback(store.control.close)
        await recover(store)
        yield store


@asynccontextmanager
async def open_beside(root: Path, world: World) -> AsyncIterator[Store]:
    """The store of a directory that a server may be using: for commands. Nothing is recovered.

    If no server uses it, it is locked meanwhile, made if it is missing, and brought up to date. StoreError if it
    cannot be used.
    """
    directory = layout.DataDirectory(root)
    async with AsyncExitStack() as stack:
        try:
            stack.enter_context(layout.take(directory))
            connection = connect(directory.database)
        except DirectoryInUse:
            connection = connect_beside(directory.database)
        store = _over(directory, ThreadCommitter(connection), world)
        stack.push_async_callback(store.control.close)
        yield store


def _over(directory: layout.DataDirectory, committer: Committer, world: World) -> Store:
    return Store(
        control=SqliteControl(committer),
        objects=LocalObjects(directory.objects, files=world.files, offload=world.offload),
        checkpoints=Checkpoints(directory.checkpoints, files=world.files, offload=world.offload),
        access=SqliteAccess(committer),
        usage=SqliteUsage(committer),
        hooks=SqliteHooks(committer),
    )


async def recover(store: Store) -> None:
    """Clear away what a crash left half done; idempotent, and harmless after a clean stop."""
    await store.control.note_orphans(await store.objects.keys())
    logs = defaultdict[BatchId, list[tuple[int, int]]](list)
    for segment, epoch in await store.checkpoints.all():
        logs[segment.batch_id].append((segment.index, epoch))
    for batch_id, found in logs.items():
        known = await store.control.open_segments(batch_id)
        unsealed = set(known[1]) if known else set()
        for index, epoch in found:
            if index not in unsealed:
                await store.checkpoints.remove(SegmentRef(batch_id, index), epoch=epoch)
