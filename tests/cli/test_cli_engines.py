"""`overnight engines`, the reason in `overnight status`, and what `overnight serve` says of its hours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_calls import inside, overnight
from click.testing import CliRunner, Result
from rich.console import Console

from overnight.cli.engines import lines, table
from overnight.cli.main import cli
from overnight.ports.world import World
from overnight.runner.status import BacklogStatus, EngineStatus, Status
from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import WireClient, request

KEY = "sk-engines"
_NEVER = 'hours = ["mon 00:00-00:01"]\ntime_zone = "{zone}"\n'


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[ObservedServer]:
    """An engine that is open a minute a week."""
    folder = tmp_path_factory.mktemp("engines")
    config = folder / "overnight.toml"
    config.write_text(f'api_key = "{KEY}"\n[[engines]]\nspec = "{upstream}"\n' + _NEVER.format(zone="Europe/Berlin"))
    with observed_server(folder / "data", "--config", str(config)) as found:
        yield found


def _environment(server: ObservedServer, key: str = KEY) -> dict[str, str]:
    return {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": key}


def test_each_engine_has_a_line_and_the_backlog_one(server: ObservedServer, upstream: str) -> None:
    printed = inside("engines", environment=_environment(server))
    assert (printed.code, printed.err) == (0, "")
    first, last = printed.out.splitlines()
    assert first.startswith(f"messages {upstream}: 0 in flight, window 32 of ")
    assert first.endswith(" Europe/Berlin")
    assert "; opens " in first
    assert last.startswith("0 requests wait here")


def test_status_of_engines_is_the_same(server: ObservedServer) -> None:
    environment = _environment(server)
    assert inside("status", "--engines", environment=environment) == inside("engines", environment=environment)
    told = inside("status", "--engines", "--json", environment=environment)
    assert json.loads(told.out)["engines"][0]["window"] == 32


def test_the_server_option_is_more_than_the_environment(server: ObservedServer) -> None:
    environment = {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": KEY}
    assert inside("engines", "--server", server.url, environment=environment).code == 0


def test_json_is_what_the_server_says(server: ObservedServer) -> None:
    printed = inside("engines", "--json", environment=_environment(server))
    found = json.loads(printed.out)
    assert len(printed.out.splitlines()) == 1
    assert [engine["held_by"] for engine in found["engines"]] == ["hours"]


def test_a_wrong_key_and_a_server_that_is_not_there_are_said_in_a_line(server: ObservedServer) -> None:
    wrong = inside("engines", environment=_environment(server, "wrong"))
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err == f"overnight: {server.url}: API key is invalid.\n"
    absent = inside("engines", "--server", "http://127.0.0.1:9")
    assert (absent.code, absent.out) == (1, "")
    assert absent.err.startswith("overnight: http://127.0.0.1:9: ")


def test_another_kind_of_server_is_refused(upstream: str) -> None:
    printed = inside("engines", "--server", upstream)
    assert (printed.code, printed.out) == (1, "")
    assert printed.err.startswith(f"overnight: {upstream}: ")


def test_a_password_in_the_address_is_not_repeated() -> None:
    printed = inside("engines", "--server", "http://user:hunter2@127.0.0.1:8642")
    assert printed.code == 2
    assert "hunter2" not in printed.out + printed.err


class _Pauses:
    """Waits no time, and is interrupted in its third wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait_s(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == 3:
            raise KeyboardInterrupt


def _watched(*arguments: str, environment: dict[str, str]) -> tuple[Result, _Pauses]:
    pauses = _Pauses()
    result = CliRunner().invoke(cli, ["engines", "--watch", *arguments], env=environment, obj=World(pause=pauses))
    return result, pauses


def test_watch_looks_every_second_until_it_is_interrupted(server: ObservedServer) -> None:
    result, pauses = _watched("--json", environment=_environment(server))
    assert result.exit_code == 130
    assert pauses.waits == [1.0, 1.0, 1.0]
    assert [len(json.loads(line)["engines"]) for line in result.stdout.splitlines()] == [1, 1, 1]


def test_watch_goes_on_while_the_server_is_not_there() -> None:
    result, pauses = _watched("--server", "http://127.0.0.1:9", environment={})
    assert result.exit_code == 130
    assert len(pauses.waits) == len(result.stderr.splitlines()) == 3


def test_status_of_a_batch_says_why_it_waits(server: ObservedServer, upstream: str) -> None:
    with closing(WireClient(server.url, api_key=KEY)) as client:
        batch_id = client.create([request("a")])["id"]
        printed = inside("status", batch_id, environment=_environment(server))
        status, waiting, *counts = printed.out.splitlines()
        assert status == "Status: in_progress"
        assert waiting.startswith(f"Waiting: engine messages {upstream} opens ")
        assert "Processing: 1" in counts
        shown = json.loads(overnight("status", batch_id, "--json", environment=_environment(server)).out)
        assert f"Waiting: {shown['waiting']}" == waiting
        client.cancel(batch_id)
        assert "Waiting" not in inside("status", batch_id, environment=_environment(server)).out


def test_serve_says_when_each_engine_with_hours_opens(tmp_path: Path, upstream: str) -> None:
    config = tmp_path / "overnight.toml"
    config.write_text(
        f'[[engines]]\nspec = "{upstream}"\n[[engines]]\nspec = "chat+{upstream}"\n' + _NEVER.format(zone="UTC")
    )
    with running_server(tmp_path / "data", "--config", str(config)) as started:
        out = started.process.stdout
        assert out is not None
        started.process.terminate()
        said = out.read()
    assert said.startswith(f"engine chat+{upstream} opens ")
    assert said.endswith(" UTC\n")


def test_help_shows_how_it_is_used() -> None:
    printed = inside("engines", "--help")
    for word in ("--server", "--watch", "--json", "overnight engines --watch"):
        assert word in printed.out


# --- What is shown --------------------------------------------------------------------------------------------------

_ENGINE = EngineStatus(
    name="messages http://127.0.0.1:8000",
    rank=0,
    is_replica=False,
    held_by="window",
    held="is full: 1,064 requests are inside",
    is_away=False,
    away_since=None,
    in_flight=1064,
    interactive=2,
    window=1064,
    window_max=4096,
    ceiling=None,
    tokens_in_flight=0,
    tokens_limit=None,
    share=1.0,
    hours="always open",
    signal=None,
    speed_per_s=4.56,
    running=60,
    waiting=6,
    kv_share=None,
    rate_wait_s=0.0,
    trouble="",
)
_BACKLOG = BacklogStatus(
    waiting={"b": 7, "a": 1000}, segments=3, danger_until="2026-05-28T20:26:40Z", unfinished=9000
)
_SHOWN = (
    "1,007 requests wait here (a 1,000, b 7), 9,000 are unfinished in all; "
    "deadlines up to 2026-05-28T20:26:40Z are in danger"
)


_HEAD = ["engine", "window", "in", "flight", "people", "waiting", "per", "s", "why"]


def _status(engine: EngineStatus) -> Status:
    return Status(at="2026-05-28T20:26:40Z", engines=[engine], backlog=_BACKLOG)


def _drawn(status: Status) -> str:
    console = Console(file=StringIO(), width=160, markup=False, highlight=False, force_terminal=False)
    console.print(table(status))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_line_has_all_that_is_known() -> None:
    assert lines(_status(_ENGINE)) == [
        "messages http://127.0.0.1:8000: 1,064 in flight, window 1,064 of 4,096, 2 of people, 6 waiting inside, "
        "4.6 per s; is full: 1,064 requests are inside",
        _SHOWN,
    ]


def test_the_table_has_the_same() -> None:
    head, row, *caption = _drawn(_status(_ENGINE)).splitlines()
    assert head.split() == _HEAD
    cells = "messages http://127.0.0.1:8000 1,064 of 4,096 1,064 2 6 4.6 is full: 1,064 requests are inside"
    assert row.split() == cells.split()
    assert " ".join(" ".join(caption).split()) == _SHOWN


def test_what_an_engine_says_cannot_lead_a_terminal_or_the_markup() -> None:
    hostile = msgspec.structs.replace(_ENGINE, held="is away: [red]x[/red] \x1b[2J\r\n\x07")
    drawn, (line, _) = _drawn(_status(hostile)), lines(_status(hostile))
    for shown in (drawn, line):
        assert "[red]x[/red] ?[2J???" in shown
        assert "\x1b" not in shown


def test_a_terminal_gets_a_table(server: ObservedServer) -> None:
    shown = _on_a_terminal("engines", environment=_environment(server))
    assert shown.splitlines()[0].split() == _HEAD


def _on_a_terminal(*arguments: str, environment: dict[str, Any]) -> str:
    """What the command writes to a terminal of 160 columns."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "overnight.cli.main", *arguments]
    env = {**os.environ, **environment, "TERM": "xterm", "COLUMNS": "160", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=env) as process:
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 4096):
                written += piece
        except OSError:  # Linux says so when the other side is closed.
            pass
    os.close(ours)
    assert process.returncode == 0
    return written.decode().replace("\x1b[1m", "").replace("\x1b[0m", "")
