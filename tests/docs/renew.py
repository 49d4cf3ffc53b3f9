"""Renews what in the documentation repeats the code word for word: help texts, limits, keys of a job file, tests.

    python tests/docs/renew.py

What a machine cannot write (what happens at a limit, what a module is for) is left as `TELL`; `tests/docs` finds it.
"""

import ast
import re

import click
import jobdocs
import test_docs_metrics as metrics
from click.testing import CliRunner
from docpages import ROOT

from overnight import limits
from overnight.cli.main import cli

COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
METRICS = ROOT / "docs" / "reference" / "metrics.md"
HELP = "test_the_help_of_every_command_is_documented"
LIMITS = "test_the_table_of_limits_is_limits_py"
_UNITS = (("BYTES|^MIB$", "bytes"), ("_MS(_MAX)?$", "ms"), ("_S(_MAX)?$", "s"), ("LENGTH", "characters"))


def help_texts() -> dict[str, str]:
    """What `--help` of each command prints on a terminal of 100 columns, by the words of the command."""
    context = click.Context(cli)
    commands: list[list[str]] = [[], *([name] for name in sorted(cli.list_commands(context)))]
    runner = CliRunner()
    return {
        " ".join(["overnight", *words]): runner.invoke(
            cli, [*words, "--help"], prog_name="overnight", terminal_width=100
        ).output.rstrip()
        for words in commands
    }


def limit_rows() -> list[list[str]]:
    """Name, value and unit of each constant in `limits.py`, in its order."""
    tree = ast.parse((ROOT / "src" / "overnight" / "limits.py").read_text())
    names = [
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    return [[name, f"{getattr(limits, name):,}", _unit(name)] for name in names]


def _unit(name: str) -> str:
    return next((unit for pattern, unit in _UNITS if re.search(pattern, name)), "—")


def _renew_help() -> None:
    parts = [
        f"## {name}\n\n<!-- checked by {HELP} -->\n```text\n{said}\n```\n\n" for name, said in help_texts().items()
    ]
    rest = COMMAND_LINE.read_text().partition("## Exit codes")[2]
    COMMAND_LINE.write_text("# Command line\n\n" + "".join(parts) + "## Exit codes" + rest)


def _renew_limits() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| [^|]* \| (.*) \|$", ARCHITECTURE.read_text(), re.MULTILINE))
    rows = [f"| `{name}` | {value} | {unit} | {told.get(name, 'TELL')} |\n" for name, value, unit in limit_rows()]
    before, mark, after = ARCHITECTURE.read_text().partition(f"<!-- checked by {LIMITS} -->\n\n")
    head = "".join(after.splitlines(keepends=True)[:2])
    rest = after[after.index("\n\n") + 1 :]
    ARCHITECTURE.write_text(before + mark + head + "".join(rows) + rest)


def _renew_jobs() -> None:
    for name, text in (("keys", jobdocs.keys()), ("lines", jobdocs.lines()), ("states", jobdocs.states())):
        jobdocs.renew(name, jobdocs.JOB_FILE, text)
    jobdocs.renew("requirements", jobdocs.REQUIREMENTS, jobdocs.requirements())


def _renew_metrics() -> None:
    before, mark, after = METRICS.read_text().partition(f"<!-- checked by {metrics.MARK} -->\n\n")
    head = "".join(after.splitlines(keepends=True)[:2])
    lines = [f"| `{name}` | {kind} | {labels} | {said} |\n" for name, kind, labels, said in metrics.rows()]
    METRICS.write_text(before + mark + head + "".join(lines) + after[after.index("\n\n") + 1 :])


if __name__ == "__main__":
    _renew_help()
    _renew_limits()
    _renew_jobs()
    _renew_metrics()
