"""Asking rows one by one: the first of a changed job, jobs too small for a batch, what a deadline left.

A crash in the middle, or an answer that gets lost, leaves a row of which nobody knows whether it was answered: unlike
a batch it cannot be found again. It is asked once more; that is the one answer that may be paid twice.
"""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from overnight.errors import ServerTrouble
from overnight.jobs import batches, runs
from overnight.jobs.collect import apply
from overnight.jobs.output import Reading, failed
from overnight.jobs.prompt import asked_again
from overnight.jobs.retry import TRANSIENT
from overnight.jobs.server import Busy, NotReached, Refused, Unknown
from overnight.jobs.tables import items
from overnight.jobs.work import Work

_TRIES = 3


def ask(work: Work, run_id: str, positions: list[int]) -> list[Reading]:
    """Ask these planned rows in real time, in order, and write their states down. ServerTrouble if nobody answers."""
    return [_ask_one(work, run_id, position) for position in positions]


def forget_unknown(connection: Connection, run_id: str) -> int:
    """Rows that a process was asking in real time when it ended become missing; how many."""
    mine = (items.c.run_id == run_id) & (items.c.state == "submitted") & (items.c.batch_job.is_(None))
    return connection.execute(
        update(items)
        .where(mine)
        .values(state="missing", attempts=items.c.attempts + 1, error="the process ended while it was asked")
    ).rowcount


def planned(connection: Connection, run_id: str) -> list[int]:
    """Positions of rows that wait to be sent."""
    found = connection.execute(
        select(items.c.position)
        .where((items.c.run_id == run_id) & (items.c.state == "planned") & items.c.same_as.is_(None))
        .order_by(items.c.position)
    )
    return list(found.scalars())


def _ask_one(work: Work, run_id: str, position: int) -> Reading:
    with work.begin() as connection:
        mine = (items.c.run_id == run_id) & (items.c.position == bindparam("at"))
        connection.execute(update(items).where(mine).values(state="submitted", batch_job=None), {"at": position})
        item = connection.execute(select(items).where(mine), {"at": position}).one()
        params = _params(connection, item)
    work.reach("job.intended")
    reading = _answer(work, run_id, position, params)
    work.reach("job.posted")
    with work.begin() as connection:
        apply(work, connection, [(item, reading)], realtime=True)
    work.reach("job.part-applied")
    return reading


def _answer(work: Work, run_id: str, position: int, params: bytes) -> Reading:
    """What the server says. Tries that brought no answer are repeated; of a lost one nobody knows if it was paid."""
    reading = failed("errored", "api_error", "not asked")
    for attempt in range(1, _TRIES + 1):
        match work.server.message(params):
            case bytes() as message:
                return work.job.reader.of_message(message)
            case Refused(status, error_type, message):
                if status in (401, 403):
                    _give_back(work, run_id, position)
                    raise ServerTrouble(f"{work.server.address.base_url} refuses: {message}")
                return failed("errored", error_type or "invalid_request_error", message)
            case Busy(seconds, reason):
                reading = failed("errored", "rate_limit_error", reason)
                work.tell("busy", run_id, seconds=seconds, reason=reason)
                work.wait(seconds)
            case NotReached(reason) | Unknown(reason):
                reading = failed("errored", "api_error", reason)
                if attempt < _TRIES:
                    work.tell("attempt_failed", run_id, attempt=attempt, error=reason)
                    work.wait(2.0 ** (attempt - 1))
    assert reading.error_type in TRANSIENT
    return reading


def _give_back(work: Work, run_id: str, position: int) -> None:
    with work.begin() as connection:
        mine = (items.c.run_id == run_id) & (items.c.position == position)
        connection.execute(update(items).where(mine).values(state="planned"))


def _params(connection: Connection, item: Row[Any]) -> bytes:
    params = runs.requests(connection, item.run_id, item.segment)
    plain = params[item.position - runs.first_of(connection, item.run_id, item.segment)]
    explained = item.explained if item.is_explained else ""
    return asked_again(plain, more_room=bool(item.more_room), explained=explained)


def detach(connection: Connection, batch_job: int, reason: str) -> list[int]:
    """Take the unsent rows of a planned batch out of it, to be asked in real time; their positions."""
    found = [item.position for item in batches.items_of(connection, batch_job) if item.state == "planned"]
    connection.execute(
        update(items).where((items.c.batch_job == batch_job) & (items.c.state == "planned")).values(batch_job=None)
    )
    batches.change(connection, batch_job, status="replaced", error=reason)
    return found
