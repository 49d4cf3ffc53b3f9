"""Clients that vanish, dawdle and crowd: what they cost is bounded, and others do not notice."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest
from scale_server import MIB, asked_until, hosting, left_alone, open_sockets, peak_memory, traces

from overnight import limits
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess
from overnight.testing.rawhttp import answered, connected, head, received
from overnight.testing.wireclient import BATCHES, WireClient, request

STALL_S = 2
LARGE_ROWS, ROW_BYTES = 4_000, 10_000  # 40 MB of results: more than any socket buffers.
SLACK_BYTES = 64 * MIB
PROMPT_S = 2.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends a reset.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients") / "data"


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[ServerProcess]:
    with upstream_process() as engine_url, hosting(data, engine_url, {"DOWNLOAD_STALL_S": STALL_S}) as found:
        yield found


@pytest.fixture
def client(server: ServerProcess) -> Iterator[WireClient]:
    with closing(WireClient(server.url)) as found:
        yield found


@pytest.fixture(autouse=True)
def no_traceback(server: ServerProcess) -> Iterator[None]:
    yield
    assert "Traceback" not in server.log()


@pytest.fixture(scope="module")
def large(server: ServerProcess) -> str:
    """A batch with large results."""
    random = Random(1)
    with closing(WireClient(server.url)) as client:
        batch_id = client.create(
            [request(str(index), random.randbytes(ROW_BYTES // 2).hex()) for index in range(LARGE_ROWS)]
        )["id"]
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
    return str(batch_id)


def upload(size: int) -> bytes:
    """A create body of about this size."""
    return json.dumps({"requests": [request("a", "x" * size)]}).encode()


def vanish(connection: socket.socket, *, by_reset: bool) -> None:
    if by_reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


@pytest.mark.parametrize("by_reset", [False, True], ids=["close", "reset"])
def test_a_client_that_vanishes_while_it_uploads_leaves_no_trace(
    by_reset: bool, server: ServerProcess, data: Path, client: WireClient
) -> None:
    assert client.call("GET", "/health").status == 200
    before, sockets = traces(server, data), open_sockets(server)
    body = upload(MIB)
    for sent in (0, 100, 70_000, len(body) - 1):
        connection = connected(server.url)
        connection.sendall(head("POST", BATCHES, {"content-length": str(len(body))}) + body[:sent])
        assert client.call("GET", "/health").status == 200
        vanish(connection, by_reset=by_reset)
    asked_until(client, lambda: open_sockets(server) <= sockets, what="closed")
    left_alone(server, data, before)


def test_uploads_that_vanish_while_they_wait_give_their_places_back(tmp_path: Path) -> None:
    body = upload(8 * MIB)
    announced = head("POST", BATCHES, {"content-length": str(len(body))})
    with (
        hosting(tmp_path / "data", "http://127.0.0.1:1", {"UPLOADS_BYTES_MAX": 10 * MIB}) as server,
        closing(connected(server.url)) as first,
        closing(WireClient(server.url)) as client,
    ):
        first.sendall(announced + body[:1000])
        assert client.ids() == []
        waiting = [connected(server.url) for _ in range(10)]
        for connection in waiting:
            connection.sendall(announced + body[:1000])
        assert client.ids() == []
        for connection in waiting[:-1]:
            vanish(connection, by_reset=True)
        assert client.call("POST", BATCHES, {"requests": []}).status == 400, "a small one need not wait"
        first.sendall(body[1000:])
        assert answered(first).startswith(b"HTTP/1.1 200 ")
        with closing(waiting[-1]) as last:
            last.sendall(body[1000:])
            assert answered(last).startswith(b"HTTP/1.1 200 ")
        assert len(client.ids()) == 2


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_clients_that_vanish_while_they_download_cost_nothing(
    encoding: str, server: ServerProcess, large: str, client: WireClient
) -> None:
    ask = head("GET", f"{BATCHES}/{large}/results", {"accept-encoding": encoding})
    assert client.call("GET", "/health").status == 200
    sockets = open_sockets(server)
    with peak_memory(server) as peak:
        for index in range(30):
            connection = connected(server.url, receive_bytes=4096)
            connection.sendall(ask)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
            vanish(connection, by_reset=index % 2 == 0)
        asked_until(client, lambda: open_sockets(server) <= sockets, what="closed")
        assert peak() < SLACK_BYTES


def test_readers_that_dawdle_hold_little_and_hold_nobody_up(
    server: ServerProcess, large: str, client: WireClient
) -> None:
    ask = head("GET", f"{BATCHES}/{large}/results", {"accept-encoding": "identity"})
    whole = client.call("GET", f"{BATCHES}/{large}/results").body
    sockets = open_sockets(server)
    with ExitStack() as stack, peak_memory(server) as peak:
        readers = [stack.enter_context(closing(connected(server.url, receive_bytes=4096))) for _ in range(20)]
        for reader in readers:
            reader.sendall(ask)
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
        began_s = time.monotonic()
        assert client.call("GET", f"{BATCHES}/{large}/results").body == whole
        assert time.monotonic() - began_s < PROMPT_S
        assert peak() < SLACK_BYTES
        asked_until(client, lambda: open_sockets(server) <= sockets, what="disconnected")
        assert all(len(received(reader)) < len(whole) for reader in readers)


async def many_uploads(url: str, body: bytes, count: int) -> list[int]:
    """The statuses of that many creates at once, each on a connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    ask = head("POST", BATCHES, {"content-length": str(len(body)), "connection": "close"})

    async def one() -> int:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(ask)
        writer.write(body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer[9:12])

    return await asyncio.gather(*(one() for _ in range(count)))


def test_fifty_uploads_of_20_mb_take_the_memory_of_those_that_fit(tmp_path: Path) -> None:
    body, room = upload(20 * MIB), 100 * MIB
    with (
        hosting(tmp_path / "data", "http://127.0.0.1:1", {"UPLOADS_BYTES_MAX": room}) as server,
        peak_memory(server) as peak,
    ):
        assert asyncio.run(many_uploads(server.url, body, 50)) == [200] * 50
        assert peak() < room + 2 * limits.LEASED_BYTES_MAX + SLACK_BYTES
        with closing(WireClient(server.url)) as client:
            assert len(client.ids()) == 50
