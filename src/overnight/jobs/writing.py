"""Answers out of the ledger into the sink: each once, or again without effect if a crash came in between."""

from collections.abc import Iterable, Iterator, Mapping

from overnight.errors import JobError
from overnight.jobs import runs
from overnight.jobs.job import Job
from overnight.jobs.ledger import Ledger
from overnight.jobs.outfile import FileSink
from overnight.jobs.output import storable
from overnight.jobs.row import Answer, Key
from overnight.jobs.sink import Sink, SqlSink
from overnight.jobs.work import Columns, Work

_PAGE = 1_000


def sink_of(job: Job, columns: Iterable[str], environment: Mapping[str, str]) -> Sink | None:
    """The sink that takes answers one by one, if the job has such. `columns`: of its source.

    JobError if a statement names what no answer has.
    """
    if not job.settings.sink.sql:
        return None
    names = {*job.field_names, *columns}
    return SqlSink(job.settings.sink, home=job.home, environment=environment, names=names)


def write(work: Work, run_id: str, sink: Sink | None, *, is_final: bool) -> int:
    """Give the sink what it has not got; how many. Failed rows are only written when they will not be asked again.

    ServerTrouble if the database is away: nothing is lost, the same call goes on.
    """
    total, after = 0, -1
    while True:
        with work.begin() as connection:
            page = runs.page_of_answers(
                connection, run_id, after=after, unwritten=True, succeeded_only=not is_final, limit=_PAGE
            )
            answers = [
                with_failure(
                    answer._replace(columns=work.columns.of(connection, run_id, segment, position)),
                    work.job.settings.output.on_failure,
                )
                for position, segment, answer in page
            ]
        if not page:
            return total
        if work.job.write is not None:
            for answer in answers:
                work.job.write(answer)
        refused = {} if sink is None else _sunk(sink, answers, work.instant)
        work.reach("job.sunk")
        with work.begin() as connection:
            runs.mark_written(connection, run_id, [p for p, _, answer in page if answer.key not in refused])
            for position, _, answer in page:
                if answer.key in refused:
                    runs.refuse(connection, run_id, position, refused[answer.key])
        work.reach("job.written")
        total += len(page)
        after = page[-1][0]


def _sunk(sink: Sink, answers: list[Answer], now: str) -> dict[Key, str]:
    """Write a page; rows that the database refuses, and why: they fail alone, and keep nothing else from it."""
    try:
        sink.write(answers, now)
    except JobError:
        refused = {}
        for answer in answers:
            try:
                sink.write([answer], now)
            except JobError as error:
                refused[answer.key] = storable(str(error))
        return refused
    return {}


def write_file(work: Work, run_id: str) -> None:
    """Write the file of a job that has one: whole, with every row of the run."""
    if work.job.settings.sink.file:
        FileSink(work.job.home / work.job.settings.sink.file).write_whole(all_answers(work, run_id))


def all_answers(work: Work, run_id: str) -> Iterator[Answer]:
    """As `answers_of`, of the job at work."""
    return answers_of(work.job, work.ledger, run_id)


def answers_of(job: Job, ledger: Ledger, run_id: str) -> Iterator[Answer]:
    """Every row of a run in the order of its source. Opens a transaction for each page, and holds none between."""
    after, columns = -1, Columns()
    while True:
        with ledger.begin() as connection:
            page = runs.page_of_answers(connection, run_id, after=after, limit=_PAGE)
            answers = [
                answer._replace(columns=columns.of(connection, run_id, segment, position))
                for position, segment, answer in page
            ]
        if not page:
            return
        after = page[-1][0]
        yield from (with_failure(answer, job.settings.output.on_failure) for answer in answers)


def with_failure(answer: Answer, word: str) -> Answer:
    """The answer, with `word` ([output] on_failure) in the place of a value that is not there."""
    return answer._replace(fields={"value": word}) if word and answer.state != "succeeded" else answer
