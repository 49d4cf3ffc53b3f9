"""What the verbs of jobs share: their options, how they speak, how they are stopped, and what they exit with.

Exit codes: 0 all rows are done, or there is nothing to do, or another process is at it; 1 an error; 2 usage or a bad
job file; 3 finished, and some rows failed; 4 nothing was spent: a budget, a first row that failed, no credit; 75 not
finished yet, run it again later; 130 interrupted. 75 is EX_TEMPFAIL of sysexits.h, which schedulers know.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from overnight.errors import JobHeld, NotSpent, ServerTrouble, StoreError, UsageError
from overnight.jobs import closing, late, tell
from overnight.jobs.job import Job
from overnight.jobs.night import Night
from overnight.jobs.report import Summary
from overnight.jobs.session import night_of
from overnight.jobs.tell import Event, Listener
from overnight.jobs.work import Stopped, Work
from overnight.ports.clock import SystemPause
from overnight.ports.world import World

F = TypeVar("F", bound=Callable[..., Any])
DONE, ERROR, FAILED_ROWS, NOT_SPENT, NOT_YET, INTERRUPTED = 0, 1, 3, 4, 75, 130


class Manner(NamedTuple):
    """How a command speaks, and what a signal does."""

    is_json: bool = False
    cancel_on_exit: bool = False


def job_argument(command: F) -> F:
    """A job file, by path."""
    return click.argument("job", metavar="JOB.toml", type=click.Path(path_type=Path, dir_okay=False))(command)


def manner_options(command: F) -> F:
    """--json and --cancel-on-exit."""
    options = (
        click.option("--json", "is_json", is_flag=True, help="One JSON object a line instead of text."),
        click.option("--cancel-on-exit", is_flag=True, help="Ctrl-C cancels the batches, instead of leaving them."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def work_options(command: F) -> F:
    """The options of verbs that may send something."""
    options = (
        click.option("--rerun", "anew", is_flag=True, help="Ask rows again that were answered, or failed for good."),
        click.option(
            "--adopt", "adopted", metavar="BATCH", default="", help="The batch that was not confirmed is this."
        ),
        click.option("--model", default="", help="Another model than the job file names."),
        click.option("--limit", type=click.IntRange(min=1), help="Only the first rows, to try a job out."),
    )
    for option in reversed(options):
        command = option(command)
    return manner_options(command)


def ends_with_code(command: F) -> F:
    """Errors of a job become one line on stderr and their exit code; what a command returns is its exit code."""

    def wrapped(*arguments: Any, **options: Any) -> None:
        try:
            code = command(*arguments, **options)
        except UsageError:
            raise
        except JobHeld as error:
            code = _said(error, DONE)
        except NotSpent as error:
            code = _said(error, NOT_SPENT)
        except (ServerTrouble, StoreError) as error:
            code = _said(error, ERROR)
        sys.exit(code)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return wrapped  # type: ignore[return-value]


def _said(error: Exception, code: int) -> int:
    click.echo(f"overnight: {error}", err=True)
    return code


def printable(said: str) -> str:
    """What a server said, in one line and without signs that could lead a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in said)


def loaded(file: Path, *, model: str = "", limit: int | None = None) -> Job:
    """The job of a file, as the options change it."""
    job = Job.load(file)
    if model:
        job = job.with_(model=model)
    return replace(job, rows_max=limit)


@contextmanager
def working(file: Path, manner: Manner, *, anew: bool = False, adopted: str = "", **changes: Any) -> Iterator[Night]:
    """A job under its lock, told about on stdout. A signal ends waits; what was sent goes on, if not told otherwise.

    Exits with 130 on a signal, and says how to go on.
    """
    job = loaded(file, **changes)
    pause, works = SystemPause(), list[Work]()
    world = click.get_current_context().find_object(World) or World()

    def stop(_number: int, _frame: object) -> None:
        for work in works:
            work.is_stopped = True
        pause.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    listener, shown = _listener(job, manner)
    try:
        with (
            shown,
            night_of(
                job,
                environment=os.environ,
                listener=listener,
                world=replace(world, pause=pause),
                anew=anew,
                adopted=adopted,
                on_work=works.append,
            ) as night,
        ):
            try:
                yield night
            except Stopped:
                _interrupted(night, file, manner)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(night: Night, file: Path, manner: Manner) -> None:
    if manner.cancel_on_exit:
        night.work.is_stopped = False
        for run_id in night.unfinished():
            late.cancel(night.work, run_id)
        click.echo("Interrupted; the batches are being cancelled.", err=True)
    else:
        click.echo("Interrupted; batches that were sent go on.", err=True)
    click.echo(f"To go on:  overnight run {file}", err=True)
    sys.exit(INTERRUPTED)


def _listener(job: Job, manner: Manner) -> tuple[Listener, Any]:
    settings = job.settings
    if manner.is_json:
        return tell.as_json(_line), nullcontext()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from overnight.cli.jobpanel import panel  # noqa: PLC0415  Only a terminal needs Rich.

        write, shown = panel(settings.name, settings.noun)
        lines = tell.plain(settings.lines, settings.noun, write)
        return _both(lines, shown), shown
    return tell.plain(settings.lines, settings.noun, _line), nullcontext()


def _both(lines: Listener, panel: Listener) -> Listener:
    """A panel shows how far batches are; everything else is printed above it."""

    def listen(event: Event) -> None:
        panel(event)
        if event.name not in ("status", "waiting"):
            lines(event)

    return listen


def _line(text: str) -> None:
    try:
        click.echo(text)
        sys.stdout.flush()
    except BrokenPipeError:  # Whoever read us has gone, as `head` does. The night goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finished(night: Night, run_id: str, manner: Manner) -> int:
    """Print the report of a run that has ended; its exit code."""
    found = closing.summary(night.work, run_id)
    if manner.is_json:
        night.work.listener(Event("ended_run", figures(found)))
    else:
        for line in closing.lines(night.work, run_id):
            _line(line)
        night.work.listener(Event("done"))
    return FAILED_ROWS if found.failed > tolerated(night.work.job.settings.limits.tolerate, found.rows) else DONE


def figures(found: Summary) -> dict[str, Any]:
    """A summary for programs: money as numbers, null where it is not known."""
    plain = found._asdict()
    money = {name: value for name, value in plain.items() if name.endswith("_usd")}
    return {
        **plain,
        **{name: None if value is None else float(value) for name, value in money.items()},
        "succeeded": found.succeeded,
        "failed": found.failed,
    }


def tolerated(text: str, rows: int) -> float:
    """How many rows may fail: "12" or "1%" of them."""
    return float(text[:-1]) * rows / 100 if text.endswith("%") else float(text)
