"""GET /v1/organizations/usage_report/messages, /v1/organizations/cost_report and /v1/overnight/usage, over HTTP."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from overnight.core.usage import Sums, Used
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.ports.world import World
from overnight.server.usagereport import cents
from overnight.store.store import open_directory
from overnight.store.usage import Entry
from overnight.testing.observed import upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import Answer, WireClient, request

USAGE, COST = "/v1/organizations/usage_report/messages", "/v1/organizations/cost_report"
ADMIN, OURS, THEIRS = "sk-admin", "sk-ours", "sk-theirs"
WORKSPACES = {ADMIN: DEFAULT_WORKSPACE, OURS: WorkspaceId("wrkspc_ours"), THEIRS: WorkspaceId("wrkspc_theirs")}
DAY = datetime(2026, 11, 3, tzinfo=UTC)
RANGE = "starting_at=2026-11-03T00:00:00Z&ending_at=2026-11-06T00:00:00Z"


def ms(day: int, hour: int = 0, minute: int = 0) -> int:
    return int(DAY.replace(day=day, hour=hour, minute=minute).timestamp() * 1000)


def entry(key: str, model: str, *, tier: str = "batch", **sums: int) -> Entry:
    used = Used(model=model, engine="messages here", service_tier=tier, sums=Sums(requests=1, **sums))
    return Entry(workspace=WORKSPACES[key], api_key=f"apikey_{key}", used=used)


RECENT_MS = (int(time.time()) - 1_800) // 60 * 60_000
NOTED = (
    (ms(3, 10, 5), entry(OURS, "haiku", input_tokens=100, output_tokens=10, usd_nano=1_234_567)),
    (ms(3, 10, 6), entry(OURS, "opus", cache_read_tokens=7, cache_write_5m_tokens=8, usd_nano=10_000_000)),
    (ms(3, 23, 59), entry(THEIRS, "haiku", cache_write_1h_tokens=9, web_searches=2, usd_nano=1)),
    (RECENT_MS, entry(THEIRS, "recent", output_tokens=3)),
    (ms(5, 0, 0), entry(ADMIN, "haiku", tier="standard", input_tokens=50, usd_nano=20_000_000)),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that three keys open, and what each of them has used."""
    folder = tmp_path_factory.mktemp("reports")
    lines = [
        f'[[keys]]\nsha256 = "{sha256(key.encode()).hexdigest()}"\nworkspace = "{workspace}"\n'
        f'role = "{"admin" if key == ADMIN else "workspace"}"\n'
        for key, workspace in WORKSPACES.items()
    ]
    asyncio.run(_note(folder / "data"))
    with upstream_process() as upstream:
        (folder / "overnight.toml").write_text("".join(lines) + f'[[engines]]\nspec = "{upstream}"\n')
        with running_server(folder / "data", "--config", str(folder / "overnight.toml")) as found:
            yield found.url


async def _note(data: Path) -> None:
    async with open_directory(data, World()) as store:
        for now_ms, item in NOTED:
            await store.usage.note([item], now_ms=now_ms)


def ask(server: str, path: str, query: str, key: str = ADMIN) -> Answer:
    with closing(WireClient(server, api_key=key)) as client:
        return client.call("GET", f"{path}?{query}")


def good(server: str, path: str, query: str, key: str = ADMIN) -> Any:
    answer = ask(server, path, query, key)
    assert answer.status == 200, answer
    return answer.json


def results(report: Mapping[str, Any]) -> list[Any]:
    return [result for bucket in report["data"] for result in bucket["results"]]


