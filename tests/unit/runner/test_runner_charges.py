"""runner.charges: whose price an answer has, the first that fits. A token at 1 USD for a million is 1,000 nano."""

import asyncio
from collections.abc import Mapping

import pytest

from overnight.core.prices import Listed, told
from overnight.core.usage import Sums
from overnight.ids import DEFAULT_WORKSPACE
from overnight.runner.charges import Asker, Charges, Tariff
from overnight.store.usage import UsageStore
from overnight.testing.virtualtime import VirtualClock
from overnight.wire.message import Usage

HAIKU = "claude-haiku-4-5"  # 1 USD for a million tokens of input.
USAGE = Usage(input_tokens=100)
LIST = (
    Listed("house-*", "", told(input=4.0, output=4.0)),
    Listed("house-*", "2026-06-01", told(input=6.0, output=6.0)),
)
OWN = told(input=10.0, output=10.0)
MAY_31, JUNE_1 = 1_780_271_999_999, 1_780_272_000_000  # 2026, the last millisecond of a day and the next.


class Measured(UsageStore):
    """What an earlier process has measured."""

    async def measured(self, *, since_ms: int) -> Mapping[tuple[str, str], Sums]:
        return {("gpu", "m"): Sums(input_tokens=1_000, output_tokens=1_000, usd_nano=50_000)}


def charges(*, at_ms: int = JUNE_1, **tariff: object) -> Charges:
    tariffs = {"gpu": Tariff(**tariff)}  # type: ignore[arg-type]
    return Charges(clock=VirtualClock(epoch_ms=at_ms), tariffs=tariffs, price_list=LIST)


def batch(found: Charges, model: str, usage: Usage = USAGE, *, share_nano: int | None = None) -> tuple[int, int, int]:
    """Cost, cost in real time, and whether nobody knows it."""
    sums = found.of_batch(DEFAULT_WORKSPACE, "gpu", model, usage, share_nano=share_nano)
    return sums.usd_nano, sums.realtime_usd_nano, sums.unpriced


@pytest.mark.parametrize(
    ("tariff", "model", "expected"),
    [
        pytest.param({}, HAIKU, (50_000, 100_000, 0), id="what is known"),
        pytest.param({}, "house-1", (300_000, 600_000, 0), id="the list"),
        pytest.param({}, "nobody", (0, 0, 1), id="nobody knows"),
        pytest.param(
            {"prices": {HAIKU: OWN}}, HAIKU, (500_000, 100_000, 0), id="the engine's, beside the public one"
        ),
        pytest.param(
            {"prices": {"nobody": OWN}}, "nobody", (500_000, 1_000_000, 0), id="the engine's, beside itself"
        ),
        pytest.param(
            {"aliases": {HAIKU: "house-1"}}, HAIKU, (300_000, 100_000, 0), id="by its name, beside the caller's"
        ),
        pytest.param({"aliases": {HAIKU: "nobody"}}, HAIKU, (0, 0, 1), id="a saving over nothing known is none"),
        pytest.param({"is_own": True}, HAIKU, (0, 100_000, 0), id="ours costs nothing"),
        pytest.param({"is_own": True}, "house-1", (0, 600_000, 0), id="nor by the list"),
        pytest.param({"is_own": True}, "nobody", (0, 0, 0), id="nor if nobody knows it"),
        pytest.param({"is_own": True, "prices": {HAIKU: OWN}}, HAIKU, (500_000, 100_000, 0), id="ours, unless told"),
    ],
)
def test_the_first_price_that_fits_counts(
    tariff: dict[str, object], model: str, expected: tuple[int, int, int]
) -> None:
    assert batch(charges(**tariff), model) == expected


def test_hours_cost_their_share_whatever_the_tokens() -> None:
    found = charges(is_by_hour=True)
    assert batch(found, HAIKU, share_nano=7) == (7, 100_000, 0)
    assert batch(found, "nobody", share_nano=7) == (7, 7, 0)


def test_hours_that_nobody_noted_cost_what_tokens_have_cost() -> None:
    """50,000 nano for 2,000 tokens are 25 for one."""
    found = charges(is_by_hour=True)
    assert batch(found, "m") == (0, 0, 1)
    asyncio.run(found.recall(Measured()))
    assert batch(found, "m") == (2_500, 2_500, 0)
    assert batch(found, "other") == (0, 0, 1)


def test_a_price_begins_with_its_day() -> None:
    assert batch(charges(at_ms=MAY_31), "house-1") == (200_000, 400_000, 0)
    assert batch(charges(at_ms=JUNE_1), "house-1") == (300_000, 600_000, 0)


def test_a_server_that_runs_over_midnight_takes_the_new_price() -> None:
    clock = VirtualClock(epoch_ms=MAY_31)
    found = Charges(clock=clock, price_list=LIST)
    assert batch(found, "house-1")[0] == 200_000
    clock.jump(1)
    assert batch(found, "house-1")[0] == 300_000


def test_whoever_listens_is_told_what_was_spent() -> None:
    found, spent = charges(), list[int]()
    found.on_cost.append(lambda workspace, usd_nano: spent.append(usd_nano))
    batch(found, HAIKU)
    batch(found, "nobody")
    found.note_person(Asker(DEFAULT_WORKSPACE, "", HAIKU), "gpu", USAGE)
    assert spent == [50_000, 100_000], "people pay in full"
