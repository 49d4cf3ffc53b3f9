"""`overnight doctor`: an installation is broken in many ways, and each is named with what to do about it."""

import json
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cli_calls import Printed, inside

from overnight.cli import doctordata
from overnight.cli.checkup import Finding
from overnight.store.migrations import STEPS
from overnight.testing.observed import upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import WireClient, request

KEY, ENGINE_KEY = "sk-our-key-000", "sk-engine-key-000"


@pytest.fixture
def engine_url() -> Iterator[str]:
    with upstream_process("--key", ENGINE_KEY) as url:
        yield url


@pytest.fixture
def free() -> str:
    """An address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an ended batch in it, whose server has stopped."""
    root = tmp_path_factory.mktemp("stopped") / "data"
    texts = [b"".join(sha256(b"%d %d" % (n, m)).digest() for m in range(20)).hex() for n in range(60)]
    with (
        upstream_process() as url,
        running_server(root, "--engine", url) as server,
        closing(WireClient(server.url)) as client,
    ):
        batch_id = client.create([request(f"r{n}", text) for n, text in enumerate(texts)])["id"]
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
    return root


@pytest.fixture
def data(tmp_path: Path, stopped: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def examined(data: Path, free: str, *arguments: str, environment: dict[str, str] | None = None) -> Printed:
    listen = () if "--listen" in arguments else ("--listen", free)
    return inside("doctor", "--data", str(data), *listen, *arguments, environment=environment)


def findings(printed: Printed) -> dict[str, Any]:
    """By check; one that fails wins."""
    found = json.loads(printed.out)["findings"]
    return {item["check"]: item for item in sorted(found, key=lambda item: str(item["verdict"] == "fail"))}


def failed(printed: Printed) -> set[str]:
    found = {item["check"] for item in json.loads(printed.out)["findings"] if item["verdict"] == "fail"}
    assert printed.code == (1 if found else 0)
    return found


def test_a_stopped_server_is_well(data: Path, free: str) -> None:
    printed = examined(data, free, "--json")
    assert failed(printed) == set(), printed.out
    found = findings(printed)
    checks = {
        "settings",
        "mode",
        "owner",
        "lock",
        "room",
        "filesystem",
        "sync",
        "database",
        "whole",
        "log",
        "objects",
    }
    assert checks | {"strangers", "open files", "memory", "time zones", "port", "engine embedded"} == set(found)
    assert found["lock"]["said"] == "free: no server uses it"
    assert found["database"]["said"] == f"schema {len(STEPS)}"


def test_a_running_server_is_well_and_its_key_is_tried(tmp_path: Path, free: str, engine_url: str) -> None:
    root = tmp_path / "data"
    flags = ("--engine", engine_url)
    with running_server(root, environment={"OVERNIGHT_API_KEY": KEY}) as server:
        given = (*flags, "--url", server.url, "--public-url", server.url, "--json")
        printed = examined(root, free, *given, environment={"ANTHROPIC_API_KEY": KEY})
        found = findings(printed)
        assert failed(printed) == {f"engine {engine_url}"}
        for check in ("version", "health", "clock", "key", "public URL"):
            assert found[check]["verdict"] == "ok", found[check]
        assert f"held by process {server.process.pid}" in found["lock"]["said"]
        assert "refuses our key" in found[f"engine {engine_url}"]["said"]
        assert findings(examined(root, free, *given))["key"]["verdict"] == "warn"
        wrong = examined(root, free, *given, environment={"ANTHROPIC_API_KEY": "sk-wrong-000"})
        assert "key" in failed(wrong)
        for secret in (KEY, ENGINE_KEY, "sk-wrong-000"):
            assert secret not in printed.out + wrong.out


def _readable(root: Path) -> None:
    root.chmod(0o755)


def _damaged(root: Path) -> None:
    path = root / "control.sqlite3"
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 6)


def _no_database(root: Path) -> None:
    (root / "control.sqlite3").write_bytes(b"my novel, chapter one. " * 400)


def _of_others(root: Path) -> None:
    with closing(sqlite3.connect(root / "control.sqlite3")) as sql:
        sql.execute("PRAGMA application_id=7")


def _newer(root: Path) -> None:
    with closing(sqlite3.connect(root / "control.sqlite3")) as sql:
        sql.execute(f"PRAGMA user_version={len(STEPS) + 1}")


def _older(root: Path) -> None:
    with closing(sqlite3.connect(root / "control.sqlite3")) as sql:
        sql.execute(f"PRAGMA user_version={len(STEPS) - 1}")


def _without_objects(root: Path) -> None:
    for path in root.glob("objects/**/*.gz"):
        path.unlink()


