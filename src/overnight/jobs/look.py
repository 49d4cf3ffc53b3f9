"""Looking at batches that a server works on: one request for all of them, at growing intervals."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Row

from overnight import limits
from overnight.errors import ServerTrouble
from overnight.jobs import adopt, batches
from overnight.jobs.server import Busy, Listed, Refused, ShownBatch
from overnight.jobs.tables import items
from overnight.jobs.work import Work

_SENT = ("submitted", "ended", "collected", "lost")
_GROWTH = 1.5
_JITTER = 0.2  # Of a wait, so that many jobs that began at 23:00 do not ask at the same moments.


def next_wait_s(previous: float, *, fixed: float, uniform: float) -> float:
    """How long to wait for the next look. `fixed`: always that. `previous`: the last wait, 0 before the first."""
    if fixed:
        return fixed
    plain = min(previous * _GROWTH, limits.JOB_POLL_S_MAX) if previous else limits.JOB_POLL_S
    return plain * (1 - _JITTER * uniform) if plain == limits.JOB_POLL_S_MAX else plain


class Looked(NamedTuple):
    """How many batches have not ended, and how long a busy server wants to be left alone."""

    left: int
    busy_s: float


def look(work: Work, run_id: str, *, is_first: bool) -> Looked:
    """Bring every submitted batch of a run up to date.

    A server that cannot be asked, or answers nonsense, says nothing about a batch: it is asked again later.
    """
    with work.begin() as connection:
        waiting = batches.of_run(connection, run_id, "submitted")
        together = Counter(batch.attempt for batch in batches.of_run(connection, run_id, *_SENT))
    shown, busy_s = _shown(work, waiting)
    left = []
    for batch in waiting:
        found = shown.get(batch.batch_id)
        if isinstance(found, ShownBatch):
            is_done = _noted(work, batch, found, is_first=is_first, is_alone=together[batch.attempt] == 1)
        else:
            is_done = isinstance(found, Refused) and found.status == 404 and _gone(work, batch)
        if not is_done:
            left.append(batch)
    if any(together[batch.attempt] > 1 for batch in left):
        work.tell("waiting", run_id, batches=len(left))
    return Looked(len(left), busy_s)


def _shown(work: Work, waiting: list[Row[Any]]) -> tuple[Mapping[str, ShownBatch | Refused], float]:
    wanted = {batch.batch_id for batch in waiting}
    found: dict[str, ShownBatch | Refused] = {}
    if len(waiting) > 1:
        listed = _listed(work, wanted, oldest_ms=min(adopt.instant_ms(batch.intent_at) for batch in waiting))
        if isinstance(listed, Busy):
            return {}, _busy_s(work, listed)
        found |= listed
    for batch_id in sorted(wanted - found.keys()):
        one = work.server.retrieve(batch_id)
        if isinstance(one, ShownBatch):
            found[batch_id] = one
        elif isinstance(one, Refused):
            if one.status != 404:
                raise ServerTrouble(f"{work.server.address.base_url} refuses: {one.message}")
            found[batch_id] = one
        elif isinstance(one, Busy):
            return found, _busy_s(work, one)
        else:
            work.tell("note", text=f"{batch_id}: {one.reason}; looking again later")
            break
    return found, 0.0


def _busy_s(work: Work, busy: Busy) -> float:
    work.tell("busy", seconds=busy.seconds, reason=busy.reason)
    return busy.seconds


def _listed(work: Work, wanted: set[str], *, oldest_ms: int) -> dict[str, ShownBatch] | Busy:
    """Those of `wanted` that a list has; an hour of clock difference is allowed for."""
    found: dict[str, ShownBatch] = {}
    after: str | None = None
    while len(found) < len(wanted):
        listed = work.server.list(after_id=after)
        if isinstance(listed, Busy):
            return listed
        if not isinstance(listed, Listed) or not listed.page.data:
            break
        found |= {batch.id: batch for batch in listed.page.data if batch.id in wanted}
        last = listed.page.data[-1]
        if not listed.page.has_more or adopt.created_ms(last) < oldest_ms - 3_600_000:
            break
        after = last.id
    return found


def _noted(work: Work, batch: Row[Any], shown: ShownBatch, *, is_first: bool, is_alone: bool) -> bool:
    """Write down what a server shows; whether the batch has ended. An unknown status is not the end."""
    counts = {name: shown.count(name) for name in ("processing", "succeeded", "errored", "canceled", "expired")}
    has_ended = shown.processing_status == "ended"
    with work.begin() as connection:
        ended = {"status": "ended", "completed_at": shown.ended_at or work.instant} if has_ended else {}
        batches.change(connection, batch.id, gone_since=None, **counts, **ended)
    if has_ended:
        work.reach("job.ended")
    if is_alone or has_ended:
        facts = {"id": shown.id, "status": shown.processing_status, **counts, "total": shown.total}
        work.tell("status", batch.run_id, **facts, done=shown.total - counts["processing"], first=is_first)
        if has_ended:
            work.tell("ended", batch.run_id, **facts, done=shown.total)
    return has_ended


def _gone(work: Work, batch: Row[Any]) -> bool:
    """A 404 for a batch that was made. Believed when it lasts; then [batch] on_unknown decides."""
    now = work.instant
    with work.begin() as connection:
        if batch.gone_since is None:
            batches.change(connection, batch.id, gone_since=now)
            return False
        if adopt.instant_ms(now) - adopt.instant_ms(batch.gone_since) < limits.JOB_GONE_AFTER_MS:
            return False
        if work.job.settings.batch.on_unknown == "stop":
            raise ServerTrouble(
                f"{batch.batch_id} is gone from {work.server.address.base_url}, and [batch] on_unknown is stop"
            )
        batches.change(connection, batch.id, status="lost", error="the server knows this batch no more")
        batches.set_state(
            connection,
            batch.id,
            "missing",
            of=("submitted",),
            attempts=items.c.attempts + 1,
            error="the server knows its batch no more",
        )
    work.tell("note", batch.run_id, text=f"{batch.batch_id} is gone; its rows are sent again")
    return True
