"""Fairness through the real leases, backlog and pools (docs/explanation/scheduling.md, goal 8).
`benchmarks/simulate.py fairness` has peers."""

import pytest

from overnight.testing.backlogdrive import FIFO, OURS, Drive, Replica, Submitted
from overnight.testing.backlogscenes import A, B, Beside, around, took_s
from overnight.testing.stepengine import MEDIUM, SLOTS, Sizes

SCENES = [
    pytest.param(
        Beside(profile=MEDIUM, window=128, whale=5_000, at_s=10, lasts_s=20), id="a GPU, requests of one size"
    ),
    pytest.param(
        Beside(profile=SLOTS, window=8, whale=1_200, at_s=100, lasts_s=120), id="eight slots, requests of one size"
    ),
    pytest.param(
        Beside(profile=SLOTS, window=8, whale=2_000, at_s=100, lasts_s=900, typical=Sizes(4_000, 300)),
        id="eight slots, the small batch has large requests",
    ),
]


@pytest.mark.parametrize("scene", SCENES)
def test_a_small_batch_beside_a_whale_has_half_of_the_engine_at_once_and_no_place_stays_empty(scene: Beside) -> None:
    ours, in_order = scene.run(OURS), scene.run(FIFO)
    assert took_s(ours, "small") <= 1.2 * scene.oracle_s()
    assert took_s(in_order, "small") > 1.2 * scene.oracle_s(), "it has to be done"
    assert ours.gap_max <= scene.bound()
    assert ours.took_s <= 1.01 * in_order.took_s
    assert ours.holes == 0


@pytest.mark.parametrize(("weights", "share"), [((1.0, 1.0), 1 / 2), ((1.0, 2.0), 1 / 3)])
def test_work_is_split_by_weight_in_tokens_whatever_a_request_takes(
    weights: tuple[float, float], share: float
) -> None:
    drive = Drive(
        [Replica(MEDIUM, window=64)],
        [
            Submitted(name="short", workspace=A, requests=4_000, sizes=around(Sizes(400, 30), 1)),
            Submitted(name="long", workspace=B, requests=1_500, sizes=around(Sizes(2_000, 100), 2)),
        ],
        weights={A: weights[0], B: weights[1]},
    )
    drive.run()
    assert drive.cost_of[A] / drive.cost_of.total() == pytest.approx(share, rel=0.05)


def test_many_tiny_batches_have_a_third_of_the_engine_beside_a_whale() -> None:
    """Not half: each is a segment of one request, leased alone, and the whale has a turn between two."""
    tiny = [
        Submitted(name="tiny", workspace=B, requests=1, sizes=around(Sizes(400, 30), number), at_s=5.0)
        for number in range(150)
    ]
    whale = Submitted(name="whale", workspace=A, requests=1_000, sizes=around(Sizes(400, 30), 1))
    drive = Drive([Replica(SLOTS, window=8)], [whale, *tiny])
    ended = drive.run()
    last_s = max(item.submitted.at_s + item.took_s for item in ended if item.submitted.name == "tiny")
    assert last_s <= 1.2 * 3 * 150 / 1_150 * drive.took_s


def test_who_comes_back_is_owed_nothing_for_the_time_away() -> None:
    """A small batch first; then both have a whale."""
    sizes = around(Sizes(400, 30), 1)
    drive = Drive(
        [Replica(SLOTS, window=8)],
        [
            Submitted(name="first", workspace=B, requests=10, sizes=sizes),
            Submitted(name="whale", workspace=A, requests=1_000, sizes=sizes, at_s=10),
            Submitted(name="second", workspace=B, requests=100, sizes=sizes, at_s=200),
            Submitted(name="small", workspace=A, requests=1, sizes=sizes, at_s=201),
        ],
    )
    drive.run()
    alone_s = 100 / 1_111 * drive.took_s
    assert took_s(drive, "second") >= 1.6 * alone_s, "not all of the engine, only half"
