"""What failed of a batch becomes a new batch: those requests and no others, once, within the limits, and durably."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ended import ended, errored, succeeded
from visitor import Visitor

from overnight import limits
from overnight.core.usage import NANO, Sums, Used
from overnight.core.workspace import Rules, Workspace
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.store.store import open_directory
from overnight.store.usage import Entry
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, request
from overnight.wire import result
from overnight.wire.create import Request

_OURS, _NARROW, _SHORT = WorkspaceId("wrkspc_ours"), WorkspaceId("wrkspc_narrow"), WorkspaceId("wrkspc_short")
_POOR, _BRIEF = WorkspaceId("wrkspc_poor"), WorkspaceId("wrkspc_brief")
_KINDS = ("succeeded", "errored", "expired", "canceled")
_REQUESTS = 3_000  # Three segments of small requests.


def _kind_of(custom_id: str) -> str:
    return _KINDS[int(custom_id[1:]) % 4]


def _by_number(item: Request) -> bytes:
    match _kind_of(item.custom_id):
        case "succeeded":
            return succeeded(item)
        case "errored":
            return errored(item)
        case "expired":
            return result.expired(item.custom_id)
        case _:
            return result.canceled(item.custom_id)


def _requests(count: int) -> list[object]:
    return [request(f"r{number}", f"question {number}", metadata={"n": number}) for number in range(count)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObservedServer, dict[str, BatchId]]]:
    folder = tmp_path_factory.mktemp("retry")
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(name.encode()).hexdigest()}"\nworkspace = "wrkspc_{name}"\n'
        for name in ("ours", "narrow", "short", "poor", "brief")
    )
    made: dict[str, BatchId] = {}

    async def make() -> None:
        async with open_directory(folder / "data", World()) as store:
            for workspace, rules in (
                (_NARROW, Rules(queue_requests_max=20)),
                (_SHORT, Rules(batch_requests_max=24)),
                (_POOR, Rules(usd_per_day=1.0)),
                (_BRIEF, Rules(requests_days=0)),
            ):
                await store.access.add_workspace(Workspace(id=workspace, name=workspace, rules=rules))
                made[workspace] = await ended(store, _requests(100), _by_number, workspace=workspace)
            used = Used(model="m", engine="e", service_tier="batch", sums=Sums(requests=1, usd_nano=2 * NANO))
            entry = Entry(workspace=_POOR, api_key="", used=used)
            await store.usage.note([entry], now_ms=World().clock.now_ms())
            made["many"] = await ended(store, _requests(_REQUESTS), _by_number, workspace=_OURS, betas="some-beta")
            made["few"] = await ended(store, _requests(8), _by_number, workspace=_OURS)
            made["good"] = await ended(store, _requests(2), succeeded, workspace=_OURS)

    asyncio.run(make())
    with upstream_process() as engine:
        config = folder / "overnight.toml"
        config.write_text(f'[[engines]]\nspec = "{engine}"\n{keys}')
        with observed_server(folder / "data", "--config", str(config)) as server:
            yield server, made


@pytest.fixture
def server(world: tuple[ObservedServer, dict[str, BatchId]]) -> ObservedServer:
    return world[0]


@pytest.fixture
def made(world: tuple[ObservedServer, dict[str, BatchId]]) -> dict[str, BatchId]:
    return world[1]


@pytest.fixture
def client(server: ObservedServer) -> Iterator[WireClient]:
    with closing(WireClient(server.url, api_key="ours")) as found:
        yield found


def _retry(client: WireClient, batch_id: str, body: object = None, key: str | None = None) -> Answer:
    headers = {} if key is None else {"idempotency-key": key}
    return client.call("POST", f"/v1/overnight/batches/{batch_id}/retry", body, headers=headers)


def _asked(client: WireClient, batch_id: str) -> dict[str, Any]:
    """The params of a batch, by custom_id."""
    answer = client.call("GET", f"/v1/overnight/batches/{batch_id}/export?with=request")
    assert answer.status == 200, answer
    return {line["custom_id"]: line["params"] for line in map(json.loads, answer.body.splitlines())}


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        pytest.param(None, {"errored", "expired"}, id="no body"),
        pytest.param({}, {"errored", "expired"}, id="default"),
        pytest.param({"types": ["canceled"]}, {"canceled"}, id="one"),
        pytest.param({"types": ["errored", "expired", "canceled"]}, {"errored", "expired", "canceled"}, id="all"),
    ],
)
def test_what_failed_is_asked_again_as_it_was_and_nothing_else(
    server: ObservedServer, client: WireClient, made: dict[str, BatchId], body: Any, kinds: set[str]
) -> None:
    before = _asked(client, made["many"])
    answer = _retry(client, made["many"], body)
    assert answer.status == 200, answer
    assert answer.json["id"] != made["many"]
    server.wait_ended(client, answer.json["id"])
    after = _asked(client, answer.json["id"])
    assert after == {name: params for name, params in before.items() if _kind_of(name) in kinds}
    assert {found["type"] for found in client.results(answer.json["id"]).values()} == {"succeeded"}


def test_the_old_batch_stays_as_it_is(client: WireClient, made: dict[str, BatchId]) -> None:
    before = client.retrieve(made["many"]), client.results(made["many"])
    assert _retry(client, made["many"]).status == 200
    assert (client.retrieve(made["many"]), client.results(made["many"])) == before


def test_an_idempotency_key_makes_one_batch_for_the_same_wish(client: WireClient, made: dict[str, BatchId]) -> None:
    first = _retry(client, made["few"], {"types": ["errored", "canceled"]}, key="k1").json["id"]
    again = _retry(client, made["few"], {"types": ["canceled", "errored", "errored"]}, key="k1")
    assert again.json["id"] == first
    other = _retry(client, made["few"], {"types": ["errored"]}, key="k1")
    assert other.error[:2] == (409, "conflict_error")
    assert _retry(client, made["many"], {"types": ["errored", "canceled"]}, key="k1").status == 409
    assert _retry(client, made["few"], {"types": ["errored", "canceled"]}, key="k2").json["id"] != first


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({"types": []}, "types", id="of no type"),
        pytest.param({"types": ["succeeded"]}, "types", id="what succeeded"),
        pytest.param({"types": "errored"}, "types: Input should be a valid list", id="no list"),
        pytest.param({"kinds": ["errored"]}, "kinds", id="unknown key"),
        pytest.param(b"{", "JSON", id="no JSON"),
        pytest.param(b"\xff", "JSON", id="no UTF-8"),
    ],
)
def test_a_wish_that_makes_no_sense_is_a_400(
    client: WireClient, made: dict[str, BatchId], body: Any, said: str
) -> None:
    before = client.ids()
    answer = _retry(client, made["few"], body)
    assert answer.error[:2] == (400, "invalid_request_error")
    assert said in answer.error[2]
    assert client.ids() == before


def test_a_body_that_is_too_long_is_refused(client: WireClient, made: dict[str, BatchId]) -> None:
    assert _retry(client, made["few"], b" " * 5_000).status == 413


def test_a_batch_of_which_nothing_failed_is_refused(client: WireClient, made: dict[str, BatchId]) -> None:
    answer = _retry(client, made["good"])
    assert answer.error == (
        400,
        "invalid_request_error",
        f"types: no request of {made['good']} is errored or expired",
    )


def test_a_batch_that_runs_is_refused(server: ObservedServer, client: WireClient) -> None:
    batch_id = client.create([request("waits", "[[hang]]")])["id"]
    answer = _retry(client, batch_id)
    assert answer.error[:2] == (400, "invalid_request_error")
    assert "has not ended" in answer.error[2]
    client.cancel(batch_id)


@pytest.mark.parametrize("batch_id", ["msgbatch_01nobody000000", "x", "..%2f..%2fetc"])
def test_a_batch_that_is_not_there_is_a_404(client: WireClient, batch_id: str) -> None:
    assert _retry(client, batch_id).status == 404


def test_a_queue_that_would_be_too_long_takes_nothing(server: ObservedServer, made: dict[str, BatchId]) -> None:
    with closing(WireClient(server.url, api_key="narrow")) as client:
        before = client.ids()
        answer = _retry(client, made[_NARROW], {"types": ["errored"]})  # 25 requests.
        assert answer.error[:2] == (429, "rate_limit_error")
        assert answer.headers["retry-after"] == str(limits.QUEUE_RETRY_S)
        assert client.ids() == before


def test_a_batch_that_would_be_too_large_is_refused(server: ObservedServer, made: dict[str, BatchId]) -> None:
    with closing(WireClient(server.url, api_key="short")) as client:
        answer = _retry(client, made[_SHORT], {"types": ["errored"]})
        assert answer.error[:2] == (400, "invalid_request_error")
        assert answer.error[2].endswith("at most 24 items after validation, not 25")
        assert len(client.ids()) == 1


def test_a_budget_that_is_spent_begins_nothing(server: ObservedServer, made: dict[str, BatchId]) -> None:
    with closing(WireClient(server.url, api_key="poor")) as client:
        answer = _retry(client, made[_POOR])
        created = client.call("POST", BATCHES, {"requests": [request("a")]})
        assert answer.status >= 400
        assert answer.error == created.error
        assert client.ids() == [made[_POOR]]


def test_requests_that_are_no_longer_kept_are_not_asked_but_their_answers_are_shown(
    server: ObservedServer, made: dict[str, BatchId]
) -> None:
    batch_id = made[_BRIEF]
    with closing(WireClient(server.url, api_key="brief")) as client:
        export = f"/v1/overnight/batches/{batch_id}/export?format=csv"
        while client.call("GET", f"{export}&with=request").status == 200:
            pass  # Upkeep is at it.
        for answer in (_retry(client, batch_id), client.call("GET", f"{export}&with=request")):
            assert answer.error == (
                404,
                "not_found_error",
                f"The requests of Message Batch {batch_id} are no longer kept.",
            )
        assert client.call("GET", export).body.count(b"\r\n") == 101
        visitor = Visitor(client)
        visitor.log_in("brief")
        page = visitor.get(f"/console/batches/{batch_id}/results")
        assert len(page.texts("th", scope="row")) == limits.ROWS_PAGE
        row = visitor.get(f"/console/batches/{batch_id}/results/r0")
        assert "The request is no longer kept." in row.texts("p")
        assert row.texts("pre", class_="text") == ["fine"]


def test_a_batch_that_was_acknowledged_survives_the_death_of_the_server(tmp_path: Path) -> None:
    async def make() -> BatchId:
        async with open_directory(tmp_path / "data", World()) as store:
            return await ended(store, _requests(_REQUESTS), _by_number)

    batch_id = asyncio.run(make())
    with observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server:
        with closing(WireClient(server.url)) as client:
            made = _retry(client, batch_id).json["id"]
        server.kill()
    with (
        observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server,
        closing(WireClient(server.url)) as client,
    ):
        assert client.retrieve(made)["request_counts"]["processing"] == _REQUESTS // 2


def test_new_segments_are_full_and_sorted_as_those_of_a_create(tmp_path: Path) -> None:
    """Of five segments a quarter each: two, of which the first is as full as may be."""

    async def make() -> BatchId:
        async with open_directory(tmp_path / "data", World()) as store:
            return await ended(store, _requests(5_000), _by_number)

    async def look(batch_id: BatchId) -> list[int]:
        async with open_directory(tmp_path / "data", World()) as store:
            stored = await store.control.stored(batch_id)
            assert stored is not None
            return [segment.requests for segment in stored.segments]

    batch_id = asyncio.run(make())
    with (
        observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server,
        closing(WireClient(server.url)) as client,
    ):
        made = _retry(client, batch_id, {"types": ["errored"]}).json["id"]
    assert asyncio.run(look(made)) == [1_000, 250]


# --- The console ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def visitor(world: tuple[ObservedServer, dict[str, BatchId]]) -> Iterator[Visitor]:
    with closing(WireClient(world[0].url, api_key="ours")) as client:
        found = Visitor(client)
        found.log_in("ours")
        yield found


def test_the_form_makes_the_batch_that_was_chosen_and_a_second_click_no_other(
    server: ObservedServer, client: WireClient, visitor: Visitor, made: dict[str, BatchId]
) -> None:
    path = f"/console/batches/{made['few']}/retry"
    page = visitor.get(path)
    boxes = {found["value"]: "checked" in found for found in page.attributes("input", name="types")}
    assert boxes == {"errored": True, "expired": True, "canceled": False}
    before = client.ids()
    first, second = (visitor.submit(page, [("types", "canceled")], action=path) for _ in range(2))
    assert first.status == second.status == 303
    assert first.headers["location"] == second.headers["location"]
    (new,) = [batch_id for batch_id in client.ids() if batch_id not in before]
    assert first.headers["location"].endswith(f"/console/batches/{new}")
    server.wait_ended(client, new)
    assert sorted(client.results(new)) == ["r3", "r7"]


def test_a_form_that_chooses_nothing_is_told_to_choose(visitor: Visitor, made: dict[str, BatchId]) -> None:
    path = f"/console/batches/{made['few']}/retry"
    answer = visitor.submit(visitor.get(path), action=path)
    assert answer.status == 400
    assert b"Choose at least one kind" in answer.body


def test_a_form_without_its_token_makes_nothing(
    client: WireClient, visitor: Visitor, made: dict[str, BatchId]
) -> None:
    before = client.ids()
    path = f"/console/batches/{made['few']}/retry"
    for body in (b"types=errored", b"types=errored&token=", b"types=errored&token=" + b"0" * 64):
        assert visitor.fetch("POST", path, body).status == 403
    assert client.ids() == before


@pytest.mark.parametrize(
    ("name", "said"), [("good", "Nothing of this batch failed."), ("running", "This batch has not ended.")]
)
def test_a_page_without_a_choice_says_why(
    client: WireClient, visitor: Visitor, made: dict[str, BatchId], name: str, said: str
) -> None:
    batch_id = made.get(name) or client.create([request("waits", "[[hang]]")])["id"]
    page = visitor.get(f"/console/batches/{batch_id}/retry")
    assert any(text.startswith(said) for text in page.texts("p"))
    assert not page.attributes("input", name="types")
    if name == "running":
        client.cancel(batch_id)
