"""Results that are read while the batch runs, and parts of finished ones: what is given whenever the power goes, when
a segment is sealed or a batch deleted under the reader, and what is read from disk for it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from overnight import limits
from overnight.ports.offload import InlineOffload
from overnight.store.store import recover
from overnight.testing.engines import Fate, ScriptedEngine, answered, by_words
from overnight.testing.simdisk import SimDisk
from overnight.testing.simulation import AppClient, Life, Machine
from overnight.testing.virtualtime import run
from overnight.testing.wireclient import BATCHES, Answer, request

T = Any
LOOK_S = 0.15  # Less than a checkpoint takes to come.


async def created(life: Life, texts: list[str]) -> str:
    """A batch, made at most once."""
    rows = [request(f"r{number}", text, model="m") for number, text in enumerate(texts)]
    answer = await life.client.create(rows, key="one")
    assert answer.status == 200, answer
    return str(answer.json["id"])


async def get(
    life: Life, batch_id: str, after: str, *, on_start: Callable[[], Awaitable[None]] | None = None
) -> tuple[Answer, bool]:
    """One read, and whether its answer came to its end. `on_start` runs between the head and the first line."""
    served, is_whole = life.client._served, False

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            nonlocal is_whole
            await send(message)
            if message["type"] == "http.response.start" and on_start is not None:
                await on_start()
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        query = f"so_far=true&after={after}".encode()
        await served({**scope, "query_string": query}, receive, send_on)

    answer = await AppClient(observed).call("GET", f"{BATCHES}/{batch_id}/results")
    return answer, is_whole


async def until_ended(life: Life, batch_id: str) -> None:
    while True:
        answer = await life.client.call("GET", f"{BATCHES}/{batch_id}")
        if answer.json["processing_status"] == "ended":
            return
        await asyncio.sleep(LOOK_S)


async def whole_lines(life: Life, batch_id: str) -> list[bytes]:
    return (await life.client.call("GET", f"{BATCHES}/{batch_id}/results")).body.splitlines()


class Reader:
    """Reads on where it was, and keeps what it got: also when the server dies."""

    def __init__(self) -> None:
        self.cursor = ""
        self.lines: list[bytes] = []
        self.reads_with_lines = 0

    async def read(self, life: Life, batch_id: str) -> str:
        """One read; the status of the batch."""
        answer, is_whole = await get(life, batch_id, self.cursor)
        assert (answer.status, is_whole) == (200, True), answer
        self.cursor = answer.headers["overnight-cursor"]
        self.lines += answer.body.splitlines()
        self.reads_with_lines += bool(answer.body)
        return answer.headers["overnight-processing-status"]


def fresh(calls: Iterator[int]) -> ScriptedEngine:
    """Answers differ from call to call: a line that was lost, and asked again, cannot pass for the one given."""

    def script(text: str, call: int) -> Fate:
        return Fate(answered(f"{text} call {next(calls)}"), by_words(text, call).delay_s)

    return ScriptedEngine(script, in_flight_max=3)


TEXTS = [f"{number} slow {0.1 + number % 4 * 0.12:.2f}" for number in range(12)]


def night_with_cuts(root: Path, moments: int) -> tuple[Reader, bool]:
    """A batch and its reader; the power goes after so many moments, then again after as many. Whether it went."""
    root.mkdir()
    machine, reader, calls = Machine(root), Reader(), count()

    async def drive(life: Life) -> None:
        batch_id = await created(life, TEXTS)
        status = ""
        while status != "ended":
            await asyncio.sleep(LOOK_S)
            status = await reader.read(life, batch_id)
        final = await whole_lines(life, batch_id)
        assert sorted(reader.lines) == sorted(final)
        assert len(final) == len(TEXTS)

    for went in (False, True):
        machine.disk.cut_after(moments)
        if machine.live(fresh(calls), drive):
            return reader, went
    assert machine.live(fresh(calls), drive)
    return reader, True


def test_every_line_is_given_once_whenever_the_power_goes(tmp_path: Path) -> None:
    """Twice, at every moment of the night: lines go over into new logs, and are sealed, under the reader."""
    moments, cuts, split = 0, 0, 0
    while True:
        moments += 1
        reader, went = night_with_cuts(tmp_path / str(moments), moments)
        if not went:
            break
        cuts += 1
        split += reader.reads_with_lines > 2
    assert cuts > 20
    assert split > 10  # Most nights were read in several parts.


class SlowAppends(InlineOffload):
    """Appends are seen at once and return after a second: the disk is still writing."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk
        self.is_writing = False

    async def run(self, call: Callable[[], T]) -> T:
        before = self._disk.moments
        value = call()
        if self._disk.moments > before and not self.is_writing:
            self.is_writing = True
            await asyncio.sleep(1)
            self.is_writing = False
        return value


