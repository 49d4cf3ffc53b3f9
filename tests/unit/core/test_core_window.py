"""core.window: one period at a time. How it does on whole engines is in tests/sim/test_window.py."""

import pytest
from msgspec.structs import replace

from overnight.core import window as windows
from overnight.core.window import BURST_MS, CUT, START, Period, Window


def _seen(window: Window, **what: object) -> Period:
    """A period of a full window on an engine that tells nothing."""
    usual = {"ms": 500.0, "completed": 0, "tokens": 0, "in_flight": window.limit, "is_saturated": True}
    return Period(**{**usual, **what})  # type: ignore[arg-type]


def _told(window: Window, *, running: int, waiting: int, **what: object) -> Period:
    in_flight = min(window.limit, running + waiting)
    return _seen(window, running=running, waiting=waiting, in_flight=in_flight, **what)


def _at_rest(limit: int) -> Window:
    """It was full once, by the queue."""
    return replace(windows.begun(most=4_096), limit=limit, is_ramping=False, to_skip=0)


def _measured(window: Window, rate_per_s: float, *, periods: int = 400) -> Window:
    """After so many tokens a second until the window moves; one token a completion, for short."""
    for _ in range(periods):
        count = int(rate_per_s / 2)
        after = windows.after_period(window, _seen(window, completed=count, tokens=count), now_ms=0.0)
        if after.limit != window.limit:
            return after
        window = after
    return window


# --- bounds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "limit"), [(1, 1), (8, 8), (START, START), (4_096, START)])
def test_a_window_begins_small_and_within_what_is_allowed(most: int, limit: int) -> None:
    assert windows.begun(most=most).limit == limit


@pytest.mark.parametrize("waiting", [None, 0, 900])
def test_an_engine_with_slots_keeps_its_window(waiting: int | None) -> None:
    window = windows.begun(most=8, fixed=True)
    for now_ms in range(0, 60_000, 500):
        seen = _seen(window, completed=100, tokens=100 * now_ms, waiting=waiting, running=8)
        window = windows.after_refusal(windows.after_period(window, seen, now_ms=now_ms), now_ms=now_ms)
    assert window.limit == 8


@pytest.mark.parametrize("waiting", [None, 0])
def test_no_window_grows_beyond_what_is_allowed(waiting: int | None) -> None:
    window, heights = windows.begun(most=100), set()
    for turn in range(1, 200):
        count = 2 * window.limit  # A larger one always brings more.
        seen = _seen(window, completed=count, tokens=count, waiting=waiting, running=window.limit)
        window = windows.after_period(window, seen, now_ms=turn * 500.0)
        heights.add(window.limit)
    assert max(heights) == 100


@pytest.mark.parametrize("waiting", [None, 0])
@pytest.mark.parametrize("is_ramping", [True, False])
def test_a_window_that_is_not_the_limit_does_not_grow(waiting: int | None, is_ramping: bool) -> None:
    window = before = replace(windows.begun(most=4_096), is_ramping=is_ramping, to_skip=0)
    for _ in range(100):
        seen = _seen(window, completed=90, tokens=90, in_flight=20, running=20, waiting=waiting, is_saturated=False)
        window = windows.after_period(window, seen, now_ms=0.0)
    assert window.limit == before.limit


# --- by the queue ---------------------------------------------------------------------------------------------------


def test_it_doubles_each_period_until_somebody_waits() -> None:
    window, heights = windows.begun(most=4_096), []
    for _ in range(4):
        window = windows.after_period(window, _told(window, running=window.limit, waiting=0), now_ms=0.0)
        heights.append(window.limit)
    assert heights == [2 * START, 4 * START, 8 * START, 16 * START]


def test_an_engine_that_has_not_counted_what_came_is_not_empty() -> None:
    window = windows.begun(most=4_096)
    seen = _seen(window, running=0, waiting=0)
    assert windows.after_period(window, seen, now_ms=0.0).limit == window.limit


def test_who_waits_because_we_have_just_doubled_is_no_queue_yet() -> None:
    window = windows.begun(most=4_096)
    window = windows.after_period(window, _told(window, running=START, waiting=0), now_ms=0.0)
    fresh = windows.after_period(window, _told(window, running=START, waiting=START), now_ms=0.0)
    assert fresh.limit == 2 * START
    later = windows.after_period(fresh, _told(window, running=START, waiting=START, completed=99), now_ms=0.0)
    assert later.limit == 36


@pytest.mark.parametrize(
    ("running", "waiting", "limit"),
    [(110, 0, 122), (100, 10, 110), (100, 14, 110), (100, 60, 60), (8, 1, 110), (8, 102, 9), (100, 10_000, 1)],
)
def test_a_tenth_of_what_runs_may_wait(running: int, waiting: int, limit: int) -> None:
    window = _at_rest(110)
    seen = _told(window, running=running, waiting=waiting, completed=1)
    assert windows.after_period(window, seen, now_ms=0.0).limit == limit


def test_what_other_people_have_waiting_takes_our_window() -> None:
    window = _at_rest(100)
    seen = _seen(window, running=100, waiting=80, in_flight=100)
    assert windows.after_period(window, seen, now_ms=0.0).limit == 30


