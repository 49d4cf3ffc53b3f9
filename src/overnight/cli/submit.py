"""`overnight submit`."""

from pathlib import Path

import click

from overnight.cli.joboptions import Manner, ends_with_code, job_argument, work_options, working
from overnight.errors import UsageError
from overnight.jobs.deadline import next_time_ms, time_of_day


@click.command(
    epilog="""\b
Examples:
  overnight submit tickets.toml                      the 11 pm half: ends when the batches are at the server
  overnight submit tickets.toml --not-before 23:00   waits until then
  overnight submit requests.jsonl                    whole requests, one a line
"""
)
@job_argument
@click.option("--not-before", metavar="HH:MM", help="Wait until this time of day before rows are read.")
@work_options
@ends_with_code
def submit(job: Path, not_before: str | None, is_json: bool, cancel_on_exit: bool, **options: object) -> int:
    """Read the rows, send the batches, and exit. `overnight collect` does the rest, in the morning.

    What an unfinished run has in hand is not sent again; the same command after a crash goes on.
    """
    with working(job, Manner(is_json, cancel_on_exit), **options) as night:  # type: ignore[arg-type]
        if not_before is not None:
            found = time_of_day(not_before)
            if found is None:
                raise UsageError(f'--not-before: {not_before!r} is no time of day, such as "23:00"')
            now_ms = night.work.now_ms
            night.work.wait((next_time_ms(now_ms, *found) - now_ms) / 1000)
        night.submit()
        return 0
