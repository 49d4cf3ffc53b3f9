"""Checks 78 to 86: the list, its pages and its walls."""

import pytest
from given import NewClient

from overnight.testing.observed import ObservedServer
from overnight.testing.wireclient import BATCHES, WireClient, request

_UNKNOWN = "msgbatch_01AAAAAAAAAAAAAAAAAAAAAA"


def _create(client: WireClient, number: int) -> list[str]:
    """The ids of so many new batches, newest first, as the list has them."""
    return [client.create([request("a")])["id"] for _ in range(number)][::-1]


def _ids(page: dict[str, list[dict[str, str]]]) -> list[str]:
    return [batch["id"] for batch in page["data"]]


def test_78_a_page_newest_first(client: WireClient) -> None:
    """List → 200 `{data, has_more, first_id, last_id}`, newest first. [documented]"""
    ids = _create(client, 5)
    page = client.page()
    assert set(page) == {"data", "has_more", "first_id", "last_id"}
    assert (_ids(page), page["has_more"]) == (ids, False)
    assert all(batch["type"] == "message_batch" for batch in page["data"])


def test_79_twenty_on_a_page(client: WireClient) -> None:
    """Default page size is 20. [documented]"""
    ids = _create(client, 21)
    page = client.page()
    assert (_ids(page), page["has_more"]) == (ids[:20], True)


def test_80_limits(client: WireClient) -> None:
    """`limit=1` and `limit=1000` work; `limit=0` and `limit=1001` → 400 invalid. Range [documented], status
    [inferred]."""
    ids = _create(client, 3)
    assert _ids(client.page("limit=1")) == ids[:1]
    assert _ids(client.page("limit=1000")) == ids
    for wrong in ("0", "1001", "-1", "ten", "", "1e3", "99999999999999999999", "%D9%A1"):
        assert client.call("GET", f"{BATCHES}?limit={wrong}").error[:2] == (400, "invalid_request_error"), wrong


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_81_a_walk_visits_every_batch_once(client: WireClient, limit: int) -> None:
    """Walking with `after_id = last_id` until `has_more == false` visits every batch exactly once. [documented]"""
    ids = _create(client, 7)
    page = client.page(f"limit={limit}")
    seen = _ids(page)
    while page["has_more"]:
        page = client.page(f"limit={limit}&after_id={page['last_id']}")
        assert page["data"], "has_more promised more"
        seen += _ids(page)
    assert seen == ids


def test_82_after_the_oldest_comes_nothing(client: WireClient) -> None:
    """`after_id` of the oldest batch → 200, `data: []`, `has_more: false`, `first_id` and `last_id` null (old SDKs
    stop only on this). [seen in SDK source]"""
    nothing = {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert client.page() == nothing
    *_, oldest = _create(client, 3)
    assert client.page(f"after_id={oldest}") == nothing


def test_83_before_id_gives_the_newer_neighbours(client: WireClient) -> None:
    """`before_id` returns the newer neighbours, still newest first, and `has_more` speaks of newer ones. Direction of
    `has_more` [documented], order inside the page [inferred]."""
    ids = _create(client, 6)
    page = client.page(f"limit=2&before_id={ids[4]}")
    assert (_ids(page), page["has_more"]) == (ids[2:4], True)
    page = client.page(f"limit=2&before_id={page['first_id']}")
    assert (_ids(page), page["has_more"]) == (ids[:2], False)
    page = client.page(f"before_id={ids[0]}")
    assert (page["data"], page["has_more"], page["first_id"]) == ([], False, None)


def test_84_first_id_and_last_id_are_those_of_the_page(client: WireClient) -> None:
    """`first_id` / `last_id` equal the ids of the first / last element. [documented]"""
    ids = _create(client, 4)
    for query, expected in (("", ids), ("limit=2", ids[:2]), (f"limit=2&after_id={ids[0]}", ids[1:3])):
        page = client.page(query)
        assert (page["first_id"], page["last_id"]) == (expected[0], expected[-1])


def test_85_another_workspace_sees_nothing(server: ObservedServer, new_client: NewClient) -> None:
    """Batches of another workspace are absent from the list, and retrieve, results, cancel, delete on their ids →
    404. Isolation [documented], status [inferred].

    The answers are those for an id that does not exist, so that nothing can be learned from them."""
    owner, stranger = new_client(), new_client()
    ended, running = owner.create([request("a")])["id"], owner.create([request("a", model="held-model")])["id"]
    server.wait_ended(owner, ended)
    before = owner.page()
    assert stranger.page()["data"] == []
    calls = (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", ""))
    for batch_id in (ended, running):
        for method, path in calls:
            answer = stranger.call(method, f"{BATCHES}/{batch_id}{path}")
            assert answer.error == (404, "not_found_error", f"Message Batch {batch_id} not found.")
        assert stranger.call("GET", f"{BATCHES}?after_id={batch_id}").status == 400  # As for an unknown cursor.
    assert stranger.call("GET", f"{BATCHES}?after_id={_UNKNOWN}").status == 400
    assert owner.page() == before
    assert (
        owner.call("GET", BATCHES).headers["anthropic-workspace-id"]
        != stranger.call("GET", BATCHES).headers["anthropic-workspace-id"]
    )


def test_86_new_batches_do_not_shift_older_pages(client: WireClient) -> None:
    """Batches created during a walk do not shift or repeat older pages (cursor, not offset). [inferred]"""
    ids = _create(client, 6)
    page = client.page("limit=2")
    seen = _ids(page)
    while page["has_more"]:
        _create(client, 3)
        page = client.page(f"limit=2&after_id={page['last_id']}")
        seen += _ids(page)
    assert seen == ids


@pytest.mark.parametrize("query", [f"after_id={_UNKNOWN}", "before_id=nonsense", "after_id=a&before_id=b"])
def test_cursors_that_cannot_work_are_refused(client: WireClient, query: str) -> None:
    """Both cursors at once, or one that names no batch → 400 invalid. [inferred]"""
    assert client.call("GET", f"{BATCHES}?{query}").error[:2] == (400, "invalid_request_error")
