"""What every `store.usage.UsageStore` must do: sums by minute, key, model and engine, and of each batch.

Subclass `UsageSuite`, say how a control store and its usage are opened, and let pytest collect it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from overnight.core.batch import Tally
from overnight.core.usage import NOTHING, Bill, Cause, Sums, Used
from overnight.ids import BatchId, WorkspaceId
from overnight.limits import DAY_MS
from overnight.store.control import Control, LeasedSegment
from overnight.store.usage import Asked, Column, Entry, UsageStore
from overnight.testing.controlcases import OURS, THEIRS, leased, new_batch, results_of

_MINUTE_MS, _HOUR_MS = 60_000, 3_600_000
T0 = 1_780_012_800_000  # 2026-05-29 00:00 UTC.
_COLUMNS: tuple[Column, ...] = ("workspace", "api_key", "model", "engine", "service_tier")


class Opened(NamedTuple):
    """Both over one database: a seal writes usage in its own transaction."""

    control: Control
    usage: UsageStore


Case = Callable[[Any, Opened], Awaitable[None]]


def case(body: Case) -> Callable[["UsageSuite", Path], None]:
    """Make a test method of an async function that wants an empty store."""

    def test(suite: "UsageSuite", tmp_path: Path) -> None:
        async def hold() -> None:
            async with suite.opened(tmp_path) as opened:
                await body(suite, opened)

        asyncio.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


def used(model: str = "m", engine: str = "e", *, tier: str = "batch", **sums: int) -> Used:
    """Sums of one model at one engine."""
    return Used(model=model, engine=engine, service_tier=tier, sums=Sums(**sums))


def entry(item: Used, *, workspace: WorkspaceId = OURS, api_key: str = "") -> Entry:
    """What one key of a workspace used."""
    return Entry(workspace=workspace, api_key=api_key, used=item)


def asked(*by: Column, since_ms: int = T0 - 100 * DAY_MS, width_ms: int = 2**53, **only: list[str]) -> Asked:
    """A report from before everything on, in one bucket."""
    return Asked(since_ms=since_ms, until_ms=T0 + 100 * DAY_MS, width_ms=width_ms, by=by, only=only)  # type: ignore[arg-type]


async def _seal(opened: Opened, item: LeasedSegment, bill: Bill, *, now_ms: int = T0) -> None:
    tally = Tally(succeeded=item.source.requests)
    await opened.control.seal(item.lease, tally, results_of(item), bill=bill, now_ms=now_ms)


class UsageSuite:
    """`opened` opens an empty store."""

    def opened(self, tmp_path: Path) -> AbstractAsyncContextManager[Opened]:
        """What is tested."""
        raise NotImplementedError

    @case
    async def test_nothing_was_used_before_anything_is_noted(self, opened: Opened) -> None:
        assert await opened.usage.report(asked("model")) == []
        assert await opened.usage.of_batch(BatchId("msgbatch_01none")) == []
        assert await opened.usage.spent(since_ms=0) == {}
        assert await opened.usage.measured(since_ms=0) == {}

    @case
    async def test_what_is_noted_in_one_minute_is_added_up(self, opened: Opened) -> None:
        for now_ms in (T0, T0 + _MINUTE_MS - 1, T0 + _MINUTE_MS):
            await opened.usage.note([entry(used(requests=1, input_tokens=7, usd_nano=3))], now_ms=now_ms)
        rows = await opened.usage.report(asked(width_ms=_MINUTE_MS))
        assert [(row.at_ms, row.sums.requests) for row in rows] == [(T0, 2), (T0 + _MINUTE_MS, 1)]
        (total,) = await opened.usage.report(asked())
        assert total.sums == Sums(requests=3, input_tokens=21, usd_nano=9)

    @case
    async def test_every_count_has_a_column_of_its_own(self, opened: Opened) -> None:
        sums = Sums(**{name: 10**number for number, name in enumerate(Sums.__struct_fields__)})
        await opened.usage.note([entry(Used(model="m", engine="e", service_tier="batch", sums=sums))], now_ms=T0)
        (row,) = await opened.usage.report(asked())
        assert row.sums == sums

    @case
    async def test_a_report_groups_by_any_columns_and_takes_any_values(self, opened: Opened) -> None:
        entries = [
            entry(used(model, engine, requests=1), workspace=workspace, api_key=key)
            for workspace, key in ((OURS, "k1"), (OURS, "k2"), (THEIRS, "k3"))
            for model, engine in (("a", "x"), ("b", "x"), ("b", "y"))
        ]
        await opened.usage.note(entries, now_ms=T0)
        found = await opened.usage.report(asked("workspace", "model", engine=["x"]))
        assert [(tuple(row.group.values()), row.sums.requests) for row in found] == [
            ((OURS, "a"), 2),
            ((OURS, "b"), 2),
            ((THEIRS, "a"), 1),
            ((THEIRS, "b"), 1),
        ]
        assert await opened.usage.report(asked("model", workspace=[])) == []
        hostile = await opened.usage.report(asked("model", model=["a' OR '1'='1", "b"]))
        assert [row.group["model"] for row in hostile] == ["b"]

    @case
    async def test_a_report_ends_before_its_end(self, opened: Opened) -> None:
        for now_ms in (T0 - 1, T0, T0 + DAY_MS - 1, T0 + DAY_MS):
            await opened.usage.note([entry(used(requests=1))], now_ms=now_ms)
        day = Asked(since_ms=T0, until_ms=T0 + DAY_MS, width_ms=DAY_MS)
        assert [(row.at_ms, row.sums.requests) for row in await opened.usage.report(day)] == [(T0, 2)]

    @case
    async def test_what_was_spent_and_measured_counts_from_an_instant(self, opened: Opened) -> None:
        await opened.usage.note([entry(used(usd_nano=5))], now_ms=T0 - 1)
        await opened.usage.note([entry(used(usd_nano=7)), entry(used("n", usd_nano=2), workspace=THEIRS)], now_ms=T0)
        assert await opened.usage.spent(since_ms=T0) == {OURS: 7, THEIRS: 2}
        measured = await opened.usage.measured(since_ms=T0)
        assert {key: sums.usd_nano for key, sums in measured.items()} == {("e", "m"): 7, ("e", "n"): 2}

    @case
    async def test_old_minutes_become_hours_and_days_and_no_sum_changes(self, opened: Opened) -> None:
        random = Random(1)  # noqa: S311  A replay, not a secret.
        now_ms = T0 + 90 * DAY_MS
        for _ in range(300):
            item = used(random.choice("ab"), random.choice("xy"), requests=1, usd_nano=random.randrange(1_000))
            at_ms = now_ms - random.randrange(90 * DAY_MS)
            await opened.usage.note([entry(item, workspace=random.choice((OURS, THEIRS)))], now_ms=at_ms)
        by_day = asked(*_COLUMNS, since_ms=0, width_ms=DAY_MS)
        before, fine = await opened.usage.report(by_day), asked(since_ms=0, width_ms=_MINUTE_MS)
        lines = len(await opened.usage.report(fine))
        assert await opened.usage.roll_up(now_ms=now_ms) > 0
        assert await opened.usage.report(by_day) == before
        rolled = await opened.usage.report(fine)
        assert len(rolled) < lines
        assert all(row.at_ms % DAY_MS == 0 for row in rolled if row.at_ms < now_ms - 61 * DAY_MS)
        assert all(row.at_ms % _HOUR_MS == 0 for row in rolled if row.at_ms < now_ms - 3 * DAY_MS)
        assert await opened.usage.roll_up(now_ms=now_ms) == 0

    @case
    async def test_the_bills_of_segments_add_up_to_the_same_in_both_tables(self, opened: Opened) -> None:
        """Any bills, over several batches: what batches took is what was used."""
        random = Random(2)  # noqa: S311  A replay, not a secret.
        batches = [new_batch(f"b{n}", segments=4, workspace=random.choice((OURS, THEIRS))) for n in range(5)]
        for new in batches:
            await opened.control.create(new)
        for item in await leased(opened.control):
            bill = Bill(
                used=tuple(
                    used(model, engine, requests=random.randrange(9), usd_nano=random.randrange(10**12))
                    for model, engine in (("a", "x"), ("b", "x"), ("b", "y"))
                    if random.random() < 0.7
                )
            )
            await _seal(opened, item, bill, now_ms=T0 + random.randrange(DAY_MS))
        by_batch, by_table = NOTHING, NOTHING
        for new in batches:
            for found in await opened.usage.of_batch(new.batch.id):
                by_batch = by_batch.plus(found.sums)
        for row in await opened.usage.report(asked(*_COLUMNS)):
            by_table = by_table.plus(row.sums)
        assert by_batch == by_table != NOTHING

    @case
    async def test_the_causes_of_a_batch_are_counted_the_most_frequent_first(self, opened: Opened) -> None:
        await opened.control.create(new_batch("c", segments=2))
        for item in await leased(opened.control):
            rare = Cause(type="api_error", message="rare", requests=1, example="x")
            often = Cause(type="api_error", message="often", requests=3, example="y")
            await _seal(opened, item, Bill(causes=(rare, often)))
        causes = await opened.usage.causes(BatchId("msgbatch_01c"))
        assert [(cause.message, cause.requests) for cause in causes] == [("often", 6), ("rare", 2)]

    @case
    async def test_a_deleted_batch_leaves_only_the_sums_of_its_workspace(self, opened: Opened) -> None:
        await opened.control.create(new_batch("d"))
        (item,) = await leased(opened.control)
        await _seal(opened, item, Bill(used=(used(requests=10),)))
        await opened.control.delete(OURS, BatchId("msgbatch_01d"))
        assert await opened.usage.of_batch(BatchId("msgbatch_01d")) == []
        (row,) = await opened.usage.report(asked())
        assert row.sums.requests == 10