def _stranger(root: Path) -> None:
    (root / "holiday.jpg").write_bytes(b"")


def _large_log(root: Path) -> None:
    with (root / "control.sqlite3-wal").open("wb") as file:
        file.truncate(300 * 1024 * 1024)


BROKEN: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "others may enter": (_readable, "mode", "fail", "chmod 700"),
    "pages are damaged": (_damaged, "whole", "fail", "restore a backup"),
    "it is no database": (_no_database, "database", "fail", "restore a backup"),
    "another program's": (_of_others, "database", "fail", "--data"),
    "a newer schema": (_newer, "database", "fail", "install the version"),
    "an older schema": (_older, "database", "warn", "back it up"),
    "objects are missing": (_without_objects, "objects", "fail", "restore a backup"),
    "a file of somebody": (_stranger, "strangers", "warn", "move it elsewhere"),
    "a log without end": (_large_log, "log", "warn", "fuser"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_what_to_do(name: str, data: Path, free: str) -> None:
    damage, check, verdict, todo = BROKEN[name]
    damage(data)
    printed = examined(data, free, "--json", "--all")
    found = findings(printed)[check]
    assert (found["verdict"], todo in found["todo"]) == (verdict, True), printed.out
    assert failed(printed) == ({check} if verdict == "fail" else set())


WRONG_FLAGS = {
    "no directory": (("--data", "nowhere"), "data", "there is no directory"),
    "a wrong setting": (("--listen", "nonsense"), "settings", "is not HOST:PORT"),
    "no engine there": (("--engine", "http://{free}"), "engine http://{free}", "not reached: Connection refused"),
    "no key of an engine": (("--engine", "claude"), "engine claude", "ANTHROPIC_API_KEY is not set"),
    "no such model": (("--engine", "no/such.gguf"), "engine no/such.gguf", "there is no such file"),
    "no server": (("--url", "http://{free}"), "server", "is not reached"),
    "a public URL of nobody": (("--public-url", "http://{free}/x"), "public URL", "Connection refused"),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_a_setting_that_does_not_work_is_named(name: str, data: Path, free: str) -> None:
    flags, check, said = WRONG_FLAGS[name]
    printed = examined(data, free, *(flag.format(free=free) for flag in flags), "--json")
    check = check.format(free=free)
    assert failed(printed) == {check}
    assert said in findings(printed)[check]["said"]


@pytest.fixture
def somebody() -> Iterator[str]:
    """A web server that is none of ours, and whose clock is a day behind."""

    class Handler(BaseHTTPRequestHandler):
        body = b"<h1>It works!</h1>"

        def do_GET(self) -> None:
            is_ours = self.path.startswith("/ours")
            body = (
                b'{"status":"degraded","version":"0.0.1","trouble":{"upkeep":"disk \\u001b[31m"}}'
                if is_ours
                else self.body
            )
            self.send_response_only(200)
            self.send_header("date", "Tue, 24 Nov 2020 00:00:00 GMT")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_port_of_another_program_is_named(data: Path, free: str, somebody: str) -> None:
    address = somebody.removeprefix("http://")
    printed = examined(data, free, "--listen", address, "--json")
    assert failed(printed) == {"server"}
    assert "is no overnight" in findings(printed)["server"]["said"]


def test_a_port_that_takes_no_connection_is_named(data: Path, free: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        printed = examined(data, free, "--listen", f"127.0.0.1:{taken.getsockname()[1]}", "--json")
    assert failed(printed) == {"port"}


def test_a_server_of_another_version_with_another_clock_is_named(data: Path, free: str, somebody: str) -> None:
    printed = examined(data, free, "--url", f"{somebody}/ours", "--json")
    found = findings(printed)
    assert failed(printed) == {"clock"}
    assert "ahead of" in found["clock"]["said"]
    assert (found["version"]["verdict"], found["health"]["verdict"]) == ("warn", "warn")
    assert "the server is 0.0.1" in found["version"]["said"]


def test_what_a_server_says_cannot_lead_a_terminal(data: Path, free: str, somebody: str) -> None:
    printed = examined(data, free, "--url", f"{somebody}/ours")
    assert "\x1b" not in printed.out
    assert "upkeep: disk ?[31m" in printed.out
    assert printed.out.splitlines()[-1].endswith("1 fail")


def test_a_filesystem_of_memory_is_no_place_for_data() -> None:
    (found,) = [item for item in doctordata.of_disk(Path("/dev/shm")) if item.check == "filesystem"]
    assert isinstance(found, Finding)
    assert (found.verdict, found.said) == ("fail", "/dev/shm is on tmpfs")
