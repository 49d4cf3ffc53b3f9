"""`overnight`: the command, its subcommands, and what each kind of failure exits with.

Exit codes of a server: 0 done; 2 usage; 4 the data directory is damaged, in use, or of a newer version. Those of jobs
are in `joboptions`.
"""

import importlib
import sys
from typing import TYPE_CHECKING

import click

from overnight import __version__
from overnight.errors import StoreError, UsageError

if TYPE_CHECKING:
    from overnight.ports.world import World

_COMMANDS = {
    "serve": "overnight.cli.serve",
    "demo": "overnight.cli.demo",
    "config": "overnight.cli.config",
    "run": "overnight.cli.run",
    "submit": "overnight.cli.submit",
    "collect": "overnight.cli.collect",
    "watch": "overnight.cli.watch",
    "status": "overnight.cli.status",
    "results": "overnight.cli.results",
    "estimate": "overnight.cli.estimate",
    "cancel": "overnight.cli.cancel",
    "engines": "overnight.cli.engines",
    "usage": "overnight.cli.usage",
    "init": "overnight.cli.init",
    "hooks": "overnight.cli.hooks",
    "workspaces": "overnight.cli.workspaces",
    "keys": "overnight.cli.keys",
    "backup": "overnight.cli.backup",
    "restore": "overnight.cli.restore",
    "traces": "overnight.cli.traces",
    "doctor": "overnight.cli.doctor",
}


class _Commands(click.Group):
    """Imports a command when it is asked for: a server does not load what jobs need, and the other way round."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        found = getattr(importlib.import_module(_COMMANDS[name]), name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="overnight")
def cli() -> None:
    """The Message Batches API on your own machines, and jobs that run every night.

    \b
    overnight demo                          see a batch go through, in a minute
    overnight serve                         start a server; then point an SDK at it by base_url
    overnight serve --engine http://127.0.0.1:8000    … that asks your vLLM server
    overnight init tickets                  write a job file: rows of a database, a prompt, where answers go
    overnight run tickets.toml              do it; the same command goes on after a crash
    """


def main(world: "World | None" = None) -> None:
    """Run the command; our own errors become one line on stderr, not a traceback.

    `world`: what jobs have instead of the real one, in tests.
    """
    if not __debug__:
        sys.exit("overnight: refuses to run under python -O: its invariants are asserted")
    try:
        cli(standalone_mode=False, obj=world)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        _fail(error, code=2)
    except StoreError as error:
        _fail(error, code=4)


def _fail(error: Exception, *, code: int) -> None:
    click.echo(f"overnight: {error}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
