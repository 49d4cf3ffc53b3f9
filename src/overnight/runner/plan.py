"""How much is leased ahead, and what is due: what the worker, the backlog and the pools must know of all that waits.

Every `PLAN_S` the demands of all unfinished batches are summed up by deadline. From them and from the speed of the
engines follow which deadlines are in danger, and how much of an engine is used outside its hours.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from overnight import limits
from overnight.core import offpeak, schedule
from overnight.core.offpeak import Due
from overnight.core.schedule import Demand
from overnight.errors import StoreError
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.pool import Pool
from overnight.runner.segmentrun import SegmentRun
from overnight.store.control import Wanted
from overnight.store.store import Store

PLAN_S = 10.0
_AHEAD = 2  # Windows of requests that are leased: one inside the engine, one to follow.
_GUESSED_S = 10.0  # How long a request takes while no speed is known.


class Plan:
    """One per worker. `run` keeps it up to date."""

    def __init__(self, store: Store, fleet: Fleet, world: World) -> None:
        self.demands: Sequence[Demand] = ()
        self._store, self._fleet, self._world = store, fleet, world

    def requests_wanted(self, runs: Collection[SegmentRun]) -> int:
        """How many more requests are to be leased, beyond those of `runs`."""
        if sum(run.held_bytes for run in runs) > limits.LEASED_BYTES_MAX:
            return 0
        opening = sum(run.leased.source.requests for run in runs if not run.is_started)
        # More of one model than its engines want feeds no other engine.
        waiting = sum(
            min(requests, self._appetite_for(model)) for model, requests in self._fleet.backlog.waiting().items()
        )
        return sum(map(_appetite, self._fleet.pools)) - waiting - opening

    def wanted(self, runs: Collection[SegmentRun], *, segments: int, is_closing_only: bool) -> Wanted:
        """What to lease now."""
        backlog = self._fleet.backlog
        waiting = backlog.waiting()
        held = backlog.workspaces() | {run.batch.workspace for run in runs if not run.is_started}
        return Wanted(
            requests=0 if is_closing_only else self.requests_wanted(runs),
            segments=segments,
            closed=frozenset(model for model in waiting if self._appetite_for(model) <= 0),
            full=frozenset(model for model, requests in waiting.items() if requests >= self._appetite_for(model)),
            held=held,
            served=backlog.served,
            weights=backlog.weights,
            danger_ms=backlog.danger_ms,
            stopped=self._fleet.budgets.stopped,
        )

    def given_up(self, runs: Iterable[SegmentRun]) -> list[SegmentRun]:
        """Which of `runs` are to be given back: nothing of them is begun, and nothing may be. They take the place of
        what others could do."""
        is_spent = self._fleet.budgets.is_spent
        return [run for run in runs if is_spent(run.batch.workspace) and _is_untouched(run)]

    async def run(self, on_changed: Callable[[], None]) -> None:
        """Plan until cancelled. `on_changed` is told each time."""
        while True:
            with suppress(StoreError):  # The lease loop tells it; the last demands are good enough.
                self.demands = await self._store.control.demands()
            self._consider()
            on_changed()
            await asyncio.sleep(self._pause_s())

    def _consider(self) -> None:
        now_ms, fleet = self._world.clock.now_ms(), self._fleet
        usual = [
            pool.speed_per_s
            for pool in fleet.pools
            if pool.speed_per_s and not fleet.is_spare(pool) and not pool.admission.is_spent
        ]
        fleet.backlog.danger_ms = schedule.danger_until_ms(
            self.demands, per_s=sum(usual) if usual else None, now_ms=now_ms
        )
        for pool in fleet.pools:
            others_per_s = sum(
                other.speed_per_s or 0.0 for other in fleet.pools if other is not pool and self._is_working(other)
            )
            own_per_s = pool.speed_per_s or pool.admission.limit / _GUESSED_S
            left = schedule.left_over(self.demands, others_per_s=others_per_s, now_ms=now_ms)
            pool.admission.consider(_dues(left, own_per_s))
            pool.wake()

    def _pause_s(self) -> float:
        now_ms = self._world.clock.now_ms()
        changes = (offpeak.next_change_ms(pool.admission.hours, now_ms) for pool in self._fleet.pools)
        soonest_ms = min((change_ms for change_ms in changes if change_ms is not None), default=None)
        return PLAN_S if soonest_ms is None else min(PLAN_S, max(0.001, (soonest_ms - now_ms) / 1000))

    def _is_working(self, pool: Pool) -> bool:
        is_closed = pool.is_away or pool.admission.is_spent or pool.admission.share < 1.0
        return not is_closed and not self._fleet.is_spare(pool)

    def _appetite_for(self, model: str) -> int:
        return sum(_appetite(pool) for pool in self._fleet.pools_for(model) if pool.admission.can_pay(model))


def _is_untouched(run: SegmentRun) -> bool:
    is_asked = run.is_light or any(work.stop is not None for work in run.open.values())
    is_whole = len(run.open) == run.leased.source.requests and not run.has_log
    return run.is_started and run.closing is None and is_whole and not is_asked and not run.is_abandoned


def _appetite(pool: Pool) -> int:
    is_closed = pool.is_away or pool.admission.is_spent or pool.admission.share <= 0.0
    return 0 if is_closed else _AHEAD * pool.limit


def _dues(demands: Iterable[Demand], per_s: float) -> list[Due]:
    return [Due(deadline_ms=item.deadline_ms, work_ms=item.requests / per_s * 1000) for item in demands]
