"""Data directories that cannot be used, and disks that fill up while a batch runs."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from crash_engine import running_engine
from crash_workload import Ledger, Session, asked_until, check_promises, left_files

from overnight.testing import crashpoint
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import BATCHES, WireClient

DAMAGED = 4  # The exit code for a data directory that cannot be used.
NOBODY = 65534


def refused(data: Path, *, as_nobody: bool = False) -> str:
    """What a server says that must refuse to start on this directory."""
    change_user = f"os.geteuid() or os.setuid({NOBODY});" if as_nobody else ""
    code = f"import os; import overnight.cli.main as main, overnight.cli.serve; {change_user} main.main()"
    command = [sys.executable, "-c", code, "serve", "--listen", "127.0.0.1:0", "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (DAMAGED, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("overnight: ")
    return line


def digests(directory: Path) -> dict[str, str]:
    """What lies in a directory, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()
    }


def test_a_directory_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data):
        pass
    with closing(sqlite3.connect(data / "control.sqlite3")) as sql:
        sql.execute("PRAGMA user_version = 99")
    before = digests(data)
    said = refused(data)
    assert "newer overnight (schema 99" in said
    assert "--data" in said
    assert digests(data).items() - before.items() <= {("lock", digests(data)["lock"])}


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with closing(sqlite3.connect(data / "control.sqlite3")) as sql:
        sql.execute("CREATE TABLE photos (id INTEGER)")
        sql.commit()
    before = digests(data)
    assert "not one of overnight" in refused(data)
    assert digests(data).items() - before.items() == {("lock", digests(data)["lock"])}


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "control.sqlite3").write_text("my notes\n" * 1000)
    before = digests(data)
    assert "not a database" in refused(data)
    assert digests(data).items() - before.items() == {("lock", digests(data)["lock"])}


def test_a_second_server_is_told_who_has_the_directory_and_the_first_goes_on(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with running_engine(delay_s=0.05) as engine, running_server(data, "--engine", engine.url) as first:
        session = Session(first.url, ledger)
        with closing(session.client):
            session.create("kept", 100)
        assert f"(pid {first.process.pid})" in refused(data)
        assert f"(pid {first.process.pid})" in refused(data), "the second server did not take the name of the first"
        check_promises(first.url, ledger)


@pytest.mark.parametrize("place", ["below a file", "in a directory of somebody else"])
def test_a_directory_that_cannot_be_written_is_refused(place: str, tmp_path: Path) -> None:
    if place == "below a file":
        (tmp_path / "file").write_text("")
        data = tmp_path / "file" / "data"
    else:
        (tmp_path / "theirs").mkdir(mode=0o500)
        data = tmp_path / "theirs" / "data"
    said = refused(data, as_nobody=True)
    assert f"cannot write to the data directory {data}" in said
    assert "--data" in said


class InjectedDisk:
    """A disk that says it is full while a file lies beside it. SQLite does not ask it."""

    def __init__(self, root: Path) -> None:
        self.data, self.flag = root / "data", root / "full"

    def fill(self) -> None:
        self.flag.write_text("")

    def free(self) -> None:
        self.flag.unlink()

    def close(self) -> None:
        pass


class SmallDisk:
    """A real file system of a few megabytes, which only some users of some machines may mount."""

    def __init__(self, root: Path) -> None:
        self.mounted = root / "disk"
        self.mounted.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(self.mounted)], check=True, capture_output=True
        )
        self.data, self.ballast, self.flag = self.mounted / "data", self.mounted / "ballast", None

    def fill(self) -> None:
        with self.ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        self.ballast.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.mounted)], check=True)


def can_mount() -> bool:
    """Whether this user may mount file systems here."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return False
    with tempfile.TemporaryDirectory() as root:
        try:
            SmallDisk(Path(root)).close()
        except (subprocess.CalledProcessError, FileNotFoundError):
            return False
    return True


@pytest.fixture(params=[InjectedDisk, *([SmallDisk] if can_mount() else [])])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InjectedDisk | SmallDisk]:
    found = request.param(tmp_path)
    yield found
    found.close()


def on_disk(disk: InjectedDisk | SmallDisk, engine_url: str) -> ServerProcess:
    """A server on this disk."""
    environment = crashpoint.settings(full_flag=disk.flag, changed_limits={"DRAIN_S_MAX": 6.0})
    module = "overnight.testing.crashpoint"
    return ServerProcess(disk.data, "--engine", engine_url, module=module, environment=environment)


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(disk: InjectedDisk | SmallDisk) -> None:
    ledger = Ledger()
    with running_engine(delay_s=0.1) as engine:
        server = on_disk(disk, engine.url)
        try:
            session = Session(server.url, ledger)
            with closing(session.client) as client:
                batch_id = session.create("running", 1500, text_bytes=400)
                engine.wait_asked_in_total(200)
                disk.fill()
                before = left_files(disk.data)
                too_late = {"requests": ledger.requests("refused", 300, text_bytes=10_000)}
                refusal = client.call("POST", BATCHES, too_late)
                assert refusal.error == (500, "api_error", "The server's disk is full; nothing was created.")
                asked_until(client, lambda: trouble(client) != {}, what=lambda: trouble(client))
                health = client.call("GET", "/health").json
                assert health["status"] in ("degraded", "failing")
                assert any("o space left" in said for said in health["trouble"].values())
                assert set(left_files(disk.data)) <= {*before, *logs(disk.data)}, (
                    "a create that was refused left a file"
                )
                assert client.ids() == [batch_id]
                assert client.retrieve(batch_id)["processing_status"] == "in_progress"
                disk.free()
            assert check_promises(server.url, ledger) == [batch_id]
            with closing(WireClient(server.url)) as client:
                asked_until(client, lambda: trouble(client) == {}, what=lambda: trouble(client))
            assert server.stop() == 0
        finally:
            server.kill()
        assert {len(times) for times in engine.asked_at_s.values()} == {1}, "no answer was paid for twice"


def trouble(client: WireClient) -> dict[str, str]:
    return dict(client.call("GET", "/health").json["trouble"])


def logs(data: Path) -> list[Path]:
    return list((data / "checkpoints").glob("*.log"))


def test_a_full_disk_keeps_no_server_from_exiting(disk: InjectedDisk | SmallDisk) -> None:
    ledger = Ledger()
    with running_engine(delay_s=0.1) as engine:
        server = on_disk(disk, engine.url)
        try:
            session = Session(server.url, ledger)
            with closing(session.client):
                batch_id = session.create("running", 1500, text_bytes=400)
                engine.wait_asked_in_total(200)
                disk.fill()
                asked_until(session.client, lambda: trouble(session.client) != {}, what=engine.calls.total)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=6 + 4) == 0, server.log()
        finally:
            server.kill()
        disk.free()
        server = on_disk(disk, engine.url)
        try:
            assert check_promises(server.url, ledger) == [batch_id]
        finally:
            server.kill()
