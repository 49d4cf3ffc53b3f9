"""The tables of the documentation, compared with the code that they repeat."""

import re
import sqlite3
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import msgspec
import pytest
import refdocs
from docpages import ROOT, marked_block, pages, table
from renew import help_texts

from overnight.cli.joboptions import DONE, ERROR, FAILED_ROWS, INTERRUPTED, NOT_SPENT, NOT_YET
from overnight.core.batch import TRANSITIONS
from overnight.errors import OvernightError
from overnight.jobs.tables import metadata
from overnight.ports.marks import MARKS
from overnight.server.config import EngineSettings, KeySettings
from overnight.store import checkpoint
from overnight.store.migrations import STEPS

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
CONFIGURATION = ROOT / "docs" / "reference" / "configuration.md"
COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
HTTP_API = ROOT / "docs" / "reference" / "http-api.md"
SOURCE = ROOT / "src" / "overnight"


def test_the_code_map_names_every_module() -> None:
    (block,) = marked_block(ARCHITECTURE, "test_the_code_map_names_every_module")
    package, inner, named = "", "", set[str]()
    for line in block.text.splitlines()[1:]:
        if found := re.match(r"  (\w+)/  ", line):
            package = f"{found[1]}/"
        elif found := re.match(r"    (\w+)/  ", line):
            inner = f"{found[1]}/"
        elif found := re.match(r"    (\w+\.py)  +\S", line):
            named.add(package + found[1])
        elif found := re.match(r"      (\w+\.py)  +\S", line):
            named.add(package + inner + found[1])
        elif found := re.match(r"  (\w+\.py)  +\S", line):
            named.add(found[1])
        else:
            assert not line, f"not understood: {line!r}"
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    assert modules - named == set(), "modules without a line"
    assert named - modules == set(), "lines without a module"


def test_the_state_table_is_the_code() -> None:
    rows = table(ARCHITECTURE, "test_the_state_table_is_the_code")
    assert rows == [[before, event, ", ".join(after)] for before, event, after in TRANSITIONS]


def test_the_schema_table_is_the_schema() -> None:
    connection = sqlite3.connect(":memory:")
    for step in STEPS:
        connection.executescript(step)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    schema = {
        name: ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({name})"))
        for (name,) in names.fetchall()
    }
    connection.close()
    assert dict(map(tuple, table(ARCHITECTURE, "test_the_schema_table_is_the_schema"))) == schema


def test_the_ledger_table_is_tables_py() -> None:
    expected = [[name, ", ".join(column.name for column in found.columns)] for name, found in metadata.tables.items()]
    assert table(ARCHITECTURE, "test_the_ledger_table_is_tables_py") == expected


def test_the_sample_of_a_checkpoint_frame_is_one() -> None:
    """Read, not compared with a new one: what deflate makes of a text differs between machines."""
    (block,) = marked_block(ARCHITECTURE, "test_the_sample_of_a_checkpoint_frame_is_one")
    sample = bytes.fromhex(block.text)
    line = b'{"custom_id":"a","result":{"type":"canceled"}}\n'
    ((frame, lines),) = checkpoint.decode(sample)
    assert (frame.lines, lines) == (1, line)
    assert zlib.decompress(sample, wbits=31) == line
    header = checkpoint.encode(checkpoint.frame([line]))[:28]
    assert sample[:16] == header[:16]
    assert int.from_bytes(sample[16:20], "little") == len(sample)
    assert sample[20:28] == header[20:28]


def test_every_mark_has_a_row() -> None:
    assert [row[0] for row in table(ARCHITECTURE, "test_every_mark_has_a_row")] == list(MARKS)


def test_the_table_of_limits_is_limits_py() -> None:
    rows = table(ARCHITECTURE, "test_the_table_of_limits_is_limits_py")
    assert [row[:3] for row in rows] == refdocs.limit_rows(), "python tests/docs/renew.py"
    assert [row[0] for row in rows if row[3] in ("", "TELL")] == []


def test_the_table_of_errors_is_errors_py() -> None:
    assert table(ARCHITECTURE, "test_the_table_of_errors_is_errors_py") == [
        refdocs.error_row(kind) for kind in refdocs.below(OvernightError)
    ]


