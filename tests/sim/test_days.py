"""Whole days: an engine that is away, a clock that jumps, results that grow old."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from night import Plan

from overnight import limits
from overnight.core.retry import Busy
from overnight.errors import StoreError
from overnight.testing.engines import Fate, ScriptedEngine, by_words
from overnight.testing.simdisk import SimDisk
from overnight.testing.simulation import Life, Machine
from overnight.testing.wireclient import BATCHES

HOUR_S, DAY_S = 3600.0, 24 * 3600.0


def away(text: str, call: int) -> Fate:
    return Fate(Busy(reason="connection refused"))


async def created(life: Life, *texts: str, key: str = "a", padding_bytes: int = 0) -> str:
    answer = await life.client.create(Plan("", texts, padding_bytes=padding_bytes).requests(), key=key)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


async def seen(life: Life, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = (await life.client.call("GET", f"{BATCHES}/{batch_id}")).json
    return batch


def seconds_between(batch: dict[str, Any], earlier: str, later: str) -> float:
    return (datetime.fromisoformat(batch[later]) - datetime.fromisoformat(batch[earlier])).total_seconds()


def test_a_batch_ends_after_a_day_although_the_engine_is_away(tmp_path: Path) -> None:
    """I6. And an engine that is away is asked about once a minute, not by every request."""
    engine = ScriptedEngine(away)

    async def day(life: Life) -> None:
        first = await created(life, *(f"first {n}" for n in range(10)))
        await asyncio.sleep(DAY_S - HOUR_S)
        second = await created(life, "second", key="b")
        await asyncio.sleep(HOUR_S - 1)
        assert (await seen(life, first))["request_counts"]["processing"] == 10
        await asyncio.sleep(2)
        batch = await seen(life, first)
        assert (batch["processing_status"], batch["request_counts"]["expired"]) == ("ended", 10)
        assert 0 <= seconds_between(batch, "expires_at", "ended_at") < 1
        assert (await seen(life, second))["processing_status"] == "in_progress"

    assert Machine(tmp_path).live(engine, day)
    assert 24 * 60 <= engine.calls.total() < 3 * 24 * 60


def test_results_are_given_up_after_29_days_and_their_objects_with_them(tmp_path: Path) -> None:
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words)

    async def month(life: Life) -> None:
        batch_id = await created(life, "large 40000", padding_bytes=70_000)
        await asyncio.sleep(5)
        assert len(machine.disk.list(Path("/objects"))) == 2
        machine.clock.jump(limits.RESULTS_LIFETIME_MS - 60_000)
        await asyncio.sleep(20)
        assert (await life.client.call("GET", f"{BATCHES}/{batch_id}/results")).status == 200
        await asyncio.sleep(40 + limits.UPKEEP_EVERY_MS / 1000)
        assert (await life.client.call("GET", f"{BATCHES}/{batch_id}/results")).status == 404
        batch = await seen(life, batch_id)
        assert (batch["processing_status"], batch["results_url"]) == ("ended", None)
        assert seconds_between(batch, "created_at", "archived_at") == pytest.approx(29 * DAY_S, abs=60)
        assert batch["request_counts"]["succeeded"] == 1
        assert machine.disk.list(Path("/objects")) == []

    assert machine.live(engine, month)


def test_a_deleted_batch_leaves_no_object(tmp_path: Path) -> None:
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words)

    async def drive(life: Life) -> None:
        batch_id = await created(life, "large 40000", padding_bytes=70_000)
        await asyncio.sleep(5)
        assert (await life.client.call("DELETE", f"{BATCHES}/{batch_id}")).status == 200
        await asyncio.sleep(0)
        assert machine.disk.list(Path("/objects")) == []

    assert machine.live(engine, drive)


def test_a_machine_that_slept_goes_on_where_it_was(tmp_path: Path) -> None:
    """The wall clock jumps, the loop's time does not: leases have run out, nobody took them, they are revived."""
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words, in_flight_max=2)

    async def drive(life: Life) -> None:
        batch_id = await created(life, *(f"r{n} slow 3" for n in range(10)))
        await asyncio.sleep(4)
        machine.clock.jump(3 * 3600 * 1000)
        await asyncio.sleep(40)
        assert (await seen(life, batch_id))["request_counts"]["succeeded"] == 10

    assert machine.live(engine, drive)
    assert max(engine.calls.values()) == 1


