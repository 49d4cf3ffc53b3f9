"""Claims about leases and seals in a control store: one holder at a time, and only the newest epoch counts."""

import pytest

from overnight import limits
from overnight.core.batch import Tally
from overnight.core.lease import SegmentRef
from overnight.core.schedule import Demand
from overnight.errors import LeaseLost
from overnight.store.control import Control, LeasedSegment, Wanted
from overnight.testing.controlcases import (
    EVERYBODY,
    OURS,
    T0,
    THEIRS,
    ControlCases,
    case,
    created,
    leased,
    new_batch,
    results_of,
    sealed,
)

AFTER_MS = T0 + limits.LEASE_TTL_MS


def _segments(items: list[LeasedSegment]) -> list[tuple[str, int]]:
    return [(item.lease.segment.batch_id.removeprefix("msgbatch_01"), item.lease.segment.index) for item in items]


class LeaseCases(ControlCases):
    """Work as workers see it."""

    @case
    async def test_a_lease_brings_all_a_worker_needs(self, control: Control) -> None:
        new = new_batch("a", segments=2)
        await control.create(new)
        first, second = await leased(control, now_ms=T0 + 3)
        assert (first.lease.segment, second.lease.segment) == (
            SegmentRef(new.batch.id, 0),
            SegmentRef(new.batch.id, 1),
        )
        assert (first.lease.worker, first.lease.epoch) == ("w1", 1)
        assert first.lease.expires_at_ms == T0 + 3 + limits.LEASE_TTL_MS
        assert (first.batch, first.source, first.requests_key) == (new.batch, new.segments[0], new.requests_key)

    @case
    async def test_a_held_segment_is_given_to_nobody_else(self, control: Control) -> None:
        await created(control, "a", segments=2)
        assert len(await leased(control, "w1")) == 2
        assert await leased(control, "w2", now_ms=AFTER_MS - 1) == []

    @case
    async def test_a_lease_that_ran_out_is_given_to_others_under_a_higher_epoch(self, control: Control) -> None:
        await created(control, "a")
        await leased(control, "w1")
        (taken,) = await leased(control, "w2", now_ms=AFTER_MS)
        assert (taken.lease.worker, taken.lease.epoch) == ("w2", 2)

    @case
    async def test_a_worker_never_gets_its_own_segment_twice(self, control: Control) -> None:
        """It may still be working on it: renewal revives the lease instead."""
        await created(control, "a")
        (held,) = await leased(control, "w1")
        assert await leased(control, "w1", now_ms=AFTER_MS) == []
        renewal = await control.renew("w1", now_ms=AFTER_MS)
        assert renewal.held == [(held.lease.segment, 1)]
        assert await leased(control, "w2", now_ms=AFTER_MS) == []

    @case
    async def test_a_renewal_extends_what_nobody_else_took(self, control: Control) -> None:
        await created(control, "a", segments=2)
        first, second = await leased(control, "w1")
        (taken,) = await leased(control, "w2", requests=1, now_ms=AFTER_MS)
        kept = second if taken.lease.segment == first.lease.segment else first
        renewal = await control.renew("w1", now_ms=AFTER_MS)
        assert (renewal.held, renewal.canceling) == ([(kept.lease.segment, 1)], [])
        assert await leased(control, "w3", now_ms=AFTER_MS + limits.LEASE_TTL_MS - 1) == []

    @case
    async def test_a_renewal_tells_of_cancels_of_what_is_held_only(self, control: Control) -> None:
        held = await created(control, "a")
        await leased(control, "w1")
        other = await created(control, "b")
        for batch in (held, other):
            await control.cancel(OURS, batch.id, now_ms=T0)
        assert (await control.renew("w1", now_ms=T0)).canceling == [held.id]

    @case
    async def test_what_is_given_back_is_free_at_once(self, control: Control) -> None:
        await created(control, "a")
        (first,) = await leased(control, "w1")
        await control.give_back("w1")
        assert (await control.renew("w1", now_ms=T0)).held == []
        (second,) = await leased(control, "w1")
        assert (first.lease.epoch, second.lease.epoch) == (1, 2)

    @case
    async def test_a_worker_gets_as_much_as_it_wants_and_no_more(self, control: Control) -> None:
        await created(control, "a", segments=4, requests_each=10)
        assert await leased(control, requests=0) == []
        assert _segments(await leased(control, requests=11)) == [("a", 0), ("a", 1)]
        assert await control.lease("w1", wanted=Wanted(requests=99, segments=0), now_ms=T0) == []
        one = await control.lease("w1", wanted=Wanted(requests=99, segments=1), now_ms=T0)
        assert _segments(one) == [("a", 2)]

    @case
    async def test_the_workspace_that_was_served_least_comes_first(self, control: Control) -> None:
        await created(control, "whale", segments=3)
        await created(control, "small", workspace=THEIRS)
        taken = await control.lease(
            "w1", wanted=Wanted(requests=1, segments=9, held=EVERYBODY, served={OURS: 1000.0}), now_ms=T0
        )
        assert _segments(taken) == [("small", 0)]

    @case
    async def test_one_segment_can_be_given_back_alone(self, control: Control) -> None:
        await created(control, "a", segments=3)
        held = await leased(control, "w1")
        await control.give_back("w1", only=held[1].lease.segment)
        (again,) = await leased(control, "w1")
        assert (again.lease.segment, again.lease.epoch) == (held[1].lease.segment, 2)
        assert len((await control.renew("w1", now_ms=T0)).held) == 3

    @case
    async def test_workspaces_take_turns_within_one_lease(self, control: Control) -> None:
        await created(control, "whale", segments=9)
        await created(control, "other", segments=9, workspace=THEIRS)
        taken = _segments(await leased(control, requests=40))
        assert sorted(taken) == [("other", 0), ("other", 1), ("whale", 0), ("whale", 1)]

    @case
    async def test_a_workspace_of_which_nothing_is_held_gets_one_segment_however_full_the_worker_is(
        self, control: Control
    ) -> None:
        await created(control, "whale", segments=3)
        await created(control, "small", segments=3, workspace=THEIRS)
        wanted = Wanted(requests=0, segments=9, held=frozenset({OURS}))
        assert _segments(await control.lease("w1", wanted=wanted, now_ms=T0)) == [("small", 0)]

    @case
    async def test_segments_of_a_model_of_which_there_is_enough_stay_where_they_are(self, control: Control) -> None:
        await created(control, "away", segments=2, model="gpu")
        await created(control, "here", segments=1, model="cpu")
        await created(control, "both", segments=1)
        wanted = Wanted(requests=99, segments=9, full=frozenset({"gpu", "else"}), held=EVERYBODY)
        assert _segments(await control.lease("w1", wanted=wanted, now_ms=T0)) == [("here", 0), ("both", 0)]

    @case
    async def test_who_has_nothing_here_gets_a_segment_of_a_full_model_but_of_a_closed_one_nobody_does(
        self, control: Control
    ) -> None:
        await created(control, "night", segments=1, model="gpu", workspace=THEIRS)
        await created(control, "day", segments=2, model="cpu", workspace=THEIRS)
        both = frozenset({"gpu", "cpu"})
        wanted = Wanted(requests=0, segments=9, full=both, closed=frozenset({"gpu"}), held=frozenset({OURS}))
        assert _segments(await control.lease("w1", wanted=wanted, now_ms=T0)) == [("day", 0)]

    @case
    async def test_a_full_model_keeps_no_batch_from_ending(self, control: Control) -> None:
        canceled = await created(control, "a", model="gpu")
        await created(control, "b", model="gpu")
        await control.cancel(OURS, canceled.id, now_ms=T0)
        wanted = Wanted(requests=0, segments=9, full=frozenset({"gpu"}), held=EVERYBODY)
        assert _segments(await control.lease("w1", wanted=wanted, now_ms=T0)) == [("a", 0)]
        expired = await control.lease("w1", wanted=wanted, now_ms=T0 + limits.BATCH_LIFETIME_MS)
        assert _segments(expired) == [("b", 0)]

    @case
    async def test_what_is_due_in_danger_comes_before_everything_else(self, control: Control) -> None:
        await created(control, "old", at_ms=T0)
        urgent = await created(control, "due", workspace=THEIRS, at_ms=T0 - 1_000)
        wanted = Wanted(requests=1, segments=9, held=EVERYBODY, served={THEIRS: 1e9}, danger_ms=urgent.expires_at_ms)
        assert _segments(await control.lease("w1", wanted=wanted, now_ms=T0)) == [("due", 0)]

    @case
    async def test_demands_are_what_unfinished_batches_still_want(self, control: Control) -> None:
        first = await created(control, "a", segments=2)
        later = await created(control, "b", at_ms=T0 + 3_600_000)
        await created(control, "b2", at_ms=T0 + 3_600_001)
        canceled = await created(control, "c")
        await control.cancel(OURS, canceled.id, now_ms=T0)
        held = await leased(control)
        await sealed(control, next(item for item in held if item.lease.segment.batch_id == first.id))
        assert sorted(await control.demands()) == [
            Demand(T0 + limits.BATCH_LIFETIME_MS, 10),
            Demand(later.expires_at_ms, 20),
        ]

    @case
    async def test_what_only_needs_closing_is_taken_even_if_none_is_wanted(self, control: Control) -> None:
        canceled = await created(control, "a", segments=2)
        await created(control, "b")
        await control.cancel(OURS, canceled.id, now_ms=T0)
        assert _segments(await leased(control, requests=0)) == [("a", 0), ("a", 1)]
        expires_ms = T0 + limits.BATCH_LIFETIME_MS
        assert _segments(await leased(control, "w2", requests=0, now_ms=expires_ms))[-1] == ("b", 0)

    @case
    async def test_a_canceled_batch_is_found_behind_any_number_of_waiting_ones(self, control: Control) -> None:
        for number in range(300):
            await created(control, f"old{number}")
        young = await created(control, "young")
        await control.cancel(OURS, young.id, now_ms=T0)
        assert _segments(await leased(control, requests=0)) == [("young", 0)]

    @case
    async def test_a_seal_counts_and_the_last_one_ends_the_batch(self, control: Control) -> None:
        await created(control, "a", segments=2, requests_each=10)
        first, second = await leased(control)
        tally = Tally(succeeded=7, errored=3)
        batch = await control.seal(first.lease, tally, results_of(first), now_ms=T0 + 1)
        assert (batch.status, batch.tally, batch.ended_at_ms) == ("in_progress", tally, None)
        assert await control.open_segments(batch.id) == (batch, [1])
        batch = await control.seal(second.lease, Tally(expired=10), results_of(second), now_ms=T0 + 2)
        assert (batch.status, batch.ended_at_ms) == ("ended", T0 + 2)
        assert batch.tally == Tally(succeeded=7, errored=3, expired=10)
        assert await control.batch(OURS, batch.id) == batch
        assert await control.counts() == {"batches_open": 0, "segments_open": 0}
        assert await leased(control, "w2", now_ms=AFTER_MS) == []

    @case
    async def test_results_come_in_segment_order_whatever_the_order_of_seals(self, control: Control) -> None:
        batch = await created(control, "a", segments=3)
        items = await leased(control)
        for index in (2, 0, 1):
            inline = b"member" if index == 1 else None
            await control.seal(
                items[index].lease, Tally(succeeded=10), results_of(items[index], inline=inline), now_ms=T0
            )
        found = await control.results(batch.id)
        assert [(item.crc, item.key is None) for item in found] == [(7, False), (8, True), (9, False)]
        assert await control.inline_results(batch.id) == {1: b"member"}

    @case
    async def test_an_older_epoch_cannot_seal_and_changes_nothing(self, control: Control) -> None:
        """I4."""
        batch = await created(control, "a")
        (old,) = await leased(control, "w1")
        (new,) = await leased(control, "w2", now_ms=AFTER_MS)
        with pytest.raises(LeaseLost):
            await sealed(control, old, now_ms=AFTER_MS)
        assert await control.batch(OURS, batch.id) == batch
        assert await control.open_segments(batch.id) == (batch, [0])
        assert (await sealed(control, new, now_ms=AFTER_MS)).status == "ended"

    @case
    async def test_a_segment_is_sealed_once(self, control: Control) -> None:
        """I3."""
        await created(control, "a", segments=2)
        first, _ = await leased(control)
        batch = await sealed(control, first)
        with pytest.raises(LeaseLost):
            await control.seal(first.lease, Tally(errored=10), results_of(first, inline=b"other"), now_ms=T0)
        assert await control.batch(OURS, batch.id) == batch
        assert await control.inline_results(batch.id) == {}

    @case
    async def test_a_holder_whose_lease_ran_out_may_seal_while_nobody_took_over(self, control: Control) -> None:
        await created(control, "a")
        (held,) = await leased(control)
        assert (await sealed(control, held, now_ms=AFTER_MS + 1)).status == "ended"

    @case
    async def test_a_canceling_batch_ends_with_its_last_seal(self, control: Control) -> None:
        batch = await created(control, "a")
        (held,) = await leased(control)
        await control.cancel(OURS, batch.id, now_ms=T0 + 1)
        after = await control.seal(held.lease, Tally(canceled=10), results_of(held), now_ms=T0 + 2)
        assert (after.status, after.cancel_initiated_at_ms, after.ended_at_ms) == ("ended", T0 + 1, T0 + 2)