def test_lines_that_may_not_be_on_the_medium_are_not_given(tmp_path: Path) -> None:
    """While an append has not returned, the frames before it are given, and it is not."""
    machine = Machine(tmp_path)
    offload = SlowAppends(machine.disk)
    seen: list[tuple[bool, int, int]] = []

    async def main() -> None:
        async with machine.opened() as committer:
            store = machine.store(committer, offload)
            await recover(store)
            engine = ScriptedEngine(by_words, in_flight_max=3)
            async with machine.working(store, engine, offload=offload) as life:
                batch_id = await created(life, ["a slow 1", "b slow 4", "c slow 9"])
                for _ in range(80):
                    answer, _ = await get(life, batch_id, "")
                    logs = [raw for path, raw in machine.disk._visible.items() if path.suffix == ".log"]
                    seen.append((offload.is_writing, sum(raw.count(b"ON") for raw in logs), answer.body.count(b"\n")))
                    await asyncio.sleep(0.1)

    run(main(), machine.clock)
    assert {frames - lines for is_writing, frames, lines in seen if is_writing and frames} == {1}
    assert {frames - lines for is_writing, frames, lines in seen if not is_writing} == {0}
    assert {lines for *_, lines in seen} == {0, 1, 2}


def test_a_segment_that_is_sealed_under_the_reader_is_cut_where_it_was(tmp_path: Path) -> None:
    """The head with its cursor went out before the seal, the lines after it: they agree, and a next read goes on."""

    async def drive(life: Life) -> None:
        batch_id = await created(life, [*(f"{number}" for number in range(5)), "last slow 30"])
        await asyncio.sleep(5)
        first, is_whole = await get(life, batch_id, "", on_start=lambda: until_ended(life, batch_id))
        assert is_whole
        assert first.headers["overnight-processing-status"] == "in_progress"
        assert first.body.count(b"\n") == 5
        rest, _ = await get(life, batch_id, first.headers["overnight-cursor"])
        assert rest.headers["overnight-processing-status"] == "ended"
        assert rest.body.count(b"\n") == 1
        assert first.body + rest.body == (await life.client.call("GET", f"{BATCHES}/{batch_id}/results")).body

    assert Machine(tmp_path).live(ScriptedEngine(by_words, in_flight_max=9), drive)


@pytest.mark.parametrize("padding", [0, 20_000], ids=["inline", "object"])
def test_an_answer_whose_batch_is_deleted_is_cut_off_and_not_ended(tmp_path: Path, padding: int) -> None:
    """So that what came is not taken for all."""

    async def drive(life: Life) -> None:
        batch_id = await created(life, [f"{number} large {padding}" for number in range(5)])
        await until_ended(life, batch_id)

        async def delete() -> None:
            assert (await life.client.call("DELETE", f"{BATCHES}/{batch_id}")).status == 200
            await life.upkeep.once()

        answer, is_whole = await get(life, batch_id, "", on_start=delete)
        assert (answer.status, answer.body, is_whole) == (200, b"", False)
        answer, _ = await get(life, batch_id, "")
        assert answer.status == 404

    assert Machine(tmp_path).live(ScriptedEngine(by_words), drive)


