"""`overnight results`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from overnight.cli.jobfind import Found, found, is_batch, server_of
from overnight.cli.joboptions import DONE, ERROR, ends_with_code
from overnight.errors import UsageError
from overnight.jobs import batches, runs, writing
from overnight.jobs.outfile import FileSink
from overnight.jobs.output import decode_line
from overnight.jobs.row import Answer
from overnight.jobs.runs import encode


@click.command(
    epilog="""\b
Examples:
  overnight results tickets.toml                      the latest run, a JSON object a row
  overnight results run_2026… -o answers.parquet      … into a file: .csv, .parquet or .jsonl
  overnight results run_2026… --failed                only rows without an answer
  overnight results run_2026… --raw                   the results as the server sent them
  overnight results run_2026… --requests              the requests as they were sent, to be sent again
  overnight results msgbatch_01…                      a batch of the server: id, type, text and error
"""
)
@click.argument("name", metavar="JOB.toml | RUN | BATCH")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write a whole file.")
@click.option("--failed", is_flag=True, help="Only rows without an answer.")
@click.option("--raw", is_flag=True, help="The lines of the server.")
@click.option("--json", is_flag=True, expose_value=False, help="JSON, which it is without this too.")
@click.option("--requests", "as_requests", is_flag=True, help="The requests, as JSONL.")
@ends_with_code
def results(name: str, output: Path | None, failed: bool, raw: bool, as_requests: bool) -> int:
    """The answers of a run, from the ledger; those of a batch, from the server."""
    if is_batch(name):
        return _of_batch(name)
    with found(name) as what:
        run_id = what.run_id or _latest(what)
        if raw or as_requests:
            for line in _raw(what, run_id) if raw else _requests(what, run_id):
                click.echo(line)
            return DONE
        answers: Iterable[Answer] = writing.answers_of(what.job, what.ledger, run_id)
        if failed:
            answers = (answer for answer in answers if answer.state != "succeeded")
        if output is not None:
            click.echo(f"{FileSink(output).write_whole(answers)} rows in {output}")
            return DONE
        for answer in answers:
            click.echo(encode(_plain(answer)))
    return DONE


def _plain(answer: Answer) -> dict[str, Any]:
    return {
        "id": answer.custom_id,
        "key": answer.key,
        "state": answer.state,
        **answer.fields,
        "error": answer.error or None,
        "row": answer.columns,
    }


def _latest(what: Found) -> str:
    with what.ledger.begin() as connection:
        latest = runs.latest(connection, what.job.settings.name, limit=1)
    if not latest:
        raise UsageError(f"{what.job.settings.name} has no run yet")
    return str(latest[0].id)


def _raw(what: Found, run_id: str) -> Iterator[bytes]:
    with what.ledger.begin() as connection:
        for batch in batches.of_run(connection, run_id):
            yield from runs.raw_answers(connection, batch.id)


def _requests(what: Found, run_id: str) -> Iterator[bytes]:
    with what.ledger.begin() as connection:
        yield from batches.sent_requests(connection, run_id)


def _of_batch(batch_id: str) -> int:
    """As the courses that people learn from have it: null where there is nothing to say."""
    with server_of(None) as server, server.results(batch_id) as lines:
        if not isinstance(lines, Iterator):
            said = lines.reason
            click.echo(f"overnight: {batch_id}: {said}", err=True)
            return ERROR
        for line in lines:
            found_line = decode_line(line)
            message, problem = found_line.result.message, found_line.result.error
            text = "".join(block.text for block in message.content) if message else None
            error = problem.error.message if problem else None
            shown = {"id": found_line.custom_id, "type": found_line.result.type, "text": text, "error": error}
            click.echo(encode(shown))
    return DONE
