"""Nothing that stands in a request makes this server ask for it. Hooks, which do: tests/conformance/test_hook_sender.

Links are for the engine: a Messages server and a chat server get them as they are, the embedded model refuses them.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from overnight.testing.observed import observed_server, upstream_process
from overnight.testing.wireclient import WireClient, params, request

CHAT_ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "chat",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "seen"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Listener(ThreadingHTTPServer):
    """Keeps what it is asked, and answers as a chat server."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        assert isinstance(self.server, Listener)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.path, body))
        answer = json.dumps(CHAT_ANSWER).encode()
        is_chat = self.path.endswith("/chat/completions")
        self.send_response(200 if is_chat else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _listening() -> Iterator[Listener]:
    found = Listener()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield found
    finally:
        found.shutdown()
        found.server_close()
        thread.join()


def _linked(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Requests with a link in every place that can have one."""
    source = {"type": "url", "url": url}

    def said(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            **params(),
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, *blocks]}],
            **more,
        }

    image = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    use = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    tool = {"name": "look", "input_schema": {"type": "object", "$ref": f"{url}#/x"}}
    within = said(tools=[tool])
    within["messages"] += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return [
        ("image", said(image)),
        ("document", said({"type": "document", "source": source})),
        ("file", said({"type": "document", "source": {"type": "file", "file_id": url}})),
        ("search", said({"type": "search_result", "source": url, "title": url, "content": []})),
        ("tool", within),
        ("mcp", said(mcp_servers=[{"type": "url", "url": url, "name": "x"}])),
        ("container", said(container=url, callback_url=url, webhook=url)),
        (
            "schema",
            said(output_config={"format": {"type": "json_schema", "schema": {"$ref": url, "type": "object"}}}),
        ),
        ("text", said({"type": "text", "text": url})),
    ]


@pytest.mark.parametrize("engine", ["messages", "chat", "embedded"])
def test_no_link_in_a_request_is_followed(engine: str, tmp_path: Path) -> None:
    with upstream_process() as upstream, _listening() as chat, _listening() as canary:
        spec = {"messages": upstream, "chat": f"chat+{chat.url}", "embedded": "embedded"}[engine]
        data = tmp_path / "data"
        with observed_server(data, "--engine", spec) as server, closing(WireClient(server.url)) as client:
            asked = [{"custom_id": name, "params": body} for name, body in _linked(f"{canary.url}/secret")]
            batch_id = client.create(asked)["id"]
            server.wait_ended(client, batch_id)
            rows = client.results(batch_id)
            for name, body in _linked(f"{canary.url}/secret"):
                client.call("POST", "/v1/messages", body)
                client.call("POST", "/v1/messages/count_tokens", {**body, "max_tokens": 1})
                page = client.call("GET", f"/console/batches/{batch_id}/results/{name}").body
                assert b'src="http' not in page
                assert b'href="http' not in page
        assert len(rows) == len(asked)
        assert canary.asked == []
        if engine == "chat":
            assert any(canary.url.encode() in body for _, body in chat.asked), "the engine is told the link"
        if engine == "embedded":
            assert rows["image"]["error"]["error"]["type"] == "invalid_request_error"
            assert rows["document"]["error"]["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "data:image/png;base64,aGk=",
        "//127.0.0.1/",
        "",
    ],
)
def test_an_engine_is_told_of_no_link_but_to_the_web(url: str, tmp_path: Path) -> None:
    with _listening() as chat:
        data = tmp_path / "data"
        with (
            observed_server(data, "--engine", f"chat+{chat.url}") as server,
            closing(WireClient(server.url)) as client,
        ):
            body = dict(_linked(url))["image"]
            batch_id = client.create([{"custom_id": "a", "params": body}, request("b")])["id"]
            server.wait_ended(client, batch_id)
            rows = client.results(batch_id)
        assert (rows["a"]["type"], rows["b"]["type"]) == ("errored", "succeeded")
        assert [body for _, body in chat.asked if b"image_url" in body] == []
