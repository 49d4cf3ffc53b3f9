"""Renews what in the documentation repeats the code word for word: help texts, limits, errors, settings, endpoints,
metrics, keys of a job file, tests.

    python tests/docs/renew.py

What a machine cannot write (what happens at a limit, what a setting means) is left as `TELL`; `tests/docs` finds it.
"""

import sqlite3
from collections.abc import Iterator

import click
import jobdocs
import openapidocs
import refdocs
import test_docs_metrics as metrics
from click.testing import CliRunner
from docpages import ROOT

from overnight.cli.main import cli
from overnight.server.config import EngineSettings, KeySettings
from overnight.store.migrations import STEPS

COMMAND_LINE = ROOT / "docs" / "reference" / "command-line.md"
METRICS = ROOT / "docs" / "reference" / "metrics.md"
HELP = "test_the_help_of_every_command_is_documented"


def help_texts() -> dict[str, str]:
    """What `--help` of each command prints on a terminal of 100 columns, by the words of the command."""
    runner = CliRunner()
    return {
        " ".join(["overnight", *words]): runner.invoke(
            cli, [*words, "--help"], prog_name="overnight", terminal_width=100
        ).output.rstrip()
        for words in _commands(cli, [])
    }


def _commands(command: click.Command, words: list[str]) -> Iterator[list[str]]:
    """The words of a command and of all below it."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in sorted(command.list_commands(context)):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, [*words, name])


def _renew_help() -> None:
    parts = [
        f"{'##' if len(name.split()) < 3 else '###'} {name}\n\n<!-- checked by {HELP} -->\n```text\n{said}\n```\n\n"
        for name, said in help_texts().items()
    ]
    head, _, after = COMMAND_LINE.read_text().partition("\n## ")
    rest = after.partition("## Exit codes")[2]
    COMMAND_LINE.write_text(f"{head}\n{''.join(parts)}## Exit codes{rest}")


def _renew_limits() -> None:
    told = refdocs.told_of_limits()
    jobdocs.renew("limits", refdocs.LIMITS, refdocs.limits_text())
    rows = [
        [f"`{name}`", value, unit, told.get(name, refdocs.TELL).replace("](../", "](docs/")]
        for name, value, unit in refdocs.limit_rows()
    ]
    refdocs.renew_rows(refdocs.ARCHITECTURE, "test_the_table_of_limits_is_limits_py", rows, keeps_words=False)


def _renew_errors() -> None:
    jobdocs.renew("errors", refdocs.ERRORS, refdocs.errors_text())
    rows = [
        [f"`{name}`", status, kind, f"`{headers}`" if headers else ""]
        for name, status, kind, headers in map(refdocs.error_row, refdocs.below(refdocs.OvernightError))
    ]
    refdocs.renew_rows(refdocs.ARCHITECTURE, "test_the_table_of_errors_is_errors_py", rows, keeps_words=False)


def _renew_settings() -> None:
    settings = [[f"`{name}`", _code(default), _code(variable)] for name, default, variable in refdocs.setting_rows()]
    refdocs.renew_rows(refdocs.CONFIGURATION, "test_every_setting_is_documented", settings)
    marks = {
        "test_every_engine_setting_is_documented": EngineSettings,
        "test_every_key_setting_is_documented": KeySettings,
    }
    for mark, kind in marks.items():
        rows = [[f"`{name}`", _code(default)] for name, default in refdocs.table_rows(kind)]
        refdocs.renew_rows(refdocs.CONFIGURATION, mark, rows)


def _code(text: str) -> str:
    return text if text in ("required", "—") else f"`{text}`"


def _renew_endpoints() -> None:
    rows = [[f"`{endpoint}`"] for endpoint in refdocs.endpoints()]
    refdocs.renew_rows(refdocs.HTTP_API, "test_every_endpoint_is_documented", rows)
    jobdocs.renew("openapi", openapidocs.OPENAPI, openapidocs.openapi_text())


def _renew_schema() -> None:
    connection = sqlite3.connect(":memory:")
    for step in STEPS:
        connection.executescript(step)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    rows = [
        [name, ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({name})"))]
        for (name,) in names.fetchall()
    ]
    connection.close()
    refdocs.renew_rows(refdocs.ARCHITECTURE, "test_the_schema_table_is_the_schema", rows, keeps_words=False)


def _renew_jobs() -> None:
    for name, text in (("keys", jobdocs.keys()), ("lines", jobdocs.lines()), ("states", jobdocs.states())):
        jobdocs.renew(name, jobdocs.JOB_FILE, text)
    jobdocs.renew("requirements", jobdocs.REQUIREMENTS, jobdocs.requirements())


def _renew_metrics() -> None:
    rows = [[f"`{name}`", kind, labels, said] for name, kind, labels, said in metrics.rows()]
    refdocs.renew_rows(METRICS, metrics.MARK, rows, keeps_words=False)


if __name__ == "__main__":
    _renew_help()
    _renew_limits()
    _renew_errors()
    _renew_settings()
    _renew_endpoints()
    _renew_schema()
    _renew_jobs()
    _renew_metrics()
