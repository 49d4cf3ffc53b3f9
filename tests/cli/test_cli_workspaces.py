"""`overnight workspaces`: on a directory that no server uses. With a server: tests/conformance/test_workspaces.py."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Printed, inside

from overnight.core.usage import NANO, Sums, Used
from overnight.core.workspace import Rules
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.store.store import open_beside
from overnight.store.usage import Entry

_DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def workspaces(data: Path, *arguments: str) -> Printed:
    return inside("workspaces", *arguments, environment={"OVERNIGHT_DATA": str(data)})


def created(data: Path, *arguments: str) -> Any:
    printed = workspaces(data, "create", *arguments, "--json")
    assert printed.code == 0, printed.err
    return json.loads(printed.out)


def shown(data: Path, name: str) -> Any:
    return json.loads(workspaces(data, "show", name, "--json").out)


_GIVEN = {
    "--requests-per-minute": ("requests_per_minute", "60", 60),
    "--queue-requests-max": ("queue_requests_max", "1000", 1000),
    "--batch-requests-max": ("batch_requests_max", "100000", 100_000),
    "--usd-per-day": ("usd_per_day", "2.5", 2.5),
    "--usd-per-month": ("usd_per_month", "0.001", 0.001),
    "--weight": ("weight", "0.5", 0.5),
    "--model": ("models", "claude-*", ["claude-*"]),
    "--engine": ("engines", "*", ["*"]),
    "--results-days": ("results_days", "29", 29),
    "--requests-days": ("requests_days", "0", 0),
}


def test_every_rule_has_an_option() -> None:
    assert [rule for rule, _, _ in _GIVEN.values()] == list(Rules.__struct_fields__)


@pytest.mark.parametrize("flag", list(_GIVEN))
def test_each_rule_is_set_and_taken_away_by_itself(data: Path, flag: str) -> None:
    rule, text, value = _GIVEN[flag]
    created(data, "research", "--weight" if flag != "--weight" else "--usd-per-day", "3")
    before = shown(data, "research")["rules"]
    assert workspaces(data, "set", "research", flag, text).code == 0
    assert shown(data, "research")["rules"] == {**before, rule: value}
    printed = workspaces(data, "show", "research")
    assert f"{flag.removeprefix('--')}:" in printed.out
    assert workspaces(data, "set", "research", flag.replace("--", "--no-", 1)).code == 0
    assert shown(data, "research")["rules"] == before


def test_a_workspace_is_made_with_rules_at_once(data: Path) -> None:
    made = created(data, "research", "--model", "a*", "--model", "b*", "--usd-per-day", "5")
    assert made["rules"] == {"models": ["a*", "b*"], "usd_per_day": 5.0}
    assert made["id"].startswith("wrkspc_01")
    assert shown(data, made["id"]) == shown(data, "research")


def test_a_workspace_of_the_settings_gets_rules_by_its_id(data: Path) -> None:
    assert created(data, "research", "--id", "wrkspc_01research", "--usd-per-day", "5")["id"] == "wrkspc_01research"
    for refused in ("wrkspc_01research", "wrkspc_01default", "research", "wrkspc_../x", ""):
        assert workspaces(data, "create", "other", "--id", refused).code == 2
    assert len(json.loads(workspaces(data, "list", "--json").out)) == 2


def test_the_default_workspace_has_rules_too(data: Path) -> None:
    created(data, "research")
    assert workspaces(data, "set", "default", "--requests-per-minute", "600").code == 0
    assert shown(data, "default")["rules"] == {"requests_per_minute": 600}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--usd-per-day", "nan"), "--usd-per-day: nan is no number", id="not-a-number"),
        pytest.param(("--usd-per-day", "inf"), "--usd-per-day: inf is no number", id="endless"),
        pytest.param(("--usd-per-day", "0"), "--usd-per-day: Expected `float` > 0.0", id="zero"),
        pytest.param(("--usd-per-month", "1000001"), "--usd-per-month: Expected `float` <= 1000000.0", id="unit"),
        pytest.param(("--weight", "1001"), "--weight: Expected `float` <= 1000.0", id="weight"),
        pytest.param(("--requests-per-minute", "0"), "--requests-per-minute: Expected `int` >= 1", id="rate"),
        pytest.param(("--batch-requests-max", "100001"), "--batch-requests-max: Expected `int` <= 100000", id="api"),
        pytest.param(("--results-days", "30"), "--results-days: Expected `int` <= 29", id="lifetime"),
        pytest.param(("--model", ""), "--model: an empty pattern matches nothing", id="pattern"),
        pytest.param(("--weight", "2", "--no-weight"), "--weight and --no-weight contradict", id="both"),
        pytest.param((), "nothing to set", id="nothing"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_changes_nothing(
    data: Path, arguments: tuple[str, ...], said: str
) -> None:
    created(data, "research", "--usd-per-day", "5")
    refused = workspaces(data, "set", "research", *arguments)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert shown(data, "research")["rules"] == {"usd_per_day": 5.0}


@pytest.mark.parametrize("name", ["default", "research", "wrkspc_x", " x", "x\ty", "x" * 101])
def test_a_name_that_is_taken_or_misleads_is_refused(data: Path, name: str) -> None:
    created(data, "research")
    assert workspaces(data, "create", name).code == 2
    assert len(json.loads(workspaces(data, "list", "--json").out)) == 2


def test_a_list_has_a_line_for_each(data: Path) -> None:
    made = created(data, "research", "--usd-per-day", "5", "--model", "claude-*")
    inside("keys", "create", "--workspace", "research", environment={"OVERNIGHT_DATA": str(data)})
    head, first, second = workspaces(data, "list").out.splitlines()
    assert head.split("  ")[0] == "id"
    assert first.split() == ["wrkspc_01default", "default", "open", "0", "0.00", "0.00", "none"]
    cells = [made["id"], "research", "open", "1", "0.00", "0.00", "usd-per-day", "5,", "model", "claude-*"]
    assert second.split() == cells


def test_what_was_spent_today_and_this_month_is_shown(data: Path) -> None:
    made = created(data, "research", "--usd-per-day", "5")
    world = World()
    now_ms = world.clock.now_ms()

    async def spend() -> None:
        async with open_beside(data, world) as store:
            for at_ms, usd in ((now_ms, 2), (now_ms - 40 * _DAY_MS, 64)):
                sums = Sums(requests=1, usd_nano=usd * NANO)
                used = Used(model="m", engine="e", service_tier="batch", sums=sums)
                entry = Entry(workspace=WorkspaceId(made["id"]), api_key="", used=used)
                await store.usage.note([entry], now_ms=at_ms)

    asyncio.run(spend())
    world.offload.close()
    found = shown(data, "research")
    assert (found["spent_today_usd"], found["spent_this_month_usd"]) == (2.0, 2.0)
    assert "spent today:          2.00 USD\n" in workspaces(data, "show", "research").out


def test_an_archived_workspace_stays_in_the_list_and_gets_no_key(data: Path) -> None:
    made = created(data, "research")
    assert workspaces(data, "archive", "research").out == f"Workspace research ({made['id']}) is archived.\n"
    assert shown(data, "research")["archived_at"] is not None
    assert " archived " in workspaces(data, "list").out
    refused = inside("keys", "create", "--workspace", "research", environment={"OVERNIGHT_DATA": str(data)})
    assert (refused.code, refused.out) == (2, "")


def test_the_default_workspace_cannot_be_archived(data: Path) -> None:
    created(data, "research")
    refused = workspaces(data, "archive", "default")
    assert (refused.code, refused.out) == (2, "")
    assert "revoke its keys instead" in refused.err


def test_what_is_not_there_is_said(data: Path) -> None:
    created(data, "research")
    for arguments in (("show", "x"), ("set", "x", "--weight", "2"), ("archive", "x")):
        refused = workspaces(data, *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert "there is no workspace 'x'" in refused.err


def test_help_shows_how_they_are_used() -> None:
    for arguments, words in (
        (("workspaces", "--help"), ("create", "archive", "--no-usd-per-day")),
        (("workspaces", "set", "--help"), [*_GIVEN, "--no-usd-per-day --no-model"]),
    ):
        said = inside(*arguments).out
        assert [word for word in words if word not in said] == []
