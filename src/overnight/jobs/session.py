"""Opening a job for work: its ledger, its server, its lock, and everything given back at the end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from overnight.errors import StoreError
from overnight.jobs import ledger as ledgers
from overnight.jobs import notify, runs
from overnight.jobs.deadline import instant_before
from overnight.jobs.endpoint import address
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.night import Night
from overnight.jobs.secret import resolved
from overnight.jobs.server import Server
from overnight.jobs.tell import Listener
from overnight.jobs.work import Work, locked
from overnight.ports.world import World

OnWork = Callable[[Work], None]


@contextmanager
def ledger_of(job: Job, environment: Mapping[str, str]) -> Iterator[Ledger]:
    """The ledger of a job, made if it is missing. StoreError if it cannot be opened."""
    url = job.settings.ledger.url
    found = (
        ledgers.of_url(resolved(url, environment), home=job.home)
        if url
        else ledgers.at(ledgers.path_of(job.home, job.settings.name))
    )
    try:
        yield found
    finally:
        found.close()


@contextmanager
def night_of(
    job: Job,
    *,
    environment: Mapping[str, str],
    listener: Listener,
    world: World,
    anew: bool = False,
    adopted: str = "",
    on_work: OnWork | None = None,
) -> Iterator[Night]:
    """A job under its lock. JobHeld if another process has it; JobError if it cannot work as it is written.

    `on_work` gets what a signal handler needs to stop it.
    """
    job.check()
    notify.check(job.settings.notify, job.settings.report, environment)
    with (
        ledger_of(job, environment) as ledger,
        Server(address(job.settings.endpoint, environment=environment)) as server,
    ):
        work = Work(job, ledger, server, world, environment, listener, adopted=adopted)
        if on_work is not None:
            on_work(work)
        with locked(work):
            yield Night(work, anew=anew)
            _forget_old(work)


def _forget_old(work: Work) -> None:
    """Prompts and answers are kept no longer than the job says. A ledger that cannot forget now can tomorrow."""
    before = instant_before(work.now_ms, days=work.job.settings.ledger.keep_days)
    with suppress(StoreError), work.begin() as connection:
        for run_id in runs.ended_before(connection, work.job.settings.name, before):
            runs.remove(connection, run_id)
