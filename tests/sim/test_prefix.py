"""Prefix order through the real backlog and pools (docs/explanation/scheduling.md, goal 5).

`benchmarks/simulate.py prefix` has the peers.
"""

import pytest

from overnight.testing import backlogscenes as scenes
from overnight.testing.backlogdrive import OURS, Rule
from overnight.testing.backlogscenes import Prompts


@pytest.mark.parametrize(
    ("replicas", "prompts"),
    [
        pytest.param(1, Prompts(requests=1_000), id="one replica"),
        pytest.param(8, Prompts(requests=8_000), id="eight replicas"),
        pytest.param(8, Prompts(requests=8_000, uses=4), id="few uses of each prefix"),
        pytest.param(8, Prompts(requests=12_000, shared=320, own=80), id="short prompts: few segments"),
    ],
)
def test_nearly_all_that_can_come_from_the_caches_does_and_replicas_do_equal_parts(
    replicas: int, prompts: Prompts
) -> None:
    found = scenes.computed(prompts, scenes.in_order, OURS, replicas=replicas)
    assert found.hit_share >= 0.95
    assert found.spread <= 0.05


def test_submission_order_computes_three_times_as_much_and_more() -> None:
    prompts = Prompts(requests=4_000)
    ours = scenes.computed(prompts, scenes.in_order, OURS, replicas=8)
    theirs = scenes.computed(prompts, scenes.submitted(prompts), OURS, replicas=8)
    assert theirs.prefilled_tokens >= 3 * ours.prefilled_tokens


def test_where_nothing_is_shared_nothing_is_lost() -> None:
    alone = Prompts(requests=8_000, uses=1, shared=0, own=400)
    ours = scenes.computed(alone, scenes.in_order, OURS, replicas=8)
    dealt = scenes.computed(alone, scenes.in_order, Rule(name="", deal=scenes.by_turns), replicas=8)
    assert ours.took_s <= dealt.took_s / 0.99


def test_a_batch_of_one_segment_is_spread_over_all_replicas_in_runs_of_neighbours() -> None:
    prompts = Prompts(requests=1_000, shared=320, own=80)
    found = scenes.computed(prompts, scenes.in_order, OURS, replicas=8, window=8)
    assert found.hit_share >= 0.95
    assert found.spread <= 0.05


def test_a_replica_that_is_ten_times_slower_does_a_tenth_and_holds_nobody_up() -> None:
    prompts = Prompts(requests=4_000)
    slow = scenes.computed(prompts, scenes.in_order, OURS, replicas=2, slow=10)
    alone = scenes.computed(prompts, scenes.in_order, OURS, replicas=1)
    assert slow.hit_share >= 0.95
    assert slow.took_s <= 1.1 * alone.took_s * 10 / 11
