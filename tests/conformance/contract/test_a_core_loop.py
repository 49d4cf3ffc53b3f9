"""Checks 1 to 20: create, wait, fetch. (Check 12, the TypeScript SDK, is in tests/sdk.)"""

import json
from urllib.parse import urlsplit

import pytest
from anthropic import Anthropic

from overnight.testing.observed import ObservedServer
from overnight.testing.wireclient import BATCHES, WireClient, request

_KEYS = [
    *("id", "type", "processing_status", "request_counts", "ended_at", "created_at", "expires_at"),
    *("archived_at", "cancel_initiated_at", "results_url"),
]
_UNKNOWN = "msgbatch_01AAAAAAAAAAAAAAAAAAAAAA"


def _held(custom_id: str = "held") -> dict[str, object]:
    return request(custom_id, model="held-model")


def test_01_create_answers_with_a_batch_in_progress(client: WireClient) -> None:
    """POST create with one valid request → 200, `content-type: application/json`, `type == "message_batch"`,
    `processing_status == "in_progress"`. [documented]"""
    answer = client.call("POST", BATCHES, {"requests": [request("a")]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.json["type"], answer.json["processing_status"]) == ("message_batch", "in_progress")


def test_02_the_create_answer_has_all_ten_keys(client: WireClient) -> None:
    """The create answer has all ten keys `id, type, processing_status, request_counts, ended_at, created_at,
    expires_at, archived_at, cancel_initiated_at, results_url` (nullable ones present as null).
    [reported by users]"""
    batch = client.create([_held()])
    assert list(batch) == _KEYS
    assert {key for key, value in batch.items() if value is None} == {
        *("ended_at", "archived_at", "cancel_initiated_at", "results_url")
    }


def test_03_after_create_every_request_is_processing(client: WireClient) -> None:
    """After create `request_counts == {processing:N, succeeded:0, errored:0, canceled:0, expired:0}`.
    [documented]"""
    batch = client.create([_held("a"), _held("b"), _held("c")])
    counts = {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert batch["request_counts"] == counts


def test_04_retrieve_finds_the_created_batch(client: WireClient) -> None:
    """GET of the returned id → 200 with the same `id`, `created_at`, `expires_at`. [documented]"""
    created = client.create([request("a")])
    found = client.retrieve(created["id"])
    for key in ("id", "created_at", "expires_at"):
        assert found[key] == created[key]


def test_05_a_batch_ends_by_itself(server: ObservedServer, client: WireClient) -> None:
    """The batch reaches `processing_status == "ended"` without further calls. [documented]"""
    sealed = server.seen("seal.committed")
    batch_id = client.create([request("a")])["id"]
    server.wait_mark("seal.committed", beyond=sealed)  # No call is made meanwhile.
    assert server.wait_ended(client, batch_id)["processing_status"] == "ended"


def test_06_an_ended_batch_says_when_and_where(server: ObservedServer, client: WireClient) -> None:
    """When `ended`: `ended_at` not null, `results_url` not null, `request_counts.processing == 0`.
    [documented]"""
    batch = server.wait_ended(client, client.create([request("a")])["id"])
    assert batch["ended_at"] is not None
    assert batch["results_url"] is not None
    assert batch["request_counts"]["processing"] == 0


def test_07_results_are_one_object_per_line_and_one_line_per_request(
    server: ObservedServer, client: WireClient
) -> None:
    """GET results of an ended batch → 200, one JSON object per line, number of lines == number of requests.
    [documented]"""
    batch_id = client.create([request(f"row-{number}") for number in range(30)])["id"]
    server.wait_ended(client, batch_id)
    answer = client.call("GET", f"{BATCHES}/{batch_id}/results")
    assert answer.status == 200
    lines = answer.body.decode().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 30
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_08_every_custom_id_comes_back_once(server: ObservedServer, client: WireClient) -> None:
    """The set of `custom_id`s in the results equals the submitted set, each exactly once. [documented]"""
    submitted = [f"row-{number}" for number in range(1500)]  # More than one segment.
    batch_id = client.create([request(custom_id, f"text of {custom_id}") for custom_id in submitted])["id"]
    server.wait_ended(client, batch_id)
    body = client.call("GET", f"{BATCHES}/{batch_id}/results").body
    assert sorted(json.loads(line)["custom_id"] for line in body.splitlines()) == sorted(submitted)


def test_09_a_succeeded_line_holds_a_message(server: ObservedServer, client: WireClient) -> None:
    """A succeeded line is `{"custom_id","result":{"type":"succeeded","message":{…}}}` with `message.type ==
    "message"`, `role == "assistant"`, `content`, `stop_reason`, `usage.input_tokens`, `usage.output_tokens`.
    [documented]"""
    batch_id = client.create([request("a", "good morning")])["id"]
    server.wait_ended(client, batch_id)
    line = client.call("GET", f"{BATCHES}/{batch_id}/results").json
    assert set(line) == {"custom_id", "result"}
    assert set(line["result"]) == {"type", "message"}
    assert line["result"]["type"] == "succeeded"
    message = line["result"]["message"]
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert message["content"] == [{"type": "text", "text": "echo: good morning"}]
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["input_tokens"] > 0
    assert message["usage"]["output_tokens"] > 0


def test_10_results_url_is_absolute_and_works(server: ObservedServer, client: WireClient) -> None:
    """`results_url` is absolute, and a GET on it with the same key works from the client's side, also behind a
    reverse proxy and with a path prefix. [seen in SDK source]

    Proxies and prefixes: tests/conformance/test_results_url.py."""
    batch = server.wait_ended(client, client.create([request("a")])["id"])
    assert batch["results_url"] == f"{server.url}{BATCHES}/{batch['id']}/results"
    answer = client.call("GET", urlsplit(batch["results_url"]).path)
    assert (answer.status, answer.json["custom_id"]) == (200, "a")


def test_11_the_installed_python_sdk_completes_a_batch(server: ObservedServer, client: WireClient) -> None:
    """The installed Python SDK, with only `base_url` and `api_key` changed, completes create → retrieve →
    results. [seen in SDK source]"""
    with Anthropic(base_url=server.url, api_key=client.api_key) as sdk:
        created = sdk.messages.batches.create(
            requests=[
                {
                    "custom_id": f"row-{number}",
                    "params": {
                        "model": "claude-haiku-4-5",
                        "max_tokens": 16,
                        "messages": [{"role": "user", "content": f"number {number}"}],
                    },
                }
                for number in range(3)
            ]
        )
        server.wait_ended(client, created.id)
        assert sdk.messages.batches.retrieve(created.id).processing_status == "ended"
        texts = {}
        for line in sdk.messages.batches.results(created.id):
            assert line.result.type == "succeeded"
            assert line.result.message.content[0].type == "text"
            texts[line.custom_id] = line.result.message.content[0].text
    assert texts == {f"row-{number}": f"echo: number {number}" for number in range(3)}


def _six_endpoints(server: ObservedServer, client: WireClient, headers: dict[str, str]) -> list[int]:
    """The statuses of all six endpoints, called with these credentials instead of the client's own."""
    ended = client.create([request("a")])["id"]
    server.wait_ended(client, ended)
    calls = [
        ("POST", BATCHES, {"requests": [request("a")]}),
        ("GET", f"{BATCHES}/{ended}", None),
        ("GET", BATCHES, None),
        ("POST", f"{BATCHES}/{ended}/cancel", None),
        ("GET", f"{BATCHES}/{ended}/results", None),
        ("DELETE", f"{BATCHES}/{ended}", None),
    ]
    return [client.call(*call, headers=headers, without=("x-api-key",)).status for call in calls]


def test_13_a_bearer_key_is_accepted_everywhere(server: ObservedServer, client: WireClient) -> None:
    """A key in `Authorization: Bearer <key>` is accepted on all six endpoints. [seen in SDK source]"""
    headers = {"authorization": f"Bearer {client.api_key}"}
    assert _six_endpoints(server, client, headers) == [200] * 6


def test_14_the_same_key_in_x_api_key_is_accepted_everywhere(server: ObservedServer, client: WireClient) -> None:
    """The same key in `x-api-key` is accepted on all six endpoints. [documented]"""
    assert _six_endpoints(server, client, {"x-api-key": client.api_key}) == [200] * 6


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": "Basic key-1"}]
)
def test_15_no_key_or_a_wrong_one_is_not_authenticated(
    server: ObservedServer, client: WireClient, headers: dict[str, str]
) -> None:
    """No key, or a wrong key → 401, `error.type == "authentication_error"`. [documented]"""
    assert _six_endpoints(server, client, headers) == [401] * 6
    answer = client.call("GET", BATCHES, headers=headers, without=("x-api-key",))
    assert answer.error[:2] == (401, "authentication_error")


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_16_both_living_versions_are_accepted(client: WireClient, version: str) -> None:
    """`anthropic-version: 2023-06-01` and `2026-10-21` both are accepted. [seen in SDK source]"""
    headers = {"anthropic-version": version}
    created = client.create([request("a")], headers=headers)
    answer = client.call("GET", f"{BATCHES}/{created['id']}", headers=headers)
    assert (answer.status, answer.json["id"]) == (200, created["id"])


def test_17_results_before_the_end_are_not_found(client: WireClient) -> None:
    """Results before end (`in_progress`) → 404 `not_found_error`, message contains "has no available results".
    [reported by users]"""
    batch_id = client.create([_held()])["id"]
    answer = client.call("GET", f"{BATCHES}/{batch_id}/results")
    assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")


def test_18_that_answer_asks_not_to_be_retried(client: WireClient) -> None:
    """That 404 carries `x-should-retry: false`. [reported by users]"""
    batch_id = client.create([_held()])["id"]
    assert client.call("GET", f"{BATCHES}/{batch_id}/results").headers["x-should-retry"] == "false"


@pytest.mark.parametrize("batch_id", [_UNKNOWN, "msgbatch_x", "%2e%2e", "a%2Fb", "%00", "msgbatch_" + "x" * 500])
def test_19_retrieve_of_an_unknown_id_is_not_found(client: WireClient, batch_id: str) -> None:
    """Unknown id on retrieve → 404 `not_found_error`. [reported by users]"""
    assert client.call("GET", f"{BATCHES}/{batch_id}").error[:2] == (404, "not_found_error")
    assert client.call("GET", f"{BATCHES}/{_UNKNOWN}").error[2] == f"Message Batch {_UNKNOWN} not found."


def test_20_results_of_an_unknown_id_are_not_found(client: WireClient) -> None:
    """Unknown id on results → 404 `not_found_error`. [reported by users]"""
    assert client.call("GET", f"{BATCHES}/{_UNKNOWN}/results").error[:2] == (404, "not_found_error")
