"""core.beside: people come first, and the rest is the batch's. Whole engines are in tests/sim/test_beside.py."""

from math import inf
from random import Random

import pytest
from msgspec.structs import replace

from overnight.core import beside as besides
from overnight.core.beside import BOUND_LEAST, BOUND_MOST, IDLE_MS, NOBODY, Beside, Pace

NOW = 100_000.0


def _room(beside: Beside, *, now_ms: float = NOW, in_flight: int = 0, unprefilled: int = 0, waiting: int = 0) -> int:
    return besides.room(
        beside, now_ms=now_ms, window=100, in_flight=in_flight, unprefilled=unprefilled, waiting=waiting
    )


def _reading(people: int = 1, **what: float) -> Beside:
    """People who have their first token."""
    return replace(Beside(people=people, peak=float(people), at_ms=NOW), **what)


def _served(beside: Beside, ttft_ms: float, times: int) -> Beside:
    for number in range(times):
        beside = besides.after_first_token(beside, ttft_ms=ttft_ms, now_ms=beside.at_ms + 1_000 * (number > 0))
    return beside


# --- room -----------------------------------------------------------------------------------------------------------


def test_where_nobody_is_the_window_is_the_batchs() -> None:
    assert _room(NOBODY, in_flight=30, unprefilled=30) == 70
    assert _room(NOBODY, in_flight=130) == 0


@pytest.mark.parametrize(("unprefilled", "room"), [(0, 4), (3, 1), (4, 0), (9, 0)])
def test_beside_people_few_requests_are_not_prefilled(unprefilled: int, room: int) -> None:
    assert _room(_reading(bound=4.9), unprefilled=unprefilled) == room


def test_nothing_starts_while_somebody_has_no_first_token() -> None:
    came = besides.after_arrival(_reading(), now_ms=NOW)
    assert _room(came) == 0
    assert _room(besides.after_first_token(came, ttft_ms=20.0, now_ms=NOW)) > 0


def test_somebody_whose_first_token_is_never_seen_stops_nothing() -> None:
    assert _room(besides.after_arrival(_reading(), shows_first_token=False, now_ms=NOW)) > 0


def test_who_gives_up_before_the_first_token_is_not_waited_for() -> None:
    came = besides.after_arrival(_reading(), now_ms=NOW)
    assert _room(besides.after_end(came, is_unserved=True, now_ms=NOW)) > 0


def test_nothing_starts_while_somebody_waits_outside() -> None:
    assert _room(_reading(), waiting=1) == 0


@pytest.mark.parametrize(("people", "in_flight", "room"), [(10, 87, 1), (10, 88, 0), (95, 0, 0), (500, 0, 0)])
def test_people_take_of_the_window_and_keep_some_of_it_free(people: int, in_flight: int, room: int) -> None:
    assert _room(_reading(people), in_flight=in_flight) == room


def test_slots_kept_free_are_given_back_when_people_stay_away() -> None:
    crowd = _reading(80)
    for _ in range(79):
        crowd = besides.after_end(crowd, now_ms=NOW)
    soon = besides.reserved(crowd, window=100, now_ms=NOW)
    later = besides.reserved(crowd, window=100, now_ms=NOW + 10 * besides.RESERVE_DECAY_MS)
    assert (soon, later) == (10, 2)


@pytest.mark.parametrize(("passed_ms", "is_idle"), [(0, False), (IDLE_MS - 1, False), (IDLE_MS, True)])
def test_two_seconds_after_the_last_one_left_there_is_no_bound(passed_ms: float, is_idle: bool) -> None:
    left = besides.after_end(_reading(), now_ms=NOW)
    assert (_room(left, now_ms=NOW + passed_ms, unprefilled=50) == 100) == is_idle


def test_somebody_who_reads_for_long_is_still_there() -> None:
    assert _room(_reading(), now_ms=NOW + 10 * IDLE_MS, unprefilled=50) == 0


# --- the bound ------------------------------------------------------------------------------------------------------


def test_the_bound_rises_while_people_are_served_in_time_and_stops() -> None:
    assert _served(_reading(target_ms=50.0, bound=4.0), 40.0, 50).bound == pytest.approx(5.0)
    assert _served(_reading(target_ms=50.0), 40.0, 1_000).bound == BOUND_MOST


def test_the_bound_falls_when_people_wait_and_never_shuts_the_batch_out() -> None:
    assert _served(_reading(target_ms=50.0, bound=4.0), 60.0, 1).bound == pytest.approx(3.8)
    assert _served(_reading(target_ms=50.0), 60.0, 1_000).bound == BOUND_LEAST


def test_people_who_were_late_together_are_one_event() -> None:
    late = _reading(target_ms=50.0, bound=4.0)
    for _ in range(20):
        late = besides.after_first_token(late, ttft_ms=60.0, now_ms=NOW)
    assert late.bound == pytest.approx(3.8)


def test_without_a_target_of_the_operator_the_lowest_median_is_the_measure() -> None:
    quiet = _served(_reading(), 20.0, besides.BLOCK)
    assert quiet.floor_ms == 20.0
    assert _served(quiet, 20.0 * quiet.patience - 1, 1).bound > quiet.bound
    assert _served(quiet, 20.0 * quiet.patience + 1, 1).bound < quiet.bound


def test_one_quick_answer_is_no_floor_and_a_slower_engine_raises_it_slowly() -> None:
    quick = _served(_served(_reading(), 1.0, 1), 20.0, besides.BLOCK - 1)
    assert quick.floor_ms == 20.0
    slower = _served(quick, 200.0, besides.BLOCK)
    assert slower.floor_ms == pytest.approx(20.0 * besides.FLOOR_DRIFT)
    assert _served(slower, 200.0, 200 * besides.BLOCK).floor_ms == 200.0


# --- pace -----------------------------------------------------------------------------------------------------------


def _paced(pace: Pace, *, prefill_ms: float, per_token_ms: float, answers: int, noise: float = 0.0) -> Pace:
    dice = Random(7)
    for _ in range(answers):
        output = 1 + int(dice.expovariate(1 / 30))
        latency_ms = prefill_ms + per_token_ms * output + dice.uniform(-noise, noise)
        pace = besides.after_answer(pace, latency_ms=latency_ms, output_tokens=output)
    return pace


def test_latency_over_output_tells_how_long_the_prompt_took() -> None:
    pace = _paced(Pace(), prefill_ms=80.0, per_token_ms=20.0, answers=200, noise=40.0)
    assert besides.prefill_ms(pace) == pytest.approx(80.0, abs=20.0)


def test_an_engine_that_became_slower_is_followed() -> None:
    pace = _paced(Pace(), prefill_ms=80.0, per_token_ms=20.0, answers=200)
    pace = _paced(pace, prefill_ms=400.0, per_token_ms=30.0, answers=200)
    assert besides.prefill_ms(pace) == pytest.approx(400.0, rel=0.1)


def test_few_answers_say_nothing_so_nothing_counts_as_prefilled() -> None:
    few = _paced(Pace(), prefill_ms=80.0, per_token_ms=20.0, answers=besides.PACE_ANSWERS - 1)
    assert besides.prefill_ms(few) == inf


def test_answers_of_one_length_count_as_prompt_altogether() -> None:
    pace = Pace()
    for _ in range(100):
        pace = besides.after_answer(pace, latency_ms=500.0, output_tokens=4)
    assert besides.prefill_ms(pace) == pytest.approx(500.0)


def test_a_prompt_never_takes_less_than_nothing() -> None:
    assert besides.prefill_ms(_paced(Pace(), prefill_ms=-300.0, per_token_ms=20.0, answers=100)) == 0.0
