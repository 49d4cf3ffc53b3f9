"""runner.handoff under virtual time, against the strict double of the hosted API: the way, and trouble there."""

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from skies import HOUR_S, Sky, answers, check_echoes, echo, echoes, night_of, nothing_is_left, requests, said

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.testing import hosted as double
from overnight.testing.handingover import Night
from overnight.testing.hosted import Outcome

# --- The way of a handoff -----------------------------------------------------------------------------------------


def test_what_is_sent_together_becomes_one_batch_and_every_result_comes_home(tmp_path: Path) -> None:
    sky = Sky(tmp_path)

    async def drive(night: Night) -> None:
        results = await night_of(night, 35)
        assert answers(results) == echoes(35)
        assert {found["message"]["usage"]["service_tier"] for found in results.values()} == {"batch"}
        await nothing_is_left(night)

    sky.live(drive)
    assert sky.sizes() == [35]
    (create,) = sky.hosted.creates
    named = [handoffs.read_name(custom_id) for custom_id in create.custom_ids]
    assert all(named), "they tell whose they are"
    assert create.headers["idempotency-key"] == named[0].handoff_id  # type: ignore[union-attr]


def test_a_run_is_cut_by_what_a_batch_may_hold(tmp_path: Path) -> None:
    sky = Sky(tmp_path, requests_max=8)
    sky.live(lambda night: check_echoes(night, 30))
    assert sky.sizes() == [8, 8, 8, 6]


def test_a_run_is_cut_by_the_bytes_of_its_body(tmp_path: Path) -> None:
    sky = Sky(tmp_path, bytes_max=3_000)
    sky.live(lambda night: check_echoes(night, 30))
    assert len(sky.sizes()) > 1
    assert max(sky.sizes()) * (100 + 60) < 3_000


def test_a_request_larger_than_a_whole_batch_is_an_errored_row_and_costs_nothing(tmp_path: Path) -> None:
    sky = Sky(tmp_path, bytes_max=3_000)

    async def drive(night: Night) -> None:
        large = requests(1, "large", system="x" * 4_000)
        batch = await night.create(requests(3) + large)
        await night.until_ended(batch)
        results = await night.results(batch)
        assert answers(results) == echoes(3) | {"large0": "errored"}
        assert results["large0"]["error"]["error"]["type"] == "request_too_large"

    sky.live(drive)
    assert sky.asked().total() == 3


def test_several_batches_are_at_the_upstream_at_once_and_no_more_than_may_be(tmp_path: Path) -> None:
    sky = Sky(tmp_path, requests_max=2)
    sky.hosted.hold()
    most = limits.HANDOFFS_MAX

    async def drive(night: Night) -> None:
        batch = await night.create(requests(2 * most + 6))
        await asyncio.sleep(300)
        assert len(sky.hosted.creates) == most
        sky.hosted.release()
        await night.until_ended(batch)
        assert answers(await night.results(batch)) == echoes(2 * most + 6)

    sky.live(drive)
    assert set(sky.asked().values()) == {1}