def test_a_machine_that_slept_over_the_end_expires_what_is_left(tmp_path: Path) -> None:
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words, in_flight_max=3)

    async def drive(life: Life) -> None:
        batch_id = await created(life, "quick", "long slow 7200", "hung")
        await asyncio.sleep(4)
        machine.clock.jump(limits.BATCH_LIFETIME_MS)
        await asyncio.sleep(limits.LEASE_RENEW_MS / 1000 + 1)
        batch = await seen(life, batch_id)
        assert (batch["processing_status"], batch["request_counts"]["expired"]) == ("ended", 2)

    assert machine.live(engine, drive)


def test_a_clock_that_is_set_back_shows_no_batch_that_ended_before_it_began(tmp_path: Path) -> None:
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words)

    async def drive(life: Life) -> None:
        batch_id = await created(life, "slow 5")
        machine.clock.jump(-int(HOUR_S * 1000))
        await asyncio.sleep(30)
        batch = await seen(life, batch_id)
        assert batch["processing_status"] == "ended"
        assert seconds_between(batch, "created_at", "ended_at") >= 0

    assert machine.live(engine, drive)


def test_a_canceled_batch_ends_soon_however_much_waits_for_an_engine_that_is_away(tmp_path: Path) -> None:
    """More batches than a worker may hold segments; the canceled one is among those it does not hold."""
    engine = ScriptedEngine(away, in_flight_max=limits.LEASED_SEGMENTS_MAX)

    async def drive(life: Life) -> None:
        count = limits.LEASED_SEGMENTS_MAX + 50
        ids = [await created(life, f"r{number}", key=str(number)) for number in range(count)]
        await asyncio.sleep(60)
        await life.client.call("POST", f"{BATCHES}/{ids[-1]}/cancel")
        await asyncio.sleep(limits.CANCEL_GRACE_MS / 1000 + 10)
        batch = await seen(life, ids[-1])
        assert (batch["processing_status"], batch["request_counts"]["canceled"]) == ("ended", 1)

    assert Machine(tmp_path).live(engine, drive)


def test_a_full_disk_holds_results_up_and_loses_none(tmp_path: Path) -> None:
    machine, engine = Machine(tmp_path), ScriptedEngine(by_words, in_flight_max=2)

    async def drive(life: Life) -> None:
        batch_id = await created(life, *(f"r{n} slow 1 large 9000" for n in range(20)))
        await asyncio.sleep(3.5)
        machine.disk.is_full = True
        refused = await life.client.create(Plan("", ["b"], padding_bytes=70_000).requests(), key="b")
        assert refused.status >= 500
        await asyncio.sleep(60)
        assert (await seen(life, batch_id))["processing_status"] == "in_progress"
        assert "no space left" in life.worker.recorder.trouble
        machine.disk.is_full = False
        await asyncio.sleep(5)
        assert (await seen(life, batch_id))["request_counts"]["succeeded"] == 20
        assert life.worker.recorder.trouble == ""

    assert machine.live(engine, drive)
    assert max(engine.calls.values()) == 1


class SickDisk(SimDisk):
    """A disk that cannot read objects for a while."""

    is_sick = True

    def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        if self.is_sick and path.is_relative_to("/objects"):
            raise StoreError(f"{path}: Too many open files")
        return super().read(path, offset=offset, length=length)


def test_a_segment_that_cannot_be_read_is_read_again_until_it_can(tmp_path: Path) -> None:
    """Meanwhile /health says so, and other batches go on."""
    disk, engine = SickDisk(), ScriptedEngine(by_words)

    async def day(life: Life) -> None:
        large = await created(life, "large 40000", padding_bytes=70_000)
        small = await created(life, "small", key="b")
        await asyncio.sleep(60)
        assert (await seen(life, small))["processing_status"] == "ended"
        assert (await seen(life, large))["request_counts"]["processing"] == 1
        health = (await life.client.call("GET", "/health")).json
        assert health["status"] == "degraded"
        assert "Too many open files" in str(health["trouble"])
        disk.is_sick = False
        await asyncio.sleep(60)
        assert (await seen(life, large))["request_counts"]["succeeded"] == 1
        assert (await life.client.call("GET", "/health")).json["status"] == "ok"

    assert Machine(tmp_path, disk=disk).live(engine, day)
