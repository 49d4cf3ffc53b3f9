"""runner.handoff when something ends early: a process, a connection, a batch of ours. Nothing is paid twice."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from runs import begun, run_of
from skies import HOUR_S, Sky, answers, echo, echoes, nothing_is_left, requests, said

from overnight import limits
from overnight.core.batch import Batch
from overnight.core.handoff import HANDOFF_ID_ENTROPY_BYTES, Handoff, Part, name, new_id, packed
from overnight.core.lease import SegmentRef
from overnight.ids import BatchId
from overnight.runner.held import Held
from overnight.testing.handingover import Night
from overnight.testing.hosted import Outcome, expired
from overnight.testing.hostedbatch import Batch as HostedBatch

COUNT = 25
HANDOFF_MARKS = [
    "handoff.intended",
    "handoff.posted",
    "handoff.submitted",
    "handoff.ended",
    "handoff.part-applied",
    "handoff.collected",
]


class Twice:
    """The same batch in two processes."""

    def __init__(self, sky: Sky) -> None:
        self.sky = sky
        self.batch: Batch | None = None

    async def begin(self, night: Night) -> None:
        """A process that makes the batch, and lives for an hour."""
        self.batch = await night.create(requests(COUNT))
        await asyncio.sleep(HOUR_S)

    async def begin_briefly(self, night: Night) -> None:
        """A process that makes the batch, and has handed it over when it ends."""
        self.batch = await night.create(requests(COUNT))
        await asyncio.sleep(30)

    async def end(self, night: Night) -> None:
        """A process that finds it and finishes it."""
        assert self.batch is not None
        await night.until_ended(self.batch)
        assert answers(await night.results(self.batch)) == echoes(COUNT)
        await nothing_is_left(night)

    def check_paid_once(self) -> None:
        """Every request was in one batch of the upstream."""
        assert self.sky.asked() == dict.fromkeys((f"r{index}" for index in range(COUNT)), 1)


# --- Deaths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", HANDOFF_MARKS)
def test_a_death_at_any_mark_pays_for_nothing_twice(mark: str, tmp_path: Path) -> None:
    twice = Twice(Sky(tmp_path))
    twice.sky.die_at(mark, twice.begin)
    twice.sky.live(twice.end)
    twice.check_paid_once()


@pytest.mark.parametrize("mark", HANDOFF_MARKS)
def test_nor_does_it_with_many_batches_few_leases_and_a_lagging_list(mark: str, tmp_path: Path) -> None:
    sky = Sky(tmp_path, requests_max=11)
    sky.segments_max = 1
    sky.hosted.list_lag(3)
    twice = Twice(sky)
    sky.die_at(mark, twice.begin, times=2)
    sky.live(twice.end)
    twice.check_paid_once()


def test_a_handoff_is_forgotten_after_its_results_are_durable_not_before(tmp_path: Path) -> None:
    """A request that is to be asked again keeps its segment open, so that only a checkpoint can hold the others."""
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        return expired() if said(params) == "r5" and tries["r5"] == 1 else echo(custom_id, params)

    twice = Twice(Sky(tmp_path, script))
    twice.sky.die_at("handoff.collected", twice.begin)
    twice.sky.live(twice.end)
    assert twice.sky.asked() == {f"r{index}": 2 if index == 5 else 1 for index in range(COUNT)}


def test_a_next_process_holds_no_params_of_what_the_upstream_has(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()
    twice = Twice(sky)

    async def look(night: Night) -> None:
        await asyncio.sleep(60)
        works = [work for run in night.runs.values() for work in run.open.values()]
        assert [len(work.params) for work in works] == [0] * COUNT

    sky.live(twice.begin_briefly)
    sky.live(look)


def test_a_lease_that_was_given_up_is_no_end_of_the_wanting() -> None:
    """Its requests are closed for us, but whoever leases the segment next wants the results."""
    run = run_of(3)
    works = begun(run, ["a", "b", "c"])
    segment = run.lease.segment
    held = Held(Handoff(id="h", engine="e", requests=2, created_at_ms=0), [Part(segment, packed([0, 2]))])

    async def main() -> None:
        assert held.join(run, works) == [works[1]]
        assert (held.unleased, held.is_open, held.is_wanted) == (set(), True, True)
        run.abandon()
        assert (held.unleased, held.is_open, held.is_wanted) == ({segment}, True, True)
        held.keep_only([])
        assert (held.is_open, held.is_wanted) == (False, False)

    asyncio.run(main())


def test_results_of_segments_that_are_leased_late_are_waited_for(tmp_path: Path) -> None:
    """Three segments of one upstream batch; the next process may hold one at a time."""
    sky = Sky(tmp_path)
    sky.hosted.hold()
    twice = Twice(sky)

    sky.live(twice.begin_briefly)
    sky.hosted.release()
    sky.segments_max = 1
    sky.live(twice.end)
    twice.check_paid_once()
    downloads = [path for _, _, path in sky.wire.paths if path.endswith("/results")]
    assert len(downloads) == 3, "one reading for each segment that came"


def test_four_deaths_in_a_row_pay_for_nothing_twice(tmp_path: Path) -> None:
    twice = Twice(Sky(tmp_path, requests_max=9))
    twice.sky.die_at("handoff.posted", twice.begin, times=2)

    async def wait(night: Night) -> None:
        await asyncio.sleep(10 * HOUR_S)

    for mark in ("handoff.submitted", "handoff.ended", "handoff.part-applied"):
        twice.sky.die_at(mark, wait)
    twice.sky.live(twice.end)
    twice.check_paid_once()


# --- Creates whose outcome is unknown -------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [None, 0, 3600, -3600])
@pytest.mark.parametrize("what", ["lost", "500"])
def test_a_create_without_an_answer_is_found_again_by_its_results(
    what: str, ahead_s: int | None, tmp_path: Path
) -> None:
    sky = Sky(tmp_path, ahead_s=ahead_s)
    sky.hosted.next_create(what)
    sky.hosted.list_lag(4)
    sky.hosted.end_after_looks(3)
    twice = Twice(sky)

    sky.live(twice.begin)
    sky.live(twice.end)
    twice.check_paid_once()


@pytest.mark.parametrize("what", ["500-nothing", "dropped"])
def test_a_create_that_was_not_made_is_made_once_lists_cannot_lag_any_more(what: str, tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create(what)
    twice = Twice(sky)

    sky.live(twice.begin)
    sky.live(twice.end)
    posts_s = [at_s for at_s, method, path in sky.wire.paths if (method, path.count("/")) == ("POST", 3)]
    first_s, second_s = posts_s
    assert second_s - first_s >= limits.HANDOFF_LISTING_LAG_MS / 1000
    twice.check_paid_once()


def stranger(sky: Sky, number: int, *, with_names: bool = False) -> None:
    """A batch of as many requests that somebody else makes now with the same key."""
    service = sky.hosted._service
    handoff_id = new_id(bytes([number] * HANDOFF_ID_ENTROPY_BYTES))
    segment = SegmentRef(BatchId("msgbatch_01stranger"), number)
    batch_id = f"msgbatch_01{number:022}"
    service.batches[batch_id] = HostedBatch(
        id=batch_id,
        created_at_ms=service._now_ms(),
        version="2023-06-01",
        requests=[
            (name(segment, index, handoff_id) if with_names else f"r{index}", requests(1)[0][1])
            for index in range(COUNT)
        ],
    )


@pytest.mark.parametrize("what", ["lost", "500-nothing"])
def test_batches_of_strangers_that_look_alike_are_told_apart(what: str, tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create(what)
    sky.hosted.hold()
    twice = Twice(sky)

    async def meet(night: Night) -> None:
        await twice.begin_briefly(night)
        await asyncio.sleep(HOUR_S)
        assert len(sky.hosted.creates) == (1 if what == "lost" else 0), "while one runs nothing is decided"
        sky.hosted.release()
        await twice.end(night)

    async def main(night: Night) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(meet(night))
            await asyncio.sleep(2.5)
            stranger(sky, 1)
            stranger(sky, 2, with_names=True)

    sky.live(main)
    twice.check_paid_once()


def test_a_batch_of_another_handoff_is_no_candidate(tmp_path: Path) -> None:
    """The first create is not made; the second, of as many requests, runs all day."""
    sky = Sky(tmp_path, requests_max=5)
    sky.hosted.next_create("500-nothing")
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.create(requests(10))
        await asyncio.sleep(HOUR_S)
        assert sky.asked() == {f"r{index}": 1 for index in range(10)}

    sky.live(drive)


def test_nobody_looks_on_for_a_batch_that_nobody_wants(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()
    twice = Twice(sky)
    sky.die_at("handoff.posted", twice.begin)

    async def drive(night: Night) -> None:
        assert twice.batch is not None
        await night.cancel(twice.batch)
        await night.until_ended(twice.batch)
        await asyncio.sleep(600)
        await nothing_is_left(night)

    sky.live(drive)
    assert cancels(sky) == 0, "it may be a stranger's"


# --- Our own batches end --------------------------------------------------------------------------------------------


def cancels(sky: Sky) -> int:
    return sum(path.endswith("/cancel") for _, _, path in sky.wire.paths)


def test_a_cancel_of_everything_in_it_is_passed_on_and_what_is_done_still_counts(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()
    sky.hosted.progress(4)

    async def drive(night: Night) -> None:
        batch = await night.create(requests(COUNT))
        await asyncio.sleep(600)
        await night.cancel(batch)
        ended = await night.until_ended(batch)
        assert (ended.tally.succeeded, ended.tally.canceled) == (4, COUNT - 4)
        await nothing_is_left(night)

    sky.live(drive)
    assert cancels(sky) == 1


def test_a_cancel_of_a_part_of_it_is_not(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        gone, kept = await night.create(requests(5, "gone")), await night.create(requests(5, "kept"))
        await asyncio.sleep(60)
        assert sky.sizes() == [10]
        await night.cancel(gone)
        await night.until_ended(gone)
        sky.hosted.release()
        await night.until_ended(kept)
        assert answers(await night.results(kept)) == echoes(5, "kept")
        assert set(answers(await night.results(gone)).values()) == {"canceled"}
        await nothing_is_left(night)

    sky.live(drive)
    assert cancels(sky) == 0


def test_a_cancel_is_passed_on_by_the_next_process_if_the_first_dies(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()
    found: list[Batch] = []

    async def begin(night: Night) -> None:
        found.append(await night.create(requests(COUNT)))
        await asyncio.sleep(60)
        sky.wire.is_away = True
        await night.cancel(found[0])
        await night.until_ended(found[0])

    async def end(night: Night) -> None:
        sky.wire.is_away = False
        await asyncio.sleep(120)
        await nothing_is_left(night)

    sky.live(begin)
    sky.live(end)
    assert cancels(sky) == 1


def test_what_expires_here_is_canceled_there(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(requests(3), lifetime_ms=600_000)
        ended = await night.until_ended(batch)
        assert ended.tally.expired == 3
        await nothing_is_left(night)
        (theirs,) = sky.hosted._service.batches.values()
        assert ended.ended_at_ms is not None
        assert theirs.cancel_initiated_at_ms is not None
        assert abs(theirs.cancel_initiated_at_ms - ended.ended_at_ms) < 1_000

    sky.live(drive)
    assert cancels(sky) == 1


def test_a_drained_process_leaves_no_create_whose_outcome_is_unknown(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create("busy", 3000, times=2)

    async def drive(night: Night) -> None:
        await night.create(requests(COUNT))
        await asyncio.sleep(60)
        assert len(await night.outstanding()) == 1
        night.handoff.drain()
        await night.handoff.wait_quiet()
        assert await night.outstanding() == []

    sky.live(drive)
    assert sky.sizes() == []
