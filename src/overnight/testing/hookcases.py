"""Claims about an outbox of hooks: what is written for whom, what is due, and that it is one with the end of a batch.

Subclass `HookSuite`, say how what is tested is opened, and let pytest collect it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.batch import Tally
from overnight.core.hook import EVENTS, Delivery, Event, EventType, Hook
from overnight.core.usage import Bill, Sums, Used
from overnight.errors import LeaseLost, UsageError
from overnight.ids import BatchId, WorkspaceId
from overnight.store.control import Control
from overnight.store.hooks import Due, HookStore
from overnight.testing.controlcases import OURS, T0, THEIRS, created, ended, leased, results_of, sealed

SECRET = bytes(range(limits.HOOK_SECRET_BYTES))
_SPENT = Event(type="budget.reached", workspace=OURS, what="budget.reached ours", data={"which": "day"})
_USED = Used(
    model="m",
    engine="e",
    service_tier="batch",
    sums=Sums(
        requests=5,
        input_tokens=7,
        cache_write_5m_tokens=1,
        cache_write_1h_tokens=2,
        output_tokens=9,
        usd_nano=5 * 10**8,
    ),
)


class Opened(NamedTuple):
    """An empty outbox, and the control store that it shares transactions with."""

    hooks: HookStore
    control: Control


class HookSuite:
    """`opened` opens what is tested."""

    def opened(self, tmp_path: Path) -> AbstractAsyncContextManager[Opened]:
        """What is tested, until the block ends."""
        raise NotImplementedError


Case = Callable[[Any, Opened], Awaitable[None]]


def case(body: Case) -> Callable[[HookSuite, Path], None]:
    """Make a test method of an async function that wants an empty outbox."""

    def test(suite: HookSuite, tmp_path: Path) -> None:
        async def hold() -> None:
            async with suite.opened(tmp_path) as opened:
                await body(suite, opened)

        asyncio.run(hold())

    test.__name__, test.__doc__ = getattr(body, "__name__", "case"), body.__doc__
    return test


def new_hook(
    name: str, *events: EventType, workspace: WorkspaceId = OURS, url: str = "https://hooks.example.com/"
) -> Hook:
    """A hook for these events; for all of them if none is named."""
    wanted = events or tuple(EVENTS)
    return Hook(id=f"hook_01{name}", workspace=workspace, url=url, events=wanted, created_at_ms=T0)


async def added(store: HookStore, name: str, *events: EventType, **what: Any) -> Hook:
    """A hook that was just added."""
    found = new_hook(name, *events, **what)
    await store.add(found, SECRET)
    return found


async def due(store: HookStore, *, now_ms: int = T0, limit: int = 100, **what: Any) -> list[Due]:
    """What is due at that time."""
    return await store.due(now_ms=now_ms, limit=limit, **what)


async def all_of(store: HookStore, **what: Any) -> list[Delivery]:
    """All deliveries."""
    return await store.deliveries(limit=limits.DELIVERIES_LIST_MAX, **what)


class HookCases(HookSuite):
    """Hooks themselves."""

    @case
    async def test_a_hook_is_found_as_it_was_added(self, opened: Opened) -> None:
        ours, theirs = await added(opened.hooks, "a"), await added(opened.hooks, "b", workspace=THEIRS)
        assert await opened.hooks.hooks() == [ours, theirs]
        assert await opened.hooks.hooks(THEIRS) == [theirs]
        assert await opened.hooks.find(ours.id) == (ours, SECRET)

    @case
    async def test_a_workspace_has_so_many_hooks_and_no_more(self, opened: Opened) -> None:
        for number in range(limits.HOOKS_MAX):
            await added(opened.hooks, str(number))
        with pytest.raises(UsageError, match="as many as it may"):
            await added(opened.hooks, "one-more")
        await added(opened.hooks, "theirs", workspace=THEIRS)
        assert len(await opened.hooks.hooks(OURS)) == limits.HOOKS_MAX

    @case
    async def test_a_removed_hook_gets_nothing_any_more(self, opened: Opened) -> None:
        gone, kept = await added(opened.hooks, "gone"), await added(opened.hooks, "kept")
        await opened.hooks.announce(_SPENT, now_ms=T0)
        (on_its_way,) = [item.delivery for item in await due(opened.hooks) if item.hook == gone]
        await opened.hooks.remove(gone.id)
        assert [item.hook for item in await due(opened.hooks)] == [kept]
        await opened.hooks.note(replace(on_its_way, status="delivered"))
        assert [item.hook_id for item in await all_of(opened.hooks)] == [kept.id]

    @case
    async def test_what_is_not_there_is_said(self, opened: Opened) -> None:
        for asked in (opened.hooks.find("hook_01x"), opened.hooks.remove("hook_01x")):
            with pytest.raises(UsageError, match="there is no hook 'hook_01x'"):
                await asked
        with pytest.raises(UsageError, match="there is no delivery 'delivery_01x'"):
            await opened.hooks.resend("delivery_01x", now_ms=T0)


class EventCases(HookSuite):
    """What is written, for whom, and when."""

    @case
    async def test_an_event_goes_to_every_hook_of_its_workspace_that_wants_it(self, opened: Opened) -> None:
        wanting = {(await added(opened.hooks, "a", "budget.reached")).id, (await added(opened.hooks, "b")).id}
        await added(opened.hooks, "c", "batch.ended", "batch.expiring")
        await added(opened.hooks, "d", workspace=THEIRS)
        assert await opened.hooks.announce(_SPENT, now_ms=T0)
        found = await all_of(opened.hooks)
        assert {item.hook_id for item in found} == wanting
        assert len({item.id for item in found}) == 2
        assert {item.workspace for item in found} == {OURS}

    @case
    async def test_an_event_is_announced_once(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        assert [await opened.hooks.announce(_SPENT, now_ms=T0 + later) for later in range(2)] == [True, False]
        await added(opened.hooks, "late")
        assert not await opened.hooks.announce(_SPENT, now_ms=T0)
        assert len(await all_of(opened.hooks)) == 1

    @case
    async def test_a_batch_that_ends_is_written_with_its_last_bill(self, opened: Opened) -> None:
        await added(opened.hooks, "a", "batch.ended")
        batch = await created(opened.control, "a", segments=2, requests_each=5)
        first, last = await leased(opened.control)
        for item in (first, last):
            assert await all_of(opened.hooks) == [], "it has not ended"
            batch = await opened.control.seal(
                item.lease, Tally(succeeded=5), results_of(item), now_ms=T0 + 9, bill=Bill(used=(_USED,))
            )
        (written,) = await due(opened.hooks, now_ms=T0 + 9)
        assert written.secret == SECRET
        told = json.loads(written.delivery.body)
        assert (told["type"], told["data"]["id"]) == ("batch.ended", batch.id)
        assert told["data"]["request_counts"]["succeeded"] == 10
        assert told["data"]["overnight"] == {
            "workspace_id": OURS,
            "usage": {
                "input_tokens": 14,
                "cache_creation_input_tokens": 6,
                "cache_read_input_tokens": 0,
                "output_tokens": 18,
            },
            "cost_usd": 1.0,
            "unpriced_requests": 0,
        }

    @case
    async def test_a_seal_that_comes_too_late_tells_nobody(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        await created(opened.control, "a")
        (stale,) = await leased(opened.control, "w1")
        (fresh,) = await leased(opened.control, "w2", now_ms=T0 + limits.LEASE_TTL_MS)
        with pytest.raises(LeaseLost):
            await sealed(opened.control, stale)
        assert await all_of(opened.hooks) == []
        await sealed(opened.control, fresh)
        with pytest.raises(LeaseLost):
            await sealed(opened.control, fresh)
        assert len(await all_of(opened.hooks)) == 1

    @case
    async def test_an_unfinished_batch_is_told_once_before_it_expires(self, opened: Opened) -> None:
        await added(opened.hooks, "a", "batch.expiring")
        await ended(opened.control, "done")
        batch = await created(opened.control, "a")
        await created(opened.control, "theirs", workspace=THEIRS)
        await created(opened.control, "canceled")
        await opened.control.cancel(OURS, BatchId("msgbatch_01canceled"), now_ms=T0)
        begin_ms = batch.expires_at_ms - limits.HOOK_EXPIRING_MS
        counts = [
            await opened.hooks.announce_expiring(now_ms=at_ms)
            for at_ms in (begin_ms - 1, begin_ms, begin_ms + 60_000, batch.expires_at_ms)
        ]
        assert counts == [0, 1, 0, 0]
        (item,) = await all_of(opened.hooks)
        assert (item.event, json.loads(item.body)["data"]["id"]) == ("batch.expiring", batch.id)

    @case
    async def test_a_batch_whose_time_is_over_expires_no_more(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        batch = await created(opened.control, "a")
        assert await opened.hooks.announce_expiring(now_ms=batch.expires_at_ms) == 0


class DeliveryCases(HookSuite):
    """What is due, and what becomes of it."""

    @case
    async def test_what_is_due_comes_by_time_and_without_those_that_are_on_their_way(self, opened: Opened) -> None:
        for name in ("a", "b", "c"):
            await added(opened.hooks, name, "budget.reached")
        await opened.hooks.announce(_SPENT, now_ms=T0)
        found = {item.hook.id: item.delivery for item in await due(opened.hooks)}
        for wait_ms, item in enumerate(found.values(), start=1):
            await opened.hooks.note(replace(item, due_at_ms=T0 + wait_ms, attempts=1))
        order = [item.id for item in found.values()]
        assert [item.delivery.id for item in await due(opened.hooks)] == []
        assert [item.delivery.id for item in await due(opened.hooks, now_ms=T0 + 2)] == order[:2]
        assert [item.delivery.id for item in await due(opened.hooks, now_ms=T0 + 3, limit=1)] == order[:1]
        left = await due(opened.hooks, now_ms=T0 + 3, besides=order[:1], besides_hooks=[found["hook_01c"].hook_id])
        assert [item.delivery.id for item in left] == [item for item in order[1:] if item != found["hook_01c"].id]

    @case
    async def test_what_ended_is_due_no_more_until_it_is_resent(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        await opened.hooks.announce(_SPENT, now_ms=T0)
        for status in ("delivered", "dead"):
            (item,) = await due(opened.hooks)
            over = replace(item.delivery, status=status, attempts=3, ended_at_ms=T0 + 1, trouble="HTTP 500")
            await opened.hooks.note(over)
            assert await due(opened.hooks, now_ms=T0 + 10**9) == []
            assert await all_of(opened.hooks, status=status) == [over]
            again = await opened.hooks.resend(over.id, now_ms=T0)
            assert again == hooks.sent_again(over, now_ms=T0)
            assert [item.delivery for item in await due(opened.hooks)] == [again]

    @case
    async def test_a_delivery_is_sent_again_only_for_its_own_workspace(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        await opened.hooks.announce(_SPENT, now_ms=T0)
        (item,) = await all_of(opened.hooks)
        with pytest.raises(UsageError, match="there is no delivery"):
            await opened.hooks.resend(item.id, workspace=THEIRS, now_ms=T0 + 1)
        assert await all_of(opened.hooks) == [item]
        assert (await opened.hooks.resend(item.id, workspace=OURS, now_ms=T0 + 1)).due_at_ms == T0 + 1

    @case
    async def test_deliveries_are_listed_newest_first_and_by_what_is_asked(self, opened: Opened) -> None:
        ours = await added(opened.hooks, "a")
        theirs = await added(opened.hooks, "b", workspace=THEIRS)
        for number in range(3):
            await opened.hooks.announce(replace(_SPENT, what=f"ours {number}"), now_ms=T0 + number)
        await opened.hooks.announce(replace(_SPENT, what="theirs", workspace=THEIRS), now_ms=T0)
        assert [item.created_at_ms for item in await all_of(opened.hooks, hook_id=ours.id)] == [T0 + 2, T0 + 1, T0]
        assert [item.hook_id for item in await all_of(opened.hooks, workspace=THEIRS)] == [theirs.id]
        assert len(await opened.hooks.deliveries(limit=2)) == 2
        assert await opened.hooks.counts() == {"pending": 4, "delivered": 0, "dead": 0}

    @case
    async def test_a_list_is_never_longer_than_the_limit(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        events = (replace(_SPENT, what=f"ours {number}") for number in range(limits.DELIVERIES_LIST_MAX + 1))
        await asyncio.gather(*(opened.hooks.announce(event, now_ms=T0) for event in events))
        assert len(await opened.hooks.deliveries(limit=10**6)) == limits.DELIVERIES_LIST_MAX

    @case
    async def test_what_ended_is_forgotten_after_30_days_and_what_is_pending_never(self, opened: Opened) -> None:
        for name in ("a", "b", "c"):
            await added(opened.hooks, name)
        await opened.hooks.announce(_SPENT, now_ms=T0)
        delivered, dead, pending = (item.delivery for item in await due(opened.hooks))
        await opened.hooks.note(replace(delivered, status="delivered", ended_at_ms=T0))
        await opened.hooks.note(replace(dead, status="dead", ended_at_ms=T0))
        over_ms = T0 + limits.DELIVERIES_LIFETIME_MS
        assert [await opened.hooks.forget(now_ms=at_ms) for at_ms in (over_ms - 1, over_ms, over_ms)] == [0, 2, 0]
        assert await all_of(opened.hooks) == [pending]

    @case
    async def test_an_event_is_known_for_two_months(self, opened: Opened) -> None:
        await added(opened.hooks, "a")
        over_ms = T0 + limits.TOLD_LIFETIME_MS
        await opened.hooks.announce(_SPENT, now_ms=T0)
        await opened.hooks.forget(now_ms=over_ms - 1)
        assert not await opened.hooks.announce(_SPENT, now_ms=over_ms)
        await opened.hooks.forget(now_ms=over_ms)
        assert await opened.hooks.announce(_SPENT, now_ms=over_ms)


class HookStoreSuite(HookCases, EventCases, DeliveryCases):
    """All promises of a `HookStore`."""
