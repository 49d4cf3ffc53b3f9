"""The pages of single results, over a real server: lists, filters, searches, one row, and texts that mean harm."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ended import ended, errored, succeeded
from visitor import Page, Visitor

from overnight import limits
from overnight.ids import BatchId, WorkspaceId
from overnight.ports.world import World
from overnight.server import rows as reading
from overnight.server.rows import Place, Sought
from overnight.store.store import open_directory
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import WireClient, params, request
from overnight.wire import result
from overnight.wire.create import Request

OURS, THEIRS = WorkspaceId("wrkspc_ours"), WorkspaceId("wrkspc_theirs")
_MIB = 1024 * 1024
_HARM = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7*7 }}"


def _mixed(item: Request) -> bytes:
    """By the number in its name: every 10th errored, and of others some canceled or expired."""
    number = int(item.custom_id[1:])
    if number % 10 == 0:
        return errored(item, "rate_limit_error" if number % 20 else "api_error", f"broke {number}")
    if number % 10 == 1:
        return result.canceled(item.custom_id)
    if number % 10 == 2:
        return result.expired(item.custom_id)
    return succeeded(item, f"Antwort {number} für Ärger")


def _by_text(texts: dict[str, str]) -> Any:
    return lambda item: succeeded(item, texts[item.custom_id])


_HOSTILE = {
    "script": _HARM,
    "rtl": "abc \u202eevil\u202c שלום",
    "control": "bell\x07 nul\x00 esc\x1b[31m del\x7f",
    "surrogate": "half \ud800 pair",
    "long": "x" * _MIB,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObservedServer, dict[str, BatchId]]]:
    folder = tmp_path_factory.mktemp("results")
    keys = "".join(
        f'[[keys]]\nsha256 = "{sha256(name.encode()).hexdigest()}"\nworkspace = "{workspace}"\n'
        for name, workspace in (("ours", OURS), ("theirs", THEIRS))
    )
    made: dict[str, BatchId] = {}

    async def make() -> None:
        async with open_directory(folder / "data", World()) as store:
            mixed = [request(f"r{number}", f"question {number}") for number in range(120)]
            made["mixed"] = await ended(store, mixed, _mixed, workspace=OURS)
            spread = [request(f"r{number}", f"{number:03}" * 200_000) for number in range(5)]
            made["spread"] = await ended(store, spread, succeeded, workspace=OURS)
            # A server refuses a lone surrogate in a request; an engine may still answer with one.
            hostile = [request(name, text.replace("\ud800", "\ufffd")) for name, text in _HOSTILE.items()]
            made["hostile"] = await ended(store, hostile, _by_text(_HOSTILE), workspace=OURS)
            made["odd"] = await ended(store, _odd_requests(), _odd_answers, workspace=OURS)
            large = [request(f"r{number}", "y" * (_MIB - 300)) for number in range(140)]
            made["large"] = await ended(store, large, succeeded, workspace=OURS)

    asyncio.run(make())
    with upstream_process() as engine:
        config = folder / "overnight.toml"
        config.write_text(f'[[engines]]\nspec = "{engine}"\n{keys}')
        with observed_server(folder / "data", "--config", str(config)) as server:
            yield server, made


@pytest.fixture(scope="module")
def visitor(world: tuple[ObservedServer, dict[str, BatchId]]) -> Iterator[Visitor]:
    with closing(WireClient(world[0].url, api_key="ours")) as client:
        found = Visitor(client)
        found.log_in("ours")
        yield found


@pytest.fixture
def made(world: tuple[ObservedServer, dict[str, BatchId]]) -> dict[str, BatchId]:
    return world[1]


def _ids(page: Page) -> list[str]:
    return page.texts("th", scope="row")


def _results(batch_id: str, query: str = "") -> str:
    return f"/console/batches/{batch_id}/results{query and '?' + query}"


def _texts(page: Page, kind: str = "text") -> list[str]:
    return page.texts("pre", class_=kind)


# --- The list -------------------------------------------------------------------------------------------------------


def test_the_pages_of_a_list_hold_every_row_once(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(_results(made["mixed"]))
    seen, pages = _ids(page), 1
    assert len(seen) == limits.ROWS_PAGE
    while page.has_link("Next page"):
        page = visitor.get(page.link("Next page"))
        seen += _ids(page)
        pages += 1
        assert pages <= 3
    assert pages == 3
    assert sorted(seen) == sorted(f"r{number}" for number in range(120))
    assert _ids(visitor.get(page.link("First page"))) == seen[: limits.ROWS_PAGE]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        pytest.param("type=errored", range(0, 120, 10), id="errored"),
        pytest.param("type=canceled", range(1, 120, 10), id="canceled"),
        pytest.param("type=expired", range(2, 120, 10), id="expired"),
        pytest.param("type=unfinished", (), id="unfinished"),
        pytest.param("error_type=rate_limit_error", range(10, 120, 20), id="type of error"),
        pytest.param("custom_id=r77", (77,), id="custom_id"),
        pytest.param("custom_id=r7", (7,), id="custom_id, not a prefix"),
        pytest.param("text=antwort+33+F%C3%9CR", (33,), id="text, in any case"),
        pytest.param("text=broke+30", (30,), id="text of an error"),
        pytest.param("type=succeeded&text=r+1", (), id="both must hold"),
    ],
)
def test_a_filter_shows_what_is_like_that_and_nothing_else(
    visitor: Visitor, made: dict[str, BatchId], query: str, numbers: Any
) -> None:
    page = visitor.get(_results(made["mixed"], query))
    assert page.status == 200
    assert sorted(_ids(page)) == sorted(f"r{number}" for number in numbers)


def test_a_filter_goes_along_to_the_next_page_and_into_rows(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(_results(made["mixed"], "type=succeeded"))
    assert "type=succeeded" in page.link("Next page")
    row = visitor.get(page.link(_ids(page)[0]))
    assert row.link("Results").endswith("results?type=succeeded")
    page = visitor.get(page.link("Next page"))
    assert len(_ids(page)) == 84 - limits.ROWS_PAGE


def test_a_line_says_what_came_of_a_request(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(_results(made["mixed"], "custom_id=r33"))
    assert page.texts("td") == ["succeeded", "end_turn", "11", "7", "Antwort 33 für Ärger"]
    page = visitor.get(_results(made["mixed"], "custom_id=r20"))
    assert page.texts("td") == ["errored", "api_error", "", "", "broke 20"]


@pytest.mark.parametrize(
    "query", ["at=x", "at=1.2.3", "at=-1.0", "at=99999999999.0", "type=other", "text=" + "x" * 201]
)
def test_a_query_that_makes_no_sense_is_a_400_page(visitor: Visitor, made: dict[str, BatchId], query: str) -> None:
    page = visitor.get(_results(made["mixed"], query))
    assert page.status == 400
    assert page.answer.headers["content-type"].startswith("text/html")


def test_a_place_behind_the_end_is_an_empty_page(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(_results(made["mixed"], "at=999999.0"))
    assert (page.status, _ids(page)) == (200, [])


def test_a_search_stops_after_so_many_bytes_and_goes_on_from_there(
    visitor: Visitor, made: dict[str, BatchId]
) -> None:
    page = visitor.get(_results(made["large"], "text=nowhere"))
    assert "Nothing found yet." in page.texts("p")
    looks = 1
    while page.has_link("Search on"):
        page = visitor.get(page.link("Search on"))
        looks += 1
        assert looks <= 140
    assert looks >= 2
    assert "No row is like that from here on." in page.texts("p")


def test_a_search_looks_at_one_segment_at_least_and_leaves_none_out(tmp_path: Path) -> None:
    async def hold() -> tuple[list[int], list[str]]:
        async with open_directory(tmp_path / "data", World()) as store:
            requests = [request(f"r{number}", f"{number}" * 600_000) for number in range(4)]
            batch_id = await ended(store, requests, succeeded)
            rows = await reading.open_rows(batch_id, store=store, world=World())
            assert rows is not None
            looked, ids, start = [len(rows.segments)], [], Place(0, 0)
            while True:
                found = await reading.search(rows, Sought(), start=start, hits_max=50, bytes_max=1)
                ids += [hit.row.custom_id for hit in found.hits]
                looked.append(len(found.hits))
                if found.next is None:
                    return looked, ids
                assert found.is_cut
                start = found.next

    looked, ids = asyncio.run(hold())
    assert looked == [4, 1, 1, 1, 1]
    assert sorted(ids) == ["r0", "r1", "r2", "r3"]


def test_a_search_stops_in_time(tmp_path: Path) -> None:
    async def hold() -> tuple[int, bool]:
        async with open_directory(tmp_path / "data", World()) as store:
            requests = [request(f"r{number}", f"{number}" * 600_000) for number in range(4)]
            batch_id = await ended(store, requests, succeeded)
            rows = await reading.open_rows(batch_id, store=store, world=World())
            assert rows is not None
            found = await reading.search(rows, Sought(), hits_max=50, s_max=0)
            return len(found.hits), found.is_cut

    assert asyncio.run(hold()) == (1, True)


# --- One row --------------------------------------------------------------------------------------------------------


def test_a_row_shows_request_and_answer(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(_results(made["mixed"]) + "/r33")
    assert _texts(page) == ["question 33", "Antwort 33 für Ärger"]
    settings, usage = (json.loads(text) for text in _texts(page, "code"))
    assert settings == {"model": "claude-test", "max_tokens": 16}
    assert usage["output_tokens"] == 7


@pytest.mark.parametrize(
    ("custom_id", "said"),
    [
        ("r20", "broke 20"),
        ("r21", "The batch was canceled before this request was asked."),
        ("r22", "The batch ran out of time before this request was answered."),
    ],
)
def test_a_row_without_an_answer_says_why(
    visitor: Visitor, made: dict[str, BatchId], custom_id: str, said: str
) -> None:
    page = visitor.get(f"{_results(made['mixed'])}/{custom_id}")
    assert said in page.texts("p") + _texts(page)


@pytest.mark.parametrize("name", ["mixed", "spread"])
def test_previous_and_next_walk_through_every_row_of_every_segment(
    visitor: Visitor, made: dict[str, BatchId], name: str
) -> None:
    page = visitor.get(_results(made[name]))
    row = visitor.get(page.link(_ids(page)[0]))
    walked = row.texts("h1")
    while row.has_link("Next row"):
        row = visitor.get(row.link("Next row"))
        assert row.texts("h1")[0] not in walked
        walked += row.texts("h1")
    back = row.texts("h1")
    while row.has_link("Previous row"):
        row = visitor.get(row.link("Previous row"))
        back += row.texts("h1")
    assert len(set(walked)) == len(walked) == (120 if name == "mixed" else 5)
    assert back == walked[::-1]


@pytest.mark.parametrize("custom_id", ["r120", "nobody", "..", "%2e%2e%2fdata", "a%00b", "r1%0d%0a", "x" * 65])
def test_a_row_that_is_not_there_is_a_404_page(visitor: Visitor, made: dict[str, BatchId], custom_id: str) -> None:
    page = visitor.get(f"{_results(made['mixed'])}/{custom_id}")
    assert page.status == 404
    assert page.answer.headers["content-type"].startswith("text/html")


def test_a_wrong_place_in_a_link_costs_a_search_and_nothing_else(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(f"{_results(made['spread'])}/r4?at=0.0")
    assert page.texts("h1") == ["r4"]


# --- Texts that mean harm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("script", _HARM, id="markup"),
        pytest.param("rtl", "abc [U+202E]evil[U+202C] שלום", id="direction"),
        pytest.param("control", "bell␇ nul␀ esc␛[31m del␡", id="control"),
        pytest.param("surrogate", "half \ufffd pair", id="lone surrogate"),
    ],
)
def test_harmful_text_is_text_in_the_list_and_on_its_page(
    visitor: Visitor, made: dict[str, BatchId], name: str, shown: str
) -> None:
    line = visitor.get(_results(made["hostile"], f"custom_id={name}"))
    row = visitor.get(f"{_results(made['hostile'])}/{name}")
    assert line.texts("td")[-1] == shown
    assert _texts(row) == [shown, shown]
    for page in (line, row):
        assert all("src" in found for found in page.attributes("script"))
        assert len(page.attributes("script")) == 1
        assert not page.attributes("img", src="x")
        assert "script-src 'self'" in page.answer.headers["content-security-policy"]


def test_a_long_text_is_cut_and_whole_as_a_file_that_no_browser_runs(
    visitor: Visitor, made: dict[str, BatchId]
) -> None:
    page = visitor.get(f"{_results(made['hostile'])}/long")
    assert [len(text) for text in _texts(page)] == [limits.BLOCK_CHARACTERS_MAX] * 2
    assert len(page.source) < 100_000
    for found in page.attributes("a"):
        if "part=" in found["href"]:
            answer = visitor.fetch("GET", found["href"])
            assert answer.body.decode() == _HOSTILE["long"]
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["content-disposition"].startswith('attachment; filename="long-')
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "sandbox"
    assert sum("part=" in found["href"] for found in page.attributes("a")) == 2


@pytest.mark.parametrize("query", ["side=other", "side=answer&part=99", "side=answer&part=x", "side=answer&part=-1"])
def test_a_whole_text_that_is_not_there_is_refused(visitor: Visitor, made: dict[str, BatchId], query: str) -> None:
    assert visitor.fetch("GET", f"{_results(made['hostile'])}/long/whole?{query}").status in (400, 404)


def _odd_requests() -> list[object]:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 160_000}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://elsewhere.example/spy.png"}}
    seen = {"type": "tool_result", "tool_use_id": "t1", "content": [image, {"type": "text", "text": "as seen"}]}
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    deep: Any = "inside"
    for _ in range(400):
        deep = [deep]
    return [
        {"custom_id": "image", "params": params(messages=[{"role": "user", "content": [image, linked]}])},
        {"custom_id": "tools", "params": params(messages=[{"role": "user", "content": [seen]}], tools=[tool])},
        {"custom_id": "system", "params": params(system=[{"type": "text", "text": "Be <b>kind</b>."}])},
        {"custom_id": "many", "params": params(messages=[{"role": "user", "content": "m"}] * 500)},
        {"custom_id": "deep", "params": params(metadata=deep)},
        {"custom_id": "wrong", "params": {"messages": 7, "tools": "no", "system": None}},
        {"custom_id": "content", "params": params()},
    ]


def _odd_answers(item: Request) -> bytes:
    if item.custom_id == "tools":
        used = {"type": "tool_use", "id": "t2", "name": "look", "input": {"at": "<i>sky</i>"}}
        return succeeded(item, content=[{"type": "text", "text": "I look."}, used], stop_reason="tool_use")
    if item.custom_id == "content":
        return succeeded(
            item, content=[1, "two", {"type": 3}], stop_reason=None, model=9, usage={"input_tokens": "x"}
        )
    return succeeded(item)


def test_images_are_named_with_their_size_and_never_loaded(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(f"{_results(made['odd'])}/image")
    assert "image, 120 kB, image/png" in _texts(page)
    assert "AAAA" not in page.source
    assert all("static" in found["src"] for found in page.attributes("img"))
    assert all("elsewhere" not in found["href"] for found in page.attributes("a"))


def test_tools_and_their_use_are_readable(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(f"{_results(made['odd'])}/tools")
    assert page.texts("h3") == [
        "user, result of t1, image",
        "user, result of t1",
        "tool look",
        "params",
        "answer",
        "answer, tool_use",
        "usage",
    ]
    assert json.loads(_texts(page, "code")[2])["input"] == {"at": "<i>sky</i>"}
    assert _texts(page)[1] == "as seen"


@pytest.mark.parametrize("custom_id", ["system", "deep", "wrong", "content"])
def test_odd_requests_and_answers_have_a_page(visitor: Visitor, made: dict[str, BatchId], custom_id: str) -> None:
    page = visitor.get(f"{_results(made['odd'])}/{custom_id}")
    assert page.status == 200
    assert not page.attributes("b")
    assert visitor.get(_results(made["odd"], f"custom_id={custom_id}")).texts("th", scope="row") == [custom_id]


def test_a_request_of_many_messages_shows_some_and_says_so(visitor: Visitor, made: dict[str, BatchId]) -> None:
    page = visitor.get(f"{_results(made['odd'])}/many")
    assert len(_texts(page)) == limits.BLOCKS_MAX + 1
    assert f"{501 - limits.BLOCKS_MAX} more parts are not shown here." in page.texts("p")
    stored = visitor.fetch("GET", page.link("Download the request as it is stored"))
    assert len(json.loads(stored.body)["messages"]) == 500


# --- While it runs, and after it is gone ----------------------------------------------------------------------------


def test_a_running_batch_shows_what_it_has_so_far(world: tuple[ObservedServer, Any], visitor: Visitor) -> None:
    server, client = world[0], visitor.client
    batch_id = client.create([request("done", "quick"), request("waits", "[[hang]]")])["id"]
    server.wait_counted(client, batch_id, succeeded=1)
    kinds = {name: visitor.get(_results(batch_id, f"custom_id={name}")).texts("td")[0] for name in ("done", "waits")}
    assert kinds == {"done": "succeeded", "waits": "unfinished"}
    assert _ids(visitor.get(_results(batch_id, "type=unfinished"))) == ["waits"]
    assert _texts(visitor.get(f"{_results(batch_id)}/done")) == ["quick", "echo: quick"]
    waiting = visitor.get(f"{_results(batch_id)}/waits")
    assert "There is no answer yet." in waiting.texts("p")
    assert visitor.fetch("GET", f"/console/batches/{batch_id}/download").status == 404
    client.cancel(batch_id)


def test_another_workspace_sees_what_it_sees_of_a_batch_that_never_was(
    world: tuple[ObservedServer, dict[str, BatchId]],
) -> None:
    server, made = world
    with closing(WireClient(server.url, api_key="theirs")) as client:
        visitor = Visitor(client)
        visitor.log_in("theirs")
        for end in ("/results", "/results/r1", "/results/r1/whole?side=answer", "/download?format=csv", "/retry"):
            answers = [
                visitor.fetch("GET", f"/console/batches/{batch_id}{end}")
                for batch_id in (made["mixed"], "msgbatch_01nobody000000")
            ]
            bodies = [
                answer.body.replace(made["mixed"].encode(), b"ID")
                .replace(b"msgbatch_01nobody000000", b"ID")
                .replace(answer.headers["request-id"].encode(), b"REQ")
                for answer in answers
            ]
            assert [answer.status for answer in answers] == [404, 404], end
            assert bodies[0] == bodies[1], end
        for method, end in (("GET", "export"), ("POST", "retry")):
            answer = client.call(method, f"/v1/overnight/batches/{made['mixed']}/{end}")
            assert answer.error[:2] == (404, "not_found_error")


def test_an_archived_batch_says_that_its_rows_are_no_longer_kept(tmp_path: Path) -> None:
    async def make() -> BatchId:
        async with open_directory(tmp_path / "data", World()) as store:
            return await ended(store, [request("a")], succeeded)

    batch_id = asyncio.run(make())
    with (
        observed_server(tmp_path / "data", "--engine", "http://127.0.0.1:9", ahead_s=30 * 86400) as server,
        closing(WireClient(server.url)) as client,
    ):
        while client.retrieve(batch_id)["archived_at"] is None:
            pass  # The first pass of upkeep comes with the start.
        visitor = Visitor(client)
        page = visitor.get(_results(batch_id))
        assert "This batch is archived. Its requests and results are no longer kept." in page.texts("p")
        assert visitor.get(f"{_results(batch_id)}/a").status == 404
        assert client.call("POST", f"/v1/overnight/batches/{batch_id}/retry").status == 404
        assert client.call("GET", f"/v1/overnight/batches/{batch_id}/export?format=csv").status == 404