def test_every_dependency_has_a_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]]  # type: ignore[index]
    rows = table(ARCHITECTURE, "test_every_dependency_has_a_row")
    assert [row[0] for row in rows] == names
    assert all(all(row) for row in rows)


def test_every_invariant_is_held_by_something_that_exists() -> None:
    text = ARCHITECTURE.read_text()
    rows = re.findall(r"^\| (I\d+) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [f"I{number}" for number in range(1, 13)]
    for name, _, asserted, tested in rows:
        modules = re.findall(r"`([\w/]+\.py)`", asserted)
        folders = re.findall(r"`(tests/[\w/.]+)`", tested)
        assert modules, name
        assert folders, name
        missing = [path for path in modules if not (SOURCE / path).is_file()]
        missing += [path for path in folders if not (ROOT / path).exists()]
        assert missing == [], name


def test_every_setting_is_documented() -> None:
    assert [row[:3] for row in table(CONFIGURATION, "test_every_setting_is_documented")] == refdocs.setting_rows()


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        (EngineSettings, "test_every_engine_setting_is_documented"),
        (KeySettings, "test_every_key_setting_is_documented"),
    ],
)
def test_every_setting_of_a_table_is_documented(kind: type[msgspec.Struct], mark: str) -> None:
    assert [row[:2] for row in table(CONFIGURATION, mark)] == refdocs.table_rows(kind)


def test_every_endpoint_is_documented() -> None:
    assert [row[0] for row in table(HTTP_API, "test_every_endpoint_is_documented")] == refdocs.endpoints()


def test_the_help_of_every_command_is_documented() -> None:
    blocks = marked_block(COMMAND_LINE, "test_the_help_of_every_command_is_documented")
    assert [block.text.rstrip() for block in blocks] == list(help_texts().values()), "python tests/docs/renew.py"


def _exit_code(*arguments: str, directory: Path) -> int:
    command = [sys.executable, "-m", "overnight.cli.main", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=30, check=False).returncode


def test_exit_codes_are_what_the_page_says(tmp_path: Path) -> None:
    documented = {row[0] for row in table(COMMAND_LINE, "test_exit_codes_are_what_the_page_says")}
    ours = {DONE, ERROR, FAILED_ROWS, NOT_SPENT, NOT_YET, INTERRUPTED}
    assert documented == {"2", *map(str, ours)}
    assert (DONE, ERROR, FAILED_ROWS, NOT_SPENT, NOT_YET, INTERRUPTED) == (0, 1, 3, 4, 75, 130)
    data = tmp_path / "data"
    data.mkdir()
    (data / "control.sqlite3").write_bytes(b"this is no database, whatever its name says. " * 100)
    assert _exit_code("config", directory=tmp_path) == 0
    assert _exit_code("config", "--listen", "nowhere", directory=tmp_path) == 2
    assert _exit_code("serve", "--no-such-flag", directory=tmp_path) == 2
    assert _exit_code("run", "missing.toml", directory=tmp_path) == 2
    assert _exit_code("serve", "--listen", "127.0.0.1:0", "--data", str(data), directory=tmp_path) == 4


def test_every_table_that_says_it_is_checked_is() -> None:
    source = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for page in pages():
        for name in re.findall(r"^<!-- checked by (\w+) -->$", page.read_text(), re.MULTILINE):
            assert f'"{name}"' in source, f"{page.relative_to(ROOT)}: {name} is never read"


def test_numbers_are_measured_by_scripts_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    numbers = readme.partition("<!-- numbers: begin -->")[2].partition("<!-- numbers: end -->")[0]
    rows = [line for line in numbers.splitlines() if line.startswith("|")][2:]
    commands = [row.split("|")[5].strip() for row in rows]
    assert all(re.fullmatch(r"`python benchmarks/\w+\.py( [^`]*)?`", command) for command in commands)
    scripts = {command.strip("`").split()[1] for command in commands}
    assert {script for script in scripts if not (ROOT / script).is_file()} == set()


def test_every_folder_of_tests_has_a_row() -> None:
    folders = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if any(path.rglob("test_*.py"))}
    rows = {row[0] for row in table(ARCHITECTURE, "test_every_folder_of_tests_has_a_row")}
    assert folders - rows == set()
    assert {row for row in rows if not (ROOT / row).is_dir()} == set()
