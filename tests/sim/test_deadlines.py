"""Deadlines (docs/explanation/scheduling.md, goal 9): days in pure functions, and afternoons of the real leases,
plan, backlog and pools. `benchmarks/simulate.py deadlines` has peers."""

from statistics import median

import pytest

from overnight.testing import daydrive
from overnight.testing.backlogdrive import EDF, OURS, PLAIN, Drive
from overnight.testing.backlogscenes import afternoon, spent
from overnight.testing.daydrive import Piece

SEEDS = (1, 2, 3)
DAYS = [pytest.param(daydrive.mixed(load=0.9, seed=seed), id=f"three whales, seed {seed}") for seed in SEEDS] + [
    pytest.param(daydrive.crowded(load=0.9, seed=seed), id=f"ten whales, seed {seed}") for seed in SEEDS
]


@pytest.mark.parametrize("pieces", DAYS)
def test_in_a_day_that_fits_nothing_is_late_and_small_batches_hardly_wait_longer(pieces: list[Piece]) -> None:
    ours, fair, edf = (daydrive.live(pieces, policy) for policy in (daydrive.ours, daydrive.fair, daydrive.edf))
    assert edf.missed == {}, "it can be done"
    assert ours.missed == {}
    assert ours.wait_min <= 2 * fair.wait_min


def test_without_the_guard_urgent_batches_are_late() -> None:
    assert daydrive.live(daydrive.crowded(load=0.9, seed=1), daydrive.fair).missed == {"urgent": 4}


def test_in_a_day_that_does_not_fit_as_much_is_in_time_as_by_deadlines_alone() -> None:
    pieces = daydrive.mixed(load=1.2, seed=1)
    assert daydrive.live(pieces, daydrive.ours).in_time >= 0.95 * daydrive.live(pieces, daydrive.edf).in_time


def _missed(drive: Drive) -> int:
    return sum(item.missed for item in drive.ended)


def _wait_s(drive: Drive) -> float:
    return median(item.took_s for item in drive.ended if item.submitted.name.startswith("small"))


def test_pools_meet_every_deadline_that_can_be_met_and_stay_full() -> None:
    batches = afternoon(whales=10, load=0.9, seed=3)
    ours, fair, edf = (spent(batches, rule, seed=3) for rule in (OURS, PLAIN, EDF))
    assert _missed(edf) == 0, "it can be done"
    assert _missed(fair) > 0, "and not by itself"
    assert _missed(ours) == 0
    assert _wait_s(ours) <= 2 * _wait_s(fair)
    assert ours.holes == 0
    assert ours.took_s <= 1.01 * edf.took_s


def test_pools_that_have_too_much_to_do_do_as_much_in_time_as_by_deadlines_alone() -> None:
    batches = afternoon(whales=10, load=1.2, seed=3, hours=1)
    asked = sum(item.requests for item in batches)
    assert asked - _missed(spent(batches, OURS, seed=3)) >= 0.95 * (asked - _missed(spent(batches, EDF, seed=3)))
