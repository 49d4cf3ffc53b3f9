"""`overnight backup` and `overnight restore`: a server that works, its backup, its end, and what is there again."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from cli_calls import Printed, inside
from msgspec.structs import replace

from overnight.core.workspace import Key
from overnight.ids import DEFAULT_WORKSPACE
from overnight.ports.world import World
from overnight.server.access import digest_of
from overnight.store import checkpoint
from overnight.store.migrations import STEPS
from overnight.store.store import open_beside
from overnight.store.usage import Asked
from overnight.testing.controlcases import leased, new_batch
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import BATCHES, WireClient, request

KEY = "sk-of-a-team-000"
REQUESTS = 400


@pytest.fixture
def engine_url() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with two ended batches: one in objects, one in its row."""
    root = tmp_path_factory.mktemp("stopped") / "data"
    with (
        upstream_process() as url,
        running_server(root, "--engine", url) as server,
        closing(WireClient(server.url)) as client,
    ):
        for count in (REQUESTS, 1):
            ended(client, created(client, count))
    return root


@pytest.fixture
def data(tmp_path: Path, stopped: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def noise(number: int) -> str:
    return "".join(sha256(f"{number} {part}".encode()).hexdigest() for part in range(4))


def created(client: WireClient, count: int, text: str = "") -> str:
    return str(client.create([request(f"r{n}", f"{text}{noise(n)}") for n in range(count)])["id"])


def ended(client: WireClient, batch_id: str) -> None:
    while client.retrieve(batch_id)["processing_status"] != "ended":
        pass


def backup(data: Path, into: Path) -> dict[str, object]:
    printed = inside("backup", str(into), "--data", str(data), "--json")
    assert (printed.code, printed.err) == (0, ""), printed
    found: dict[str, object] = json.loads(printed.out)
    return found


def restore(backup: Path, into: Path) -> Printed:
    return inside("restore", str(backup), "--data", str(into))


def objects(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.glob("objects/**/*.gz")}


def add_key(root: Path) -> None:
    async def add() -> None:
        async with open_beside(root, World()) as store:
            key = Key(id="apikey_01a", sha256=digest_of(KEY), hint="...", name="ours", workspace=DEFAULT_WORKSPACE)
            await store.access.add_key(key)

    asyncio.run(add())


def used(root: Path) -> int:
    """Requests that the sums of usage know."""

    async def look() -> int:
        async with open_beside(root, World()) as store:
            rows = await store.usage.report(Asked(since_ms=0, until_ms=10**15, width_ms=86_400_000))
            return sum(row.sums.requests for row in rows)

    return asyncio.run(look())


def test_what_was_acknowledged_before_a_backup_is_there_after_a_restore(tmp_path: Path, engine_url: str) -> None:
    data, copy, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    add_key(data)
    server = ServerProcess(data, "--engine", engine_url)
    with closing(WireClient(server.url, api_key=KEY)) as client:
        done = created(client, REQUESTS)
        ended(client, done)
        running = [created(client, REQUESTS, f"[[slow 0.05]] {number} ") for number in range(4)]
        while client.retrieve(running[0])["request_counts"]["succeeded"] == 0:
            pass
        before = used(data)
        report = backup(data, copy)
        assert report["dropped"] == []
    server.kill()
    assert inside("restore", str(copy), "--check").code == 0
    printed = restore(copy, again)
    assert (printed.code, printed.err) == (0, ""), printed
    assert used(again) >= before > 0
    with running_server(again, "--engine", engine_url) as restored:
        with closing(WireClient(restored.url, api_key=KEY)) as client:
            assert set(client.ids()) >= {done, *running}
            for batch_id in (done, *running):
                ended(client, batch_id)
                found = client.results(batch_id)
                assert set(found) == {f"r{n}" for n in range(REQUESTS)}
                assert {result["type"] for result in found.values()} == {"succeeded"}
        with closing(WireClient(restored.url, api_key="sk-of-nobody")) as client:
            assert client.call("GET", BATCHES).status == 401


def test_logs_of_later_leases_than_the_copy_knows_stay_away(tmp_path: Path) -> None:
    """Who takes the segment after a restore takes the epoch of that log, and would find it in its own place."""
    data, copy, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"

    async def fill() -> str:
        async with open_beside(data, World()) as store:
            await store.control.create(replace(new_batch("a", segments=2), requests_key=None))
            (first, second) = [item.lease.segment for item in await leased(store.control)]
            for segment, epoch in ((first, 1), (first, 2), (second, 1)):
                await store.checkpoints.append_durably(segment, checkpoint.frame([b"x\n"]), epoch=epoch)
            return first.batch_id

    batch_id = asyncio.run(fill())
    backup(data, copy)
    assert restore(copy, again).code == 0
    assert sorted(path.name for path in (again / "checkpoints").iterdir()) == [
        f"{batch_id}-0-1.log",
        f"{batch_id}-1-1.log",
    ]


def test_a_second_backup_takes_only_what_is_new_and_drops_what_is_gone(
    tmp_path: Path, data: Path, engine_url: str
) -> None:
    copy = tmp_path / "backup"
    first = backup(data, copy)
    old = objects(copy)
    assert (first["linked"], first["kept"], first["copied"]) == (len(old), 0, 0)
    assert old == objects(data)
    with running_server(data, "--engine", engine_url) as server, closing(WireClient(server.url)) as client:
        new = created(client, REQUESTS)
        ended(client, new)
        second = backup(data, copy)
        added = objects(copy) - old
        assert {new in name for name in added} == {True}
        assert (second["linked"], second["kept"]) == (len(added), len(old))
        assert client.call("DELETE", f"{BATCHES}/{new}").status == 200
        while objects(data) & added:
            assert client.call("GET", "/health").status == 200
        assert objects(copy) >= added
        assert inside("restore", str(copy), "--check").code == 0
        third = backup(data, copy)
    assert (third["linked"], third["kept"], objects(copy)) == (0, len(old), old)
    assert inside("traces", new, "--data", str(copy)).code == 0
    assert len(list(copy.glob("control-*"))) == 1


def test_objects_are_copied_where_they_cannot_be_linked(data: Path) -> None:
    copy = Path("/dev/shm") / f"overnight-{data.parent.name}"  # Another filesystem.
    try:
        report = backup(data, copy)
        assert (report["copied"], report["linked"]) == (len(objects(data)), 0)
        assert inside("restore", str(copy), "--check").code == 0
    finally:
        shutil.rmtree(copy)


def test_a_batch_whose_objects_are_gone_is_left_out_and_said(tmp_path: Path, data: Path) -> None:
    copy, again = tmp_path / "backup", tmp_path / "again"
    lost = next(iter(data.glob("objects/results/*")))
    shutil.rmtree(lost)
    printed = inside("backup", str(copy), "--data", str(data))
    assert printed.code == 0
    assert printed.err == f"{lost.name} is not in it: its objects are gone, as after a deletion\n"
    assert restore(copy, again).code == 0
    assert inside("traces", lost.name, "--data", str(again)).code == 0
    with closing(sqlite3.connect(again / "control.sqlite3")) as sql:
        assert sql.execute("SELECT count(*) FROM batches").fetchone() == (1,)


@pytest.mark.parametrize(
    "name", ["manifest.json", "control-*.sqlite3", "objects/requests/*.gz", "objects/results/*/*"]
)
def test_one_flipped_bit_is_refused_and_named(name: str, tmp_path: Path, data: Path) -> None:
    copy, again = tmp_path / "backup", tmp_path / "again"
    backup(data, copy)
    path = next(iter(copy.glob(name)))
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.unlink()  # It may be a hard link.
    path.write_bytes(stored)
    for printed in (inside("restore", str(copy), "--check"), restore(copy, again)):
        assert (printed.code, printed.out) == (4, "")
        assert "damaged" in printed.err
        assert path.name in printed.err
    assert not again.exists()


def test_a_missing_file_is_refused_and_the_next_backup_mends_it(tmp_path: Path, data: Path) -> None:
    copy = tmp_path / "backup"
    backup(data, copy)
    path = next(iter(copy.glob("objects/requests/*.gz")))
    path.unlink()
    printed = inside("restore", str(copy), "--check")
    assert (printed.code, f"{path.name} is missing" in printed.err) == (4, True)
    backup(data, copy)
    assert inside("restore", str(copy), "--check").code == 0


def test_a_backup_that_broke_off_leaves_the_one_before(tmp_path: Path, data: Path) -> None:
    copy, again = tmp_path / "backup", tmp_path / "again"
    backup(data, copy)
    (copy / "control-2.sqlite3.part").write_bytes(b"half")
    (copy / "objects" / "requests" / "msgbatch_01half.gz").write_bytes(b"half")
    assert restore(copy, again).code == 0
    assert objects(again) == objects(data)
    backup(data, copy)
    assert objects(copy) == objects(data)
    assert not list(copy.glob("*.part"))


def _inside(tmp_path: Path, data: Path) -> tuple[Path, str]:
    return data / "backup", "in the data directory"


def _around(tmp_path: Path, data: Path) -> tuple[Path, str]:
    return tmp_path, "or around it"


def _of_another(tmp_path: Path, data: Path) -> tuple[Path, str]:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    backup(other, tmp_path / "taken")
    return tmp_path / "taken", f"is the backup of {other}"


def _full(tmp_path: Path, data: Path) -> tuple[Path, str]:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    return tmp_path / "photos", "something else than a backup"


def _data(tmp_path: Path, data: Path) -> tuple[Path, str]:
    return Path(shutil.copytree(data, tmp_path / "other")), "is a data directory"


@pytest.mark.parametrize("place", [_inside, _around, _of_another, _full, _data], ids=lambda place: place.__name__)
def test_a_place_that_cannot_be_right_is_refused(place: object, tmp_path: Path, data: Path) -> None:
    assert callable(place)
    into, said = place(tmp_path, data)
    before = sorted(into.rglob("*")) if into.exists() else []
    printed = inside("backup", str(into), "--data", str(data))
    assert (printed.code, printed.out) == (2, "")
    assert said in printed.err
    assert (sorted(into.rglob("*")) if into.exists() else []) == before


def test_nothing_is_restored_over_something(tmp_path: Path, data: Path) -> None:
    copy = tmp_path / "backup"
    backup(data, copy)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    printed = restore(copy, data)
    assert (printed.code, "is not empty" in printed.err) == (2, True)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    assert inside("restore", str(tmp_path / "nothing"), "--check").code == 2
    assert inside("restore", str(copy)).code == 2


def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path, data: Path) -> None:
    with closing(sqlite3.connect(data / "control.sqlite3")) as sql:
        sql.execute(f"PRAGMA user_version={len(STEPS) + 1}")
    printed = inside("backup", str(tmp_path / "backup"), "--data", str(data))
    assert (printed.code, "newer overnight" in printed.err) == (4, True)


def test_an_older_schema_is_backed_up_and_brought_up_to_date_after_the_restore(tmp_path: Path) -> None:
    """A backup before an upgrade is made by either version."""
    old, copy, again = tmp_path / "old", tmp_path / "backup", tmp_path / "again"
    old.mkdir()
    with closing(sqlite3.connect(old / "control.sqlite3")) as sql:
        sql.executescript(f"{STEPS[0]} PRAGMA application_id=0x4F564E54; PRAGMA user_version=1;")
    backup(old, copy)
    assert restore(copy, again).code == 0
    assert used(again) == 0