def test_one_period_between_two_steps_says_little_about_a_queue() -> None:
    window = _at_rest(110)
    for waiting in (10, 10, 22, 10):
        window = windows.after_period(window, _told(window, running=100, waiting=waiting), now_ms=0.0)
    assert window.limit == 110


# --- by goodput -----------------------------------------------------------------------------------------------------


def test_a_larger_window_that_brings_more_is_kept_and_doubled_again() -> None:
    window = _measured(windows.begun(most=4_096), 100)
    assert (window.limit, window.base) == (64, 32)
    window = _measured(window, 180)
    assert (window.limit, window.base) == (128, 64)


def test_a_larger_window_that_brings_nothing_is_left_again() -> None:
    window = _measured(_measured(windows.begun(most=4_096), 100), 180)
    window = _measured(window, 182)
    assert (window.limit, window.base, window.is_ramping) == (64, 64, False)


@pytest.mark.parametrize(("rate_per_s", "base"), [(96, 42), (90, 64), (80, 64)])
def test_a_smaller_window_is_kept_if_it_surely_brings_as_much(rate_per_s: int, base: int) -> None:
    at_64 = replace(_at_rest(64), base=64, base_rate=0.18, base_completed=640, is_upward=False, step=1.5, holds=10)
    smaller = _measured(at_64, 90)
    assert smaller.limit == 42
    assert _measured(smaller, rate_per_s).base == base


def test_completions_from_before_a_change_are_not_measured() -> None:
    window = _measured(windows.begun(most=4_096), 100)
    skipped = windows.after_period(window, _seen(window, completed=63, tokens=10**9), now_ms=0.0)
    assert (skipped.to_skip, skipped.completed, skipped.limit) == (1, 0, 64)


def test_few_completions_are_gathered_until_they_say_something() -> None:
    window = replace(windows.begun(most=4_096), to_skip=0)
    for _ in range(windows.ENOUGH - 1):
        window = windows.after_period(window, _seen(window, completed=1, tokens=430), now_ms=0.0)
        assert window.base == 0
    assert windows.after_period(window, _seen(window, completed=1, tokens=430), now_ms=0.0).base == START


def test_an_engine_that_tells_no_tokens_is_steered_by_its_answers() -> None:
    window = windows.begun(most=4_096)
    for _ in range(40):
        window = windows.after_period(window, _seen(window, completed=window.limit), now_ms=0.0)
    assert window.limit > START


# --- refusals -------------------------------------------------------------------------------------------------------


def test_a_burst_of_refusals_cuts_once() -> None:
    window = replace(windows.begun(most=4_096), limit=400)
    for now_ms in range(10_000, 10_000 + BURST_MS, 10):
        window = windows.after_refusal(window, now_ms=now_ms)
    assert window.limit == int(400 * CUT)
    assert windows.after_refusal(window, now_ms=10_000 + BURST_MS).limit == int(300 * CUT)


@pytest.mark.parametrize("waiting", [None, 0])
def test_a_refused_height_is_passed_only_a_tenth_a_minute(waiting: int | None) -> None:
    window = windows.after_refusal(replace(windows.begun(most=4_096), limit=400), now_ms=1_000.0)
    highest: dict[int, int] = {}
    for turn in range(1, 600):
        now_ms = 1_000.0 + turn * 500
        count = 2 * window.limit  # A larger one always brings more.
        seen = _seen(window, completed=count, tokens=count, running=window.limit, waiting=waiting)
        window = windows.after_period(window, seen, now_ms=now_ms)
        minute = int((now_ms - 1_000) // 60_000)
        highest[minute] = max(highest.get(minute, 0), window.limit)
    assert 400 < highest[0] <= 484
    assert highest[0] < highest[3] <= 400 * 1.1**5


@pytest.mark.parametrize("limit", [1, 2])
def test_one_request_is_always_let_in(limit: int) -> None:
    assert windows.after_refusal(replace(windows.begun(most=9), limit=limit), now_ms=1.0).limit == 1


# --- memory ---------------------------------------------------------------------------------------------------------


def test_tokens_in_flight_are_held_at_nine_tenths_of_the_engines_memory() -> None:
    window = _at_rest(500)
    seen = _told(window, running=500, waiting=0, kv_share=0.6, tokens_in_flight=300_000)
    assert windows.after_period(window, seen, now_ms=0.0).tokens_limit == pytest.approx(450_000)


@pytest.mark.parametrize(("kv_share", "is_known"), [(0.1, False), (0.59, False), (0.61, True), (1.0, True)])
def test_memory_is_no_limit_before_it_is_used(kv_share: float, is_known: bool) -> None:
    window = _at_rest(500)
    seen = _told(window, running=500, waiting=0, kv_share=kv_share, tokens_in_flight=300_000)
    assert (windows.after_period(window, seen, now_ms=0.0).tokens_limit is not None) == is_known


def test_requests_that_were_thrown_out_cost_a_quarter_of_the_tokens_once_they_have_gone() -> None:
    window = _at_rest(500)
    told = [(7, 400_000, None), (9, 400_000, 300_000.0), (30, 380_000, 300_000.0), (40, 280_000, 210_000.0)]
    for thrown_out, tokens, limit in told:  # The first figure is of the time before us.
        seen = _told(window, running=500, waiting=50, preemptions=thrown_out, tokens_in_flight=tokens)
        window = windows.after_period(window, seen, now_ms=0.0)
        assert window.tokens_limit == limit, thrown_out
