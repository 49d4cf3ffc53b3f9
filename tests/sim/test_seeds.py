"""Nights by dice: several cuts, a busy, slow, broken engine, cancels at any time, a disk that is full for a while.

A failure names its seed; `OVERNIGHT_SEED=7 pytest tests/sim/test_seeds.py` runs that one alone. Seeds that failed
once stay in seeds.txt.
"""

import os
from pathlib import Path

import pytest
from night import Night, Plan

from overnight.testing.engines import ScriptedEngine, by_words
from overnight.testing.simdisk import SimDisk
from overnight.testing.simulation import Life, Machine
from overnight.testing.virtualtime import SeededEntropy

_PAST = [
    int(line.split()[0]) for line in Path(__file__).with_name("seeds.txt").read_text().splitlines() if line[0] != "#"
]
_COUNT = 3_000 if "OVERNIGHT_LONG" in os.environ else 100
_ONE = os.environ.get("OVERNIGHT_SEED")
SEEDS = [int(_ONE)] if _ONE else list(dict.fromkeys([*_PAST, *range(_COUNT)]))


class RandomNight(Night):
    """A night in which the disk may also be full for some seconds."""

    full_from_s = full_to_s = 0.0

    async def _advance(self, life: Life, plan: Plan, now_s: float) -> None:
        self._machine.disk.is_full = self.full_from_s <= now_s < self.full_to_s and bool(self.ids)
        if plan.name in self.ids or not self._machine.disk.is_full:
            await super()._advance(life, plan, now_s)


def _text(dice: SeededEntropy, name: str) -> str:
    words = [name]
    for word, chance, most in (("busy", 0.15, 4), ("broken", 0.15, 3), ("large", 0.2, 60_000)):
        if dice.uniform() < chance:
            words += [word, str(1 + dice.below(most))]
    words += ["slow", f"{dice.uniform() ** 3 * 8:.2f}"]
    fate = dice.uniform()
    return " ".join([*words, *(["refused"] if fate < 0.05 else ["hung"] if fate < 0.08 else [])])


def _plans(dice: SeededEntropy) -> list[Plan]:
    return [
        Plan(
            name=f"batch{number}",
            texts=[_text(dice, f"b{number} r{index}") for index in range(1 + dice.below(8))],
            at_s=dice.uniform() * 15,
            cancel_at_s=dice.uniform() * 25 if dice.uniform() < 0.3 else None,
            padding_bytes=400_000 if dice.uniform() < 0.1 else 20,
        )
        for number in range(1 + dice.below(5))
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_night_by_dice_keeps_the_invariants(seed: int, tmp_path: Path) -> None:
    dice = SeededEntropy(seed)
    machine = Machine(tmp_path, seed=seed, disk=SimDisk(dice))
    night = RandomNight(machine, _plans(dice), patience_s=40.0, poll_s=0.5 + dice.uniform())
    if dice.uniform() < 0.3:
        night.full_from_s = dice.uniform() * 20
        night.full_to_s = night.full_from_s + dice.uniform() * 10
        night.lost_s += night.full_to_s - night.full_from_s + 2.0  # Not on disk meanwhile, and looked at again then.
    night.cuts = [1 + dice.below(80) for _ in range(dice.below(5))]
    engine = ScriptedEngine(by_words, in_flight_max=1 + dice.below(6))
    night.survive(engine)
    assert set(night.kinds) == set(night.ids)
