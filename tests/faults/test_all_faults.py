"""Faults in turn and together, by a seeded schedule: every request has its row, and only poison is errored."""

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from fault_runs import (
    BACK_S,
    BEFORE_S,
    Group,
    back_after_s,
    by_id,
    check_answers,
    created,
    rows,
    serving,
    speed_before,
    texts,
)

from overnight import limits
from overnight.testing.faultyengine import FAULTS, POISON, running_engines

MODEL = "m"
DELAY_S = 0.2
IN_FLIGHT = 16
ENGINES = 3
BATCH = 300
PASSING = [fault for fault in FAULTS if fault != "silent"]
ROUNDS = 200 if os.environ.get("OVERNIGHT_LONG") else 10
FAULT_S = (0.5, 4.0)
SEEDS = [1] if not os.environ.get("OVERNIGHT_LONG") else [1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_schedule_of_faults_loses_or_doubles_a_request(seed: int, tmp_path: Path) -> None:
    dice = Random(seed)
    asked: dict[str, list[str]] = {}
    with (
        running_engines(ENGINES, delay_s=DELAY_S) as engines,
        serving(tmp_path, Group(MODEL, engines, IN_FLIGHT)) as server,
    ):

        def send(name: str, count: int, *more: str) -> str:
            said = [*texts(name, count), *more]
            batch_id = created(server, MODEL, said)
            asked[batch_id] = said
            return batch_id

        send("first", 3 * BATCH)
        for engine in engines:
            engine.wait_answered(round(1.2 * BEFORE_S * IN_FLIGHT / DELAY_S))
        per_s = speed_before(engines, max(engine.answered_s[-1] for engine in engines))
        for number in range(ROUNDS):
            send(f"round {number}", BATCH, *([f"{POISON} {number}"] if number % 10 == 3 else []))
            struck = dice.sample(engines, dice.randint(1, ENGINES))
            for engine in struck:
                engine.suffer(dice.choice(PASSING), for_s=dice.uniform(*FAULT_S))
            for engine in struck:
                engine.wait_well()
        ended_s = max(ended_s for engine in engines for _, _, ended_s in engine.faults)
        batch_id = send("after", BATCH)
        for number in range(round(BACK_S)):  # A second of work each, of which two are there at any time.
            before, batch_id = batch_id, send(f"after {number}", BATCH)
            rows(server, before, len(asked[before]))
            if back_after_s(engines, ended_s, per_s=per_s) <= BACK_S:
                break
        for batch_id, said in asked.items():
            found, expected = rows(server, batch_id, len(said)), by_id(said)
            for name in [name for name, text in expected.items() if POISON in text]:
                assert found.pop(name)["type"] == "errored"
                del expected[name]
            check_answers(found, expected)
    calls = sum((engine.calls for engine in engines), Counter[str]())
    everything = [text for said in asked.values() for text in said]
    assert calls.keys() == set(everything)
    struck_times = sum(len(engine.faults) + engine.deaths for engine in engines)
    extra = calls.total() - len(everything)
    back_s = back_after_s(engines, ended_s, per_s=per_s)
    assert extra <= struck_times * (IN_FLIGHT + limits.BREAKER_FAILURES)
    assert back_s <= BACK_S
