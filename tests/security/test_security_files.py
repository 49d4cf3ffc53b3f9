"""Who else on a machine may read what we write, and what names can lead out of where it belongs."""

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from cli_calls import inside

from overnight.errors import StoreError
from overnight.ports.files import OsFiles
from overnight.ports.world import World
from overnight.store import manifest
from overnight.store.layout import DataDirectory, take
from overnight.store.manifest import File, Manifest
from overnight.store.migrations import STEPS
from overnight.store.objects import LocalObjects
from overnight.testing.observed import observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, WireClient, request


@pytest.fixture
def open_to_all() -> Iterator[None]:
    """A shell whose files everybody may write."""
    before = os.umask(0)
    yield
    os.umask(before)


def _open(root: Path) -> list[str]:
    """What others than its owner may read, write or enter, and how."""
    found = []
    for path in sorted(root.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077:
            found.append(f"{path.relative_to(root)} {mode:o}")
    return found


def test_everything_in_a_data_directory_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, open_to_all: None
) -> None:
    """Also in one that was there before, such as a volume: then its own mode hides nothing."""
    data, copy, restored = (tmp_path / name for name in ("data", "backup", "restored"))
    for place in (data, copy, restored):
        place.mkdir(mode=0o755)
    large = os.urandom(40_000).hex()
    with upstream_process() as url, observed_server(data, "--engine", url) as server:
        with closing(WireClient(server.url)) as client:
            ended = client.create([request("a", large)])["id"]
            server.wait_ended(client, ended)
            running = client.create([request("b", "quick"), request("c", f"{large} [[slow 600]]")])["id"]
            server.wait_counted(client, running, succeeded=1)
            assert client.call("GET", f"/v1/overnight/batches/{ended}/export?format=parquet").status == 200
            for arguments in (("keys", "create"), ("hooks", "create", "https://8.8.8.8/")):
                assert inside(*arguments, "--data", str(data)).code == 0
            assert inside("backup", str(copy), "--data", str(data)).code == 0
            names = {path.name.partition("-")[0] for path in data.rglob("*")}
        assert {"lock", "control.sqlite3", "objects", "checkpoints", "exports"} <= names
        assert any(data.joinpath("checkpoints").iterdir())
        assert _open(data) == []
    assert inside("restore", str(copy), "--data", str(restored)).code == 0
    assert _open(copy) == []
    assert _open(restored) == []


def test_a_new_data_directory_is_for_its_owner_alone(tmp_path: Path, open_to_all: None) -> None:
    take(DataDirectory(tmp_path / "data")).close()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


# --- Links ----------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write in the directory could have us empty a file that they may not."""
    victim, data = tmp_path / "victim", tmp_path / "data"
    victim.write_text("precious")
    data.mkdir()
    (data / "lock").symlink_to(victim)
    with pytest.raises(StoreError, match="cannot write to the data directory"):
        take(DataDirectory(data))
    assert victim.read_text() == "precious"


def test_a_link_to_a_data_directory_is_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    take(DataDirectory(tmp_path / "data")).close()
    assert (tmp_path / "disk" / "lock").exists()


# --- Names ----------------------------------------------------------------------------------------------------------

NO_KEYS = [
    "",
    ".",
    "..",
    "../a.gz",
    "a/../b",
    "/etc/passwd",
    "a//b",
    "a/",
    "a\0",
    "a\nb",
    "a\n",
    "ä",
    "a b",
    "a" + "/.." * 9,
]


@pytest.mark.parametrize("key", NO_KEYS)
def test_no_key_leads_out_of_the_objects(key: str, tmp_path: Path) -> None:
    async def body() -> None:
        world = World()
        objects = LocalObjects(tmp_path / "objects", files=OsFiles(), offload=world.offload)
        for using in (objects.put_new(key, [b"x"]), objects.get(key), objects.remove(key)):
            with pytest.raises(StoreError, match="is not an object key"):
                await using
        world.offload.close()

    asyncio.run(body())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/etc/evil",
        "objects/../../evil",
        "objects/requests/../../../evil.gz",
        "checkpoints-1/../../evil.log",
        "control-1.sqlite3/../evil",
        "lock",
        "objects/requests/a.gz\0",
        "objects/requests/a.gz\n",
    ],
)
def test_a_backup_that_names_other_files_is_refused(path: str, tmp_path: Path) -> None:
    backup, target = tmp_path / "backup", tmp_path / "target"
    backup.mkdir()
    forged = Manifest(
        version="0",
        schema=len(STEPS),
        number=1,
        created_at="2026-01-01T00:00:00Z",
        source="/x",
        files=[File(path, 1, "0" * 64)],
    )
    (backup / manifest.NAME).write_bytes(manifest.encode(forged))
    printed = inside("restore", str(backup), "--data", str(target))
    assert (printed.code, "which is no file of a backup" in printed.err) == (4, True)
    assert not target.exists()
    assert msgspec.json.decode((backup / manifest.NAME).read_bytes())["files"][0]["path"] == path


def test_no_name_that_a_client_chooses_is_the_name_of_a_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with upstream_process() as url, observed_server(data, "--engine", url) as server:
        with closing(WireClient(server.url)) as client:
            large = os.urandom(40_000).hex()
            named = request("zebra-zebra", large, model="zebra", metadata={"user_id": "zebra"})
            headers = {"idempotency-key": "zebra/../zebra", "anthropic-beta": "zebra"}
            batch_id = client.create([named], headers=headers)["id"]
            server.wait_ended(client, batch_id)
            answer = client.call("GET", f"{BATCHES}/{batch_id}/results")
            assert json.loads(answer.body)["custom_id"] == "zebra-zebra"
        names = [path.as_posix() for path in data.rglob("*")]
    assert any(batch_id in name for name in names)
    assert [name for name in names if "zebra" in name] == []
