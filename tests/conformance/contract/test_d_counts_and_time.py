"""Checks 51 to 62: counters, instants, expiry.

The documented counters stay zero until the end; ours are live by default, and `request_counts = "at_end"` brings
the documented behaviour. Both are tested.
"""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from overnight.testing.observed import ObservedServer, observed_server
from overnight.testing.wireclient import BATCHES, WireClient, request

_DAY_S = 24 * 3600
_INSTANTS = ("created_at", "expires_at", "ended_at", "cancel_initiated_at", "archived_at")


def _held(custom_id: str = "held") -> dict[str, object]:
    return request(custom_id, model="held-model")


def _zeros(processing: int) -> dict[str, int]:
    return {"processing": processing, **dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)}


def test_51_the_counters_always_sum_to_the_number_of_requests(server: ObservedServer, client: WireClient) -> None:
    """The sum of the five counters equals the number of requests in every response. [documented]"""
    requests = [*(request(f"row-{number}", f"t {number}") for number in range(2500)), request("bad", max_tokens=0)]
    batch = client.create(requests)
    seen = [batch]
    while batch["processing_status"] != "ended":
        (batch,) = client.page("limit=1")["data"]
        seen += [batch, client.retrieve(batch["id"])]
    seen.append(client.cancel(batch["id"]))
    assert [sum(one["request_counts"].values()) for one in seen] == [2501] * len(seen)
    assert seen[-1]["request_counts"] == {
        "processing": 0,
        "succeeded": 2500,
        "errored": 1,
        "canceled": 0,
        "expired": 0,
    }


@pytest.fixture
def at_end(tmp_path: Path, config: Path) -> Iterator[ObservedServer]:
    flags = ("--config", str(config), "--request-counts", "at_end")
    with observed_server(tmp_path / "data", *flags) as server:
        yield server


def test_52_counters_stay_zero_until_the_end_if_so_set(at_end: ObservedServer) -> None:
    """While not ended, `succeeded == errored == canceled == expired == 0` in the default mode. [documented]

    We differ: our default is live counts (the next test). With `request_counts = "at_end"` it is as documented."""
    with closing(WireClient(at_end.url, api_key="key-0")) as client:
        batch = client.create([request("done"), request("bad", max_tokens=0), _held()])
        at_end.wait_mark("checkpoint.durable", beyond=0)  # Something has a result.
        assert client.retrieve(batch["id"])["request_counts"] == _zeros(3)
        assert client.page()["data"][0]["request_counts"] == _zeros(3)
        assert client.cancel(batch["id"])["request_counts"] == _zeros(3)
        ended = at_end.wait_ended(client, batch["id"])
        assert ended["request_counts"] == {**_zeros(0), "succeeded": 1, "errored": 1, "canceled": 1}


def test_counters_are_live_by_default(server: ObservedServer, client: WireClient) -> None:
    """Where we differ from check 52 on purpose: people watch their batches, and the hosted API's users ask for it."""
    batch_id = client.create([request("done"), request("bad", max_tokens=0), _held()])["id"]
    live = {**_zeros(1), "succeeded": 1, "errored": 1}
    batch = server.wait_counted(client, batch_id, **live)
    assert batch["processing_status"] == "in_progress"
    assert client.page()["data"][0]["request_counts"] == live


def test_53_final_counters_are_the_tally_of_the_results(server: ObservedServer, client: WireClient) -> None:
    """After end, the counters equal the tally of `result.type` over the results. [documented]"""
    requests = [request("a"), request("b"), request("bad", max_tokens=0), _held("c"), _held("d"), _held("e")]
    batch_id = client.create(requests)["id"]
    server.wait_counted(client, batch_id, succeeded=2, errored=1)
    client.cancel(batch_id)
    counts = server.wait_ended(client, batch_id)["request_counts"]
    kinds = [row["type"] for row in client.results(batch_id).values()]
    tally = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
    assert counts == {"processing": 0, **tally}
    assert tally == {"succeeded": 2, "errored": 1, "canceled": 3, "expired": 0}


def test_54_a_batch_expires_after_exactly_24_hours(client: WireClient) -> None:
    """`expires_at − created_at` is exactly 24 hours. [reported by users]"""
    batch = client.create([request("a")])
    assert _instant(batch["expires_at"]) - _instant(batch["created_at"]) == timedelta(hours=24)


def test_55_instants_are_rfc_3339_with_an_offset(server: ObservedServer, client: WireClient) -> None:
    """All timestamps are RFC 3339 with an explicit offset or `Z`. [documented]"""
    batch_id = client.create([_held()])["id"]
    client.cancel(batch_id)
    batch = server.wait_ended(client, batch_id)
    for name in _INSTANTS[:4]:
        assert "T" in batch[name], name
        assert _instant(batch[name]).utcoffset() == timedelta(0), name


