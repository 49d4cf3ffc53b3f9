"""Checks 36 to 50: what is wrong inside `params` is one errored row, and never harms its neighbours."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import WireClient, params, request

_REFUSAL = json.dumps(
    {
        "id": "msg_01refused",
        "type": "message",
        "role": "assistant",
        "model": "refuser",
        "content": [],
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "cyber", "explanation": None},
        "usage": {"input_tokens": 5, "output_tokens": 0},
    },
    indent=2,
).encode()  # With line ends between its parts, as some engines write: each result must still be one line.


class _Refuser(BaseHTTPRequestHandler):
    """An engine whose model refuses everything."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(_REFUSAL)))
        self.end_headers()
        self.wfile.write(_REFUSAL)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def refuser_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuser) as engine:
        thread = Thread(target=engine.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{engine.server_address[1]}"
        finally:
            engine.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory, refuser_url: str) -> Iterator[ObservedServer]:
    """A server with the embedded model, a model that refuses, and strict params."""
    folder = tmp_path_factory.mktemp("special")
    config = folder / "overnight.toml"
    config.write_text(
        'strict_params = true\n[[engines]]\nspec = "embedded"\n'
        f'[[engines]]\nspec = "{refuser_url}"\nmodels = ["refuser"]\n'
    )
    with observed_server(folder / "data", "--config", str(config)) as server:
        yield server


def _rows(server: ObservedServer, client: WireClient, *requests: dict[str, object]) -> dict[str, Any]:
    """The results of a batch of these requests."""
    batch_id = client.create(requests)["id"]
    server.wait_ended(client, batch_id)
    return client.results(batch_id)


def _rows_of_special(special: ObservedServer, *requests: dict[str, object]) -> dict[str, Any]:
    with closing(WireClient(special.url)) as client:
        return _rows(special, client, *requests)


def _error(row: Any) -> tuple[str, str]:
    """Type and message of an errored row."""
    assert row["type"] == "errored", row
    inner = row["error"]["error"]
    return inner["type"], inner["message"]


def test_36_params_without_messages(server: ObservedServer, client: WireClient) -> None:
    """`params` without `messages` → create 200; later an errored row `invalid_request_error` with message
    `messages: Field required`. [reported by users]"""
    rows = _rows(server, client, {"custom_id": "a", "params": {"model": "claude-test", "max_tokens": 1}})
    assert _error(rows["a"]) == ("invalid_request_error", "messages: Field required")


def test_37_a_model_that_nobody_has(server: ObservedServer, client: WireClient) -> None:
    """Unknown model → create 200; errored row with `not_found_error`, message `model: <name>`.
    [reported by users]"""
    rows = _rows(server, client, request("a", model="does-not-exist-9"))
    assert _error(rows["a"]) == ("not_found_error", "model: does-not-exist-9")


def test_38_a_stream(server: ObservedServer, client: WireClient) -> None:
    """`stream: true` in params → create 200; errored row `invalid_request_error`. [reported by users]"""
    rows = _rows(server, client, request("yes", stream=True), request("no", stream=False))
    said = '"stream=True" is not supported in the Message Batches API'
    assert _error(rows["yes"]) == ("invalid_request_error", said)
    assert rows["no"]["type"] == "succeeded"


def test_39_no_tokens_at_all(server: ObservedServer, client: WireClient) -> None:
    """`max_tokens: 0` → create 200; errored row `invalid_request_error`. [reported by users]"""
    rows = _rows(server, client, request("a", max_tokens=0))
    assert _error(rows["a"]) == ("invalid_request_error", "max_tokens: must be greater than or equal to 1")


def test_40_more_tokens_than_the_model_gives(special: ObservedServer) -> None:
    """`max_tokens` above the model's cap → errored row naming the cap. [reported by users]"""
    rows = _rows_of_special(special, request("a", model="claude-haiku-4-5", max_tokens=9_999_999))
    kind, said = _error(rows["a"])
    assert kind == "invalid_request_error"
    assert said.startswith("max_tokens: 9999999 > 64000, which is the maximum allowed number of output tokens for ")


def test_41_an_errored_row_is_nested_twice(server: ObservedServer, client: WireClient) -> None:
    """An errored row has the double nesting `result.error.type == "error"` and `result.error.error.type`, and the
    key `result.error.request_id` (string or null). [documented]"""
    rows = _rows(server, client, request("ours", max_tokens=0), request("engines", "[[404]]"))
    for row in rows.values():
        assert set(row) == {"type", "error"}
        assert row["error"]["type"] == "error"
        assert set(row["error"]["error"]) >= {"type", "message"}
    assert rows["ours"]["error"]["request_id"] is None
    assert rows["engines"]["error"]["request_id"] == "req_upstream"
    assert rows["engines"]["error"]["error"]["type"] == "not_found_error"


