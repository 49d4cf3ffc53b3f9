"""HTTP as bytes on a socket, for clients that stop half way, never read, or send what no client would."""

import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

_PATIENCE_S = 60.0


def connected(url: str, *, receive_bytes: int | None = None) -> socket.socket:
    """A connection to a server, with a receive buffer of about that size if one is given. Close it."""
    address, found = urlsplit(url), socket.socket()
    try:
        if receive_bytes is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        found.settimeout(_PATIENCE_S)
        found.connect((address.hostname, address.port))
    except BaseException:
        found.close()
        raise
    return found


def head(method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a request as our API wants it."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "anthropic-version: 2023-06-01"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()


def received(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection, in whatever way."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def answered(connection: socket.socket) -> bytes:
    """One answer that has a content-length; the connection may go on."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    start, _, rest = answer.partition(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in start.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(rest) < length:
        rest += _more(connection)
    return start + b"\r\n\r\n" + rest


def send_until_refused(connection: socket.socket, pieces: Iterable[bytes]) -> int:
    """Send pieces until there are none left or the server takes no more; how many bytes it took."""
    sent = 0
    try:
        for piece in pieces:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


def _more(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        raise ConnectionError("the server ended the connection before its answer was whole")
    return piece
