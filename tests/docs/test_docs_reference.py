"""The reference pages that are made from the code, and the makers. `python tests/docs/renew.py` renews the pages."""

import re
from pathlib import Path

import click
import jobdocs
import openapidocs
import pytest
import refdocs
from click.testing import CliRunner
from docpages import ROOT, anchors, links
from renew import help_texts

from overnight.cli.main import cli
from overnight.errors import ApiError, OvernightError
from overnight.server import openapi

RENEW = "python tests/docs/renew.py"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
_BOUND = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def test_the_page_of_limits_is_limits_py() -> None:
    text = refdocs.limits_text()
    assert jobdocs.generated("limits", refdocs.LIMITS) == text, RENEW
    assert [line for line in text.splitlines() if refdocs.TELL in line] == []


def test_every_bound_of_limits_py_is_on_the_page() -> None:
    named = re.findall(r"^([A-Z]\w+): Final = ", (ROOT / "src/overnight/limits.py").read_text(), re.MULTILINE)
    assert {*named} - {*_BOUND.findall(refdocs.limits_text())} == {"MIB", "DAY_MS"}


def test_the_page_of_errors_is_errors_py() -> None:
    text = refdocs.errors_text()
    assert jobdocs.generated("errors", refdocs.ERRORS) == text, RENEW
    kinds = {kind.__name__ for kind in refdocs.below(OvernightError)} - {ApiError.__name__}
    assert {*_BOUND.findall(text)} == kinds


@pytest.mark.parametrize(
    ("error", "again"),
    [
        pytest.param("NoResults", "no", id="a 404"),
        pytest.param("Conflict", "no", id="a 409 that says so"),
        pytest.param("BodyTimeout", "yes", id="a 408"),
        pytest.param("RateLimited", "after `retry-after`", id="a 429"),
        pytest.param("EngineTimeout", "yes", id="a 504"),
    ],
)
def test_the_page_of_errors_says_when_an_sdk_tries_again(error: str, again: str) -> None:
    """As `_should_retry` of the SDK decides: 408, 409, 429 and 5xx, unless the answer says otherwise."""
    (row,) = [line for line in refdocs.errors_text().splitlines() if line.startswith(f"| `{error}` ")]
    assert row.split(" | ")[3] == again


def test_the_page_of_the_interface_is_the_document() -> None:
    text = openapidocs.openapi_text()
    assert jobdocs.generated("openapi", openapidocs.OPENAPI) == text, RENEW
    document = openapi.described(needs_key=True, needs_version=True)
    operations = [f"## `{method.upper()} {path}`" for path, found in document["paths"].items() for method in found]
    schemas = [f"### {name}" for name in document["components"]["schemas"]]
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == [*operations, "## Schemas", *schemas]


def test_every_link_in_the_page_of_the_interface_leads_to_a_schema() -> None:
    targets = {target.removeprefix("#") for _, target in links(openapidocs.OPENAPI) if target.startswith("#")}
    assert len(targets) > 10
    assert targets - anchors(openapidocs.OPENAPI) == set()


def test_the_page_of_commands_has_those_inside_of_others() -> None:
    texts = help_texts()
    group = cli.get_command(click.Context(cli), "keys")
    assert isinstance(group, click.Group)
    assert {f"overnight keys {name}" for name in group.commands} <= set(texts)
    assert all(text.startswith(f"Usage: {name} ") for name, text in texts.items())
    printed = CliRunner().invoke(cli, ["keys", "create", "--help"], prog_name="overnight", terminal_width=100)
    assert texts["overnight keys create"] == printed.output.rstrip()


def test_rows_are_renewed_and_their_words_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    old = "| a | b | c |\n|---|---|---|\n| `1` | old | a \\| b |\n| `2` | x | gone |\n"
    page.write_text(f"# Page\n\n<!-- checked by x -->\n\n{old}\nEnd.\n")
    refdocs.renew_rows(page, "x", [["`3`", "new"], ["`1`", "renewed"]])
    table = "| a | b | c |\n|---|---|---|\n| `3` | new | TELL |\n| `1` | renewed | a \\| b |\n"
    assert page.read_text() == f"# Page\n\n<!-- checked by x -->\n\n{table}\nEnd.\n"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("A_BYTES_MAX", 256 * 1024 * 1024, "256 MiB"),
        ("A_BYTES_MAX", 256_000_000, "256 MB"),
        ("A_BYTES_MAX", 100, "100 bytes"),
        ("A_MS", 24 * 3_600_000, "24 h"),
        ("A_MS", 29 * 24 * 3_600_000, "29 days"),
        ("A_MS", 200, "200 ms"),
        ("A_S", 600.0, "10 min"),
        ("A_S_MAX", 1.5, "1.5 s"),
        ("A_LENGTH_MAX", 8192, "8,192 characters"),
        ("A_USD_MAX", 1_000_000.0, "1,000,000 USD"),
        ("A_MAX", 0.2, "0.2"),
    ],
)
def test_a_limit_is_shown_in_the_unit_that_people_use(name: str, value: float, shown: str) -> None:
    assert refdocs.Limit(name, value, "", "", "").shown == shown


def test_the_words_of_a_limit_stand_on_its_page_and_are_repeated_in_architecture() -> None:
    """One of the two is written by hand, so that they cannot differ."""
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (.*?) \| [^|]* \|$", refdocs.LIMITS.read_text(), re.MULTILINE))
    told = refdocs.told_of_limits()
    assert {name: told[name] for name in rows} == rows
