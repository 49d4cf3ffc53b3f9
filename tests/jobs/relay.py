"""What stands between a job and a server, so that a test sees every call and can lose an answer on the way back."""

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_NOT_PASSED_ON = {"connection", "transfer-encoding", "content-length", "host"}
_BATCHES = "/v1/messages/batches"


class Relay:
    """Passes calls on to `target`. Use it as a context manager."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._changed = threading.Lock()
        self._calls: list[tuple[str, str]] = []
        self._to_lose = 0

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Method and path of every call that came."""
        with self._changed:
            return list(self._calls)

    def lose_next_create(self) -> None:
        """The next create reaches the server, and its answer nobody."""
        with self._changed:
            self._to_lose += 1

    def note(self, method: str, path: str) -> bool:
        """A call came; whether its answer is to be lost."""
        with self._changed:
            self._calls.append((method, path))
            is_lost = self._to_lose > 0 and (method, path) == ("POST", _BATCHES)
            self._to_lose -= is_lost
            return is_lost

    def __enter__(self) -> Self:
        relay = self

        class Handler(_Handler):
            def handle_call(self) -> None:
                self.pass_on(relay)

            do_GET = do_POST = do_DELETE = handle_call  # noqa: N815  Called by http.server.

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def pass_on(self, relay: Relay) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        is_lost = relay.note(self.command, self.path)
        connection = HTTPConnection(urlsplit(relay.target).netloc, timeout=60)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
            connection.request(self.command, self.path, body or None, kept)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if is_lost:
            self.close_connection = True
            return
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