def test_42_one_errored_request_harms_no_other(server: ObservedServer, client: WireClient) -> None:
    """One errored request does not affect the others. [documented]"""
    good = [request(f"good-{number}", f"text {number}") for number in range(20)]
    bad = [request("bad-0", max_tokens=0), request("bad-1", "[[400]]"), request("bad-2", model="nobody")]
    rows = _rows(server, client, *good[:10], *bad, *good[10:])
    for number in range(20):
        assert rows[f"good-{number}"]["message"]["content"][0]["text"] == f"echo: text {number}"
    assert [rows[f"bad-{number}"]["type"] for number in range(3)] == ["errored"] * 3


def test_43_a_batch_of_errors_only(server: ObservedServer, client: WireClient) -> None:
    """A batch with only errored requests is `ended`, `errored == N`, results downloadable. [reported by users]"""
    batch_id = client.create([request(f"row-{number}", max_tokens=0) for number in range(3)])["id"]
    batch = server.wait_ended(client, batch_id)
    assert batch["request_counts"] == {"processing": 0, "succeeded": 0, "errored": 3, "canceled": 0, "expired": 0}
    assert [row["type"] for row in client.results(batch_id).values()] == ["errored"] * 3


def test_44_fast_mode(server: ObservedServer, client: WireClient) -> None:
    """`speed: "fast"` in params → validation error, as an errored row. Refusal [documented], per row
    [inferred]."""
    rows = _rows(server, client, request("a", speed="fast"))
    assert _error(rows["a"]) == ("invalid_request_error", '"speed" is not supported in the Message Batches API')


def test_45_unknown_keys_in_strict_mode(server: ObservedServer, client: WireClient, special: ObservedServer) -> None:
    """An unknown key in params → errored row containing "Extra inputs are not permitted" when strict mode for
    unknown fields is on. [reported by users]"""
    unknown = request("a", extra_body={"x": 1})
    rows = _rows_of_special(special, unknown)
    assert _error(rows["a"]) == ("invalid_request_error", "extra_body: Extra inputs are not permitted")
    assert _rows(server, client, unknown)["a"]["type"] == "succeeded"  # Without it the engine decides.


def test_46_only_succeeded_rows_have_usage(server: ObservedServer, client: WireClient) -> None:
    """Errored, canceled and expired rows carry no `usage` and no `message`. [reported by users]

    Expired rows: check 58."""
    batch_id = client.create([request("errored", max_tokens=0), request("canceled", model="held-a")])["id"]
    server.wait_counted(client, batch_id, errored=1)
    client.cancel(batch_id)
    server.wait_ended(client, batch_id)
    rows = client.results(batch_id)
    assert {custom_id: set(row) for custom_id, row in rows.items()} == {
        "errored": {"type", "error"},
        "canceled": {"type"},
    }
    assert set(rows["errored"]["error"]) == {"type", "error", "request_id"}


def test_47_service_tier_is_batch(server: ObservedServer, client: WireClient, special: ObservedServer) -> None:
    """`usage.service_tier == "batch"` in succeeded rows. [reported by users]

    Whether the engine said "standard" or nothing."""
    rows = _rows(server, client, request("a"))
    assert rows["a"]["message"]["usage"]["service_tier"] == "batch"
    rows = _rows_of_special(special, request("a", model="refuser"))
    assert rows["a"]["message"]["usage"] == {"input_tokens": 5, "output_tokens": 0, "service_tier": "batch"}


def test_48_a_refusal_is_an_answer(special: ObservedServer) -> None:
    """A refusal is a succeeded row with `stop_reason == "refusal"`. [documented]"""
    row = _rows_of_special(special, request("a", model="refuser"))["a"]
    assert row["type"] == "succeeded"
    assert row["message"]["stop_reason"] == "refusal"
    assert row["message"]["stop_details"]["category"] == "cyber"


def test_49_two_models_in_one_batch(server: ObservedServer, client: WireClient) -> None:
    """Two requests with different `model` values in one batch both succeed. [documented]"""
    rows = _rows(server, client, request("a", model="claude-one"), request("b", model="claude-two"))
    assert {custom_id: (row["type"], row["message"]["model"]) for custom_id, row in rows.items()} == {
        "a": ("succeeded", "claude-one"),
        "b": ("succeeded", "claude-two"),
    }


def test_50_tools(special: ObservedServer) -> None:
    """Tool use inside a batch gives `stop_reason == "tool_use"` and a `tool_use` block. [documented]"""
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Paris"]}}, "required": ["city"]}
    asked = params(
        "What is the weather in Paris?",
        model="claude-haiku-4-5",
        max_tokens=200,
        tools=[{"name": "weather", "description": "The weather in a city.", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "weather"},
    )
    row = _rows_of_special(special, {"custom_id": "a", "params": asked})["a"]
    assert row["type"] == "succeeded", row
    assert row["message"]["stop_reason"] == "tool_use"
    (block,) = (block for block in row["message"]["content"] if block["type"] == "tool_use")
    assert (block["name"], block["input"]) == ("weather", {"city": "Paris"})
    assert block["id"].startswith("toolu_")