def test_a_report_has_the_shape_of_the_reference(server: str) -> None:
    found = good(server, USAGE, f"{RANGE}&group_by[]=model&models[]=opus")
    assert found == {
        "data": [
            {
                "starting_at": "2026-11-03T00:00:00Z",
                "ending_at": "2026-11-04T00:00:00Z",
                "results": [
                    {
                        "account_id": None,
                        "api_key_id": None,
                        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 8},
                        "cache_read_input_tokens": 7,
                        "context_window": None,
                        "inference_geo": None,
                        "model": "opus",
                        "output_tokens": 0,
                        "server_tool_use": {"web_search_requests": 0},
                        "service_account_id": None,
                        "service_tier": None,
                        "speed": None,
                        "uncached_input_tokens": 0,
                        "workspace_id": None,
                    }
                ],
            },
            {"starting_at": "2026-11-04T00:00:00Z", "ending_at": "2026-11-05T00:00:00Z", "results": []},
            {"starting_at": "2026-11-05T00:00:00Z", "ending_at": "2026-11-06T00:00:00Z", "results": []},
        ],
        "has_more": False,
        "next_page": None,
    }


def test_costs_are_cents_to_the_last_digit(server: str) -> None:
    """1,234,567 + 10,000,000 + 1 nano are 1.1234568 cents; 20,000,000 are 2."""
    assert [result["amount"] for result in results(good(server, COST, RANGE))] == ["1.1234568", "2"]
    described = results(good(server, COST, f"{RANGE}&group_by[]=description&group_by[]=workspace_id"))
    assert [(item["workspace_id"], item["model"], item["service_tier"], item["amount"]) for item in described] == [
        ("wrkspc_ours", "haiku", "batch", "0.1234567"),
        ("wrkspc_ours", "opus", "batch", "1"),
        ("wrkspc_theirs", "haiku", "batch", "0.0000001"),
        (None, "haiku", "standard", "2"),
    ]
    assert described[0]["description"] == "haiku usage, batch"
    assert described[0] | {"cost_type": "tokens", "currency": "USD", "token_type": None} == described[0]


@pytest.mark.parametrize(
    ("nano", "amount"), [(0, "0"), (1, "0.0000001"), (10**9, "100"), (10**18 + 1, "100000000000.0000001")]
)
def test_cents_have_no_exponent(nano: int, amount: str) -> None:
    assert cents(nano) == amount


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        pytest.param("", [100, 50], id="all"),
        pytest.param("&service_tiers[]=batch", [100], id="a tier"),
        pytest.param("&workspace_ids[]=wrkspc_theirs", [0], id="a workspace"),
        pytest.param(
            "&api_key_ids=apikey_sk-ours&api_key_ids[]=apikey_sk-admin", [100, 50], id="with and without []"
        ),
        pytest.param("&models[]=haiku' OR '1'='1", [], id="nobody"),
    ],
)
def test_filters_take_what_is_named(server: str, query: str, tokens: list[int]) -> None:
    found = results(good(server, USAGE, RANGE + query.replace(" ", "%20").replace("'", "%27")))
    assert [result["uncached_input_tokens"] for result in found] == tokens


def test_buckets_are_minutes_hours_and_days_and_begin_where_those_do(server: str) -> None:
    hours = good(server, USAGE, "starting_at=2026-11-03T10:05:30Z&bucket_width=1h&limit=2")
    assert [bucket["starting_at"] for bucket in hours["data"]] == ["2026-11-03T10:00:00Z", "2026-11-03T11:00:00Z"]
    assert [len(bucket["results"]) for bucket in hours["data"]] == [1, 0]
    east = datetime.fromtimestamp(RECENT_MS / 1000, timezone(timedelta(hours=2)))
    asked = f"starting_at={east:%Y-%m-%dT%H:%M:%S}%2B02:00&bucket_width=1m&limit=2"
    minutes = good(server, USAGE, asked)
    assert [[result["output_tokens"] for result in bucket["results"]] for bucket in minutes["data"]] == [[3], []]
    assert minutes["data"][0]["starting_at"] == f"{east.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_minutes_of_long_ago_are_kept_by_the_hour(server: str) -> None:
    """Two days back minutes are told apart; two requests of one hour are one line here."""
    found = good(server, USAGE, "starting_at=2026-11-03T10:00:00Z&bucket_width=1m&limit=10")
    assert [len(bucket["results"]) for bucket in found["data"]] == [1] + 9 * [0]


