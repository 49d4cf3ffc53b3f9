"""HTTP for `testing.hosted`: a server in a thread of this process that can also hang up, at any byte."""

import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import MappingProxyType
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlsplit

from overnight import limits

_PIECE_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST.
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Head(NamedTuple):
    """A request before its body. Header names are lower case; `path` has no query."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Reply(NamedTuple):
    """An answer, sent in chunks as the hosted API does; the connection breaks after `cut_after` bytes of the body."""

    status: int
    body: bytes
    headers: Mapping[str, str] = _NO_HEADERS
    cut_after: int | None = None


class Service(Protocol):
    """What answers. Called from one thread per connection."""

    def is_dropped(self, head: Head) -> bool:
        """Called once for each request: whether to hang up before its body was read to the end."""
        ...

    def answer(self, head: Head, body: bytes | None) -> Reply | None:
        """Called once the body is there, None for one larger than any that is taken. Returns None to hang up."""
        ...


class WireServer(ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1 from the moment it is made until `close`."""

    request_queue_size = 128

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.service = service
        self.failures: list[BaseException] = []  # Of the service, not of clients that went away.
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """Break every connection and return when no thread is left."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # The other end was faster.
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """A thread for a new connection."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """The end of a connection: without the base class's shutdown, which would send FIN before RST."""
        with self._lock:
            self._open.discard(request)
            request.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps what the service raised."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.failures.append(error)


class _Exchange(BaseHTTPRequestHandler):
    """One connection."""

    server: WireServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def exchange(self) -> None:
        """One request and its answer."""
        address = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        head = Head(self.command, address.path, dict(parse_qsl(address.query)), headers)
        if self.server.service.is_dropped(head):
            next(self._pieces(), b"")
            self._hang_up()
            return
        reply = self.server.service.answer(head, self._body())
        if reply is None:
            self._hang_up()
        else:
            self._send(reply)

    do_GET = do_POST = do_DELETE = exchange  # noqa: N815  Names that the base class looks for.

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def _body(self) -> bytes | None:
        body = bytearray()
        is_too_large = False
        for piece in self._pieces():  # To its end: a client that is still sending would lose our answer.
            is_too_large = is_too_large or len(body) + len(piece) > limits.BATCH_BODY_BYTES_MAX
            if not is_too_large:
                body += piece
        return None if is_too_large else bytes(body)

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line().partition(b";")[0], 16):
                yield from self._exactly(size)
                self._line()
            while self._line().strip():
                pass
        else:
            yield from self._exactly(int(self.headers.get("content-length", "0")))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read1(min(size, _PIECE_BYTES))
            if not piece:
                raise ConnectionResetError("the client left in the middle of a body")
            size -= len(piece)
            yield piece

    def _line(self) -> bytes:
        line = self.rfile.readline(_PIECE_BYTES)
        if not line:
            raise ConnectionResetError("the client left in the middle of a body")
        return line

    def _send(self, reply: Reply) -> None:
        body = reply.body if reply.cut_after is None else reply.body[: reply.cut_after]
        headers = {"content-type": "application/json", **reply.headers, "transfer-encoding": "chunked"}
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        end = b"0\r\n\r\n" if reply.cut_after is None else b""
        self.wfile.write("\r\n".join(lines).encode("latin-1") + chunk + end)
        if reply.cut_after is not None:
            self.close_connection = True  # By FIN: a reset could overtake the bytes that should still arrive.

    def _hang_up(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close_connection = True
