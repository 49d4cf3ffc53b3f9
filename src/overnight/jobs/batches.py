"""Statements about the batches of a run.

planned -> submitting -> submitted -> ended -> collected. A batch the server refuses is `rejected`, one that was too
large is `replaced` by its halves, one for which there is no money is `held`, one that is gone is `lost`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from overnight.jobs import runs, split
from overnight.jobs.prompt import asked_again
from overnight.jobs.row import State
from overnight.jobs.tables import batch_jobs, items

OPEN = ("planned", "submitting", "submitted", "ended")


def of_run(connection: Connection, run_id: str, *statuses: str) -> list[Row[Any]]:
    """The batches of a run that have one of these statuses, or all, oldest first."""
    wanted = batch_jobs.c.run_id == run_id
    if statuses:
        wanted &= batch_jobs.c.status.in_(statuses)
    return list(connection.execute(select(batch_jobs).where(wanted).order_by(batch_jobs.c.id)))


def row_of(connection: Connection, batch_job: int) -> Row[Any]:
    """One batch."""
    return connection.execute(select(batch_jobs).where(batch_jobs.c.id == batch_job)).one()


def change(connection: Connection, batch_job: int, **values: Any) -> None:
    """Set columns of a batch."""
    connection.execute(update(batch_jobs).where(batch_jobs.c.id == batch_job).values(**values))


def known_ids(connection: Connection) -> set[str]:
    """Batches that this ledger knows: whatever run they are of, none of them is an orphan."""
    found = connection.execute(select(batch_jobs.c.batch_id).where(batch_jobs.c.batch_id.is_not(None)))
    return set(found.scalars())


def add(connection: Connection, run_id: str, at: str, *, attempt: int, positions: Sequence[int]) -> int:
    """A planned batch of these items, which become planned."""
    chunk = connection.execute(
        select(func.coalesce(func.max(batch_jobs.c.chunk), 0) + 1).where(batch_jobs.c.run_id == run_id)
    ).scalar_one()
    made = connection.execute(
        insert(batch_jobs).values(
            status="planned",
            created_at=at,
            run_id=run_id,
            chunk=chunk,
            attempt=attempt,
            total_requests=len(positions),
        )
    )
    assert made.inserted_primary_key is not None
    batch_job = int(made.inserted_primary_key[0])
    connection.execute(
        update(items)
        .where((items.c.run_id == run_id) & (items.c.position == bindparam("at")))
        .values(batch_job=batch_job, state="planned"),
        [{"at": position} for position in positions],
    )
    return batch_job


def set_state(connection: Connection, batch_job: int, state: State, *, of: Iterable[State], **values: Any) -> int:
    """Move the items of a batch from one of these states to another; how many."""
    mine = (items.c.batch_job == batch_job) & items.c.state.in_(tuple(of))
    return connection.execute(update(items).where(mine).values(state=state, **values)).rowcount


def items_of(connection: Connection, batch_job: int) -> list[Row[Any]]:
    """The items of a batch, by position."""
    found = connection.execute(select(items).where(items.c.batch_job == batch_job).order_by(items.c.position))
    return list(found)


def requests_of(connection: Connection, batch: Row[Any]) -> Iterator[bytes]:
    """The encoded requests of a batch, in its order: those of its items that are to be sent."""
    segment, params, first = -1, list[bytes](), 0
    for item in items_of(connection, batch.id):
        if item.state not in ("planned", "submitted"):
            continue
        if item.segment != segment:
            segment, params = item.segment, runs.requests(connection, batch.run_id, item.segment)
            first = runs.first_of(connection, batch.run_id, segment)
        changed = asked_again(
            params[item.position - first],
            more_room=bool(item.more_room),
            explained=item.explained if item.is_explained else "",
        )
        yield split.request(item.custom_id, changed)


def halve(connection: Connection, batch: Row[Any], at: str) -> list[int]:
    """Replace a batch that is too large by two; items of a batch of one become errored."""
    positions = [item.position for item in items_of(connection, batch.id) if item.state == "planned"]
    change(connection, batch.id, status="replaced")
    if len(positions) == 1:
        set_state(
            connection,
            batch.id,
            "errored",
            of=("planned",),
            error_type="request_too_large",
            error="the server takes no request of this size",
        )
        return []
    middle = len(positions) // 2
    return [
        add(connection, batch.run_id, at, attempt=batch.attempt, positions=half)
        for half in (positions[:middle], positions[middle:])
    ]


def counts(batch: Row[Any]) -> Mapping[str, int]:
    """The five counts of a batch as last seen."""
    return {name: getattr(batch, name) for name in ("processing", "succeeded", "errored", "canceled", "expired")}


def sent_requests(connection: Connection, run_id: str) -> Iterator[bytes]:
    """The requests of a run as they were first sent, encoded, in the order of the source."""
    segment, params, first = -1, list[bytes](), 0
    found = connection.execute(
        select(items.c.position, items.c.segment, items.c.custom_id)
        .where((items.c.run_id == run_id) & items.c.same_as.is_(None) & (items.c.bytes > 0))
        .order_by(items.c.position)
    )
    for item in found.all():
        if item.segment != segment:
            segment, params = item.segment, runs.requests(connection, run_id, item.segment)
            first = runs.first_of(connection, run_id, segment)
        yield split.request(item.custom_id, params[item.position - first])
