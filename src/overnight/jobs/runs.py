"""Statements about runs and their items."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from overnight.jobs import pack
from overnight.jobs.row import Answer, Key, State
from overnight.jobs.tables import answers, batch_jobs, events, items, notices, runs, spool

encode = msgspec.json.Encoder().encode
_IN_MAX = 500  # Values of one IN; some databases take no more than a thousand.


class Earlier(NamedTuple):
    """What an earlier run knows of a request."""

    key: Key
    state: State
    error_type: str
    error: str
    fields: str
    is_written: bool
    created_at: str

    def is_cached(self, since: str) -> bool:
        """Whether this is an answer that is not older than an instant."""
        return self.state == "succeeded" and self.created_at >= since


def unfinished(connection: Connection, job: str) -> list[str]:
    """Runs of a job that have not ended, oldest first; those whose planning broke off are removed."""
    found = connection.execute(
        select(runs.c.id, runs.c.status)
        .where((runs.c.job == job) & (runs.c.status != "ended"))
        .order_by(runs.c.created_at, runs.c.id)
    ).all()
    for run in found:
        if run.status == "planning":
            remove(connection, run.id)
    return [run.id for run in found if run.status != "planning"]


def remove(connection: Connection, run_id: str) -> None:
    """Everything about a run."""
    of_run = select(batch_jobs.c.id).where(batch_jobs.c.run_id == run_id)
    connection.execute(delete(answers).where(answers.c.batch_job.in_(of_run)))
    for table in (spool, items, batch_jobs, notices, events):
        connection.execute(delete(table).where(table.c.run_id == run_id))
    connection.execute(delete(runs).where(runs.c.id == run_id))


def ended_before(connection: Connection, job: str, instant: str) -> list[str]:
    """Runs of a job that ended before `instant`."""
    old = (runs.c.job == job) & (runs.c.status == "ended") & (runs.c.ended_at < instant)
    return list(connection.execute(select(runs.c.id).where(old)).scalars())


def key_of(text: str) -> Key:
    """A key as the ledger keeps it, of the type that it had."""
    return msgspec.json.decode(text, type=str | int)


def row_of(connection: Connection, run_id: str) -> Row[Any]:
    """The row of a run."""
    return connection.execute(select(runs).where(runs.c.id == run_id)).one()


def change(connection: Connection, run_id: str, **values: Any) -> None:
    """Set columns of a run."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(**values))


def keys_in_flight(connection: Connection, job: str, run_id: str) -> set[str]:
    """Keys, as JSON, that other runs of the job have not finished."""
    other = (runs.c.job == job) & (runs.c.status == "open") & (runs.c.id != run_id)
    found = connection.execute(select(items.c.item_key).join(runs, runs.c.id == items.c.run_id).where(other))
    return set(found.scalars())


def earlier(connection: Connection, job: str, digests: Sequence[str], *, since: str) -> dict[str, list[Earlier]]:
    """What ended runs of the job say about requests, by digest, newest first."""
    ended = (runs.c.job == job) & runs.c.status.in_(("reporting", "ended")) & (runs.c.created_at >= since)
    began = {run.id: run.created_at for run in connection.execute(select(runs.c.id, runs.c.created_at).where(ended))}
    rows = list[Any]()
    for start in range(0, len(digests) if began else 0, _IN_MAX):
        # No join: SQLite would begin with the runs, and read every item they have.
        wanted = items.c.digest.in_(digests[start : start + _IN_MAX])
        rows += (row for row in connection.execute(select(*_EARLIER).where(wanted)) if row.run_id in began)
    found: dict[str, list[Earlier]] = {}
    for row in sorted(rows, key=lambda row: began[row.run_id], reverse=True):
        key, began_at = key_of(row.item_key), began[row.run_id]
        known = Earlier(key, row.state, row.error_type, row.error, row.fields, bool(row.written), began_at)
        found.setdefault(row.digest, []).append(known)
    return found


_EARLIER = (
    items.c.run_id,
    items.c.digest,
    items.c.item_key,
    items.c.state,
    items.c.error_type,
    items.c.error,
    items.c.fields,
    items.c.written,
)


def counts(connection: Connection, run_id: str) -> Counter[State]:
    """How many items are in each state."""
    found = connection.execute(
        select(items.c.state, func.count()).where(items.c.run_id == run_id).group_by(items.c.state)
    )
    return Counter({row[0]: row[1] for row in found})


def common_errors(connection: Connection, run_id: str, *, limit: int = 5) -> list[tuple[str, int]]:
    """The errors that most items have, with their number."""
    found = connection.execute(
        select(items.c.error, func.count().label("n"))
        .where((items.c.run_id == run_id) & (items.c.error != ""))
        .group_by(items.c.error)
        .order_by(func.count().desc(), items.c.error)
        .limit(limit)
    )
    return [(row.error, row.n) for row in found]