def test_params_are_dropped_once_the_upstream_has_them(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.create(requests(20))
        await asyncio.sleep(60)
        works = [work for run in night.runs.values() for work in run.open.values()]
        assert [len(work.params) for work in works] == [0] * 20

    sky.live(drive)


def test_looks_heed_retry_after_and_become_rarer(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        await night.create(requests(1))
        await asyncio.sleep(HOUR_S)

    sky.live(drive)
    looks_s = [at_s for at_s, method, path in sky.wire.paths if method == "GET" and path.count("/") == 4]
    waits_s = [later - before for before, later in pairwise(looks_s)]
    assert min(waits_s) >= limits.POLL_AFTER_S
    assert len(looks_s) < HOUR_S / 50


# --- Outcomes of rows -----------------------------------------------------------------------------------------------


def test_a_request_that_is_refused_there_is_an_errored_row(tmp_path: Path) -> None:
    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        if said(params) == "r1":
            return double.failed("invalid_request_error", "max_tokens: too large")
        return echo(custom_id, params)

    sky = Sky(tmp_path, script)

    async def drive(night: Night) -> None:
        results = await night_of(night, 3)
        assert answers(results) == echoes(3) | {"r1": "errored"}
        error = results["r1"]["error"]
        assert (error["type"], error["error"]["message"]) == ("error", "max_tokens: too large")
        assert error["request_id"].startswith("workerreq_")

    sky.live(drive)
    assert sky.sizes() == [3]


@pytest.mark.parametrize("error_type", ["overloaded_error", "api_error"])
def test_bad_luck_there_is_asked_again_with_what_the_request_says(error_type: str, tmp_path: Path) -> None:
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        if said(params) == "r1" and tries["r1"] <= 2:
            return double.failed(error_type, "try later")
        return echo(custom_id, params)

    sky = Sky(tmp_path, script)

    async def drive(night: Night) -> None:
        assert answers(await night_of(night, 3)) == echoes(3)
        assert night.rereads == 2
        await nothing_is_left(night)

    sky.live(drive)
    assert sky.asked() == {"r0": 1, "r1": 3, "r2": 1}


def test_a_segment_that_is_read_anew_keeps_what_another_batch_has_of_it(tmp_path: Path) -> None:
    """Two batches of the upstream share a segment; the first brings bad luck while the second still runs."""
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        is_unlucky = said(params) in ("r0", "r5") and tries[said(params)] == 1
        return double.failed("api_error", "try later") if is_unlucky else echo(custom_id, params)

    sky = Sky(tmp_path, script, requests_max=5)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(requests(10))
        await asyncio.sleep(100)
        assert sky.sizes() == [5, 5]
        sky.hosted.release()
        sky.wire.after_call = sky.hosted.hold  # One look ends the one, and the other is held again.
        await asyncio.sleep(600)
        assert night.rereads == 1
        assert len([batch for batch in sky.hosted.batches if batch.ended_at]) == 1
        sky.wire.after_call = lambda: None
        sky.hosted.release()
        await night.until_ended(batch)
        assert answers(await night.results(batch)) == echoes(10)
        await nothing_is_left(night)

    sky.live(drive)
    assert sky.asked() == {f"r{index}": 2 if index in (0, 5) else 1 for index in range(10)}


def test_what_always_fails_there_is_given_up_in_the_end(tmp_path: Path) -> None:
    sky = Sky(tmp_path, lambda custom_id, params: double.failed("api_error", "Internal server error"))

    async def drive(night: Night) -> None:
        results = await night_of(night, 2)
        assert {found["error"]["error"]["type"] for found in results.values()} == {"api_error"}

    sky.live(drive)
    assert sky.asked() == dict.fromkeys(["r0", "r1"], limits.ATTEMPTS_MAX)


def test_what_expired_there_is_asked_again_while_our_batch_lives(tmp_path: Path) -> None:
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        return double.expired() if said(params) == "r0" and tries["r0"] == 1 else echo(custom_id, params)

    sky = Sky(tmp_path, script)
    sky.live(lambda night: check_echoes(night, 2))
    assert sky.asked() == {"r0": 2, "r1": 1}


def test_an_account_without_money_makes_no_errored_rows(tmp_path: Path) -> None:
    tries = Counter[str]()

    def script(custom_id: str, params: dict[str, Any]) -> Outcome:
        tries[said(params)] += 1
        if tries[said(params)] <= 9:
            return double.failed("billing_error", "pay")
        is_unlucky = tries[said(params)] < 9 + limits.ATTEMPTS_MAX
        return double.failed("api_error", "try later") if is_unlucky else echo(custom_id, params)

    sky = Sky(tmp_path, script)
    sky.live(lambda night: check_echoes(night, 1))
    assert sky.asked() == {"r0": 9 + limits.ATTEMPTS_MAX}, "nor is it an attempt"


@pytest.mark.parametrize("fault", ["lose_rows", "duplicate_rows", "extra_rows"])
def test_rows_that_are_missing_doubled_or_strange_change_no_result(fault: str, tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(requests(3))
        await asyncio.sleep(20)
        first = "somebody-elses" if fault == "extra_rows" else sky.hosted.creates[0].custom_ids[0]
        getattr(sky.hosted, fault)([first])
        sky.hosted.release()
        await night.until_ended(batch)
        assert answers(await night.results(batch)) == echoes(3)

    sky.live(drive)
    assert sky.asked().total() == (4 if fault == "lose_rows" else 3)


# --- An upstream that is busy, away, or says no ---------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["create", "retrieve", "results"])
@pytest.mark.parametrize("what", ["busy", "overloaded", "500", "dropped"])
def test_an_upstream_in_trouble_costs_time_and_nothing_else(asked: str, what: str, tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    getattr(sky.hosted, f"next_{asked}")(what, times=3)
    sky.live(lambda night: check_echoes(night, 5))
    assert sky.asked() == dict.fromkeys((f"r{index}" for index in range(5)), 1)


def test_an_upstream_that_is_away_for_hours_is_waited_for_and_health_says_so(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.wire.is_away = True

    async def drive(night: Night) -> None:
        batch = await night.create(requests(5))
        await asyncio.sleep(3 * HOUR_S)
        assert night.handoff.trouble == "nobody is there"
        sky.wire.is_away = False
        await night.until_ended(batch)
        assert (answers(await night.results(batch)), night.handoff.trouble) == (echoes(5), "")

    sky.live(drive)
    assert set(sky.asked().values()) == {1}


def test_a_full_queue_is_asked_again_when_it_said(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create("busy", 900)
    sky.live(lambda night: check_echoes(night, 5))
    first, second = [at_s for at_s, method, path in sky.wire.paths if (method, path.count("/")) == ("POST", 3)]
    assert second - first >= 900


def test_an_account_that_is_refused_waits_for_its_operator(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create("billing", times=5)
    sky.live(lambda night: check_echoes(night, 5))


def test_a_batch_that_is_too_large_for_the_upstream_is_halved(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_create("413", times=2)
    sky.live(lambda night: check_echoes(night, 8))
    assert sorted(sky.sizes()) == [2, 2, 4]


def test_a_version_that_the_upstream_does_not_know_makes_errored_rows(tmp_path: Path) -> None:
    sky = Sky(tmp_path)

    async def drive(night: Night) -> None:
        batch = await night.create(requests(2), api_version="1999-01-01")
        await night.until_ended(batch)
        results = await night.results(batch)
        assert answers(results) == dict.fromkeys(["r0", "r1"], "errored")
        assert "anthropic-version" in results["r0"]["error"]["error"]["message"]

    sky.live(drive)


def test_requests_of_other_versions_or_betas_are_sent_apart(tmp_path: Path) -> None:
    sky = Sky(tmp_path)

    async def drive(night: Night) -> None:
        kinds = [{"betas": ""}, {"betas": "one"}, {"api_version": "2023-01-01"}, {"betas": "one"}]
        batches = [await night.create(requests(3, f"k{index}-"), **kind) for index, kind in enumerate(kinds)]
        for batch in batches:
            await night.until_ended(batch)

    sky.live(drive)
    sent = [
        (create.headers["anthropic-version"], create.headers.get("anthropic-beta"), len(create.params))
        for create in sky.hosted.creates
    ]
    assert sorted(sent, key=str) == [
        ("2023-01-01", None, 3),
        ("2023-06-01", "one", 6),
        ("2023-06-01", None, 3),
    ]


def test_results_that_break_off_are_read_again_and_recorded_once(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_results("cut", 2_000, times=2)
    sky.live(lambda night: check_echoes(night, 40))
    assert set(sky.asked().values()) == {1}


def test_single_404s_are_not_believed_and_a_lasting_one_puts_the_requests_back(tmp_path: Path) -> None:
    sky = Sky(tmp_path)
    sky.hosted.next_retrieve("404", times=3)
    sky.live(lambda night: check_echoes(night, 5))
    assert set(sky.asked().values()) == {1}

    gone = Sky(tmp_path / "gone")
    gone.hosted.hold()

    async def drive(night: Night) -> None:
        batch = await night.create(requests(5))
        await asyncio.sleep(60)
        gone.hosted._service.batches.clear()
        gone.hosted.release()
        ended = await night.until_ended(batch)
        assert answers(await night.results(batch)) == echoes(5)
        assert ended.ended_at_ms is not None
        assert ended.ended_at_ms - ended.created_at_ms >= limits.HANDOFF_GONE_AFTER_MS

    gone.live(drive)
    assert set(gone.asked().values()) == {2}
