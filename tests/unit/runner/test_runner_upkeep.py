"""runner.upkeep: what is old or deleted goes, from the files of the database too, and readers only delay it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path

import pytest

from overnight import limits
from overnight.core.usage import Sums, Used
from overnight.core.workspace import Rules
from overnight.errors import StoreError
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.offload import InlineOffload
from overnight.ports.world import World
from overnight.runner.upkeep import Upkeep
from overnight.store.objects import requests_key, results_key
from overnight.store.store import Store, open_directory
from overnight.store.usage import Asked, Entry
from overnight.testing.controlcases import OURS, T0, THEIRS, created, leased, sealed
from overnight.testing.virtualtime import VirtualClock


class House:
    """A store, its upkeep, the rules, and the clock."""

    def __init__(self, store: Store, root: Path, clock: VirtualClock, world: World) -> None:
        self.store, self.root, self.clock = store, root, clock
        self.rules: dict[WorkspaceId, Rules] = {}
        self.upkeep = Upkeep(store, world, lifetimes=lambda: self.rules)

    async def ended(self, name: str, *, workspace: WorkspaceId = OURS) -> BatchId:
        """An ended batch with an object for its requests and one for its results."""
        batch = await created(self.store.control, name, workspace=workspace, at_ms=self.clock.now_ms())
        for item in await leased(self.store.control, now_ms=self.clock.now_ms()):
            await self.store.objects.put_new(results_key(item.lease.segment, epoch=1), [b"results"])
            await sealed(self.store.control, item, now_ms=self.clock.now_ms())
        await self.store.objects.put_new(requests_key(batch.id), [b"requests"])
        return batch.id

    def held(self) -> bytes:
        """All bytes and all names."""
        paths = sorted(self.root.rglob("*"))
        return b"".join(path.read_bytes() if path.is_file() else b"" for path in paths) + repr(paths).encode()


Case = Callable[[House], Awaitable[None]]


@asynccontextmanager
async def house(root: Path) -> AsyncIterator[House]:
    clock = VirtualClock()
    world = World(clock=clock, offload=InlineOffload())
    async with open_directory(root, world) as store:
        yield House(store, root, clock, world)


def lived(case: Case) -> Callable[[Path], None]:
    """A test with a house in it."""

    def test(tmp_path: Path) -> None:
        async def live() -> None:
            async with house(tmp_path / "data") as here:
                await case(here)

        asyncio.run(live())

    test.__name__, test.__doc__ = getattr(case, "__name__", "case"), case.__doc__
    return test


def wal_bytes(here: House) -> int:
    return (here.root / "control.sqlite3-wal").stat().st_size


@lived
async def test_requests_go_before_results_and_results_before_the_batch(here: House) -> None:
    here.rules[OURS] = Rules(requests_days=1, results_days=3)
    ours, theirs = await here.ended("a"), await here.ended("b", workspace=THEIRS)
    await here.upkeep.once()
    assert len(await here.store.objects.keys()) == 4
    here.clock.jump(limits.DAY_MS)
    await here.upkeep.once()
    assert f"requests/{ours}.gz" not in await here.store.objects.keys()
    assert len(await here.store.objects.keys()) == 3
    here.clock.jump(2 * limits.DAY_MS)
    await here.upkeep.once()
    assert await here.store.objects.keys() == [f"requests/{theirs}.gz", f"results/{theirs}/0-1.gz"]
    assert not (here.root / "objects" / "results" / ours).exists()
    page = await here.store.control.page(OURS, limit=10)
    assert page is not None
    assert [batch.archived_at_ms for batch in page.batches] == [here.clock.now_ms()]


@lived
async def test_rules_count_as_they_are_now(here: House) -> None:
    await here.ended("a")
    await here.upkeep.once()
    assert len(await here.store.objects.keys()) == 2
    here.rules[OURS] = Rules(results_days=0)
    await here.upkeep.once()
    assert await here.store.objects.keys() == []


@lived
async def test_a_deleted_batch_is_in_no_byte_after_one_pass(here: House) -> None:
    batch_id = await here.ended("verylongname")
    await here.store.control.delete(OURS, batch_id)
    assert batch_id.encode() in here.held()
    here.upkeep.ring()
    await here.upkeep.once()
    assert batch_id.encode() not in here.held()
    assert wal_bytes(here) == 0


@lived
async def test_what_a_process_before_removed_is_cleared_by_the_first_pass(here: House) -> None:
    batch_id = await here.ended("verylongname")
    await here.store.control.delete(OURS, batch_id)
    await here.store.control.forget_garbage(await here.store.control.garbage(limit=10))
    await here.upkeep.once()  # It was not rung.
    assert wal_bytes(here) == 0


@lived
async def test_a_reader_in_the_way_only_delays_it(here: House) -> None:
    batch_id = await here.ended("verylongname")
    with closing(sqlite3.connect(here.root / "control.sqlite3", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM batches").fetchall()
        await here.store.control.delete(OURS, batch_id)
        here.upkeep.ring()
        await here.upkeep.once()
        assert batch_id.encode() in here.held()
    await here.upkeep.once()
    assert batch_id.encode() not in here.held()


@lived
async def test_pages_are_made_anew_once_an_hour_and_only_after_a_removal(here: House) -> None:
    def changes() -> int:
        """SQLite's own count of schema changes: VACUUM makes one."""
        with closing(sqlite3.connect(here.root / "control.sqlite3")) as sql:
            return int(sql.execute("PRAGMA schema_version").fetchone()[0])

    counts = [changes()]
    for is_removed, later_ms in ((True, 0), (True, limits.UPKEEP_HOURLY_MS - 1), (False, 1), (False, 10**8)):
        here.clock.jump(later_ms)
        if is_removed:
            here.upkeep.ring()
        await here.upkeep.once()
        counts.append(changes())
    assert [after - before for before, after in pairwise(counts)] == [1, 0, 1, 0]


@lived
async def test_minutes_of_usage_become_hours(here: House) -> None:
    used = Used(model="m", engine="e", service_tier="batch", sums=Sums(requests=1))
    for minute in range(3):
        at_ms = T0 - T0 % limits.DAY_MS + minute * 60_000
        await here.store.usage.note([Entry(workspace=OURS, api_key="", used=used)], now_ms=at_ms)
    asked = Asked(since_ms=0, until_ms=10**15, width_ms=60_000)
    assert len(await here.store.usage.report(asked)) == 3
    here.clock.jump(4 * limits.DAY_MS)
    await here.upkeep.once()
    (row,) = await here.store.usage.report(asked)
    assert row.sums.requests == 3


def test_a_pass_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    async def live() -> None:
        async with house(tmp_path / "data") as here:
            batch_id = await here.ended("a")
            await here.store.control.delete(OURS, batch_id)
            folder = here.root / "objects" / "results" / batch_id
            (folder / "0-1.gz").unlink()
            (folder / "0-1.gz").mkdir()
            with pytest.raises(StoreError, match="0-1"):
                await here.upkeep.once()
            (folder / "0-1.gz").rmdir()
            await here.upkeep.once()
            assert await here.store.control.garbage(limit=10) == []

    asyncio.run(live())
