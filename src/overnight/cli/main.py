"""`overnight`: the command, its subcommands, and what each kind of failure exits with.

Exit codes: 0 done; 1 some requests failed; 2 usage; 3 the server cannot be reached; 4 the data directory is damaged,
in use, or of a newer version.
"""

import sys

import click

from overnight import __version__
from overnight.cli.config import config
from overnight.cli.demo import demo
from overnight.cli.serve import serve
from overnight.errors import StoreError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="overnight")
def cli() -> None:
    """The Message Batches API on your own machines.

    \b
    overnight demo                          see a batch go through, in a minute
    overnight serve                         start a server; then point an SDK at it by base_url
    overnight serve --engine http://127.0.0.1:8000    … that asks your vLLM server
    """


cli.add_command(serve)
cli.add_command(demo)
cli.add_command(config)


def main() -> None:
    """Run the command; our own errors become one line on stderr, not a traceback."""
    if not __debug__:
        sys.exit("overnight: refuses to run under python -O: its invariants are asserted")
    try:
        cli(standalone_mode=False)
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
