"""Rows that are asked again: which, how, and in a batch of their own."""

from typing import Any

from sqlalchemy import Row, bindparam, update

from overnight.jobs import batches, runs, split
from overnight.jobs.retry import Attempt, Next, after
from overnight.jobs.tables import items
from overnight.jobs.work import Work


def next_of(item: Row[Any], *, attempts_max: int) -> Next:
    """What happens to an item that has no good answer."""
    attempt = Attempt(
        item.state,
        item.attempts,
        item.error_type,
        item.error,
        has_more_room=bool(item.more_room),
        is_explained=bool(item.is_explained),
    )
    return after(attempt, attempts_max=attempts_max)


def plan_again(work: Work, run_id: str, *, unpaid: bool = False) -> int:
    """Batches for everything that may be asked again; how many rows. Their earlier answers' tokens stay counted.

    `unpaid`: instead, for what waits for credit.
    """
    settings = work.job.settings
    wanted_now = ("paused",) if unpaid else ("again", "more_room", "explained")
    with work.begin() as connection:
        wanted = [
            (item, what)
            for item in runs.failures(connection, run_id)
            if (what := next_of(item, attempts_max=settings.limits.attempts)) in wanted_now
        ]
        if not wanted:
            return 0
        for what, values in (("more_room", {"more_room": 1}), ("explained", {"is_explained": 1})):
            positions = [{"at": item.position} for item, found in wanted if found == what]
            if positions:
                mine = (items.c.run_id == run_id) & (items.c.position == bindparam("at"))
                connection.execute(update(items).where(mine).values(values), positions)
        cut = split.cut(
            (item.bytes + 2 * len(item.explained) for item, _ in wanted),
            max_requests=settings.batch.max_requests,
            max_bytes=settings.batch.max_bytes,
        )
        chunks: dict[int, list[Row[Any]]] = {}
        for number, (item, _) in zip(cut, wanted, strict=True):
            chunks.setdefault(number, []).append(item)
        for chunk in chunks.values():
            attempt = max(item.attempts for item in chunk) + 1
            batches.add(
                connection, run_id, work.instant, attempt=attempt, positions=[item.position for item in chunk]
            )
    return len(wanted)


def paused(work: Work, run_id: str) -> list[str]:
    """Why rows wait for credit; empty if none does."""
    with work.begin() as connection:
        found = runs.failures(connection, run_id)
    return sorted({item.error for item in found if next_of(item, attempts_max=1) == "paused"})
