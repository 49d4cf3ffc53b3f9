"""A Message Batches server that costs almost nothing: it answers every request of a batch the moment it comes.

    python benchmarks/double.py DIRECTORY

Prints its port. Bodies and results lie in DIRECTORY as BATCH.json and BATCH.jsonl, so that its memory stays small and
a second client can send and fetch the same bytes. A process of its own, as a server is.
"""

import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

BATCHES = "/v1/messages/batches"
_MESSAGE = (
    b'{"id":"msg_01ABCDEFGHJKMNPQRSTVWXYZ","type":"message","role":"assistant","model":"claude-haiku-4-5",'
    b'"content":[{"type":"text","text":"billing"}],"stop_reason":"end_turn","stop_sequence":null,'
    b'"usage":{"input_tokens":180,"output_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}'
)
_LINE = b'{"custom_id":"%b","result":{"type":"succeeded","message":' + _MESSAGE + b"}}\n"
_AT = "2026-11-21T00:00:00Z"


class _Request(msgspec.Struct):
    custom_id: str


class _Create(msgspec.Struct):
    requests: list[_Request]


_decode = msgspec.json.Decoder(_Create).decode


class Double(BaseHTTPRequestHandler):
    """Create, retrieve, list, results, and the one message of a pre-flight."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # Head and body are two writes: without it each answer waits for an acknowledgement.
    )
    directory: Path
    shown: dict[str, dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/messages":
            return self._answer(_MESSAGE)
        batch_id = f"msgbatch_{len(self.shown) + 1:06d}"
        ids = [request.custom_id.encode() for request in _decode(body).requests]
        (self.directory / f"{batch_id}.json").write_bytes(body)
        (self.directory / f"{batch_id}.jsonl").write_bytes(b"".join(_LINE % custom_id for custom_id in ids))
        self.shown[batch_id] = _ended(batch_id, len(ids))
        return self._answer(json.dumps(self.shown[batch_id] | {"processing_status": "in_progress"}).encode())

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == BATCHES:
            newest_first = list(self.shown.values())[::-1]
            return self._answer(json.dumps({"data": newest_first, "has_more": False}).encode())
        batch_id, _, what = path.removeprefix(f"{BATCHES}/").partition("/")
        if not what:
            return self._answer(json.dumps(self.shown[batch_id]).encode())
        results = self.directory / f"{batch_id}.jsonl"
        self._head(results.stat().st_size)
        with results.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, 1 << 20)
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, body: bytes) -> None:
        self._head(len(body))
        self.wfile.write(body)

    def _head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("content-length", str(length))
        self.end_headers()


def _ended(batch_id: str, requests: int) -> dict[str, Any]:
    return {
        "id": batch_id,
        "processing_status": "ended",
        "request_counts": {"processing": 0, "succeeded": requests, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": _AT,
        "ended_at": _AT,
        "expires_at": _AT,
    }


def main() -> None:
    Double.directory, Double.shown = Path(sys.argv[1]), {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Double) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
