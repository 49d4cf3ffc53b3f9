"""SIGTERM: what is in flight finishes, the rest is given back, and the process is gone in time."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from crash_engine import running_engine
from crash_workload import Ledger, Session, check_promises

from overnight import limits
from overnight.testing import crashpoint
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.rawhttp import connected, head, received
from overnight.testing.wireclient import BATCHES, WireClient, params, request

PROMPT_S = 2.0
SHORT = {"DRAIN_S_MAX": 6.0}  # One second for what is in flight, five for the rest.


@contextmanager
def short_drain(data: Path, engine_url: str) -> Iterator[ServerProcess]:
    """A server that gives up what is in flight after a second; killed at the end of the block."""
    server = ServerProcess(
        data,
        "--engine",
        engine_url,
        module="overnight.testing.crashpoint",
        environment=crashpoint.settings(changed_limits=SHORT),
    )
    try:
        yield server
    finally:
        server.kill()


def ask_to_stop(server: ServerProcess) -> None:
    """SIGTERM; returns when the server has noticed: it takes no connections any more."""
    server.process.send_signal(signal.SIGTERM)
    while True:
        try:
            connected(server.url).close()
        except ConnectionError:
            return


def test_an_idle_server_is_gone_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server, closing(WireClient(server.url)) as kept_alive:
        assert kept_alive.ids() == []
        began_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began_s < PROMPT_S
        assert "Traceback" not in server.log()


def test_what_is_in_flight_finishes_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with running_engine(delay_s=0.4) as engine:
        with running_server(data, "--engine", engine.url) as server:
            session = Session(server.url, ledger)
            with closing(session.client):
                batch_id = session.create("drained", 300)
            engine.wait_asked_in_total(100)
            began_s = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began_s < limits.DRAIN_S_MAX
            assert "Traceback" not in server.log()
        assert engine.calls.total() < 300, "the run was too short to show anything"
        with running_server(data, "--engine", engine.url) as server:
            assert check_promises(server.url, ledger) == [batch_id]
        assert {word: len(times) for word, times in engine.asked_at_s.items()} == dict.fromkeys(
            ledger.sent["drained"], 1
        )


def test_an_engine_that_hangs_does_not_hold_the_exit_up(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_engine() as engine:
        with short_drain(data, engine.url) as server, closing(WireClient(server.url)) as client:
            requests = [request("stuck", "stuck [[hang x1]]"), request("done", "done")]
            batch_id = client.create(requests)["id"]
            engine.wait_asked("stuck")
            began_s = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began_s < SHORT["DRAIN_S_MAX"] + PROMPT_S
        with running_server(data, "--engine", engine.url) as server:
            session = Session(server.url, Ledger())
            with closing(session.client):
                session.until_ended(batch_id, requests=2)
                assert {row["type"] for row in session.client.results(batch_id).values()} == {"succeeded"}
        assert {word: len(times) for word, times in engine.asked_at_s.items()} == {"stuck": 2, "done": 1}


def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_engine() as engine, running_server(data, "--engine", engine.url) as server:
        with closing(WireClient(server.url)) as client:
            client.create([request("stuck", "stuck [[hang]]")])
        engine.wait_asked("stuck")
        ask_to_stop(server)
        began_s = time.monotonic()
        assert server.stop() == 128 + signal.SIGTERM
        assert time.monotonic() - began_s < PROMPT_S


def test_an_interactive_answer_in_flight_is_still_given(tmp_path: Path) -> None:
    with running_engine() as engine, running_server(tmp_path / "data", "--engine", engine.url) as server:
        body = json.dumps(params("slow [[slow 0.7]]")).encode()
        with closing(connected(server.url)) as connection:
            connection.sendall(head("POST", "/v1/messages", {"content-length": str(len(body))}) + body)
            engine.wait_asked("slow")
            ask_to_stop(server)
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"echo: slow" in answer
        assert server.wait() == 0


def test_an_upload_that_goes_on_is_accepted_and_one_that_stalls_is_dropped(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    bodies = [
        json.dumps({"requests": ledger.requests(name, 20, text_bytes=20_000)}).encode() for name in ("on", "off")
    ]
    with running_engine() as engine:
        with (
            short_drain(data, engine.url) as server,
            closing(connected(server.url)) as going_on,
            closing(connected(server.url)) as stalled,
        ):
            for connection, body in ((going_on, bodies[0]), (stalled, bodies[1])):
                connection.sendall(head("POST", BATCHES, {"content-length": str(len(body))}) + body[:100_000])
            with closing(WireClient(server.url)) as client:
                assert client.ids() == []
            began_s = time.monotonic()
            ask_to_stop(server)
            going_on.sendall(bodies[0][100_000:])
            answer = received(going_on)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert server.wait() == 0
            assert time.monotonic() - began_s < SHORT["DRAIN_S_MAX"] + PROMPT_S
        ledger.acknowledged[json.loads(answer.partition(b"\r\n\r\n")[2])["id"]] = "on"
        with running_server(data, "--engine", engine.url) as server:
            assert check_promises(server.url, ledger) == list(ledger.acknowledged)


def test_a_download_that_goes_on_is_whole_and_one_that_stalls_is_dropped(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    with running_engine() as engine, short_drain(data, engine.url) as server:
        session = Session(server.url, ledger)
        with closing(session.client):
            batch_id = session.create("large", 1_000, text_bytes=10_000)
            session.until_ended(batch_id, requests=1_000)
            whole = session.download(batch_id)
        ask = head("GET", f"{BATCHES}/{batch_id}/results", {})
        with (
            closing(connected(server.url, receive_bytes=4096)) as going_on,
            closing(connected(server.url, receive_bytes=4096)) as stalled,
        ):
            for connection in (going_on, stalled):
                connection.sendall(ask)
                assert connection.recv(15) == b"HTTP/1.1 200 OK"
            began_s = time.monotonic()
            ask_to_stop(server)
            assert received(going_on).endswith(b"\r\n\r\n" + whole)
            assert server.wait() == 0
            assert time.monotonic() - began_s < SHORT["DRAIN_S_MAX"] + PROMPT_S
            assert len(received(stalled)) < len(whole), "the window was too large to stall anything"
