"""Faults of an hour, and clocks that jump: no request becomes errored, and the speed is back within a minute."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from night import Plan

from overnight import limits
from overnight.core.retry import Answered, Broken, Busy, Outcome
from overnight.engines.engine import Capabilities
from overnight.testing.engines import Fate, ScriptedEngine, answered
from overnight.testing.simulation import Life, Machine
from overnight.testing.wireclient import BATCHES

HOUR_S = 3600.0
BEGIN_S = 30.0
END_S = BEGIN_S + HOUR_S
DELAY_S = 1.0
IN_FLIGHT = 24
BACK_S = 60.0
REQUESTS = 2_200  # A minute and a half of work.


class SickEngine(ScriptedEngine):
    """Gives `outcome` for an hour, else answers. Its health is checked by those who knock."""

    def __init__(self, outcome: Outcome, *, looks_well: bool) -> None:
        super().__init__(self._fate, in_flight_max=IN_FLIGHT, capabilities=Capabilities())
        self._outcome, self._looks_well = outcome, looks_well
        self.asked_while_sick = 0

    @property
    def is_sick(self) -> bool:
        return BEGIN_S <= asyncio.get_running_loop().time() < END_S

    def _fate(self, text: str, call: int) -> Fate:
        if self.is_sick:
            self.asked_while_sick += 1
            return Fate(self._outcome, 0.1)
        return Fate(answered(text), DELAY_S)

    async def is_there(self) -> bool:
        return self._looks_well or not self.is_sick

    def per_s(self, from_s: float, to_s: float) -> float:
        """Answers a second in this time."""
        ended = [one.ended_s for one in self.log if isinstance(one.outcome, Answered)]
        return sum(from_s <= time_s < to_s for time_s in ended) / (to_s - from_s)


async def until_ended(life: Life, batch_id: str) -> dict[str, Any]:
    while True:
        batch: dict[str, Any] = (await life.client.call("GET", f"{BATCHES}/{batch_id}")).json
        if batch["processing_status"] == "ended":
            return batch
        await asyncio.sleep(5)


async def created(life: Life, count: int) -> str:
    requests = Plan("", [f"r{number}" for number in range(count)]).requests()
    return str((await life.client.create(requests, key="a")).json["id"])


@pytest.mark.parametrize(
    ("outcome", "looks_well", "asked_max"),
    [
        pytest.param(Busy(reason="refused", is_away=True), False, IN_FLIGHT, id="away"),
        pytest.param(Broken(reason="HTTP 500"), False, limits.BREAKER_FAILURES + IN_FLIGHT, id="broken"),
        pytest.param(Broken(reason="HTTP 500"), True, 200, id="broken-but-looks-well"),
        pytest.param(Broken(reason="reset", is_lost=True), False, limits.BREAKER_FAILURES + IN_FLIGHT, id="lost"),
        pytest.param(Broken(reason="reset", is_lost=True), True, 200, id="lost-but-looks-well"),
        pytest.param(Busy(reason="HTTP 429", status=429), True, 200, id="full"),
        pytest.param(Busy(reason="HTTP 429", status=429, retry_after_ms=5_000), True, 200, id="full-retry-after"),
        pytest.param(Busy(reason="HTTP 529", status=529), True, 200, id="overloaded"),
    ],
)
def test_an_hour_of_a_fault_costs_no_row_and_the_speed_is_back_in_a_minute(
    outcome: Outcome, looks_well: bool, asked_max: int, tmp_path: Path
) -> None:
    engine = SickEngine(outcome, looks_well=looks_well)

    async def drive(life: Life) -> None:
        batch_id = await created(life, REQUESTS)
        batch = await until_ended(life, batch_id)
        assert batch["request_counts"]["succeeded"] == REQUESTS, batch["request_counts"]

    assert Machine(tmp_path).live(engine, drive)
    assert engine.asked_while_sick <= asked_max
    before = engine.per_s(BEGIN_S - 10, BEGIN_S)
    back = next(
        (second for second in range(1000) if engine.per_s(END_S + second, END_S + second + 5) >= 0.8 * before), None
    )
    assert back is not None
    assert back <= BACK_S


JUMPS_S = [3600, -7200, 10, -5, 6 * 3600, -2 * 3600, 40, -40]


def test_a_clock_that_jumps_back_and_forth_costs_a_renewal_each_time_and_no_row(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    engine = ScriptedEngine(lambda text, call: Fate(answered(text), DELAY_S), in_flight_max=4)

    async def drive(life: Life) -> None:
        batch_id = await created(life, 200)
        for jump_s in JUMPS_S:
            await asyncio.sleep(7)
            machine.clock.jump(jump_s * 1000)
        batch = await until_ended(life, batch_id)
        assert batch["request_counts"]["succeeded"] == 200, batch["request_counts"]

    assert machine.live(engine, drive)
    assert set(engine.calls.values()) == {1}
    forward = sum(jump_s > 0 for jump_s in JUMPS_S)
    assert engine.log[-1].ended_s <= 200 / 4 * DELAY_S + forward * limits.LEASE_RENEW_MS / 1000
