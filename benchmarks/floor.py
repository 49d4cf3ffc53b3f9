"""The physical limit of taking a body in: blocking `recv_into` into one buffer, write, fsync, answer. Nothing else.

    python benchmarks/floor.py DIRECTORY

Prints its port, then takes one HTTP request after another. A process of its own, as the server is.
"""

import os
import socket
import sys
import time
from pathlib import Path


def take(connection: socket.socket, path: Path) -> str:
    """Receive one body, make it durable at `path`, answer. Returns how long both took, for people."""
    begun_s = time.perf_counter()
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    head, _, first = head.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = bytearray(length)
    body[: len(first)] = first
    view, held = memoryview(body), len(first)
    while held < length:
        held += connection.recv_into(view[held:])
    received_s = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    return f"receive {received_s - begun_s:.3f} s, write and fsync {time.perf_counter() - received_s:.3f} s"


def main() -> None:
    directory = Path(sys.argv[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        for number in range(sys.maxsize):
            connection, _ = listener.accept()
            with connection:
                sys.stderr.write(take(connection, directory / f"body-{number}") + "\n")


if __name__ == "__main__":
    main()
