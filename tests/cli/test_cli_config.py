"""`overnight config`: which settings are in effect, where each came from, and what is wrong with them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_calls import inside

from overnight.server.config import Settings

SECRET = "sk-very-secret"
DIGEST = "ab" * 32


def shown(*arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """The value and the origin of every setting, as printed."""
    printed = inside("config", *arguments, environment=environment)
    assert (printed.code, printed.err) == (0, ""), printed
    found = {}
    for line in printed.out.splitlines():
        name, _, rest = line.partition(" = ")
        value, _, origin = rest.rpartition("  # ")
        found[name] = (value, origin)
    return found


def refusal(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """The one line that says what is wrong."""
    printed = inside("config", *arguments, environment=environment)
    assert (printed.code, printed.out) == (2, ""), printed
    (line,) = printed.err.splitlines()
    assert line.startswith("overnight: ")
    return line


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "overnight.toml"
    file.write_text(text)
    return str(file)


def test_with_nothing_given_every_setting_is_shown_with_its_default() -> None:
    found = shown()
    assert tuple(found) == Settings.__struct_fields__
    assert {origin for _, origin in found.values()} == {"default"}
    assert found["listen"][0] == '"127.0.0.1:8642"'
    assert found["engines"][0] == '[{"spec":"embedded"}]'


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path, 'listen = "127.0.0.1:1"\ndata = "file"\npublic_url = "https://file"\nstrict_params = true\n'
    )
    environment = {"OVERNIGHT_LISTEN": "127.0.0.1:2", "OVERNIGHT_DATA": "environment"}
    found = shown("--config", file, "--listen", "127.0.0.1:3", environment=environment)
    assert found["listen"] == ('"127.0.0.1:3"', "--listen")
    assert found["data"] == ('"environment"', "$OVERNIGHT_DATA")
    assert found["public_url"] == ('"https://file"', file)
    assert found["strict_params"] == ("true", file)
    assert found["request_counts"] == ('"live"', "default")


def test_every_setting_can_come_from_the_environment() -> None:
    given = {
        "listen": ("127.0.0.1:0", '"127.0.0.1:0"'),
        "data": ("d", '"d"'),
        "engines": ("http://a http://b", '[{"spec":"http://a"},{"spec":"http://b"}]'),
        "api_key": (SECRET, "(set)"),
        "public_url": ("https://x", '"https://x"'),
        "trusted_proxies": ("10.0.0.0/8 ::1/128", '["10.0.0.0/8","::1/128"]'),
        "request_counts": ("at_end", '"at_end"'),
        "strict_version": ("false", "false"),
        "strict_params": ("1", "true"),
        "requests_per_minute": ("50", "50"),
        "deduplicate": ("true", "true"),
        "prices_file": ("p", '"p"'),
        "hooks_to_private_addresses": ("true", "true"),
        "log_format": ("json", '"json"'),
        "log_level": ("debug", '"debug"'),
        "metrics_by_workspace": ("true", "true"),
    }
    assert given.keys() == set(Settings.__struct_fields__) - {"keys", "weights", "prices"}, "tables need a file"
    found = shown(environment={f"OVERNIGHT_{name.upper()}": text for name, (text, _) in given.items()})
    assert {name: found[name] for name in given} == {
        name: (value, f"$OVERNIGHT_{name.upper()}") for name, (_, value) in given.items()
    }


def test_engines_may_be_repeated_and_replace_those_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[[engines]]\nspec = "claude"\n')
    found = shown("--config", file, "--engine", "http://a", "--engine", "embedded")
    assert found["engines"] == ('[{"spec":"http://a"},{"spec":"embedded"}]', "--engines")


def test_no_secret_is_printed(tmp_path: Path) -> None:
    engine = f'[[engines]]\nspec = "http://a"\napi_key = "{SECRET}"\n'
    file = written(tmp_path, f'api_key = "{SECRET}"\n[[keys]]\nsha256 = "{DIGEST}"\n{engine}')
    printed = inside("config", "--config", file)
    assert printed.code == 0
    assert SECRET not in printed.out + printed.err
    assert DIGEST not in printed.out
    assert "api_key = (set)" in printed.out
    assert '"api_key":"(set)"' in printed.out


WRONG = {
    "unknown": ("colour = 1", "there is no setting 'colour'; the settings are listen, data"),
    "unknown in an engine": ('[[engines]]\nspec = "embedded"\ncolour = 1', "engines: "),
    "type": ("listen = 1", "listen: "),
    "choice": ('request_counts = "soon"', "request_counts: "),
    "no port": ('listen = "127.0.0.1"', "listen: '127.0.0.1' is not HOST:PORT"),
    "no host": ('listen = ":80"', "listen: ':80' is not HOST:PORT"),
    "port beyond": ('listen = "127.0.0.1:65536"', "is not HOST:PORT"),
    "port in words": ('listen = "127.0.0.1:http"', "is not HOST:PORT"),
    "port in other digits": ('listen = "127.0.0.1:²"', "is not HOST:PORT"),
    "URL": ('public_url = "ftp://a"', "public_url: "),
    "network": ('trusted_proxies = ["10.0.0.1/8"]', "trusted_proxies: "),
    "rate": ("requests_per_minute = 0", "requests_per_minute: "),
    "digest": ('[[keys]]\nsha256 = "x"', "keys: "),
    "workspace": (f'[[keys]]\nsha256 = "{DIGEST}"\nworkspace = "a b"', "keys: "),
    "no engine": ("engines = []", "engines: "),
    "TOML": ("listen = ", "is not valid TOML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_the_file_it_is_in(name: str, tmp_path: Path) -> None:
    text, wanted = WRONG[name]
    file = written(tmp_path, text)
    said = refusal("--config", file)
    assert file in said
    assert wanted in said


def test_what_is_wrong_in_the_environment_or_a_flag_is_named_with_it() -> None:
    assert "$OVERNIGHT_REQUESTS_PER_MINUTE: requests_per_minute: " in refusal(
        environment={"OVERNIGHT_REQUESTS_PER_MINUTE": "many"}
    )
    assert "--listen: listen: 'x' is not HOST:PORT" in refusal("--listen", "x")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"cannot read the configuration {tmp_path / 'none'}: " in refusal("--config", str(tmp_path / "none"))
    assert "cannot read the configuration" in refusal("--config", str(tmp_path))
    (tmp_path / "latin").write_bytes(b'data = "\xff"')
    assert "is not valid TOML" in refusal("--config", str(tmp_path / "latin"))


@pytest.mark.parametrize(
    "text",
    [
        f'[[engines]]\nspec = "http://a"\napi_key = "{SECRET}"\nin_flight_max = 0',
        f'[[engines]]\nspec = 5\napi_key = "{SECRET}"',
        f'engines = "{SECRET}"',
        f'[[keys]]\nsha256 = "{SECRET}"',
        f'api_key = ["{SECRET}"]',
    ],
)
def test_no_secret_is_in_a_complaint(text: str, tmp_path: Path) -> None:
    assert SECRET not in refusal("--config", written(tmp_path, text))


def test_an_address_that_others_can_reach_is_shown_as_any_other(tmp_path: Path) -> None:
    """Whether there is a key is known when the data directory is open: see test_cli_serve."""
    with_keys = written(tmp_path, f'[[keys]]\nsha256 = "{DIGEST}"')
    assert shown("--config", with_keys, "--listen", "0.0.0.0:1")["keys"] == ("(set)", with_keys)
    for address in ("0.0.0.0:8642", "[::]:8642", "127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert shown("--listen", address)["listen"][1] == "--listen"


def test_of_an_engine_what_was_set_is_shown_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "overnight.toml"
    file.write_text(
        f'''
[[engines]]
spec = "http://a"
api_key = "{SECRET}"
budget_usd_per_day = 2.5
hours = ["22:00-06:00"]
time_zone = "UTC"
signal = {{ url = "https://prices.example.com/now?key={SECRET}", at_most = 1.5 }}
'''
    )
    found = shown("--config", str(file))["engines"][0]
    assert SECRET not in found
    assert json.loads(found) == [
        {
            "spec": "http://a",
            "api_key": "(set)",
            "budget_usd_per_day": 2.5,
            "hours": ["22:00-06:00"],
            "time_zone": "UTC",
            "signal": {"url": "https://prices.example.com", "at_most": 1.5, "field": "", "every_s": 300.0},
        }
    ]
