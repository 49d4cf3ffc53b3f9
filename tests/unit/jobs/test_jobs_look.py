"""jobs.look: how long to wait between looks at a batch. Looking itself: tests/jobs."""

from itertools import accumulate, repeat

import pytest

from overnight import limits
from overnight.jobs.look import next_wait_s


def waits(number: int, *, fixed: float = 0.0, uniform: float = 0.0) -> list[float]:
    steps = repeat(None, number)
    return list(accumulate(steps, lambda last, _: next_wait_s(last, fixed=fixed, uniform=uniform), initial=0.0))[1:]


def test_the_first_look_comes_soon() -> None:
    assert next_wait_s(0.0, fixed=0.0, uniform=0.0) == limits.JOB_POLL_S


def test_waits_grow_by_half_up_to_five_minutes() -> None:
    found = waits(40)
    assert found[:4] == [1.0, 1.5, 2.25, 3.375]
    assert found == sorted(found)
    assert found[-1] == limits.JOB_POLL_S_MAX


@pytest.mark.parametrize("uniform", [0.0, 0.5, 0.999])
def test_a_batch_of_a_night_is_looked_at_some_hundred_times(uniform: float) -> None:
    found = waits(500, uniform=uniform)
    assert all(0.8 * limits.JOB_POLL_S_MAX <= wait <= limits.JOB_POLL_S_MAX for wait in found[20:])
    looks = sum(1 for passed in accumulate(found) if passed <= 8 * 3600)
    assert 96 <= looks <= 96 * 1.25 + 20


def test_long_waits_differ_from_job_to_job() -> None:
    long = limits.JOB_POLL_S_MAX
    assert next_wait_s(long, fixed=0.0, uniform=0.0) == long
    assert next_wait_s(long, fixed=0.0, uniform=0.5) == pytest.approx(0.9 * long)


def test_a_fixed_interval_is_kept_to_the_second() -> None:
    assert waits(3, fixed=60.0, uniform=0.7) == [60.0, 60.0, 60.0]