@pytest.mark.parametrize(("width", "default", "most"), [("1m", 60, 1_440), ("1h", 24, 168), ("1d", 7, 31)])
def test_a_page_has_as_many_buckets_as_the_reference(server: str, width: str, default: int, most: int) -> None:
    asked = f"starting_at=2026-01-01T00:00:00Z&ending_at=2026-06-01T00:00:00Z&bucket_width={width}"
    assert len(good(server, USAGE, asked)["data"]) == default
    assert len(good(server, USAGE, f"{asked}&limit={most}")["data"]) == most
    status, _, said = ask(server, USAGE, f"{asked}&limit={most + 1}").error
    assert (status, said) == (400, f"limit: Input should be less than or equal to {most}")


def test_pages_follow_each_other_without_a_gap(server: str) -> None:
    page = good(server, USAGE, f"{RANGE}&limit=1&group_by=model")
    starts, seen = [], []
    while True:
        starts += [bucket["starting_at"] for bucket in page["data"]]
        seen += [(result["model"], result["uncached_input_tokens"]) for result in results(page)]
        if not page["has_more"]:
            break
        page = good(server, USAGE, f"{RANGE}&limit=1&group_by=model&page={page['next_page']}")
    assert starts == ["2026-11-03T00:00:00Z", "2026-11-04T00:00:00Z", "2026-11-05T00:00:00Z"]
    assert seen == [("haiku", 100), ("opus", 0), ("haiku", 50)]
    assert page["next_page"] is None


def test_what_is_of_today_is_shown_and_nothing_of_tomorrow(server: str) -> None:
    now = datetime.now(UTC)
    found = good(server, COST, f"starting_at={now:%Y-%m-%d}T00:00:00Z&ending_at=2999-01-01T00:00:00Z&limit=31")
    assert 1 <= len(found["data"]) <= 2, "two if it is midnight"
    assert found["data"][0]["starting_at"][:10] == f"{now:%Y-%m-%d}"


def test_a_key_of_a_workspace_sees_that_and_not_that_there_are_others(server: str) -> None:
    query = f"{RANGE}&group_by[]=workspace_id&group_by[]=api_key_id"
    ours = results(good(server, USAGE, query, OURS))
    assert [(item["workspace_id"], item["api_key_id"]) for item in ours] == [("wrkspc_ours", "apikey_sk-ours")]
    for key in (OURS, THEIRS):
        other = "wrkspc_theirs" if key == OURS else "wrkspc_ours"
        assert results(good(server, USAGE, f"{RANGE}&workspace_ids[]={other}", key)) == []
        assert good(server, USAGE, f"{RANGE}&workspace_ids[]={other}", key) == good(
            server, USAGE, f"{RANGE}&workspace_ids[]=wrkspc_nobody", key
        )
    assert [item["amount"] for item in results(good(server, COST, RANGE, THEIRS))] == ["0.0000001"]
    assert {item["workspace_id"] for item in results(good(server, USAGE, query))} == {
        None,
        "wrkspc_ours",
        "wrkspc_theirs",
    }


