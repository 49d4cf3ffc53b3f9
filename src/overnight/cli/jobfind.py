"""Finding what a command names: a job file, a run of a ledger in this directory, or a batch of the server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from overnight.errors import JobError, UsageError
from overnight.jobs import runs
from overnight.jobs.endpoint import address
from overnight.jobs.job import Job
from overnight.jobs.jobfile import Endpoint
from overnight.jobs.ledger import Ledger, path_of
from overnight.jobs.server import Server
from overnight.jobs.session import ledger_of


class Found(NamedTuple):
    """A job, its ledger, and the run that was named; no run: all of them."""

    job: Job
    ledger: Ledger
    run_id: str | None


def job_files(directory: Path) -> Iterator[Path]:
    """The job files of a directory that have a ledger, by name."""
    for path in sorted([*directory.glob("*.toml"), *directory.glob("*.jsonl")]):
        with suppress(JobError):
            job = Job.load(path)
            if job.settings.ledger.url or path_of(job.home, job.settings.name).exists():
                yield path


@contextmanager
def found(name: str) -> Iterator[Found]:
    """What `name` is: a job file, or a run of a job in this directory. UsageError if it is neither."""
    path = Path(name)
    if path.suffix in (".toml", ".jsonl"):
        job = Job.load(path)
        with ledger_of(job, os.environ) as ledger:
            yield Found(job, ledger, None)
        return
    for file in job_files(Path()):
        job = Job.load(file)
        with ledger_of(job, os.environ) as ledger:
            with ledger.begin() as connection:
                is_here = runs.exists(connection, name)
            if is_here:
                yield Found(job, ledger, name)
                return
    raise UsageError(f"{name} is no job file, and no run of a job in this directory")


def is_batch(name: str) -> bool:
    """Whether a name is that of a batch."""
    return name.startswith("msgbatch_")


def server_of(job: Job | None) -> Server:
    """The server of a job, or the one of the environment."""
    endpoint = job.settings.endpoint if job else Endpoint()
    return Server(address(endpoint, environment=os.environ))
