"""A receiver of hooks, in a thread of its own: it keeps what it gets, and answers as it is told.

with running_receiver() as receiver:
    …                                   # overnight hooks create {receiver.url}
    got = receiver.next()
    Webhook(secret).verify(got.body, got.headers)
"""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import NamedTuple

_PATIENCE_S = 60.0


class Got(NamedTuple):
    """What was posted. Names of headers are lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """What is answered."""

    status: int = 204
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Receiver:
    """See the module."""

    def __init__(self, answer: Callable[[Got], Reply], context: ssl.SSLContext | None) -> None:
        """`answer` is called in a thread for each post, and may block."""
        self.got: list[Got] = []  # Everything, ever.
        self._news: Queue[Got] = Queue()
        self._answer = answer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._scheme = "http" if context is None else "https"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """What to post to."""
        return f"{self._scheme}://127.0.0.1:{self.port}/hook"

    def next(self) -> Got:
        """The next post, in the order they came; queue.Empty if there is none for a minute."""
        return self._news.get(timeout=_PATIENCE_S)

    def take(self, got: Got) -> Reply:
        """Called for each post."""
        self.got.append(got)
        self._news.put(got)
        return self._answer(got)

    def serve(self) -> None:
        """Until `stop`."""
        self._server.serve_forever(poll_interval=0.01)

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = receiver.take(Got(self.path, headers, self.rfile.read(length)))
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:  # Whoever posted has gone.
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running_receiver(
    answer: Callable[[Got], Reply] = lambda _: Reply(), *, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver for the length of a block; with TLS if there is a context."""
    receiver = Receiver(answer, context)
    thread = threading.Thread(target=receiver.serve)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop()
        thread.join()