@pytest.mark.parametrize(
    "path", [USAGE, COST, "/v1/overnight/usage", "/v1/overnight/batches/msgbatch_01none123456/usage"]
)
def test_nobody_sees_anything_without_a_key(server: str, path: str) -> None:
    assert ask(server, path, RANGE, "sk-wrong").status == 401


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        (USAGE, "", "starting_at: Field required"),
        (USAGE, "starting_at=soon", "starting_at: Input should be a valid datetime in RFC 3339"),
        (USAGE, f"{RANGE}&ending_at=2026-11-03T00:00:00Z", "ending_at: Input should be after starting_at"),
        (USAGE, f"{RANGE}&bucket_width=1w", "bucket_width: Input should be '1d', '1h' or '1m'"),
        (COST, f"{RANGE}&bucket_width=1h", "bucket_width: Input should be '1d'"),
        (USAGE, f"{RANGE}&limit=0", "limit: Input should be greater than or equal to 1"),
        (USAGE, f"{RANGE}&limit=x", "limit: Input should be a valid integer"),
        (COST, f"{RANGE}&group_by[]=model", "group_by.0: Input should be 'description' or 'workspace_id'"),
        (USAGE, f"{RANGE}&inference_geos[]=us", "inference_geos[]: Extra inputs are not permitted"),
        (COST, f"{RANGE}&models[]=x", "models[]: Extra inputs are not permitted"),
        (USAGE, f"{RANGE}&page=page_x", "page: Input should be the next_page of an earlier answer"),
        (USAGE, f"{RANGE}&page=page_MQ", "page: Input should be the next_page of an answer to the same question"),
        ("/v1/overnight/usage", "by=week", "by: Input should be one of day, workspace, model, engine, key, batch"),
        ("/v1/overnight/usage", "since=401d", "since: Input should be from 1d to 400d"),
        ("/v1/overnight/usage", "since=0001-01-01", "since: Input should be from 2000-01-01 on"),
        (
            "/v1/overnight/usage",
            "since=2025-01-01&until=2026-11-01",
            "until: Input should be at most 400 days from since, and not before",
        ),
    ],
)
def test_what_is_wrong_is_said(server: str, path: str, query: str, said: str) -> None:
    assert ask(server, path, query).error == (400, "invalid_request_error", said)


def test_groups_that_we_have_no_word_for_are_null(server: str) -> None:
    found = results(good(server, USAGE, f"{RANGE}&group_by[]=inference_geo"))
    assert [item["inference_geo"] for item in found] == [None, None]
    assert ask(server, USAGE, f"{RANGE}&group_by[]=engine").status == 400


def test_a_table_has_the_days_the_money_and_what_was_saved(server: str) -> None:
    found = good(server, "/v1/overnight/usage", "since=2026-11-03&until=2026-11-05&by=day")
    assert [(row["name"], row["requests"], row["usd"]) for row in found["rows"]] == [
        ("2026-11-03", 3, "0.011234568"),
        ("2026-11-05", 1, "0.02"),
    ]
    assert (found["total"]["requests"], found["total"]["usd"]) == (4, "0.031234568")
    # 21,234,568 nano for 100 + 10 + 9 + 50 tokens of haiku; 10,000,000 for 15 of opus.
    assert [(rate["model"], rate["tokens"], rate["usd_per_mtok"]) for rate in found["rates"]] == [
        ("haiku", 169, "125.64833136"),
        ("opus", 15, "666.666666666"),
    ]
    ours = good(server, "/v1/overnight/usage", "since=2026-11-03&until=2026-11-05&by=workspace", OURS)
    assert [row["name"] for row in ours["rows"]] == ["wrkspc_ours"]


def test_the_usage_of_a_batch_is_seen_by_its_workspace_alone(server: str) -> None:
    with closing(WireClient(server, api_key=OURS)) as client:
        batch_id = client.create([request("a", model="claude-haiku-4-5")])["id"]
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
        (row,) = client.call("GET", f"/v1/overnight/batches/{batch_id}/usage").json["rows"]
    assert (row["name"].startswith("claude-haiku-4-5, batch, messages "), row["requests"]) == (True, 1)
    for key in (ADMIN, THEIRS):
        assert ask(server, f"/v1/overnight/batches/{batch_id}/usage", "", key).status == 404
        assert all(row["name"] != batch_id for row in good(server, "/v1/overnight/usage", "by=batch", key)["rows"])
    assert [row["name"] for row in good(server, "/v1/overnight/usage", "by=batch", OURS)["rows"]] == [batch_id]
