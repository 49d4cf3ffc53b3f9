"""CPU of one exchange, in µs: our transports against a bare epoll loop, at 64 in flight, in the same run.

The engine is `overnight.testing.upstream` in a process of its own, so only the client's CPU is counted. Rounds of the
clients alternate, and ratios are medians over rounds: what else runs on the machine hits all of them alike.

    python benchmarks/transports.py [--exchanges 20000] [--rounds 5] [--in-flight 64]
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import uvloop

from overnight.engines.plain import PlainTransport
from overnight.engines.pooled import PooledTransport
from overnight.engines.transport import Transport

TEXT = "The parcel of order 4711 arrived late, and the box was open. " * 12
PARAMS = {"model": "echo", "max_tokens": 64, "messages": [{"role": "user", "content": TEXT}]}
BODY = json.dumps(PARAMS).encode()
HEADERS = {"content-type": "application/json", "anthropic-version": "2023-06-01"}


def bare(port: int, exchanges: int, in_flight: int) -> None:
    """The least a client can do in Python: write, read until the body is complete, write again."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n{lines}content-length: {len(BODY)}\r\n\r\n"
    request = head.encode() + BODY
    poll, open_sockets, begun, done = select.epoll(), dict[int, socket.socket](), 0, 0
    for _ in range(in_flight):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        poll.register(connection, select.EPOLLIN)
        open_sockets[connection.fileno()] = connection
        connection.send(request)
        begun += 1
    while done < exchanges:
        for number, _ in poll.poll():
            reply = open_sockets[number].recv(65536)
            at = reply.index(b"content-length: ") + 16
            end_of_head = reply.index(b"\r\n\r\n", at)
            assert len(reply) == end_of_head + 4 + int(reply[at:end_of_head]), "one reply in one read"
            done += 1
            if begun < exchanges:
                begun += 1
                open_sockets[number].send(request)
    for connection in open_sockets.values():
        connection.close()
    poll.close()


async def through(transport: Transport, exchanges: int, in_flight: int) -> None:
    left = exchanges

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            reply = await transport.post("/v1/messages", BODY, headers=HEADERS, timeout_s=60.0)
            assert reply.status == 200

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    await transport.close()


def cpu_us(run: Callable[[], None], exchanges: int) -> float:
    gc.collect()
    begin_ns = time.process_time_ns()
    run()
    return (time.process_time_ns() - begin_ns) / 1000 / exchanges


def measure(port: int, exchanges: int, in_flight: int) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}"

    async def plain() -> None:
        await through(PlainTransport(url), exchanges, in_flight)

    async def pooled() -> None:
        await through(PooledTransport(url), exchanges // 4, in_flight)

    return {
        "bare": cpu_us(lambda: bare(port, exchanges, in_flight), exchanges),
        "plain": cpu_us(lambda: uvloop.run(plain()), exchanges),
        "aiohttp": cpu_us(lambda: uvloop.run(pooled()), exchanges // 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    command = [sys.executable, "-m", "overnight.testing.upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as upstream:
        assert upstream.stdout is not None
        try:
            port = int(upstream.stdout.readline())
            measure(port, 2_000, options.in_flight)
            rounds = [measure(port, options.exchanges, options.in_flight) for _ in range(options.rounds)]
        finally:
            upstream.terminate()
    median = {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]}
    ratio = {
        name: round(statistics.median(one[name] / one["bare"] for one in rounds), 2) for name in ("plain", "aiohttp")
    }
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "aiohttp": version("aiohttp")}
    setting = {"in_flight": options.in_flight, "exchanges": options.exchanges, "rounds": options.rounds}
    print(json.dumps({"cpu_us": median, "ratio_to_bare": ratio, **setting, **machine}))


if __name__ == "__main__":
    main()
