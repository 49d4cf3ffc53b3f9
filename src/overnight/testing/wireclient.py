"""A client that speaks plain HTTP and hides nothing: status, headers and bytes as they came.

For tests of what is on the wire. Programs use the official SDKs.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

BATCHES = "/v1/messages/batches"
_TIMEOUT_S = 60.0


class Answer(NamedTuple):
    """One HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str]:
        """Status, `error.type` and `error.message` of an error answer."""
        inner = self.json["error"]
        return self.status, inner["type"], inner["message"]


class WireClient:
    """One connection, kept alive. Not for several threads. Close it."""

    def __init__(self, url: str, *, api_key: str = "any", version: str = "2023-06-01") -> None:
        """`url` may have a path: it stands before every path that is asked for."""
        found = urlsplit(url)
        assert found.hostname is not None, f"{url} has no host"
        self.api_key = api_key
        self.headers = {"x-api-key": api_key, "anthropic-version": version}
        self._prefix = found.path.rstrip("/")
        self._connection = HTTPConnection(found.hostname, found.port, timeout=_TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> Answer:
        """One exchange. Bytes are sent as they are, anything else but None as JSON; `without` drops own headers."""
        sent = {name: value for name, value in self.headers.items() if name not in without}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent["content-type"] = "application/json"
        sent.update(headers or {})
        assert body is None or isinstance(body, bytes)
        self._connection.request(method, self._prefix + path, body, sent)
        response = self._connection.getresponse()
        with response:
            content = response.read()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    # --- The endpoints, where only a success will do ----------------------------------------------------------------

    def create(self, requests: Sequence[object], *, headers: Mapping[str, str] | None = None) -> Any:
        """The MessageBatch of a create that must succeed."""
        return _good(self.call("POST", BATCHES, {"requests": requests}, headers=headers))

    def retrieve(self, batch_id: str) -> Any:
        """The MessageBatch."""
        return _good(self.call("GET", f"{BATCHES}/{batch_id}"))

    def cancel(self, batch_id: str) -> Any:
        """The MessageBatch, canceled."""
        return _good(self.call("POST", f"{BATCHES}/{batch_id}/cancel"))

    def page(self, query: str = "") -> Any:
        """One page of the list; `query` without the question mark."""
        return _good(self.call("GET", f"{BATCHES}?{query}"))

    def ids(self) -> list[str]:
        """The ids of the newest 1,000 batches of this key, newest first."""
        return [batch["id"] for batch in self.page("limit=1000")["data"]]

    def results(self, batch_id: str) -> dict[str, Any]:
        """The results by custom_id; every custom_id must be there once."""
        answer = self.call("GET", f"{BATCHES}/{batch_id}/results")
        assert answer.status == 200, answer
        lines = [json.loads(line) for line in answer.body.splitlines()]
        found = {line["custom_id"]: line["result"] for line in lines}
        assert len(found) == len(lines), "a custom_id came twice"
        return found


def params(text: str = "hello", **more: object) -> dict[str, object]:
    """A body of POST /v1/messages; `more` adds fields or replaces them."""
    return {"model": "claude-test", "max_tokens": 16, "messages": [{"role": "user", "content": text}], **more}


def request(custom_id: str, text: str = "hello", **more: object) -> dict[str, object]:
    """One request of a batch."""
    return {"custom_id": custom_id, "params": params(text, **more)}


def _good(answer: Answer) -> Any:
    assert answer.status == 200, answer
    return answer.json
