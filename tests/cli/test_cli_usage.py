"""`overnight usage`: over HTTP and on a data directory, as a table, CSV and JSON."""

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_calls import inside

from overnight.core.usage import Sums, Used
from overnight.core.workspace import DEFAULT
from overnight.ports.world import World
from overnight.store.store import open_directory
from overnight.store.usage import Entry
from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import WireClient, request

KEY = "sk-usage"
DAYS = ("--since", "2026-11-03", "--until", "2026-11-04")
_DAY_MS = 1_793_664_000_000  # 2026-11-03 00:00 UTC.


def _used(model: str, *, engine: str = "messages gpu", **sums: int) -> Entry:
    used = Used(model=model, engine=engine, service_tier="batch", sums=Sums(requests=1, **sums))
    return Entry(workspace=DEFAULT.id, api_key="apikey_1", used=used)


async def _note(data: Path) -> None:
    async with open_directory(data, World()) as store:
        mine = _used("house", input_tokens=750, output_tokens=250, usd_nano=2_000_000, realtime_usd_nano=5_000_000)
        await store.usage.note([mine], now_ms=_DAY_MS)
        await store.usage.note([_used("=cmd|' /C calc'!A0", input_tokens=9, unpriced=1)], now_ms=_DAY_MS + 86_400_000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that no server uses."""
    found = tmp_path_factory.mktemp("usage") / "data"
    asyncio.run(_note(found))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("usage-server")
    asyncio.run(_note(folder / "data"))
    with upstream_process() as upstream:
        environment = {"OVERNIGHT_API_KEY": KEY}
        with running_server(folder / "data", "--engine", upstream, environment=environment) as found:
            yield found


def test_a_table_has_a_line_for_each_day_and_their_sum(data: Path) -> None:
    printed = inside("usage", "--data", str(data), *DAYS)
    assert (printed.code, printed.err) == (0, "")
    head, first, second, total, rate = (line.split() for line in printed.out.splitlines())
    assert head == ["day", "requests", "input", "cached", "output", "cost", "real", "time", "saved", "unpriced"]
    assert first == ["2026-11-03", "1", "750", "0", "250", "0.002", "0.005", "0.003"]
    assert second == ["2026-11-04", "1", "9", "0", "0", "0", "0", "0", "1"]
    assert total == ["total", "2", "759", "0", "250", "0.002", "0.005", "0.003", "1"]
    assert " ".join(rate) == "house at messages gpu: 2.00 USD for a million tokens"


def test_a_server_and_its_directory_say_the_same(server: ServerProcess, data: Path) -> None:
    for by in ("day", "workspace", "model", "engine", "key"):
        asked = ("usage", *DAYS, "--by", by, "--format", "json")
        over_http = inside(*asked, environment={"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY})
        assert over_http == inside(*asked, "--url", server.url, environment={"OVERNIGHT_API_KEY": KEY})
        assert over_http == inside(*asked, "--data", str(data))
        assert json.loads(over_http.out)["total"]["requests"] == 2


def test_a_directory_is_read_beside_its_server(server: ServerProcess) -> None:
    beside = server.log_path.with_name("data")
    assert json.loads(inside("usage", "--data", str(beside), *DAYS, "--format", "json").out)["total"]["requests"] == 2


def test_csv_has_every_count_and_no_formula(data: Path) -> None:
    printed = inside("usage", "--data", str(data), *DAYS, "--by", "model", "--format", "csv")
    house, hostile = csv.DictReader(io.StringIO(printed.out))
    assert (house["name"], house["input_tokens"], house["usd"], house["saved_usd"]) == (
        "house",
        "750",
        "0.002",
        "0.003",
    )
    assert hostile["name"] == "'=cmd|' /C calc'!A0"
    assert hostile["unpriced"] == "1"


def test_one_batch_is_told_by_its_name(server: ServerProcess) -> None:
    environment = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": KEY}
    with closing(WireClient(server.url, api_key=KEY)) as client:
        batch_id = client.create([request("a", model="claude-haiku-4-5")])["id"]
        while client.retrieve(batch_id)["processing_status"] != "ended":
            pass
    printed = inside("usage", batch_id, "--format", "json", environment=environment)
    assert json.loads(printed.out)["total"]["requests"] == 1
    beside = server.log_path.with_name("data")
    assert inside("usage", batch_id, "--data", str(beside), "--format", "json").out == printed.out
    by_batch = inside("usage", "--data", str(beside), "--by", "batch", "--format", "csv")
    assert [row["name"] for row in csv.DictReader(io.StringIO(by_batch.out))] == [batch_id]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "nowhere"), 2, "--data: nowhere is no data directory of a server"),
        (("--data", "x", "--url", "http://y"), 2, "--data and --url: one of them"),
        (("msgbatch",), 2, "'msgbatch' is no batch; their names begin with msgbatch_"),
        (("--url", "http://127.0.0.1:9"), 1, "http://127.0.0.1:9: "),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    printed = inside("usage", *arguments)
    assert (printed.code, printed.out) == (code, "")
    assert printed.err.startswith(f"overnight: {said}")
    assert printed.err.count("\n") == 1


def test_wrong_days_are_named_by_their_option(data: Path, server: ServerProcess) -> None:
    here = inside("usage", "--data", str(data), "--since", "soon")
    assert here.err == "overnight: --since: Input should be a day such as 2026-11-25, not 'soon'\n"
    there = inside("usage", "--url", server.url, "--since", "soon", environment={"OVERNIGHT_API_KEY": KEY})
    assert (there.code, "since: Input should be a day" in there.err) == (1, True)


def test_a_key_is_in_no_message(server: ServerProcess) -> None:
    printed = inside("usage", "--url", server.url, environment={"OVERNIGHT_API_KEY": "sk-very-secret"})
    assert printed.code == 1
    assert "API key is invalid" in printed.err
    assert "sk-very-secret" not in printed.err + printed.out
