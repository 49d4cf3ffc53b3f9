"""One engine, one fault in the middle of a batch: no request is lost or doubled, and the speed comes back.

All faults run beside each other in one server, each with an engine and a batch of its own: so they also show that
an engine in trouble holds up nobody else.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, NamedTuple

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

DELAY_S = 0.2
IN_FLIGHT = 8
REQUESTS = 400
FAULT_S = 4.0
WELL = "well"  # The model of an engine without a fault.

# How often one request is asked at most. Refused, full and frozen engines have not begun with it; of the others each
# attempt beyond the first is one that the fault took.
ASKED_MAX: dict[Fault, int] = dict.fromkeys(FAULTS, 1)


class Night(NamedTuple):
    """What became of one batch."""

    engine: FaultyEngine
    texts: list[str]
    rows: dict[str, Any]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Night]]:
    names = [*FAULTS, WELL]
    with running_engines(len(names), delay_s=DELAY_S) as engines:
        by_name = dict(zip(names, engines, strict=True))
        groups = [Group(name, [engine], IN_FLIGHT) for name, engine in by_name.items()]
        with serving(tmp_path_factory.mktemp("faults"), *groups) as server:
            ids = {name: created(server, name, texts(name, REQUESTS)) for name in names}
            for engine in engines:
                engine.wait_answered(round(BEFORE_S * IN_FLIGHT / DELAY_S))
            for fault in FAULTS:
                by_name[fault].suffer(fault, for_s=FAULT_S)
            yield {
                name: Night(by_name[name], texts(name, REQUESTS), rows(server, ids[name], REQUESTS)) for name in names
            }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_no_request_and_no_row(fault: Fault, nights: dict[str, Night]) -> None:
    night = nights[fault]
    check_answers(night.rows, night.texts)
    assert night.engine.calls.keys() == set(night.texts)


@pytest.mark.parametrize("fault", FAULTS)
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
    )
    print([bisect_left(engine.answered_s, began_s+k)-bisect_left(engine.answered_s, began_s+k-1) for k in range(-4,25)])
    assert back_s < BACK_S
