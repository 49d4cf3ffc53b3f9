"""When the deadline comes: batches are cancelled, what they answered is kept, and the rest is asked in real time.

A row is asked in real time only when its batch has ended and its results are here, so it is never paid twice.
"""

from sqlalchemy import Connection, or_, select, update

from overnight.errors import ServerTrouble
from overnight.jobs import batches, realtime, runs
from overnight.jobs.adopt import instant_ms
from overnight.jobs.budget import Budget, cost_so_far, rate
from overnight.jobs.deadline import give_up_ms
from overnight.jobs.retry import TRANSIENT
from overnight.jobs.server import Refused
from overnight.jobs.tables import items
from overnight.jobs.work import Work

_LEFT = ("planned", "canceled", "expired", "missing")


def since_ms(work: Work, run_id: str) -> int | None:
    """When a run is late, ms since the epoch; None if it has no deadline."""
    with work.begin() as connection:
        created_at = runs.row_of(connection, run_id).created_at
    return give_up_ms(instant_ms(created_at), work.job.settings.limits)


def is_late(work: Work, run_id: str) -> bool:
    """Whether what is left of a run goes into no batch any more."""
    at = since_ms(work, run_id)
    return at is not None and work.now_ms >= at


def cancel(work: Work, run_id: str) -> None:
    """Ask the server to cancel every batch of a run that has not ended. They end some time later, with results."""
    with work.begin() as connection:
        waiting = batches.of_run(connection, run_id, "submitted")
    for batch in waiting:
        outcome = work.server.cancel(batch.batch_id)
        if isinstance(outcome, Refused) and outcome.status in (401, 403):
            raise ServerTrouble(f"{work.server.address.base_url} refuses: {outcome.message}")
        work.tell("note", run_id, text=f"the deadline is near: batch {batch.batch_id} is being cancelled")


def ask_rest(work: Work, run_id: str) -> None:
    """What no batch answered, in real time, as far as [limits] fallback_usd goes; else it is cancelled."""
    settings = work.job.settings.limits
    with work.begin() as connection:
        for batch in batches.of_run(connection, run_id, "planned"):
            realtime.detach(connection, batch.id, "the deadline came first")
        if not settings.fallback:
            mine = (items.c.run_id == run_id) & (items.c.state == "planned") & items.c.same_as.is_(None)
            connection.execute(update(items).where(mine).values(state="canceled", error="the deadline came first"))
            return
        positions = _left(connection, run_id)
        spent = cost_so_far(connection, run_id, rate(work)).batch
    usd = settings.fallback_usd
    ask_all(work, run_id, positions, Budget(work, run_id, None if usd is None else usd + float(spent or 0)))


def ask_all(work: Work, run_id: str, positions: list[int], budget: Budget) -> None:
    """These rows in real time, as far as a budget goes; the others are held."""
    if positions:
        work.tell("note", run_id, text=f"asking {len(positions)} in real time, one by one")
    for at, position in enumerate(positions):
        with work.begin() as connection:
            if not budget.allows(connection, runs.bytes_of(connection, run_id, position), 1, realtime=True):
                runs.hold(connection, run_id, positions[at:])
                return
            runs.plan_alone(connection, run_id, position)
        budget.spend(realtime.ask(work, run_id, [position]))


def _left(connection: Connection, run_id: str) -> list[int]:
    """Rows without an answer that another attempt may get."""
    unanswered = or_(
        items.c.state.in_(_LEFT), (items.c.state == "errored") & items.c.error_type.in_(sorted(TRANSIENT))
    )
    found = connection.execute(
        select(items.c.position)
        .where((items.c.run_id == run_id) & unanswered & items.c.same_as.is_(None) & (items.c.written == 0))
        .order_by(items.c.position)
    )
    return list(found.scalars())
