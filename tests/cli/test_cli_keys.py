"""`overnight keys`: on a directory that no server uses. With a server: tests/conformance/test_workspaces.py."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cli_calls import Printed, inside

from overnight.server.access import digest_of

_KEY = re.compile(r"sk-ant-(?:api03|admin01)-overnight-[0-9A-Za-z]{83}AA")
_DAY_S = 24 * 3600


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def keys(data: Path, *arguments: str) -> Printed:
    return inside("keys", *arguments, environment={"OVERNIGHT_DATA": str(data)})


def created(data: Path, *arguments: str) -> Any:
    printed = keys(data, "create", "--json", *arguments)
    assert printed.code == 0, printed.err
    return json.loads(printed.out)


def listed(data: Path) -> dict[str, Any]:
    """The keys by id."""
    return {key["id"]: key for key in json.loads(keys(data, "list", "--json").out)}


def life_s(key: Any) -> float:
    """How long a key opens."""
    return (datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])).total_seconds()


def test_a_key_is_printed_once_with_what_to_export(data: Path) -> None:
    printed = keys(data, "create", "--name", "airflow")
    (key,) = _KEY.findall(printed.out)
    assert f"  export ANTHROPIC_API_KEY={key}\n" in printed.out
    assert "of workspace default does not expire" in printed.out
    assert "From now on everybody has to show a key." in printed.out
    assert "From now on" not in keys(data, "create").out


def test_quiet_prints_the_key_and_nothing_else(data: Path) -> None:
    printed = keys(data, "create", "--quiet")
    assert _KEY.fullmatch(printed.out.removesuffix("\n"))
    rotated = keys(data, "rotate", next(iter(listed(data))), "--quiet")
    assert _KEY.fullmatch(rotated.out.removesuffix("\n"))
    assert rotated.out != printed.out


def test_the_directory_holds_the_digest_and_never_the_key(data: Path) -> None:
    made = [created(data), created(data, "--admin")]
    made.append(json.loads(keys(data, "rotate", made[0]["id"], "--json").out))
    kept = b"".join(path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file())
    for key in made:
        assert key["key"].encode() not in kept
        assert key["key"][-20:].encode() not in kept
        assert digest_of(key["key"]).encode() in kept, "so that the search above would have found a key"


def test_a_list_tells_everything_but_the_key(data: Path) -> None:
    made = created(data, "--name", "airflow", "--expires", "90d")
    (found,) = listed(data).values()
    assert found == {name: value for name, value in made.items() if name != "key"}
    printed = keys(data, "list")
    assert made["key"] not in printed.out
    head, row = printed.out.splitlines()
    assert head.split() == ["id", "key", "name", "workspace", "role", "created", "expires", "state"]
    assert row.split()[:5] == [made["id"], made["hint"], "airflow", "default", "workspace"]
    assert row.split()[-1] == "open"


def test_a_name_cannot_lead_a_terminal_or_the_markup(data: Path) -> None:
    created(data, "--name", "[red]x[/red]")
    assert "[red]x[/red]" in keys(data, "list").out
    refused = keys(data, "create", "--name", "a\x1b[2Jb")
    assert (refused.code, refused.out) == (2, "")
    assert "\x1b" not in refused.err


@pytest.mark.parametrize(
    ("flags", "role", "prefix"),
    [
        pytest.param((), "workspace", "sk-ant-api03-", id="workspace"),
        pytest.param(("--admin",), "admin", "sk-ant-admin01-", id="admin"),
    ],
)
def test_the_role_is_seen_in_the_key(data: Path, flags: tuple[str, ...], role: str, prefix: str) -> None:
    made = created(data, *flags)
    assert (made["role"], made["key"].startswith(prefix)) == (role, True)


def test_a_key_is_of_the_workspace_that_is_named_or_told_by_id(data: Path) -> None:
    environment = {"OVERNIGHT_DATA": str(data)}
    made = json.loads(inside("workspaces", "create", "research", "--json", environment=environment).out)
    for name in ("research", made["id"]):
        assert created(data, "--workspace", name)["workspace"] == {"id": made["id"], "name": "research"}
    refused = keys(data, "create", "--workspace", "reserach")
    assert (refused.code, refused.out) == (2, "")
    assert "no workspace 'reserach'" in refused.err


@pytest.mark.parametrize(
    ("expires", "lives_s"),
    [
        pytest.param("90d", 90 * _DAY_S, id="days"),
        pytest.param("24h", _DAY_S, id="hours"),
        pytest.param("3650d", 3650 * _DAY_S, id="ten-years"),
    ],
)
def test_a_key_ends_after_a_length_of_time(data: Path, expires: str, lives_s: int) -> None:
    assert life_s(created(data, "--expires", expires)) == lives_s


@pytest.mark.parametrize(
    ("expires", "at"),
    [
        ("2030-06-30", "2030-06-30T00:00:00Z"),
        ("2030-06-30T06:00:00+02:00", "2030-06-30T04:00:00Z"),
        ("2030-06-30T06:00", "2030-06-30T06:00:00Z"),
    ],
)
def test_a_key_ends_at_an_instant_of_utc(data: Path, expires: str, at: str) -> None:
    assert created(data, "--expires", expires)["expires_at"].replace(".000000", "") == at


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        ("0d", "is over"),
        ("2020-01-01", "is over"),
        ("3651d", "longer than 3,650 days"),
        ("9" * 400 + "d", "longer than 3,650 days"),
        ("2999-01-01", "3,650 days at most"),
        ("9999-12-31T23:59:59-23:59", "3,650 days at most"),
        ("2030-13-01", "neither a length of time nor a date"),
        ("soon", "no length of time"),
    ],
)
def test_an_end_that_cannot_be_is_refused_and_nothing_is_made(data: Path, expires: str, said: str) -> None:
    created(data)
    refused = keys(data, "create", "--expires", expires)
    assert (refused.code, refused.out, len(listed(data))) == (2, "", 1)
    assert said in refused.err


@pytest.mark.parametrize("name", [" x", "x\ny", "x" * 101])
def test_a_name_that_nobody_can_read_is_refused(data: Path, name: str) -> None:
    created(data, "--name", "x" * 100)
    refused = keys(data, "create", "--name", name)
    assert (refused.code, len(listed(data))) == (2, 1)


def test_a_key_that_is_revoked_stays_in_the_list(data: Path) -> None:
    made = created(data)
    printed = keys(data, "revoke", made["id"])
    assert printed.out == f"Key {made['id']} ({made['hint']}) is revoked.\n"
    assert listed(data)[made["id"]]["state"] == "revoked"
    assert keys(data, "revoke", made["id"]).code == 0


def test_what_is_not_there_is_said(data: Path) -> None:
    created(data)
    for verb in ("revoke", "rotate"):
        refused = keys(data, verb, "apikey_01nobody")
        assert (refused.code, refused.out) == (2, "")
        assert "there is no key 'apikey_01nobody'" in refused.err


def test_rotating_makes_a_key_like_the_old_one_which_opens_for_the_overlap(data: Path) -> None:
    old = created(data, "--name", "airflow", "--admin", "--expires", "30d")
    new = json.loads(keys(data, "rotate", old["id"], "--overlap", "7d", "--json").out)
    assert [new[name] for name in ("name", "role", "workspace")] == ["airflow", "admin", old["workspace"]]
    assert life_s(new) == 30 * _DAY_S
    kept = listed(data)[old["id"]]
    assert 7 * _DAY_S <= life_s(kept) < 8 * _DAY_S
    assert "The old key opens until " in keys(data, "rotate", new["id"]).out


def test_an_overlap_of_nothing_ends_the_old_key_now_and_a_dead_key_is_not_rotated(data: Path) -> None:
    old = created(data)
    assert keys(data, "rotate", old["id"], "--overlap", "0s").code == 0
    assert listed(data)[old["id"]]["state"] == "expired"
    refused = keys(data, "rotate", old["id"])
    assert (refused.code, refused.out, len(listed(data))) == (2, "", 2)
    assert "opens nothing any more" in refused.err


def test_a_command_that_only_looks_makes_no_directory(data: Path) -> None:
    for arguments in (("list",), ("revoke", "apikey_01a"), ("rotate", "apikey_01a")):
        refused = keys(data, *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert f"there is no data directory {data}" in refused.err
    assert not data.exists()
    assert keys(data, "create").err == f"Making the data directory {data}.\n"


def test_help_shows_how_they_are_used() -> None:
    said = inside("keys", "--help").out
    for word in ("create", "list", "revoke", "rotate", "--expires 90d", "--overlap 24h"):
        assert word in said


def test_without_a_key_the_list_says_who_is_let_in(data: Path) -> None:
    assert inside("workspaces", "create", "research", environment={"OVERNIGHT_DATA": str(data)}).code == 0
    printed = keys(data, "list")
    assert (printed.code, printed.out) == (0, "")
    assert "everybody on this machine is let in" in printed.err