@pytest.mark.parametrize("is_sealed", [False, True], ids=["unsealed", "sealed"])
def test_lines_that_are_not_the_ones_given_are_a_conflict(tmp_path: Path, is_sealed: bool) -> None:
    """As after a restore without logs: the requests were asked again, and a count alone would skip other lines."""
    machine, reader, kept, calls = Machine(tmp_path), Reader(), list[str](), count()

    async def until_read(life: Life) -> None:
        kept.append(await created(life, [f"{number} slow {1 + 4 * number}" for number in range(4)]))
        while len(reader.lines) < 2:
            await reader.read(life, kept[0])
            await asyncio.sleep(LOOK_S)

    assert machine.live(fresh(calls), until_read)
    for disk in (machine.disk._visible, machine.disk._durable):
        for path in [found for found in disk if found.suffix == ".log"]:
            del disk[path]

    async def read_on(life: Life) -> None:
        if is_sealed:
            await until_ended(life, kept[0])
        answer, _ = await get(life, kept[0], reader.cursor)
        status, kind, said = answer.error
        assert (status, kind) == (409, "conflict_error")
        assert said.endswith("read again without `after`")
        assert (await get(life, kept[0], ""))[0].status == 200

    assert machine.live(fresh(calls), read_on)


class MovingDisk(SimDisk):
    """When told, moves each log to the next epoch right after it was listed: as `Recorder.carry_over` may."""

    moves = False

    def list(self, directory: Path) -> list[Path]:
        found = super().list(directory)
        if self.moves:
            self.moves = False
            for path in [log for log in found if log.suffix == ".log"]:
                self._visible[path.with_name(path.name.replace("-1.log", "-2.log"))] = self._visible.pop(path)
        return found


def test_a_log_that_goes_over_into_a_new_one_under_the_reader_is_found(tmp_path: Path) -> None:
    disk, reader = MovingDisk(), Reader()

    async def drive(life: Life) -> None:
        batch_id = await created(life, ["a", "b", "c slow 90"])
        await asyncio.sleep(5)
        await reader.read(life, batch_id)
        disk.moves = True
        for after in (reader.cursor, ""):
            answer, _ = await get(life, batch_id, after)
            assert (answer.status, answer.body.count(b"\n")) == (200, 0 if after else 2)
        assert not disk.moves

    assert Machine(tmp_path, disk=disk).live(ScriptedEngine(by_words), drive)


class CountingDisk(SimDisk):
    """Counts what is read of results."""

    def __init__(self) -> None:
        super().__init__()
        self._read_bytes = 0

    def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        found = super().read(path, offset=offset, length=length)
        if "results" in path.parts:
            self._read_bytes += len(found)
        return found

    def spent(self) -> int:
        """How much was read since this was asked."""
        spent, self._read_bytes = self._read_bytes, 0
        return spent


def test_the_end_of_results_costs_the_end(tmp_path: Path) -> None:
    """Of gzip exactly the bytes that are sent, of lines the segments that hold them; nothing for HEAD and 304."""
    disk, spent = CountingDisk(), dict[str, int]()

    async def drive(life: Life) -> None:
        batch_id = await created(life, [f"{number} large 2000" for number in range(10_000)])
        await until_ended(life, batch_id)
        path = f"{BATCHES}/{batch_id}/results"
        for coding in ("identity", "gzip"):
            disk.spent()
            accepted = {"accept-encoding": coding}
            whole = await life.client.call("GET", path, headers=accepted)
            spent[f"{coding} whole"] = disk.spent()
            end = await life.client.call("GET", path, headers={**accepted, "range": "bytes=-1000"})
            assert end.body == whole.body[-1000:]
            spent[f"{coding} end"] = disk.spent()
            await life.client.call("HEAD", path, headers=accepted)
            await life.client.call("GET", path, headers={**accepted, "if-none-match": "*"})
            spent[f"{coding} none"] = disk.spent()

    Machine(tmp_path, disk=disk).live(ScriptedEngine(by_words, in_flight_max=100), drive)
    assert spent["gzip whole"] == spent["identity whole"] > limits.MIB
    assert spent["gzip end"] == 1000 - 10  # Its last block and trailer are not stored.
    assert spent["identity end"] < spent["identity whole"] / 8
    assert spent["gzip none"] == spent["identity none"] == 0
