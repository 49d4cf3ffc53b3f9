"""`overnight run`."""

from pathlib import Path

import click

from overnight.cli.joboptions import NOT_YET, Manner, ends_with_code, finished, job_argument, work_options, working
from overnight.jobs.deadline import seconds_of
from overnight.jobs.night import Waiting


@click.command(
    epilog="""\b
Examples:
  overnight run tickets.toml                from the rows to the mail; the same command goes on after a crash
  overnight run tickets.toml --wait 6h      … and ends after six hours at the latest, with exit code 75
  overnight run tickets.toml --limit 3      try it out on three rows
"""
)
@job_argument
@click.option("--wait", metavar="TIME", help='Wait no longer than this, such as "6h"; default: until it is done.')
@work_options
@ends_with_code
def run(
    job: Path,
    wait: str | None,
    is_json: bool,
    cancel_on_exit: bool,
    **options: object,
) -> int:
    """Do a job from start to end: rows, batches, answers written back, report. Repeat it to go on.

    Unfinished runs are finished first. Exit codes: 0 done, 3 some rows failed, 4 nothing was spent, 75 not yet.
    """
    manner = Manner(is_json, cancel_on_exit)
    with working(job, manner, **options) as night:  # type: ignore[arg-type]
        until = None if wait is None else night.work.now_ms + int(seconds_of(wait) * 1000)
        code = 0
        begun = night.unfinished()
        for run_id in begun:
            if not night.finish(run_id, Waiting(until)):
                return NOT_YET
            code = max(code, finished(night, run_id, manner))
        planned = night.plan(is_quiet=bool(begun))
        if planned is not None:
            night.work.tell("submitted", planned, rows=night.send(planned))
            if not night.finish(planned, Waiting(until)):
                return NOT_YET
            code = max(code, finished(night, planned, manner))
        return code
