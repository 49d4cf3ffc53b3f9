"""An estimate of a job from its real rows and its history; nothing is sent, nothing is written down."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from overnight.errors import ServerTrouble
from overnight.jobs import runs, split
from overnight.jobs.endpoint import address
from overnight.jobs.estimate import Estimate, Sample, estimate
from overnight.jobs.job import Job
from overnight.jobs.prices import rate_at
from overnight.jobs.server import Server
from overnight.jobs.session import ledger_of
from overnight.ports.world import World

_SAMPLE = 1_000  # Rows that are rendered; the others are counted.


def foresee(
    job: Job, *, environment: Mapping[str, str], world: World, model: str = "", outputs: Sequence[int] = ()
) -> Estimate:
    """What the job would be and cost, with its own model or another. JobError as a run would give it.

    `outputs`: tokens of answers that were just tried, in the place of a history.
    """
    job.check()
    sample, rows = list[Sample](), 0
    for row in job.source_rows(environment):
        rows += 1
        if len(sample) < _SAMPLE:
            rendered = job.renderer(row)
            size = len(split.request(rendered.custom_id, rendered.params)) + 1
            sample.append(Sample(len(rendered.params.decode()), size))
    with ledger_of(job, environment) as ledger, ledger.begin() as connection:
        history = runs.output_history(connection, job.settings.name)
    return estimate(
        sample,
        rows=rows,
        max_tokens=job.settings.max_tokens,
        history=outputs or history,
        rate=rate_at(job.settings, world.clock.now_ms(), model),
        batch=job.settings.batch,
    )


class Tried(NamedTuple):
    """A row that was asked in real time."""

    custom_id: str
    text: str
    error: str
    output_tokens: int


def try_out(job: Job, rows: int, *, environment: Mapping[str, str]) -> list[Tried]:
    """Ask the first rows in real time: it is paid, and not written down. ServerTrouble if refused."""
    job.check()
    tried = []
    with Server(address(job.settings.endpoint, environment=environment)) as server:
        for row in islice(job.source_rows(environment), rows):
            rendered = job.renderer(row)
            answer = server.message(rendered.params)
            if not isinstance(answer, bytes):
                raise ServerTrouble(f"{rendered.custom_id}: {answer.reason}")
            reading = job.reader.of_message(answer)
            tried.append(Tried(rendered.custom_id, reading.text.strip(), reading.error, reading.output_tokens))
    return tried
