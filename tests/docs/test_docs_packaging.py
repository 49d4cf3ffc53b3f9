"""What is shipped beside the code: the image, the unit, the example settings, the pinned versions, the package."""

import fnmatch
import hashlib
import re
import shlex
import tomllib
from configparser import ConfigParser, ExtendedInterpolation
from pathlib import Path

import pytest
from docpages import ROOT, parsed

from overnight import __version__, limits
from overnight.errors import UsageError
from overnight.server import config
from overnight.server.access import Doors

_KNOWN = "FROM RUN COPY ENV USER WORKDIR VOLUME EXPOSE HEALTHCHECK STOPSIGNAL ENTRYPOINT CMD"


def _instructions() -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    return [
        (name, rest)
        for line in "\n".join(lines).replace("\\\n", " ").split("\n")
        for name, _, rest in [line.partition(" ")]
    ]


def _environment() -> dict[str, str]:
    (text,) = [rest for name, rest in _instructions() if name == "ENV"]
    return dict(pair.split("=", 1) for pair in shlex.split(text))


def _is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last pattern that matches it or a folder above decides."""
    sent = True
    above = [path, *(str(parent) for parent in Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").replace("**/", "*")
        if line and not line.startswith("#") and any(fnmatch.fnmatchcase(one, pattern) for one in above):
            sent = line.startswith("!")
    return sent


def test_the_image_copies_only_what_is_sent_and_exists() -> None:
    sources = [source for name, rest in _instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert sources == ["pyproject.toml", "README.md", "LICENSE", "src"]
    assert all((ROOT / source).exists() and _is_sent(source) for source in sources)
    assert _is_sent("src/overnight/engines/weights/tiny.q8_0.gguf")
    assert not any(
        _is_sent(path) for path in (".git/config", "tests/docs/docpages.py", "overnight-data/lock", ".venv/bin")
    )


def test_the_image_runs_as_nobody_in_particular_and_keeps_its_data_in_the_volume() -> None:
    instructions = _instructions()
    assert {name for name, _ in instructions} <= set(_KNOWN.split())
    found = dict(instructions)
    assert found["USER"] == "overnight"
    assert Path(found["VOLUME"]) in Path(_environment()["OVERNIGHT_DATA"]).parents
    order = [name for name, _ in instructions]
    assert order.index("RUN") < order.index("USER") < order.index("ENTRYPOINT")
    assert "/health" in found["HEALTHCHECK"]


def test_the_image_refuses_to_start_without_a_key() -> None:
    settings = config.load(None, _environment(), {}).settings
    with pytest.raises(UsageError, match="OVERNIGHT_API_KEY"):
        config.check_reachable(settings, has_key=False)
    found = config.load(None, {**_environment(), "OVERNIGHT_API_KEY": "secret"}, {}).settings
    assert (found.port, Doors(found).needs_key) == (8642, True)


def _unit() -> ConfigParser:
    parser = ConfigParser(interpolation=ExtendedInterpolation(), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "packaging" / "overnight.service")
    return parser


def test_the_unit_starts_a_command_that_exists_and_lets_it_drain() -> None:
    unit = _unit()
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    _, *words = shlex.split(service["ExecStart"])
    assert str(parsed(words)["data"]).startswith(f"/var/lib/{service['StateDirectory']}/")
    assert int(service["TimeoutStopSec"]) > limits.DRAIN_S_MAX
    assert service["RestartPreventExitStatus"].split() == ["2", "4"]


def test_the_unit_is_confined() -> None:
    service = _unit()["Service"]
    confined = {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes"}
    confined |= {"CapabilityBoundingSet": "", "PrivateDevices": "yes", "SystemCallFilter": "@system-service"}
    assert {name: service[name] for name in confined} == confined


def test_the_example_settings_load() -> None:
    settings = config.load(ROOT / "packaging" / "overnight.toml", {}, {}).settings
    assert [engine.spec for engine in settings.engines] == ["http://127.0.0.1:8000", "embedded"]


def test_every_pinned_version_is_a_plain_pin_and_nothing_is_missing() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(
        re.fullmatch(r"[A-Za-z0-9._-]+", name) and re.fullmatch(r"[0-9][0-9a-z.+!]*", pin)
        for name, pin in pins.items()
    )
    pinned = {_normal(name) for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(ROOT / "requirements" / "dev.in").read_text().splitlines()]
    names = {_normal(re.split(r"[\[<>=\s]", line)[0]) for line in wanted if line and not line.startswith("#")}
    assert names - pinned == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_changelog_knows_this_version() -> None:
    headings = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__


def test_the_package_declares_its_weights_and_types() -> None:
    """A file that is no Python reaches a wheel only if it is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["overnight"]
    package = ROOT / "src" / "overnight"
    others = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()]
    others = [name for name in others if not name.endswith((".py", ".pyc"))]
    assert "engines/weights/tiny.q8_0.gguf" in others
    assert [name for name in others if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)] == []


def test_the_model_card_is_about_the_weights_in_the_package() -> None:
    weights = (ROOT / "src/overnight/engines/weights/tiny.q8_0.gguf").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (ROOT / "docs/reference/embedded-model.md").read_text()
    assert len(weights) < 16_000_000
