"""What a workspace may do at a real server: requests a minute, the queue, sizes, models, engines, weight.

What it may spend: test_budgets.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from teams import Teams, overnight, teams

from overnight.testing.observed import upstream_process
from overnight.testing.wireclient import BATCHES, Answer, WireClient, params, request

_LIMITS = "/v1/organizations/rate_limits"


class Place(NamedTuple):
    """A server with two engines for every model, and what each was asked."""

    here: Teams
    first: Path
    second: Path
    second_url: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("limits")
    logs = [folder / "first.log", folder / "second.log"]
    overnight("keys", "create", data=folder / "data")
    with (
        upstream_process("--calls-log", str(logs[0])) as first,
        upstream_process("--calls-log", str(logs[1])) as second,
        teams(folder / "data", "--engine", first, "--engine", second) as here,
    ):
        yield Place(here, *logs, second)


@pytest.fixture(scope="module")
def here(place: Place) -> Teams:
    return place.here


def create(client: WireClient, count: int, text: str = "hello") -> Answer:
    return client.call("POST", BATCHES, {"requests": [request(f"r{number}", text) for number in range(count)]})


def objects(here: Teams) -> list[Path]:
    return [path for path in (here.data / "objects").rglob("*") if path.is_file()]


def error_of(result: Any) -> tuple[str, str]:
    inner = result["error"]["error"]
    return inner["type"], inner["message"]


# --- The queue ------------------------------------------------------------------------------------------------------


def test_a_queue_that_would_be_too_long_is_a_429_and_nothing_is_created(here: Teams) -> None:
    key = here.new_workspace("queue", "--queue-requests-max", "5")
    noise = Random(1).randbytes(40_000).hex()  # Too large for its row: an object is written, and must go.
    with here.client(key) as client:
        slow = create(client, 3, "[[slow 3]]").json["id"]
        before = objects(here)
        refused = create(client, 3, noise)
        said = "This batch would exceed the limit of 5 batch requests in the processing queue: 3 are waiting. "
        assert refused.error == (429, "rate_limit_error", said + "Nothing was created.")
        assert refused.headers["retry-after"] == "60"
        assert client.ids() == [slow]
        assert objects(here) == before
        last = create(client, 2)
        assert last.status == 200
        here.server.wait_ended(client, slow)
        here.server.wait_ended(client, last.json["id"])
        assert create(client, 5).status == 200
        assert create(client, 6).status == 429


def test_a_queue_is_of_one_workspace(here: Teams) -> None:
    full, other = here.new_workspace("full", "--queue-requests-max", "1"), here.new_workspace("other")
    with here.client(full) as client, here.client(other) as another:
        assert create(client, 2).status == 429
        assert create(another, 2).status == 200


# --- The size of a batch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [pytest.param(10, id="small"), pytest.param(100_000, id="large")])
def test_a_batch_of_too_many_requests_is_a_400_in_the_words_of_the_api(here: Teams, size: int) -> None:
    key = here.new_workspace(f"size-{size}", "--batch-requests-max", "2")
    with here.client(key) as client:
        before = objects(here)
        refused = create(client, 3, "x" * size)
        said = "requests: List should have at most 2 items after validation, not 3"
        assert refused.error == (400, "invalid_request_error", said)
        assert (client.ids(), objects(here)) == ([], before)
        assert create(client, 2, "x" * size).status == 200


# --- Requests a minute ----------------------------------------------------------------------------------------------


def test_requests_a_minute_are_counted_for_each_workspace(here: Teams) -> None:
    key, other = here.new_workspace("rate", "--requests-per-minute", "3"), here.new_workspace("other-rate")
    with here.client(key) as client, here.client(other) as another:
        answers = [client.call("GET", BATCHES) for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert answers[0].headers["anthropic-ratelimit-requests-limit"] == "3"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 60
        free = another.call("GET", BATCHES)
        assert (free.status, "anthropic-ratelimit-requests-limit" in free.headers) == (200, False)


def test_limits_are_told_in_the_shape_of_the_reference(here: Teams) -> None:
    key = here.new_workspace("told", "--requests-per-minute", "600", "--queue-requests-max", "50000")
    found = [
        {"type": "enqueued_batch_requests", "value": 50_000},
        {"type": "requests_per_minute", "value": 600},
    ]
    group = {"type": "rate_limit", "group_type": "batch", "models": None, "limits": found}
    with here.client(key) as client:
        for query, data in (("", [group]), ("?group_type=batch", [group]), ("?group_type=files", [])):
            assert client.call("GET", _LIMITS + query).json == {"data": data, "next_page": None}
        missing = client.call("GET", f"{_LIMITS}?model=echo")
        assert missing.error == (404, "not_found_error", "model: echo has no rate limits")
    with here.client({"key": "guess"}) as client:
        assert client.call("GET", _LIMITS).status == 401


def test_a_workspace_without_limits_is_told_of_none(here: Teams) -> None:
    with here.client(here.new_workspace("free")) as client:
        assert client.call("GET", _LIMITS).json == {"data": [], "next_page": None}


def test_a_limit_that_changes_counts_without_a_restart(here: Teams) -> None:
    key = here.new_workspace("changed", "--batch-requests-max", "1")
    with here.client(key) as client:
        assert create(client, 2).status == 400
        here.change(key, "--no-batch-requests-max")
        assert create(client, 2).status == 200


# --- Models ---------------------------------------------------------------------------------------------------------


def test_a_model_that_is_not_allowed_is_an_errored_row_and_the_others_are_answered(here: Teams) -> None:
    key = here.new_workspace("models", "--model", "claude-*", "--model", "echo")
    requests = [request("a"), request("b", model="echo"), request("c", model="gpt-4"), request("d", model="Claude-x")]
    with here.client(key) as client:
        batch = here.server.wait_ended(client, client.create(requests)["id"])
        found = client.results(batch["id"])
    assert {name: result["type"] for name, result in found.items()} == {
        "a": "succeeded",
        "b": "succeeded",
        "c": "errored",
        "d": "errored",
    }
    assert error_of(found["c"]) == ("permission_error", "model: gpt-4 is not allowed in this workspace")


def test_people_are_refused_a_model_that_is_not_allowed(here: Teams) -> None:
    key = here.new_workspace("people-models", "--model", "echo")
    with here.client(key) as client:
        assert client.call("POST", "/v1/messages", params(model="echo")).status == 200
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            refused = client.call("POST", path, params(model="gpt-4"))
            said = "model: gpt-4 is not allowed in this workspace"
            assert refused.error == (403, "permission_error", said)


def test_only_allowed_models_are_listed(here: Teams) -> None:
    for name, pattern, ids, status in (("lists", "ec*", {"echo"}, 200), ("lists-none", "x", set(), 404)):
        with here.client(here.new_workspace(name, "--model", pattern)) as client:
            page = client.call("GET", "/v1/models").json
            assert {model["id"] for model in page["data"]} == ids
            assert client.call("GET", "/v1/models/echo").status == status


# --- Engines --------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_not_allowed_is_never_asked(place: Place) -> None:
    here = place.here
    only = here.new_workspace("engines", "--engine", f"messages {place.second_url}")
    everything = here.new_workspace("all-engines")
    for key, text in ((only, "only the second"), (everything, "whichever is first")):
        with here.client(key) as client:
            batch = here.server.wait_ended(client, create(client, 20, text).json["id"])
            assert batch["request_counts"]["succeeded"] == 20
            assert client.call("POST", "/v1/messages", params(text)).status == 200
    asked = {log: log.read_text() for log in (place.first, place.second)}
    assert asked[place.first].count("only the second") == 0
    assert asked[place.second].count("only the second") == 21
    assert asked[place.first].count("whichever is first") == 21


def test_without_an_engine_a_model_is_unknown(here: Teams) -> None:
    key = here.new_workspace("no-engines", "--engine", "embedded*")
    with here.client(key) as client:
        batch = here.server.wait_ended(client, create(client, 1).json["id"])
        (result,) = client.results(batch["id"]).values()
        assert error_of(result) == ("not_found_error", "model: claude-test")
        refused = client.call("POST", "/v1/messages", params())
        assert refused.error == (404, "not_found_error", "model: claude-test")
        assert client.call("GET", "/v1/models").json["data"] == []


# --- Weight ---------------------------------------------------------------------------------------------------------


def test_a_workspace_of_three_times_the_weight_is_served_three_times_as_much(tmp_path: Path) -> None:
    data, log, config = tmp_path / "data", tmp_path / "calls.log", tmp_path / "overnight.toml"
    overnight("keys", "create", data=data)
    with upstream_process("--calls-log", str(log)) as upstream:
        config.write_text(f'[[engines]]\nspec = "{upstream}"\nin_flight_max = 1\n')
        with teams(data, "--config", str(config)) as here:
            heavy, light = here.new_workspace("heavy", "--weight", "3"), here.new_workspace("light")
            with here.client(heavy) as first, here.client(light) as second:
                create(first, 1, "[[slow 2]]")
                batches = [
                    create(client, 60, text).json["id"] for client, text in ((first, "heavy"), (second, "light"))
                ]
                for client, batch_id in zip((first, second), batches, strict=True):
                    here.server.wait_ended(client, batch_id)
    turns = [line.split('"')[1] for line in log.read_text().splitlines() if "slow" not in line]
    while_both_wait = turns[: max(place for place, text in enumerate(turns) if text == "heavy") + 1]
    assert while_both_wait.count("heavy") == 60
    assert 15 <= while_both_wait.count("light") <= 25
