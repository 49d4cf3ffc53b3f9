"""What a run has cost, and may still cost: decided before each batch, from what is known by then."""

from collections.abc import Iterable
from decimal import Decimal

from sqlalchemy import Connection, func, select

from overnight.core.prices import Rate
from overnight.errors import NotSpent
from overnight.jobs import runs
from overnight.jobs.cost import Cost, Tokens, cost_of
from overnight.jobs.estimate import CHARACTERS_PER_TOKEN
from overnight.jobs.output import Reading
from overnight.jobs.prices import rate_at
from overnight.jobs.tables import batch_jobs, items
from overnight.jobs.tables import runs as runs_table
from overnight.jobs.work import Work


def rate(work: Work) -> Rate | None:
    """The prices of the job's model; None if nobody knows them."""
    return rate_at(work.job.settings, work.now_ms)


class Budget:
    """The budget of one run. NotSpent, before anything is sent, if there is one and no price is known."""

    def __init__(self, work: Work, run_id: str, usd: float | None) -> None:
        self._run_id = run_id
        self._usd = None if usd is None else Decimal(str(usd))
        self._rate = rate(work)
        if self._usd is not None and self._rate is None:
            name = work.job.settings.model
            raise NotSpent(
                f"nobody knows what {name or 'this model'} costs, so a budget cannot be kept; "
                f'set [prices."{name}"] input and output, or leave the budget out'
            )
        with work.begin() as connection:
            history = runs.output_history(connection, work.job.settings.name)
            spent = cost_so_far(connection, run_id, self._rate).batch if self._usd is not None else None
        self._spent = spent or Decimal(0)  # Once, and not for each batch: it adds up every row of the run.
        most = work.job.settings.max_tokens
        self._output = Decimal(sum(min(one, most) for one in history)) / len(history) if history else Decimal(most)

    def allows(self, connection: Connection, size: int, requests: int, *, realtime: bool = False) -> bool:
        """Whether `requests` more requests, of `size` bytes in all, are likely to stay within the budget."""
        if self._usd is None:
            return True
        likely = self._likely(size, requests, realtime=realtime)
        return self._spent + self._under_way(connection) + likely <= self._usd

    def spend(self, readings: Iterable[Reading]) -> None:
        """Count answers that came in real time since this was made; of batches none comes while others are sent."""
        for one in readings:
            tokens = Tokens(one.input_tokens, one.output_tokens, one.cache_read, one.cache_write)
            self._spent += cost_of(tokens, self._rate, realtime=True).batch or Decimal(0)

    def _likely(self, size: int, requests: int, *, realtime: bool = False) -> Decimal:
        tokens = Tokens(int(size / CHARACTERS_PER_TOKEN), int(self._output * requests))
        return cost_of(tokens, self._rate, realtime=realtime).batch or Decimal(0)

    def _under_way(self, connection: Connection) -> Decimal:
        """Batches that a server has, or may have."""
        found = connection.execute(
            select(
                func.coalesce(func.sum(batch_jobs.c.bytes), 0),
                func.coalesce(func.sum(batch_jobs.c.total_requests), 0),
            )
            .where(batch_jobs.c.run_id == self._run_id)
            .where(batch_jobs.c.status.in_(("submitting", "submitted", "ended")))
        ).one()
        return self._likely(int(found[0]), int(found[1]))


def cost_so_far(connection: Connection, run_id: str, prices: Rate | None) -> Cost:
    """What the answers of a run cost: all attempts, in batches and in real time."""
    total = Cost(Decimal(0), Decimal(0))
    for realtime, used in runs.tokens(connection, run_id).items():
        total = total + cost_of(Tokens(*used), prices, realtime=realtime)
    return total


def month_cost(connection: Connection, job: str, month: str) -> Decimal:
    """What the ended runs of a job cost in a month, such as "2026-11"."""
    of_month = (runs_table.c.job == job) & runs_table.c.created_at.startswith(month)
    found = connection.execute(select(func.coalesce(func.sum(runs_table.c.cost_usd), 0)).where(of_month))
    return Decimal(str(found.scalar_one()))


def size_of(connection: Connection, batch_job: int) -> tuple[int, int]:
    """Bytes and number of the unsent requests of a batch."""
    unsent = (items.c.batch_job == batch_job) & (items.c.state == "planned")
    found = connection.execute(select(func.coalesce(func.sum(items.c.bytes), 0), func.count()).where(unsent)).one()
    return int(found[0]), int(found[1])