def tokens(connection: Connection, run_id: str) -> Mapping[bool, tuple[int, int, int, int]]:
    """Input, output, cache read and cache written tokens of all answers: in batches (False), in real time (True)."""
    # Sums, not groups: a database sorts all items to group them.
    share = (1 - items.c.realtime, items.c.realtime)
    sums = [func.coalesce(func.sum(items.c[name] * part), 0) for part in share for name in _USAGE]
    found = [int(one) for one in connection.execute(select(*sums).where(items.c.run_id == run_id)).one()]
    return {False: (found[0], found[1], found[2], found[3]), True: (found[4], found[5], found[6], found[7])}


_USAGE = ("input_tokens", "output_tokens", "cache_read", "cache_write")


def output_history(connection: Connection, job: str, *, limit: int = 1_000) -> list[int]:
    """Output tokens of the latest answers of a job."""
    newest_first = select(runs.c.id).where(runs.c.job == job).order_by(runs.c.created_at.desc())
    found = list[int]()
    for run_id in connection.execute(newest_first).scalars().all():
        mine = (items.c.run_id == run_id) & (items.c.state == "succeeded") & (items.c.output_tokens > 0)
        wanted = select(items.c.output_tokens).where(mine).order_by(items.c.position.desc())
        found += connection.execute(wanted.limit(limit - len(found))).scalars()
        if len(found) == limit:
            break
    return found


def copy_answers(connection: Connection, run_id: str, *, is_final: bool) -> int:
    """Give rows that asked the same as another its answer; how many got one.

    A failure is passed on only when it `is_final`: the other may be asked again.
    """
    first = items.alias("first")
    has_answer = first.c.state.not_in(("planned", "submitted")) if is_final else first.c.state == "succeeded"
    waiting = connection.execute(
        select(items.c.position, first.c.state, first.c.fields, first.c.error_type, first.c.error)
        .join(first, (first.c.run_id == items.c.run_id) & (first.c.position == items.c.same_as))
        .where((items.c.run_id == run_id) & (items.c.state == "planned") & has_answer)
    ).all()
    if waiting:
        connection.execute(
            update(items)
            .where((items.c.run_id == run_id) & (items.c.position == bindparam("at")))
            .values(
                {name: bindparam(f"new_{name}") for name in ("state", "fields", "error_type", "error")},
            ),
            [
                {
                    "at": row.position,
                    "new_state": row.state,
                    "new_fields": row.fields,
                    "new_error_type": row.error_type,
                    "new_error": row.error,
                }
                for row in waiting
            ],
        )
    return len(waiting)


def mark_written(connection: Connection, run_id: str, positions: Sequence[int]) -> None:
    """The sink has these."""
    for start in range(0, len(positions), _IN_MAX):
        these = items.c.position.in_(positions[start : start + _IN_MAX])
        connection.execute(update(items).where((items.c.run_id == run_id) & these).values(written=1))


def page_of_answers(
    connection: Connection,
    run_id: str,
    *,
    after: int,
    limit: int,
    unwritten: bool = False,
    succeeded_only: bool = False,
) -> list[tuple[int, int, Answer]]:
    """Position, segment and answer of items behind position `after`; `columns` are empty.

    `unwritten`: only those that are done and that the sink has not got.
    """
    wanted = (items.c.run_id == run_id) & (items.c.position > after)
    if unwritten:
        wanted &= (items.c.written == 0) & items.c.state.not_in(("planned", "submitted", "held"))
    if succeeded_only:
        wanted &= items.c.state == "succeeded"
    found = connection.execute(select(items).where(wanted).order_by(items.c.position).limit(limit))
    return [(row.position, row.segment, _answer(row)) for row in found]


def _answer(row: Row[Any]) -> Answer:
    fields = msgspec.json.decode(row.fields) if row.fields else {}
    key = key_of(row.item_key)
    return Answer(key, {}, row.state, fields, row.error, row.custom_id)


def first_of(connection: Connection, run_id: str, segment: int) -> int:
    """The position of the first item of a segment; the others follow it."""
    mine = (spool.c.run_id == run_id) & (spool.c.segment == segment)
    return int(connection.execute(select(spool.c.first).where(mine)).scalar_one())


def source_rows(connection: Connection, run_id: str, segment: int) -> list[dict[str, Any]]:
    """The rows of a segment as the source gave them."""
    return [msgspec.json.decode(line) for line in pack.unpacked(_spooled(connection, run_id, segment, "source_rows"))]


def requests(connection: Connection, run_id: str, segment: int) -> list[bytes]:
    """The params of a segment's requests as they were rendered."""
    return pack.unpacked(_spooled(connection, run_id, segment, "requests"))


