"""Claims about batches in a control store: create, find, list, cancel, delete, archive, and what becomes garbage."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from overnight import limits
from overnight.core.batch import Batch, Tally
from overnight.core.retention import kept
from overnight.core.workspace import Rules
from overnight.errors import Conflict
from overnight.ids import BatchId, WorkspaceId
from overnight.store.control import Control, Created, LeasedSegment, NewBatch, NewSegment, SealedResults, Wanted
from overnight.store.objects import requests_key, results_key

OURS, THEIRS = WorkspaceId("wrkspc_ours"), WorkspaceId("wrkspc_theirs")
EVERYBODY = frozenset({OURS, THEIRS})
T0 = 1_780_000_000_000

Case = Callable[[Any, Control], Awaitable[None]]


class ControlCases:
    """Test methods about one thing. `control` opens what is tested."""

    def control(self, tmp_path: Path) -> AbstractAsyncContextManager[Control]:
        """An empty control store, open until the block ends."""
        raise NotImplementedError


def case(body: Case) -> Callable[[ControlCases, Path], None]:
    """Make a test method of an async function that wants an empty control store."""

    def test(suite: ControlCases, tmp_path: Path) -> None:
        async def hold() -> None:
            async with suite.control(tmp_path) as control:
                await body(suite, control)

        asyncio.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


def new_batch(
    name: str,
    *,
    segments: int = 1,
    requests_each: int = 10,
    workspace: WorkspaceId = OURS,
    at_ms: int = T0,
    model: str = "",
    key: str | None = None,
    body: bytes | None = None,
) -> NewBatch:
    """A batch of equal segments, all in one object."""
    batch_id = BatchId("msgbatch_01" + name)
    return NewBatch(
        batch=Batch(
            id=batch_id,
            workspace=workspace,
            api_version="2023-06-01",
            betas="some-beta",
            requests=segments * requests_each,
            segments_open=segments,
            created_at_ms=at_ms,
            expires_at_ms=at_ms + limits.BATCH_LIFETIME_MS,
        ),
        segments=[
            NewSegment(requests=requests_each, raw_bytes=1000, offset=index * 100, length=100, model=model)
            for index in range(segments)
        ],
        requests_key=requests_key(batch_id),
        idempotency_key=key,
        body_sha256=body,
    )


async def created(control: Control, name: str, **what: Any) -> Batch:
    """A batch that was just made."""
    return (await control.create(new_batch(name, **what))).batch


async def leased(
    control: Control, worker: str = "w1", *, requests: int = 10**9, now_ms: int = T0
) -> list[LeasedSegment]:
    """What a worker gets that serves everybody alike."""
    return await control.lease(worker, wanted=Wanted(requests=requests, segments=100, held=EVERYBODY), now_ms=now_ms)


def results_of(item: LeasedSegment, *, inline: bytes | None = None) -> SealedResults:
    """Results as they would be for this segment under this lease."""
    key = None if inline is not None else results_key(item.lease.segment, epoch=item.lease.epoch)
    return SealedResults(length=50, raw_bytes=500, crc=item.lease.segment.index + 7, key=key, inline=inline)


async def sealed(control: Control, item: LeasedSegment, *, now_ms: int = T0) -> Batch:
    """The batch after this segment was sealed, all of it succeeded."""
    tally = Tally(succeeded=item.source.requests)
    return await control.seal(item.lease, tally, results_of(item), now_ms=now_ms)


async def ended(control: Control, name: str, **what: Any) -> Batch:
    """A batch that has just ended."""
    batch = await created(control, name, **what)
    for item in await leased(control):
        batch = await sealed(control, item)
    return batch


class ListCases(ControlCases):
    """Batches as their clients see them."""

    @case
    async def test_a_created_batch_is_found_as_it_was_given(self, control: Control) -> None:
        new = new_batch("a", segments=3)
        assert await control.create(new) == Created(new.batch, is_new=True)
        assert await control.batch(OURS, new.batch.id) == new.batch
        assert await control.open_segments(new.batch.id) == (new.batch, [0, 1, 2])
        assert await control.counts() == {"batches_open": 1, "segments_open": 3}

    @case
    async def test_the_models_of_unsealed_segments_are_told_once_each(self, control: Control) -> None:
        named, mixed = new_batch("a", segments=3, model="m"), new_batch("b", segments=2)
        await control.create(named)
        await control.create(mixed)
        assert await control.open_models(named.batch.id) == ["m"]
        assert await control.open_models(mixed.batch.id) == []
        done = await ended(control, "c")
        assert await control.open_models(done.id) == []

    @case
    async def test_other_workspaces_do_not_even_see_that_it_exists(self, control: Control) -> None:
        """I7."""
        batch = await ended(control, "a")
        assert await control.batch(THEIRS, batch.id) is None
        assert await control.cancel(THEIRS, batch.id, now_ms=T0) is None
        assert await control.delete(THEIRS, batch.id) is None
        assert await control.page(THEIRS, limit=10, after=batch.id) is None
        page = await control.page(THEIRS, limit=10)
        assert page is not None
        assert page.batches == []
        assert await control.batch(OURS, batch.id) == batch

    @case
    async def test_an_idempotency_key_makes_one_batch(self, control: Control) -> None:
        first = new_batch("a", key="k", body=b"1" * 32)
        await control.create(first)
        assert await control.create(new_batch("b", key="k", body=b"1" * 32)) == Created(first.batch, is_new=False)
        with pytest.raises(Conflict, match="Idempotency-Key"):
            await control.create(new_batch("c", key="k", body=b"2" * 32))
        assert (await control.create(new_batch("d", key="k", body=b"2" * 32, workspace=THEIRS))).is_new
        assert (await control.create(new_batch("e", key="other", body=b"1" * 32))).is_new
        assert [await control.batch(OURS, BatchId(f"msgbatch_01{name}")) for name in "bc"] == [None, None]

    @case
    async def test_pages_are_newest_first_and_cursors_walk_both_ways(self, control: Control) -> None:
        ids = [(await created(control, name)).id for name in "abcde"]
        await created(control, "x", workspace=THEIRS)
        a, b, c, d, e = ids

        async def walk(**where: Any) -> tuple[list[BatchId], bool]:
            page = await control.page(OURS, **where)
            assert page is not None
            return [batch.id for batch in page.batches], page.has_more

        assert await walk(limit=10) == ([e, d, c, b, a], False)
        assert await walk(limit=2) == ([e, d], True)
        assert await walk(limit=2, after=d) == ([c, b], True)
        assert await walk(limit=2, after=b) == ([a], False)
        assert await walk(limit=2, after=a) == ([], False)
        assert await walk(limit=2, before=a) == ([c, b], True)
        assert await walk(limit=2, before=c) == ([e, d], False)
        assert await walk(limit=2, before=e) == ([], False)
        assert await control.page(OURS, limit=2, after=BatchId("msgbatch_01nobody")) is None

    @case
    async def test_a_batch_made_during_a_walk_does_not_shift_it(self, control: Control) -> None:
        ids = [(await created(control, name)).id for name in "abc"]
        await created(control, "d")
        page = await control.page(OURS, limit=2, after=ids[2])
        assert page is not None
        assert [batch.id for batch in page.batches] == [ids[1], ids[0]]

    @case
    async def test_the_first_cancel_counts(self, control: Control) -> None:
        batch = await created(control, "a")
        first = await control.cancel(OURS, batch.id, now_ms=T0 + 5)
        assert first is not None
        assert (first.status, first.cancel_initiated_at_ms) == ("canceling", T0 + 5)
        assert await control.cancel(OURS, batch.id, now_ms=T0 + 9) == first
        assert await control.batch(OURS, batch.id) == first

    @case
    async def test_a_cancel_after_the_end_changes_nothing(self, control: Control) -> None:
        batch = await ended(control, "a")
        assert await control.cancel(OURS, batch.id, now_ms=T0 + 9) == batch
        assert await control.batch(OURS, batch.id) == batch

    @case
    async def test_only_an_ended_batch_is_deleted_and_its_objects_become_garbage(self, control: Control) -> None:
        batch = await created(control, "a", segments=2)
        assert await control.delete(OURS, batch.id) == batch
        assert await control.batch(OURS, batch.id) == batch
        items = await leased(control)
        for item in items:
            batch = await sealed(control, item)
        assert await control.delete(OURS, batch.id) == batch
        assert await control.batch(OURS, batch.id) is None
        assert await control.delete(OURS, batch.id) is None
        expected = {requests_key(batch.id), *(results_key(item.lease.segment, epoch=1) for item in items)}
        assert set(await control.garbage(limit=10)) == expected
        assert await control.results(batch.id) == []

    @case
    async def test_garbage_is_handed_out_until_it_is_forgotten(self, control: Control) -> None:
        batch = await ended(control, "a", segments=3)
        await control.delete(OURS, batch.id)
        some = await control.garbage(limit=2)
        assert len(some) == 2
        await control.forget_garbage(some)
        rest = await control.garbage(limit=10)
        assert (len(rest), set(rest) & set(some)) == (2, set())

    @case
    async def test_a_batch_is_archived_29_days_after_it_was_made_and_stays_visible(self, control: Control) -> None:
        batch = await ended(control, "a")
        young = await ended(control, "b", at_ms=T0 + 1)
        due_ms = T0 + limits.RESULTS_LIFETIME_MS
        assert await control.archive(now_ms=due_ms - 1, batches_max=10) == []
        assert await control.garbage(limit=10) == []
        assert await control.archive(now_ms=due_ms, batches_max=10) == [batch.id]
        archived = await control.batch(OURS, batch.id)
        assert archived is not None
        assert (archived.archived_at_ms, archived.status, archived.tally) == (due_ms, "ended", batch.tally)
        assert set(await control.garbage(limit=10)) == {requests_key(batch.id), f"results/{batch.id}/0-1.gz"}
        assert await control.results(batch.id) == []
        assert await control.archive(now_ms=due_ms, batches_max=10) == []
        assert await control.batch(OURS, young.id) == young

    @case
    async def test_a_workspace_may_keep_results_for_less_long(self, control: Control) -> None:
        short = {OURS: kept(Rules(results_days=2)), THEIRS: kept(Rules())}
        ours = await ended(control, "a")
        theirs = await ended(control, "b", workspace=THEIRS)
        unfinished = await created(control, "c")
        due_ms = T0 + 2 * limits.DAY_MS
        assert await control.archive(now_ms=due_ms - 1, batches_max=10, kept=short) == []
        assert await control.archive(now_ms=due_ms, batches_max=10, kept=short) == [ours.id]
        assert await control.results(ours.id) == []
        assert await control.batch(THEIRS, theirs.id) == theirs
        assert await control.batch(OURS, unfinished.id) == unfinished
        due_ms = T0 + limits.RESULTS_LIFETIME_MS
        assert await control.archive(now_ms=due_ms, batches_max=10, kept=short) == [theirs.id]

    @case
    async def test_one_call_archives_no_more_than_it_may(self, control: Control) -> None:
        ids = [(await ended(control, name, at_ms=T0 + at_ms)).id for at_ms, name in enumerate("abc")]
        now_ms = T0 + 2 * limits.RESULTS_LIFETIME_MS
        assert [await control.archive(now_ms=now_ms, batches_max=2) for _ in range(3)] == [ids[:2], ids[2:], []]

    @case
    async def test_requests_may_go_before_results(self, control: Control) -> None:
        short = {OURS: kept(Rules(requests_days=1)), THEIRS: kept(Rules(results_days=5))}
        batch = await ended(control, "a", segments=2)
        await ended(control, "b", workspace=THEIRS)
        due_ms = T0 + limits.DAY_MS
        results = await control.results(batch.id)
        assert await control.drop_requests(now_ms=due_ms - 1, batches_max=10, kept=short) == []
        assert await control.drop_requests(now_ms=due_ms, batches_max=10, kept=short) == [batch.id]
        assert await control.garbage(limit=10) == [requests_key(batch.id)]
        assert (await control.results(batch.id), await control.batch(OURS, batch.id)) == (results, batch)
        assert await control.drop_requests(now_ms=due_ms, batches_max=10, kept=short) == []
        assert await control.drop_requests(now_ms=due_ms, batches_max=10, kept={}) == []

    @case
    async def test_requests_in_their_row_go_too_once_the_batch_has_ended(self, control: Control) -> None:
        at_once = {OURS: kept(Rules(requests_days=0))}
        new = new_batch("a", segments=2)
        inline = [replace(item, inline=b"requests", offset=0, length=8) for item in new.segments]
        await control.create(replace(new, segments=inline, requests_key=None))
        first, second = await leased(control)
        await sealed(control, first)
        assert await control.drop_requests(now_ms=T0, batches_max=10, kept=at_once) == []
        await sealed(control, second)
        assert await control.drop_requests(now_ms=T0, batches_max=10, kept=at_once) == [new.batch.id]
        assert await control.drop_requests(now_ms=T0, batches_max=10, kept=at_once) == []
        assert len(await control.results(new.batch.id)) == 2

    @case
    async def test_an_unfinished_batch_is_never_archived(self, control: Control) -> None:
        await created(control, "a")
        assert await control.archive(now_ms=T0 + 2 * limits.RESULTS_LIFETIME_MS, batches_max=10) == []

    @case
    async def test_orphans_are_what_no_row_names(self, control: Control) -> None:
        batch = await ended(control, "a")
        named = [requests_key(batch.id), f"results/{batch.id}/0-1.gz"]
        orphans = [
            requests_key(BatchId("msgbatch_01lost")),  # A create that a crash cut short.
            f"results/{batch.id}/0-2.gz",  # A seal that came too late.
            f"requests/{batch.id}.gz.part",
        ]
        assert await control.note_orphans(named + orphans) == 3
        assert set(await control.garbage(limit=10)) == set(orphans)
        assert await control.note_orphans(named + orphans) == 0
