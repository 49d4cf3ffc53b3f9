"""The power goes at every moment of a night, in order, until the night gets through.

Moments are between and inside of all writes (`testing.simdisk`) and on both sides of every commit of the control
database, which is one atomic write here: SQLite's own pages are not modelled.
"""

from itertools import count
from pathlib import Path

from night import Night, Plan

from overnight.testing.engines import ScriptedEngine, by_words
from overnight.testing.simulation import Machine

PLANS = [
    Plan("inline", [f"inline {n} slow 0.3" for n in range(5)]),
    Plan("objects", [f"objects {n} slow 0.2 large 40000" for n in range(5)], padding_bytes=500_000),
    Plan("canceled", [f"canceled {n} slow 2" for n in range(8)], at_s=1.5, cancel_at_s=4.0),
    Plan("failing", ["failing 0 busy 2", "failing 1 broken 1", "failing 2 refused", "failing 3"], at_s=2.0),
    Plan("expired", ["expired 0 hung", "expired 1"], at_s=2.5),
]


def _night(root: Path, *cuts: int) -> tuple[Night, Machine]:
    root.mkdir()
    machine = Machine(root)
    night = Night(machine, PLANS, patience_s=12.0)
    night.cuts = list(cuts)
    night.survive(ScriptedEngine(by_words, in_flight_max=3))
    return night, machine


def test_a_power_cut_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    for cut_after in count(1):
        night, machine = _night(tmp_path / str(cut_after), cut_after)
        if machine.disk.moments < cut_after:
            break
    assert cut_after > 80, "the night had more writes than that"
    assert night.kinds["expired"] == ["expired", "succeeded"]
    assert night.kinds["failing"] == ["succeeded", "succeeded", "errored", "succeeded"]
    assert set(night.kinds["canceled"]) == {"succeeded", "canceled"}


def test_a_second_power_cut_during_recovery_loses_nothing_either(tmp_path: Path) -> None:
    """Soon after the first one, at a place that moves with it; then a third time."""
    for cut_after in count(1):
        _, machine = _night(tmp_path / str(cut_after), cut_after, 1 + cut_after % 11, 1 + cut_after % 7)
        if machine.disk.moments < cut_after:
            return