def _spooled(connection: Connection, run_id: str, segment: int, column: str) -> bytes:
    found = connection.execute(
        select(spool.c[column]).where((spool.c.run_id == run_id) & (spool.c.segment == segment))
    )
    return bytes(found.scalar_one())


def add_segment(
    connection: Connection,
    run_id: str,
    segment: int,
    *,
    rendered: Sequence[bytes],
    rows: Sequence[Mapping[str, Any]],
    planned: Sequence[Mapping[str, Any]],
) -> None:
    """Spool a segment and add its items."""
    connection.execute(
        insert(spool).values(
            run_id=run_id,
            segment=segment,
            first=planned[0]["position"],
            requests=pack.packed(rendered),
            source_rows=pack.packed(encode(row) for row in rows),
        )
    )
    connection.execute(insert(items), [dict(item) for item in planned])


def note(connection: Connection, run_id: str, at: str, name: str, facts: Mapping[str, Any]) -> None:
    """Add to the story of a run."""
    connection.execute(insert(events).values(run_id=run_id, at=at, name=name, facts=encode(facts).decode()))


def failures(connection: Connection, run_id: str) -> list[Row[Any]]:
    """Items that have no good answer and could be asked again."""
    wanted = items.c.state.in_(("invalid", "truncated", "errored", "expired", "missing")) & items.c.same_as.is_(None)
    mine = (items.c.run_id == run_id) & wanted & (items.c.written == 0)
    return list(connection.execute(select(*_FAILED).where(mine).order_by(items.c.position)))


_FAILED = (  # Every row of a run may have failed.
    items.c.position,
    items.c.state,
    items.c.attempts,
    items.c.error_type,
    items.c.error,
    items.c.bytes,
    items.c.more_room,
    items.c.explained,
    items.c.is_explained,
)


def has_succeeded(connection: Connection, job: str, shape: str) -> bool:
    """Whether requests of this shape were answered in a run of the job that ended."""
    good = (runs.c.job == job) & (runs.c.shape == shape) & runs.c.status.in_(("reporting", "ended"))
    found = connection.execute(
        select(items.c.position)
        .join(runs, runs.c.id == items.c.run_id)
        .where(good & (items.c.state == "succeeded"))
        .limit(1)
    )
    return found.first() is not None


def bytes_of(connection: Connection, run_id: str, position: int) -> int:
    """The size of a row's request."""
    mine = (items.c.run_id == run_id) & (items.c.position == position)
    return int(connection.execute(select(items.c.bytes).where(mine)).scalar_one())


def hold(connection: Connection, run_id: str, positions: Sequence[int]) -> None:
    """There is no money for these rows in this run."""
    connection.execute(
        update(items)
        .where((items.c.run_id == run_id) & (items.c.position == bindparam("at")))
        .values(state="held", error="the budget is spent"),
        [{"at": position} for position in positions],
    )


def plan_alone(connection: Connection, run_id: str, position: int) -> None:
    """A row is to be asked, in no batch."""
    mine = (items.c.run_id == run_id) & (items.c.position == position)
    connection.execute(update(items).where(mine).values(state="planned", batch_job=None))


def exists(connection: Connection, run_id: str) -> bool:
    """Whether there is such a run."""
    return connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first() is not None


def latest(connection: Connection, job: str, *, limit: int) -> list[Row[Any]]:
    """The newest runs of a job, oldest first."""
    found = connection.execute(
        select(runs).where(runs.c.job == job).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    )
    return list(found)[::-1]


def raw_answers(connection: Connection, batch_job: int) -> Iterator[bytes]:
    """The results of a batch as they came, line by line."""
    parts = connection.execute(
        select(answers.c.lines).where(answers.c.batch_job == batch_job).order_by(answers.c.part)
    )
    for part in parts.scalars():
        yield from pack.unpacked(bytes(part))


def open_runs(connection: Connection, job: str) -> list[str]:
    """Runs of a job that have batches to wait for, oldest first."""
    waiting = (runs.c.job == job) & (runs.c.status == "open")
    return list(connection.execute(select(runs.c.id).where(waiting).order_by(runs.c.created_at)).scalars())


def refuse(connection: Connection, run_id: str, position: int, error: str) -> None:
    """The sink never takes this answer: the row is invalid, and is not asked again."""
    mine = (items.c.run_id == run_id) & (items.c.position == position)
    values = {"state": "invalid", "error": error, "error_type": "sink", "fields": "", "is_explained": 1}
    connection.execute(update(items).where(mine).values(**values))


def sent_rows(connection: Connection, run_id: str) -> int:
    """How many rows of a run were sent, in batches or alone, or wait for the answer of one that asks the same."""
    sent = ((items.c.bytes > 0) | items.c.same_as.is_not(None)) & (items.c.state != "held")
    found = connection.execute(select(func.count()).where((items.c.run_id == run_id) & sent))
    return int(found.scalar_one())
