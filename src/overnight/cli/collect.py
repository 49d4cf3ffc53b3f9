"""`overnight collect`."""

from pathlib import Path

import click

from overnight.cli.jobfind import job_files
from overnight.cli.joboptions import DONE, NOT_YET, Manner, ends_with_code, finished, manner_options, working
from overnight.errors import UsageError
from overnight.jobs.deadline import seconds_of
from overnight.jobs.night import Waiting


@click.command(
    epilog="""\b
Examples:
  overnight collect tickets.toml            the 6 am half: exit code 75 if the batches have not ended
  overnight collect                         every job file in this directory
  overnight collect tickets.toml --wait 1h  wait an hour for them
"""
)
@click.argument("jobs", metavar="[JOB.toml]...", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--wait", metavar="TIME", default="0s", help='Wait for batches, such as "1h"; default: one look.')
@manner_options
@ends_with_code
def collect(jobs: tuple[Path, ...], wait: str, is_json: bool, cancel_on_exit: bool) -> int:
    """Take what has ended: answers are written back, failures are sent again, a run that is done is reported.

    Nothing new is read from the source. Exit codes: 0 done or nothing pending, 3 some rows failed, 75 not yet.
    """
    found = jobs or tuple(job_files(Path()))
    if not found:
        raise UsageError("there is no job with a ledger in this directory; name a job file")
    return max((_collect(job, seconds_of(wait), Manner(is_json, cancel_on_exit)) for job in found), default=DONE)


def _collect(job: Path, seconds: float, manner: Manner) -> int:
    code = DONE
    with working(job, manner) as night:
        until = night.work.now_ms + int(seconds * 1000)
        for run_id in night.unfinished():
            if night.finish(run_id, Waiting(until)):
                code = max(code, finished(night, run_id, manner))
            else:
                night.work.tell("note", text=f"run {run_id} is not finished; collect again later")
                code = NOT_YET
    return code
