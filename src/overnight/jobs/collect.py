"""Collecting: results of an ended batch become states of rows, each once, however often the download breaks."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, update

from overnight import limits
from overnight.errors import JobError, ServerTrouble
from overnight.jobs import batches, pack, runs
from overnight.jobs.job import derive
from overnight.jobs.output import Reading, decode_line
from overnight.jobs.row import Answer
from overnight.jobs.server import Broken, Busy
from overnight.jobs.tables import answers, items
from overnight.jobs.work import Work

encode = msgspec.json.Encoder().encode
_DOWNLOADS_MAX = 5  # Tries in a row that bring nothing new, 2, 4, 8 and 16 s apart, before the run stops.


class Tally(NamedTuple):
    """What a download brought: results of rows of ours, results of unknown ids, and results that came twice."""

    named: int = 0
    unknown: int = 0
    repeated: int = 0


def collect(work: Work, batch_job: int) -> Tally:
    """Give every row of an ended batch a state. ServerTrouble if its results cannot be had: run again later."""
    with work.begin() as connection:
        batch = batches.row_of(connection, batch_job)
    broken = 0
    while True:
        try:
            tally = _download(work, batch)
        except Broken as error:
            broken += 1
            if broken == _DOWNLOADS_MAX:
                raise ServerTrouble(f"the results of {batch.batch_id} break off: {error}") from error
            work.tell("attempt_failed", batch.run_id, attempt=broken, error=str(error))
            work.wait(2.0**broken)
            continue
        if not isinstance(tally, Busy):
            break
        work.tell("busy", batch.run_id, seconds=tally.seconds, reason=tally.reason)
        work.wait(tally.seconds)
    _finish(work, batch, tally)
    return tally


def _download(work: Work, batch: Row[Any]) -> Tally | Busy:
    with work.begin() as connection:
        connection.execute(delete(answers).where(answers.c.batch_job == batch.id))
        open_items = {item.custom_id: item for item in batches.items_of(connection, batch.id)}
    unknown, repeated, seen = 0, 0, set[str]()
    with work.server.results(batch.batch_id) as lines:
        if isinstance(lines, Busy):
            return lines
        if not isinstance(lines, Iterator):
            reason = lines.reason
            raise Broken(reason)
        for part, raw in enumerate(_parts(lines)):
            found = []
            for line in raw:
                read = _read(work, line)
                if read is None or read[0] not in open_items:
                    unknown += 1
                elif read[0] in seen:
                    repeated += 1
                else:
                    seen.add(read[0])
                    found.append((open_items[read[0]], read[1]))
            found.sort(key=lambda one: one[0].position)  # Results come in any order; rows of a segment lie together.
            with work.begin() as connection:
                connection.execute(insert(answers).values(batch_job=batch.id, part=part, lines=pack.packed(raw)))
                apply(work, connection, found)
            work.reach("job.part-applied")
            _tell_rows(work, batch.run_id, found)
    return Tally(len(seen), unknown, repeated)


def _parts(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    part, size = list[bytes](), 0
    for line in lines:
        part.append(line)
        size += len(line)
        if len(part) == limits.JOB_SEGMENT_ROWS or size > limits.JOB_SEGMENT_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _read(work: Work, line: bytes) -> tuple[str, Reading] | None:
    try:
        decoded = decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return decoded.custom_id, work.job.reader.of_result(decoded.result)


def apply(
    work: Work, connection: Connection, found: list[tuple[Row[Any], Reading]], *, realtime: bool = False
) -> int:
    """Write readings down; how many changed a row. A row that has its state keeps it."""
    if not found:
        return 0
    changed = connection.execute(
        update(items)
        .where(
            (items.c.run_id == bindparam("of_run"))
            & (items.c.position == bindparam("at"))
            & (items.c.state == "submitted")
        )
        .values({name: bindparam(f"new_{name}") for name in _COLUMNS}),
        [_values(item, _with_derived(work, connection, item, reading), realtime) for item, reading in found],
    )
    return changed.rowcount


_COLUMNS = (
    "state",
    "attempts",
    "fields",
    "error_type",
    "error",
    "explained",
    "input_tokens",
    "output_tokens",
    "cache_read",
    "cache_write",
    "realtime",
)


def _values(item: Row[Any], reading: Reading, realtime: bool) -> dict[str, Any]:
    """The tokens of all attempts add up: all of them were paid."""
    explained = encode((reading.text, reading.error)).decode() if reading.state == "invalid" else item.explained
    return {
        "of_run": item.run_id,
        "at": item.position,
        "new_state": reading.state,
        "new_attempts": item.attempts + 1,
        "new_fields": encode(reading.fields).decode() if reading.fields else "",
        "new_error_type": reading.error_type,
        "new_error": reading.error,
        "new_explained": explained,
        "new_input_tokens": item.input_tokens + reading.input_tokens,
        "new_output_tokens": item.output_tokens + reading.output_tokens,
        "new_cache_read": item.cache_read + reading.cache_read,
        "new_cache_write": item.cache_write + reading.cache_write,
        "new_realtime": int(realtime or item.realtime),
    }


def _with_derived(work: Work, connection: Connection, item: Row[Any], reading: Reading) -> Reading:
    if reading.state != "succeeded" or not work.job.derived:
        return reading
    columns = work.columns.of(connection, item.run_id, item.segment, item.position)
    answer = Answer(runs.key_of(item.item_key), columns, "succeeded", reading.fields, "", item.custom_id)
    try:
        return reading._replace(fields={**reading.fields, **derive(work.job, answer.names)})
    except JobError as error:  # One odd answer; the others go on.
        return reading._replace(state="invalid", fields={}, error=str(error))


def _finish(work: Work, batch: Row[Any], tally: Tally) -> None:
    """Rows that the results did not name are missing. An adopted batch none of whose ids are ours was not ours."""
    with work.begin() as connection:
        left = batches.set_state(
            connection,
            batch.id,
            "missing",
            of=("submitted",),
            attempts=items.c.attempts + 1,
            error="the results of its batch do not name it",
        )
        is_foreign = tally.named == 0 and left > 0 and tally.unknown > 0
        values: dict[str, Any] = {"status": "foreign" if is_foreign else "collected"}
        if is_foreign:
            values["error"] = "none of its results is ours: another job's batch was taken for it"
        batches.change(connection, batch.id, **values)
    work.reach("job.collected")
    for count, what in ((tally.unknown, "results have an id that is not ours"), (tally.repeated, "came twice")):
        if count:
            work.tell("note", batch.run_id, text=f"{batch.batch_id}: {count} {what}")
    if work.job.settings.batch.delete and not is_foreign:
        work.server.delete(batch.batch_id)


def _tell_rows(work: Work, run_id: str, found: list[tuple[Row[Any], Reading]]) -> None:
    if not work.job.settings.lines.row:
        return
    for item, reading in found:
        answer = Answer(runs.key_of(item.item_key), {}, reading.state, reading.fields, reading.error, item.custom_id)
        work.tell("row", run_id, **answer.names)
