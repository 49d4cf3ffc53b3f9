"""Checks 73 to 77: delete, of ended batches only."""

from overnight.testing.observed import ObservedServer
from overnight.testing.wireclient import BATCHES, WireClient, request


def _ended(server: ObservedServer, client: WireClient) -> str:
    batch_id = client.create([request("a")])["id"]
    server.wait_ended(client, batch_id)
    assert isinstance(batch_id, str)
    return batch_id


def test_73_delete_of_an_ended_batch(server: ObservedServer, client: WireClient) -> None:
    """DELETE of an ended batch → 200 `{"id":<id>,"type":"message_batch_deleted"}` and nothing else.
    [documented]"""
    batch_id = _ended(server, client)
    answer = client.call("DELETE", f"{BATCHES}/{batch_id}")
    assert (answer.status, answer.json) == (200, {"id": batch_id, "type": "message_batch_deleted"})


def test_74_delete_of_a_batch_in_progress(client: WireClient) -> None:
    """DELETE of an in-progress batch → 400 invalid, message tells to cancel first. [reported by users]

    The batch goes on."""
    batch_id = client.create([request("a", model="held-model")])["id"]
    said = "In progress batches cannot be deleted. Consider canceling the batch instead."
    assert client.call("DELETE", f"{BATCHES}/{batch_id}").error == (400, "invalid_request_error", said)
    assert client.retrieve(batch_id)["processing_status"] == "in_progress"


def test_75_a_deleted_batch_is_gone(server: ObservedServer, client: WireClient) -> None:
    """After delete: retrieve and results → 404, the id is gone from the list. [inferred]

    Cancel finds it no more either, and its neighbours stay."""
    kept, batch_id = _ended(server, client), _ended(server, client)
    client.call("DELETE", f"{BATCHES}/{batch_id}")
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel")):
        answer = client.call(method, f"{BATCHES}/{batch_id}{path}")
        assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} not found.")
    assert client.ids() == [kept]
    assert set(client.results(kept)) == {"a"}


def test_76_delete_with_a_content_type_and_no_body(server: ObservedServer, client: WireClient) -> None:
    """DELETE with `content-type: application/json` and no body is accepted. [seen in SDK source]"""
    batch_id = _ended(server, client)
    answer = client.call("DELETE", f"{BATCHES}/{batch_id}", headers={"content-type": "application/json"})
    assert answer.status == 200


def test_77_a_second_delete_finds_nothing(server: ObservedServer, client: WireClient) -> None:
    """Second DELETE → 404. [inferred]"""
    batch_id = _ended(server, client)
    client.call("DELETE", f"{BATCHES}/{batch_id}")
    assert client.call("DELETE", f"{BATCHES}/{batch_id}").error[:2] == (404, "not_found_error")
