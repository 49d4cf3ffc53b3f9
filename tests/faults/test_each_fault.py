"""One engine, one fault in the middle of a batch: no request is lost or doubled, and the speed comes back.

All faults run beside each other in one server, each with an engine and a batch of its own: so they also show that
an engine in trouble holds up nobody else.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from fault_runs import (
    BACK_S,
    BEFORE_S,
    Group,
    back_after_s,
    check_answers,
    created,
    rows,
    serving,
    speed_before,
    texts,
)

from overnight.testing.faultyengine import FAULTS, Fault, FaultyEngine, running_engines
from overnight.testing.observed import ObservedServer

DELAY_S = 0.2
IN_FLIGHT = 8
REQUESTS = 400
FAULT_S = 4.0
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
        check_answers(rows(self.server, self.batch_id, len(self.texts)), self.texts)
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
def test_a_fault_costs_no_request_and_no_row(fault: Fault, nights: dict[str, Night]) -> None:
    nights[fault].check()


@pytest.mark.parametrize("fault", PASSING)
def test_the_speed_is_back_soon_after_a_fault(fault: Fault, nights: dict[str, Night]) -> None:
    engine = nights[fault].engine
    ((_, began_s, ended_s),) = engine.faults
    per_s = speed_before([engine], began_s)
    back_s = back_after_s([engine], ended_s, per_s=per_s)
    print(
        fault,
        round(per_s, 1),
        round(back_s, 2),
        engine.calls.total() - REQUESTS,
        max(engine.calls.values()),
        round(engine.answered_s[-1] - ended_s, 1),
        nights[fault].server.log()[-300:] if not ended_s else "",
    )
    print([bisect_left(engine.answered_s, began_s+k)-bisect_left(engine.answered_s, began_s+k-1) for k in range(-3,25)])
    assert back_s < BACK_S
