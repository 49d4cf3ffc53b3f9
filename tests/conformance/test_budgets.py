"""What a workspace may spend, at a real server whose engine has a price. Days: tests/sim/test_workspace_budgets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from teams import Teams, overnight, teams

from overnight.jobs.endpoint import Address
from overnight.jobs.server import Refused, Server
from overnight.testing.observed import upstream_process
from overnight.testing.wireclient import BATCHES, WireClient, params, request

# "echo: hello!" are four tokens, 1.00 USD. The upstream says that no answer is of a batch: each has the full price.
_PRICES = "[engines.prices]\nclaude-test = { input = 0, output = 250_000 }\n"
_DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Of a server with an engine that has one request inside at a time."""
    config = tmp_path_factory.mktemp("priced") / "overnight.toml"
    with upstream_process() as upstream:
        config.write_text(f'[[engines]]\nspec = "{upstream}"\nin_flight_max = 1\n{_PRICES}')
        yield "--config", str(config)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, flags: tuple[str, ...]) -> Iterator[Teams]:
    data = tmp_path_factory.mktemp("budgets") / "data"
    overnight("keys", "create", data=data)
    with teams(data, *flags) as found:
        yield found


def create(client: WireClient, count: int) -> str:
    batch_id: str = client.create([request(f"r{number}", "hello!") for number in range(count)])["id"]
    return batch_id


def until_waiting(here: Teams, key: Any, batch_id: str, *, done: int) -> str:
    """Why a batch waits, once that many of its requests are answered and it does for a budget."""

    def waits(answer: Any) -> bool:
        is_why = "budget" in answer.headers.get("overnight-waiting", "")
        return is_why and bool(answer.json["request_counts"]["succeeded"] == done)

    return here.until(key, waits, f"{BATCHES}/{batch_id}").headers["overnight-waiting"]


def assert_refused(client: WireClient) -> None:
    for path, body in (("/v1/messages", params("hello!")), (BATCHES, {"requests": [request("a", "hello!")]})):
        status, kind, said = (answer := client.call("POST", path, body)).error
        assert (status, kind) == (400, "invalid_request_error")
        assert said.startswith(
            "You have reached your specified workspace API usage limits. You will regain access on"
        )
        assert said.endswith("at 00:00 UTC.")
        assert answer.json["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}


def test_a_workspace_whose_budget_is_spent_starts_nothing_and_the_others_go_on(here: Teams) -> None:
    key, other = here.new_workspace("spent", "--usd-per-month", "3"), here.new_workspace("other")
    with here.client(key) as client, here.client(other) as another:
        batch_id = create(client, 10)
        said = until_waiting(here, key, batch_id, done=3)
        assert said.startswith("workspace budget of 3.00 USD for this month is spent; opens ")
        assert_refused(client)
        assert client.call("POST", "/v1/messages/count_tokens", params("hello!")).status == 200
        assert client.ids() == [batch_id]
        ended = here.server.wait_ended(another, create(another, 10))
        assert ended["request_counts"]["succeeded"] == 10
        assert client.retrieve(batch_id)["request_counts"]["succeeded"] == 3
        client.cancel(batch_id)
        here.server.wait_ended(client, batch_id)
        assert client.retrieve(batch_id)["request_counts"]["canceled"] == 7


def test_raising_a_limit_opens_and_taking_it_away_opens_for_good(here: Teams) -> None:
    key = here.new_workspace("raised", "--usd-per-day", "2")
    with here.client(key) as client:
        batch_id = create(client, 10)
        said = until_waiting(here, key, batch_id, done=2)
        assert said == "workspace budget of 2.00 USD for today is spent; opens 00:00 UTC"
        here.change(key, "--usd-per-day", "6")
        until_waiting(here, key, batch_id, done=6)
        here.change(key, "--no-usd-per-day")
        assert here.server.wait_ended(client, batch_id)["request_counts"]["succeeded"] == 10


def test_lowering_a_limit_closes(here: Teams) -> None:
    key = here.new_workspace("lowered")
    with here.client(key) as client:
        here.server.wait_ended(client, create(client, 3))
        here.change(key, "--usd-per-month", "2")
        assert_refused(client)


def test_people_and_batches_spend_together(here: Teams) -> None:
    key = here.new_workspace("together", "--usd-per-month", "3")
    with here.client(key) as client:
        here.server.wait_ended(client, create(client, 2))
        assert client.call("POST", "/v1/messages", params("hello!")).status == 200
        assert_refused(client)


def test_a_stream_is_counted(here: Teams) -> None:
    key = here.new_workspace("streamed", "--usd-per-month", "1")
    with here.client(key) as client:
        assert client.call("POST", "/v1/messages", params("hello!", stream=True)).status == 200
        assert_refused(client)


def test_a_job_takes_a_spent_limit_for_a_want_of_credit(here: Teams) -> None:
    key = here.new_workspace("job", "--usd-per-month", "1")
    with here.client(key) as client:
        here.server.wait_ended(client, create(client, 1))
    with Server(Address(here.server.url, key["key"], ())) as server:
        refused = server.create(b"{}", idempotency_key="k")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.error_type) == (400, "billing_error")


def test_what_is_spent_is_known_after_a_restart_sealed_or_not(tmp_path: Path, flags: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    overnight("keys", "create", data=data)
    with teams(data, *flags) as first:
        sealed = first.new_workspace("sealed", "--usd-per-month", "2")
        unsealed = first.new_workspace("unsealed", "--usd-per-month", "2")
        with first.client(sealed) as client:
            first.server.wait_ended(client, create(client, 2))
        saved = first.server.seen("checkpoint.durable")
        with first.client(unsealed) as client:
            batch_id = create(client, 5)
        until_waiting(first, unsealed, batch_id, done=2)
        first.server.wait_mark("checkpoint.durable", beyond=saved)
    with teams(data, *flags) as second:
        with second.client(sealed) as client:
            assert_refused(client)
        until_waiting(second, unsealed, batch_id, done=2)
        with second.client(unsealed) as client:
            assert_refused(client)


def test_a_batch_that_expires_ends_although_the_budget_is_spent(tmp_path: Path, flags: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    overnight("keys", "create", data=data)
    with teams(data, *flags) as first:
        key = first.new_workspace("expiring", "--usd-per-month", "1")
        with first.client(key) as client:
            batch_id = create(client, 3)
        until_waiting(first, key, batch_id, done=1)
    with teams(data, *flags, ahead_s=_DAY_S + 60) as second, second.client(key) as client:
        counts = second.server.wait_ended(client, batch_id)["request_counts"]
        assert counts["expired"] >= 2
        assert counts["expired"] + counts["succeeded"] == 3
