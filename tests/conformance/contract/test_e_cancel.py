"""Checks 63 to 72: cancel, at any time and as often as one likes."""

from collections.abc import Mapping
from typing import Any

import pytest

from overnight.testing.observed import ObservedServer
from overnight.testing.wireclient import BATCHES, WireClient, request

_UNKNOWN = "msgbatch_01AAAAAAAAAAAAAAAAAAAAAA"


def _held(custom_id: str = "held") -> dict[str, object]:
    return request(custom_id, model="held-model")


def _canceling(server: ObservedServer, client: WireClient) -> Any:
    """A canceled batch that stays `canceling`: one of its requests is inside an engine that does not answer, and
    may finish for a while."""
    batch_id = client.create([request("quick"), request("stuck", "[[hang]]")])["id"]
    server.wait_counted(client, batch_id, succeeded=1)
    return client.cancel(batch_id)


def test_63_cancel_of_a_batch_in_progress(client: WireClient) -> None:
    """Cancel of an in-progress batch → 200, `processing_status == "canceling"`, `cancel_initiated_at` not null,
    `ended_at` null. [documented]"""
    batch_id = client.create([_held("a"), _held("b")])["id"]
    answer = client.call("POST", f"{BATCHES}/{batch_id}/cancel")
    assert answer.status == 200
    assert answer.json["processing_status"] == "canceling"
    assert answer.json["cancel_initiated_at"] is not None
    assert (answer.json["ended_at"], answer.json["results_url"]) == (None, None)
    assert answer.json["request_counts"]["processing"] == 2


def test_64_a_canceled_batch_ends(server: ObservedServer, client: WireClient) -> None:
    """A canceled batch later shows `ended`. [documented]"""
    canceled = client.cancel(client.create([_held()])["id"])
    batch = server.wait_ended(client, canceled["id"])
    assert batch["ended_at"] is not None
    assert batch["cancel_initiated_at"] == canceled["cancel_initiated_at"]


def test_65_done_requests_keep_their_rows(server: ObservedServer, client: WireClient) -> None:
    """Its results hold `canceled` rows for undone and normal rows for done requests, together N lines.
    [documented]"""
    done = [request(f"done-{number}", f"text {number}") for number in range(5)]
    undone = [_held(f"undone-{number}") for number in range(7)]
    batch_id = client.create([*done, request("bad", max_tokens=0), *undone])["id"]
    server.wait_counted(client, batch_id, succeeded=5, errored=1)
    client.cancel(batch_id)
    server.wait_ended(client, batch_id)
    rows = client.results(batch_id)
    assert len(rows) == 13
    for number in range(5):
        assert rows[f"done-{number}"]["message"]["content"][0]["text"] == f"echo: text {number}"
    assert rows["bad"]["type"] == "errored"
    assert [rows[f"undone-{number}"]["type"] for number in range(7)] == ["canceled"] * 7


def test_66_a_canceled_row_says_nothing_more(server: ObservedServer, client: WireClient) -> None:
    """A canceled row is exactly `{"custom_id":…,"result":{"type":"canceled"}}`. [reported by users]"""
    batch_id = client.create([_held("a")])["id"]
    client.cancel(batch_id)
    server.wait_ended(client, batch_id)
    body = client.call("GET", f"{BATCHES}/{batch_id}/results").body
    assert body == b'{"custom_id":"a","result":{"type":"canceled"}}\n'


def test_67_results_of_a_batch_that_was_canceled_whole(server: ObservedServer, client: WireClient) -> None:
    """A batch in which all are canceled still has `results_url`, and it answers 200. [reported by users]"""
    batch_id = client.create([_held("a"), _held("b"), _held("c")])["id"]
    client.cancel(batch_id)
    batch = server.wait_ended(client, batch_id)
    assert batch["request_counts"]["canceled"] == 3
    assert batch["results_url"] == f"{server.url}{BATCHES}/{batch_id}/results"
    assert client.results(batch_id) == {custom_id: {"type": "canceled"} for custom_id in "abc"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (None, {"content-length": "0"}),
        (None, {"content-length": "0", "content-type": "application/json"}),
        (b"{}", {"content-type": "application/json"}),
        (b"{}", {"content-type": "text/plain"}),
    ],
)
def test_68_cancel_takes_any_small_body(client: WireClient, body: bytes | None, headers: Mapping[str, str]) -> None:
    """Cancel accepts an empty body (`content-length: 0`), with or without content type, and `{}`.
    [seen in SDK source]"""
    batch_id = client.create([_held()])["id"]
    answer = client.call("POST", f"{BATCHES}/{batch_id}/cancel", body, headers=headers)
    assert (answer.status, answer.json["processing_status"]) == (200, "canceling")
    assert client.call("GET", BATCHES).status == 200  # The body was not taken for the next request.


def test_69_a_second_cancel_changes_nothing(server: ObservedServer, client: WireClient) -> None:
    """Second cancel while canceling → 200, same `cancel_initiated_at`. [inferred]"""
    first = _canceling(server, client)
    client.ids()  # At least a millisecond of the clock passes.
    second = client.cancel(first["id"])
    assert second["processing_status"] == "canceling"
    assert second["cancel_initiated_at"] == first["cancel_initiated_at"]


def test_70_cancel_of_an_ended_batch_is_too_late(server: ObservedServer, client: WireClient) -> None:
    """Cancel of an ended batch → 200 with the unchanged ended object (no 409, no 5xx). [inferred]"""
    batch = server.wait_ended(client, client.create([request("a")])["id"])
    answer = client.call("POST", f"{BATCHES}/{batch['id']}/cancel")
    assert (answer.status, answer.json) == (200, batch)
    assert client.retrieve(batch["id"]) == batch


def test_71_cancel_of_an_unknown_batch(client: WireClient) -> None:
    """Cancel of an unknown id → 404 `not_found_error`. [inferred]"""
    answer = client.call("POST", f"{BATCHES}/{_UNKNOWN}/cancel")
    assert answer.error == (404, "not_found_error", f"Message Batch {_UNKNOWN} not found.")


def test_72_no_results_while_canceling(server: ObservedServer, client: WireClient) -> None:
    """Results while `canceling` → 404 "no available results". [inferred]"""
    batch_id = _canceling(server, client)["id"]
    answer = client.call("GET", f"{BATCHES}/{batch_id}/results")
    assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")
    assert answer.headers["x-should-retry"] == "false"
    assert client.retrieve(batch_id)["processing_status"] == "canceling"
