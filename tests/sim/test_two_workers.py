"""Two workers on one store: one freezes, the other takes over, and the first wakes up too late."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from night import Plan

from overnight import limits
from overnight.core.retry import Answered
from overnight.ids import BatchId
from overnight.store.store import recover
from overnight.testing.engines import Fate, Script, ScriptedEngine, answered, by_words
from overnight.testing.simulation import Freezer, FrozenCommitter, FrozenOffload, Life, Machine
from overnight.testing.virtualtime import run
from overnight.testing.wireclient import BATCHES

TAKEN_OVER_S = limits.LEASE_TTL_MS / 1000 + 6  # A lease runs out, and idle workers look every five seconds.


class Pair(NamedTuple):
    """Two servers on one store."""

    sleepy: Life
    steady: Life
    freezer: Freezer
    sleepy_engine: ScriptedEngine
    steady_engine: ScriptedEngine


@asynccontextmanager
async def pair(machine: Machine, *, steady: Script = by_words) -> AsyncIterator[Pair]:
    freezer, engines = Freezer(), [ScriptedEngine(script, in_flight_max=2) for script in (by_words, steady)]
    async with machine.opened() as committer:
        offload = FrozenOffload(freezer)
        store, frozen = machine.store(committer), machine.store(FrozenCommitter(committer, freezer), offload)
        async with (
            machine.working(frozen, engines[0], name="sleepy", offload=offload) as sleepy,
            machine.working(store, engines[1], name="steady") as awake,
        ):
            yield Pair(sleepy, awake, freezer, *engines)


async def results(life: Life, batch_id: str) -> bytes:
    answer = await life.client.call("GET", f"{BATCHES}/{batch_id}/results")
    assert answer.status == 200, answer.body
    return answer.body


async def created_by_sleepy(workers: Pair, *texts: str) -> str:
    """A batch that the sleepy worker has leased: only its bell was rung."""
    answer = await workers.sleepy.client.create(Plan("", texts).requests(), key="a")
    return str(answer.json["id"])


def test_a_frozen_worker_is_replaced_and_cannot_seal_when_it_wakes(tmp_path: Path) -> None:
    """I4, I3: it has an answer of its own for every request, and none of them counts."""
    machine = Machine(tmp_path)

    async def main() -> None:
        async with pair(machine) as workers:
            batch_id = await created_by_sleepy(workers, *(f"r{n} slow 1 large 9000" for n in range(6)))
            await asyncio.sleep(1.5)  # Two are answered and on disk, two are inside.
            workers.freezer.freeze()
            await asyncio.sleep(TAKEN_OVER_S + 5)
            sealed = await results(workers.steady, batch_id)
            assert len(sealed.splitlines()) == 6
            assert workers.steady_engine.calls.total() == 4, "what was checkpointed is not asked again"
            workers.freezer.thaw()
            await asyncio.sleep(60)
            assert await results(workers.steady, batch_id) == sealed
            assert sum(isinstance(asked.outcome, Answered) for asked in workers.sleepy_engine.log) >= 4
            assert workers.sleepy.worker.troubles == {}
            await _is_clean(machine, workers)

    run(main(), machine.clock)


def test_a_worker_that_freezes_in_the_middle_of_its_seal_cannot_finish_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def main() -> None:
        async with pair(machine) as workers:
            batch_id = await created_by_sleepy(workers, "r0 slow 1 large 60000", "r1 slow 1.5 large 60000")
            await asyncio.sleep(1.3)  # One is in the log.
            workers.freezer.freeze()
            await asyncio.sleep(TAKEN_OVER_S + 5)
            sealed = await results(workers.steady, batch_id)
            workers.freezer.thaw()
            await asyncio.sleep(60)
            assert await results(workers.steady, batch_id) == sealed
            assert [json.loads(line)["result"]["type"] for line in sealed.splitlines()] == ["succeeded"] * 2
            assert workers.sleepy.worker.troubles == {}
            await _is_clean(machine, workers)

    run(main(), machine.clock)


def test_an_old_epoch_cannot_seal_although_nobody_else_has_sealed_yet(tmp_path: Path) -> None:
    """I4: the sleepy worker has all results and only the commit left; its successor is still at work."""
    machine = Machine(tmp_path)

    async def main() -> None:
        async with pair(machine, steady=lambda text, call: Fate(answered(text, size_bytes=60_000), 20.0)) as workers:
            batch_id = await created_by_sleepy(workers, "r0 slow 1.1 large 60000", "r1 slow 1.1 large 60000")
            await asyncio.sleep(1.05)
            workers.freezer.freeze()
            await asyncio.sleep(TAKEN_OVER_S + 5)
            assert workers.steady_engine.inside.total() == 2
            workers.freezer.thaw()
            await asyncio.sleep(1)
            batch = (await workers.steady.client.call("GET", f"{BATCHES}/{batch_id}")).json
            assert batch["processing_status"] == "in_progress"
            await asyncio.sleep(20)
            (sealed,) = await workers.steady.store.control.results(BatchId(batch_id))
            assert sealed.key == f"results/{batch_id}/0-2.gz"
            await _is_clean(machine, workers)

    run(main(), machine.clock)


def test_a_cancel_at_one_server_reaches_the_worker_of_another(tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    async def main() -> None:
        async with pair(machine) as workers:
            batch_id = await created_by_sleepy(workers, *(f"r{n} slow 100" for n in range(6)))
            await asyncio.sleep(1)
            await workers.steady.client.call("POST", f"{BATCHES}/{batch_id}/cancel")
            await asyncio.sleep((limits.LEASE_RENEW_MS + limits.CANCEL_GRACE_MS) / 1000 + 1)
            batch = (await workers.steady.client.call("GET", f"{BATCHES}/{batch_id}")).json
            assert (batch["processing_status"], batch["request_counts"]["canceled"]) == ("ended", 6)

    run(main(), machine.clock)


async def _is_clean(machine: Machine, workers: Pair) -> None:
    """The sleepy worker left nothing behind and takes part again."""
    named = [item.key for item in await workers.steady.store.control.results(await _only_batch(workers)) if item.key]
    assert [path for path in machine.disk.list(Path("/objects")) if "results" in path.parts] == [
        Path("/objects") / key for key in named
    ]
    asked_before = workers.sleepy_engine.calls.total()
    await workers.sleepy.client.create(Plan("", ["again 0", "again 1"]).requests(), key="again")
    await asyncio.sleep(10)
    assert workers.sleepy_engine.calls.total() == asked_before + 2
    await recover(workers.steady.store)
    assert machine.disk.list(Path("/checkpoints")) == []


async def _only_batch(workers: Pair) -> BatchId:
    return BatchId((await workers.steady.client.call("GET", BATCHES)).json["data"][-1]["id"])
