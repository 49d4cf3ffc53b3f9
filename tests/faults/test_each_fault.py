"""One engine, one fault in the middle of a batch: no request is lost or doubled, and the speed comes back.

All faults run beside each other in one server, each with an engine and a batch of its own: so they also show that
an engine in trouble holds up nobody else.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from fault_runs import (
    BACK_S,
    BEFORE_S,
    WINDOW_S,
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
from overnight.testing.faultyengine import FAULTS, Fault, FaultyEngine, running_engines
from overnight.testing.observed import ObservedServer

DELAY_S = 0.2
IN_FLIGHT = 8
REQUESTS = 400
FAULT_S = 4.0
# Until the breaker opens, whose count each answer to what was inside before starts anew; single tries are few.
ASKED_AGAIN_MAX = (IN_FLIGHT + 1) * limits.BREAKER_FAILURES
WELL = "well"  # The model of an engine without a fault.
PASSING: list[Fault] = [fault for fault in FAULTS if fault != "silent"]  # The others: nothing is left of them.


class Night(NamedTuple):
    """One batch and its engine."""

    server: ObservedServer
    batch_id: str
    engine: FaultyEngine
    texts: list[str]

    def check(self) -> None:
        """It has ended, and every request was answered."""
        check_answers(rows(self.server, self.batch_id, len(self.texts)), by_id(self.texts))
        assert self.engine.calls.keys() == set(self.texts)


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Night]]:
    names = [*PASSING, WELL]
    with running_engines(len(names), delay_s=DELAY_S) as engines:
        by_name = dict(zip(names, engines, strict=True))
        groups = [Group(name, [engine], IN_FLIGHT) for name, engine in by_name.items()]
        with serving(tmp_path_factory.mktemp("faults"), *groups) as server:
            ids = {name: created(server, name, texts(name, REQUESTS)) for name in names}
            for engine in engines:
                engine.wait_answered(round(BEFORE_S * IN_FLIGHT / DELAY_S))
            for fault in PASSING:
                by_name[fault].suffer(fault, for_s=FAULT_S)
            yield {name: Night(server, ids[name], by_name[name], texts(name, REQUESTS)) for name in names}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_costs_no_row_and_few_calls_and_the_speed_is_back_soon(
    fault: Fault, nights: dict[str, Night]
) -> None:
    night = nights[fault]
    night.check()
    engine = night.engine
    assert engine.calls.total() - REQUESTS <= ASKED_AGAIN_MAX
    ((_, began_s, ended_s),) = engine.faults
    per_s = speed_before([engine], began_s)
    assert back_after_s([engine], ended_s, per_s=per_s) <= BACK_S


def test_an_engine_beside_those_with_faults_goes_on_as_it_did(nights: dict[str, Night]) -> None:
    night = nights[WELL]
    night.check()
    assert set(night.engine.calls.values()) == {1}
    ((_, began_s, _),) = nights["frozen"].engine.faults
    per_s = speed_before([night.engine], began_s)
    assert back_after_s([night.engine], began_s, per_s=per_s) < WINDOW_S
