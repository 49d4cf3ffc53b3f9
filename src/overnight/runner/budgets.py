"""The spending limits of workspaces, kept: who may start nothing now, and when that ends (`core.budget`).

Sums are in memory. They begin with what the store has, are added to as answers come, and are added up again from the
store at every start: an answer that was not sealed before a crash counts when it is. What is inside an engine when a
limit is reached may finish, so a limit may be exceeded by that, as at the hosted API
(https://platform.claude.com/docs/en/build-with-claude/batch-processing).
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TypeAlias

from overnight.core import budget
from overnight.core.budget import Reached, Spent, Which
from overnight.core.usage import usd
from overnight.core.workspace import NO_RULES, Rules
from overnight.ids import WorkspaceId
from overnight.ports.clock import Clock
from overnight.store.usage import UsageStore

OnReached: TypeAlias = Callable[[WorkspaceId, Which, float, float], None]
_LOOK_S = 60.0  # How late a day that began because the clock was set may be noticed.


class Budgets:
    """One per process, on one event loop. `load` before use; `run` notices days and months."""

    def __init__(
        self, clock: Clock, *, rules_of: Callable[[WorkspaceId], Rules] = lambda workspace: NO_RULES
    ) -> None:
        self.on_open: list[Callable[[Collection[WorkspaceId]], None]] = []  # Told who may start something again.
        self.on_reached: list[OnReached] = []  # Told once of each limit: workspace, which, its USD, what is spent.
        self._clock, self._rules_of = clock, rules_of
        self._spent: dict[WorkspaceId, Spent] = {}
        self._reached: dict[WorkspaceId, tuple[Reached, ...]] = {}  # Only where something is.

    @property
    def stopped(self) -> frozenset[WorkspaceId]:
        """The workspaces that may start nothing now."""
        return frozenset(self._reached)

    def is_spent(self, workspace: WorkspaceId) -> bool:
        """Whether a workspace may start nothing now."""
        return workspace in self._reached

    def limit_of(self, workspace: WorkspaceId) -> Reached | None:
        """The limit that holds a workspace longest; None if none does."""
        found = self._reached.get(workspace)
        return found[-1] if found else None

    def shown(self, workspace: WorkspaceId) -> str:
        """Why a workspace waits, for people; empty if its budget is not why."""
        limit = self.limit_of(workspace)
        return "" if limit is None else budget.shown(limit)

    def on_cost(self, workspace: WorkspaceId, usd_nano: int) -> None:
        """An answer came, and cost that much."""
        now_ms = self._clock.now_ms()
        before = self._spent.get(workspace) or budget.nothing(now_ms=now_ms)
        self._spent[workspace] = budget.after_cost(before, usd_nano, now_ms=now_ms)
        self._judge(workspace)

    def look(self) -> None:
        """Rules, or the day, may have changed."""
        now_ms, was = self._clock.now_ms(), self.stopped
        for workspace, spent in self._spent.items():
            self._spent[workspace] = budget.at(spent, now_ms=now_ms)
            self._judge(workspace)
        if opened := was - self.stopped:
            for tell in self.on_open:
                tell(opened)

    async def load(self, store: UsageStore) -> None:
        """Begin with what the store has. A limit that was reached before is not told again. StoreError if it cannot
        be read."""
        now = budget.nothing(now_ms=self._clock.now_ms())
        day = await store.spent(since_ms=now.day_began_ms)
        month = await store.spent(since_ms=now.month_began_ms)
        for workspace, spent in month.items():
            self._spent[workspace] = Spent(
                day_began_ms=now.day_began_ms,
                month_began_ms=now.month_began_ms,
                day=day.get(workspace, 0),
                month=spent,
            )
            self._keep(workspace, budget.reached(self._spent[workspace], self._rules_of(workspace)))

    async def run(self) -> None:
        """Notice new days and months until cancelled."""
        while True:
            now_ms = self._clock.now_ms()
            await asyncio.sleep(min(_LOOK_S, (budget.next_change_ms(now_ms) - now_ms) / 1000 + 0.001))
            self.look()

    def _judge(self, workspace: WorkspaceId) -> None:
        known = {limit.which for limit in self._reached.get(workspace, ())}
        found = budget.reached(self._spent[workspace], self._rules_of(workspace))
        self._keep(workspace, found)
        for limit in found:
            if limit.which not in known:
                for tell in self.on_reached:
                    tell(workspace, limit.which, limit.limit_usd, float(usd(limit.spent)))

    def _keep(self, workspace: WorkspaceId, found: tuple[Reached, ...]) -> None:
        if found:
            self._reached[workspace] = found
        else:
            self._reached.pop(workspace, None)
