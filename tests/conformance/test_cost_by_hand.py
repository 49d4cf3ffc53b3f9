"""A mixed batch through a real server, every figure worked out by hand; and the same after a death at any point.

Prices are US dollars for a million tokens, so a token costs so many millionths of a dollar (µ).
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from overnight.testing import crashpoint
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import WireClient, request

PRICES = """
# A thousand searches cost 10 USD, in a batch too. The second price begins too late to matter.
"house-*" = [
    { from = 2026-01-01, input = 2.0, output = 8.0, cache_read = 0.2, cache_write = 2.5, web_searches = 10.0 },
    { from = 2999-01-01, input = 9.0, output = 9.0 },
]
"""
HAIKU, LONG, HOUSE, UNKNOWN = "claude-haiku-4-5", "claude-haiku-5-5", "house-large", "nobody-knows-7b"


def asked(custom_id: str, model: str, usage: dict[str, Any], *, also: str = "") -> dict[str, object]:
    """A request whose answer tells this usage."""
    return request(custom_id, f"{custom_id} {also} [[usage {json.dumps(usage)}]]", model=model)


BATCH = [
    # 1000 x 0.5 + 200 x 2.5 = 1000 µ; in real time 1000 x 1 + 200 x 5 = 2000 µ.
    asked("plain", HAIKU, {"input_tokens": 1_000, "output_tokens": 200}),
    # 10 x 0.5 + 5000 x 0.05 + 1000 x 0.625 + 2000 x 1 + 100 x 2.5 = 5 + 250 + 625 + 2000 + 250 = 3130 µ; twice that.
    asked(
        "cached",
        HAIKU,
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 5_000,
            "cache_creation_input_tokens": 3_000,
            "cache_creation": {"ephemeral_5m_input_tokens": 1_000, "ephemeral_1h_input_tokens": 2_000},
            "output_tokens": 100,
        },
    ),
    # Its server says that it was no batch: 100 x 1 + 10 x 5 = 150 µ, and nothing is saved.
    asked("full", HAIKU, {"input_tokens": 100, "output_tokens": 10, "service_tier": "standard"}),
    # 400 x 1 + 50 x 4 + 3 x 10,000 = 30,600 µ; in real time 400 x 2 + 50 x 8 + 30,000 = 31,200 µ.
    asked(
        "searched",
        HOUSE,
        {"input_tokens": 400, "output_tokens": 50, "server_tool_use": {"web_search_requests": 3}},
        also="[[slow 0.7]]",  # So that the others are in a checkpoint before it.
    ),
    # A prompt of 100,001 tokens is dearer as a whole: 100,000 x 0.25 + 1 x 0.025 + 10 x 1.25 = 25,012.525 µ; in real
    # time 100,000 x 0.5 + 1 x 0.05 + 10 x 2.5 = 50,025.05 µ.
    asked("long", LONG, {"input_tokens": 100_000, "cache_read_input_tokens": 1, "output_tokens": 10}),
    asked("unknown", UNKNOWN, {"input_tokens": 77, "output_tokens": 3}),
    request("errored", "errored [[400]]", model=HAIKU),
]
# requests, input, read, written for 5 minutes, for an hour, output, searches, unpriced; cost and real time in USD.
EXPECTED = {
    # 1000 + 3130 + 150 = 4280 µ; 2000 + 6260 + 150 = 8410 µ.
    HAIKU: (3, 1_110, 5_000, 1_000, 2_000, 310, 0, 0, "0.00428", "0.00841"),
    HOUSE: (1, 400, 0, 0, 0, 50, 3, 0, "0.0306", "0.0312"),
    LONG: (1, 100_000, 1, 0, 0, 10, 0, 0, "0.025012525", "0.05002505"),
    UNKNOWN: (1, 77, 0, 0, 0, 3, 0, 1, "0", "0"),
    # 4280 + 30,600 + 25,012.525 = 59,892.525 µ; 8410 + 31,200 + 50,025.05 = 89,635.05 µ.
    "total": (6, 101_587, 5_001, 1_000, 2_000, 373, 3, 1, "0.059892525", "0.08963505"),
}
SAVED = "0.029742525"  # 89,635.05 - 59,892.525 µ.


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES)
    return {"OVERNIGHT_PRICES_FILE": str(file)}


@contextmanager
def serving(data: Path, upstream: str, environment: dict[str, str]) -> Iterator[WireClient]:
    """A client of a server over that directory."""
    running = running_server(data, "--engine", upstream, environment=environment)
    with running as server, closing(WireClient(server.url)) as client:
        yield client


def figures(row: dict[str, Any]) -> tuple[Any, ...]:
    cached = ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
    names = ("requests", "input_tokens", *cached, "output_tokens", "web_searches", "unpriced", "usd", "realtime_usd")
    return tuple(row[name] for name in names)


def until_ended(client: WireClient, batch_id: str) -> dict[str, Any]:
    while True:
        batch: dict[str, Any] = client.retrieve(batch_id)
        if batch["processing_status"] == "ended":
            return batch


def check(client: WireClient, batch_id: str) -> None:
    """Everything that tells what the batch cost tells what was worked out."""
    counts = until_ended(client, batch_id)["request_counts"]
    assert (counts["succeeded"], counts["errored"]) == (6, 1)
    of_batch = client.call("GET", f"/v1/overnight/batches/{batch_id}/usage").json
    by_model = client.call("GET", "/v1/overnight/usage?by=model").json
    found = {row["name"].partition(",")[0]: figures(row) for row in of_batch["rows"]}
    assert {**found, "total": figures(of_batch["total"])} == EXPECTED
    assert of_batch["total"]["saved_usd"] == SAVED
    assert {row["name"]: figures(row) for row in (*by_model["rows"], by_model["total"])} == EXPECTED
    day = "starting_at=2026-01-01T00:00:00Z&limit=31"
    costs = client.call("GET", f"/v1/organizations/cost_report?{day}").json
    while not (amounts := [item["amount"] for bucket in costs["data"] for item in bucket["results"]]):
        costs = client.call("GET", f"/v1/organizations/cost_report?{day}&page={costs['next_page']}").json
    assert amounts == ["5.9892525"], "cents"


def test_a_mixed_batch_costs_what_was_worked_out_by_hand(
    tmp_path: Path, upstream: str, environment: dict[str, str]
) -> None:
    with serving(tmp_path / "data", upstream, environment) as client:
        check(client, client.create(BATCH)["id"])


@pytest.mark.parametrize(
    "crash_at",
    [
        *(f"request.answered:{number}" for number in (1, 3, 6)),
        *("disk.torn:1", "disk.appended:1", "checkpoint.durable:1"),
        *("seal.object-durable:1", "seal.committed:1"),
    ],
)
def test_a_death_between_answer_and_seal_changes_no_figure(
    crash_at: str, tmp_path: Path, upstream: str, environment: dict[str, str]
) -> None:
    data = tmp_path / "data"
    dying = {**environment, **crashpoint.settings(crash_at=crash_at)}
    first = ServerProcess(data, "--engine", upstream, module="overnight.testing.crashpoint", environment=dying)
    with closing(WireClient(first.url)) as client:
        batch_id = client.create(BATCH)["id"]
    assert first.wait() == -9
    with serving(data, upstream, environment) as client:
        check(client, batch_id)


def test_people_who_wait_pay_in_full(tmp_path: Path, upstream: str, environment: dict[str, str]) -> None:
    """1000 x 1 + 200 x 5 = 2000 µ, in both columns; written down at the latest when the server leaves."""
    with serving(tmp_path / "data", upstream, environment) as client:
        assert client.call("POST", "/v1/messages", BATCH[0]["params"]).status == 200
    with serving(tmp_path / "data", upstream, environment) as client:
        found = client.call("GET", "/v1/overnight/usage?by=model").json
    assert figures(found["total"]) == (1, 1_000, 0, 0, 0, 200, 0, 0, "0.002", "0.002")


def test_own_hardware_costs_its_hours_whatever_its_tokens(tmp_path: Path, upstream: str) -> None:
    """At 3600 USD an hour a second costs a dollar. Ten requests of half a second are inside at once: together they
    cost half a dollar and what the machine was slower, never the five dollars of their times added up."""
    config = tmp_path / "overnight.toml"
    config.write_text(f'[[engines]]\nspec = "{upstream}"\nusd_per_hour = 3600.0\n')
    slow = [request(f"r{number}", f"{number} [[slow 0.5]]", model=HAIKU) for number in range(10)]
    with (
        running_server(tmp_path / "data", "--config", str(config)) as server,
        closing(WireClient(server.url)) as client,
    ):
        began_s = time.monotonic()
        until_ended(client, client.create(slow)["id"])
        took_s = time.monotonic() - began_s
        found = client.call("GET", "/v1/overnight/usage?by=engine").json
    total = found["total"]
    assert 0.5 <= float(total["usd"]) <= took_s
    assert (total["requests"], total["unpriced"]) == (10, 0)
    assert 0 < float(total["realtime_usd"]) < 0.01, "the public price of the name"
    (rate,) = found["rates"]
    assert float(rate["usd_per_mtok"]) == pytest.approx(float(total["usd"]) * 1e6 / rate["tokens"])