def test_56_ended_at_follows_created_at_and_never_changes(server: ObservedServer, client: WireClient) -> None:
    """`ended_at ≥ created_at`, and it never changes afterwards. [documented]"""
    batch = server.wait_ended(client, client.create([request("a")])["id"])
    assert _instant(batch["ended_at"]) >= _instant(batch["created_at"])
    client.cancel(batch["id"])
    client.results(batch["id"])
    assert client.retrieve(batch["id"]) == batch


def test_57_what_is_null_before_the_end_and_without_cancel(server: ObservedServer, client: WireClient) -> None:
    """Before end `results_url`, `ended_at` are null; without cancel `cancel_initiated_at` is null even after end.
    [documented]"""
    running = client.retrieve(client.create([_held()])["id"])
    assert (running["results_url"], running["ended_at"], running["cancel_initiated_at"]) == (None, None, None)
    ended = server.wait_ended(client, client.create([request("a")])["id"])
    assert ended["cancel_initiated_at"] is None


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory, config: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A batch with two answered and two held requests before and after its 24 hours, and its results: the server
    is stopped, and started again a day later. (That a crash changes nothing is check 100.)"""
    data = tmp_path_factory.mktemp("expired") / "data"
    flags = ("--config", str(config))
    with observed_server(data, *flags) as server, closing(WireClient(server.url, api_key="key-0")) as client:
        batch_id = client.create([request("a"), request("bad", max_tokens=0), _held("c"), _held("d")])["id"]
        before = server.wait_counted(client, batch_id, succeeded=1, errored=1)
        assert server.stop() == 0
    with (
        observed_server(data, *flags, ahead_s=_DAY_S) as server,
        closing(WireClient(server.url, api_key="key-0")) as client,
    ):
        after = server.wait_ended(client, batch_id)
        return before, after, client.results(batch_id)


def test_58_unfinished_requests_expire_after_24_hours(expired: tuple[Any, Any, dict[str, Any]]) -> None:
    """Requests unfinished at `expires_at` become `{"type":"expired"}` rows and the batch ends. [documented]"""
    before, after, results = expired
    assert before["processing_status"] == "in_progress"
    assert _instant(after["ended_at"]) >= _instant(after["expires_at"])
    assert (results["c"], results["d"]) == ({"type": "expired"}, {"type": "expired"})
    assert after["request_counts"] == {**_zeros(0), "succeeded": 1, "errored": 1, "expired": 2}


def test_59_what_was_finished_before_stays(expired: tuple[Any, Any, dict[str, Any]]) -> None:
    """Rows finished before expiry stay `succeeded`. [documented]"""
    _, _, results = expired
    assert results["a"]["type"] == "succeeded"
    assert results["a"]["message"]["content"][0]["text"] == "echo: hello"
    assert results["bad"]["type"] == "errored"


def test_60_status_never_moves_backwards(client: WireClient) -> None:
    """Status never moves backwards over a series of polls. [inferred]"""
    order = ["in_progress", "canceling", "ended"]
    batch_id = client.create([request(f"row-{number}", f"t {number}") for number in range(3000)])["id"]
    seen = ["in_progress"]
    while seen[-1] != "ended":
        seen.append(client.retrieve(batch_id)["processing_status"])
        if len(seen) == 3:
            seen.append(client.cancel(batch_id)["processing_status"])
    seen += [client.retrieve(batch_id)["processing_status"] for _ in range(3)]
    assert seen == sorted(seen, key=order.index)
    assert "canceling" in seen


def test_61_an_unfinished_batch_says_when_to_look_again(server: ObservedServer, client: WireClient) -> None:
    """Retrieve of an unfinished batch carries `Retry-After` (integer seconds). [reported by users]

    Create, list, cancel and the retrieve of an ended batch do not."""
    created = client.call("POST", BATCHES, {"requests": [_held()]})
    path = f"{BATCHES}/{created.json['id']}"
    assert client.call("GET", path).headers["retry-after"] == "10"
    others = [created, client.call("GET", BATCHES), client.call("POST", f"{path}/cancel")]
    server.wait_ended(client, created.json["id"])
    assert not any("retry-after" in answer.headers for answer in [*others, client.call("GET", path)])


def test_62_what_was_created_is_found_at_once(client: WireClient) -> None:
    """A retrieve right after create never gives 404 (read-your-writes). [inferred]"""
    for number in range(50):
        batch_id = client.create([request("a", f"text {number}")])["id"]
        assert client.call("GET", f"{BATCHES}/{batch_id}").status == 200
        assert client.ids()[0] == batch_id


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    assert found.tzinfo is not None, f"{text} has no offset"
    return found
