"""How much of what a workspace may do is used at this moment: budgets, queue, requests of this minute."""

from collections.abc import Collection
from typing import NamedTuple

from overnight.core import budget, ratelimit
from overnight.core.budget import Which
from overnight.core.usage import NANO
from overnight.ids import WorkspaceId
from overnight.server.context import Context


class Budget(NamedTuple):
    """A budget of a workspace."""

    workspace: str  # Its name.
    which: Which
    spent_nano: int
    limit_nano: int
    opens_at_ms: int  # When nothing of it is spent again.


class Level(NamedTuple):
    """A limit that is counted, and how much of it is taken."""

    label: str
    taken: int
    most: int


async def budgets(here: Context, workspaces: Collection[WorkspaceId]) -> list[Budget]:
    """The budgets of those of the workspaces that have any, by name. Spent is what is sealed."""
    now_ms = here.world.clock.now_ms()
    now = budget.nothing(now_ms=now_ms)
    wanted = sorted((here.doors.name_of(workspace), workspace) for workspace in workspaces)
    rules = {workspace: here.doors.rules_of(workspace) for _, workspace in wanted}
    if not any(found.usd_per_day or found.usd_per_month for found in rules.values()):
        return []
    day = await here.store.usage.spent(since_ms=now.day_began_ms)
    month = await here.store.usage.spent(since_ms=now.month_began_ms)
    found: list[Budget] = []
    for name, workspace in wanted:
        parts: tuple[tuple[Which, float | None, int, int], ...] = (
            ("day", rules[workspace].usd_per_day, day.get(workspace, 0), budget.next_change_ms(now_ms)),
            (
                "month",
                rules[workspace].usd_per_month,
                month.get(workspace, 0),
                budget.next_month_ms(now.month_began_ms),
            ),
        )
        found += [
            Budget(name, which, spent, round(limit * NANO), opens_ms)
            for which, limit, spent, opens_ms in parts
            if limit is not None
        ]
    return found


async def levels(here: Context, workspace: WorkspaceId) -> list[Level]:
    """What is counted beside money, where the workspace has a limit of it."""
    rules, found = here.doors.rules_of(workspace), list[Level]()
    if rules.requests_per_minute is not None:
        now_ms, per_minute = here.world.clock.now_ms(), rules.requests_per_minute
        bucket = here.buckets.get(workspace) or ratelimit.full(per_minute, now_ms=now_ms)
        left = ratelimit.left(bucket, per_minute=per_minute, now_ms=now_ms)
        found.append(Level("Requests of this minute", per_minute - left, per_minute))
    if rules.queue_requests_max is not None:
        unfinished = (await here.store.control.figures()).open.get(workspace)
        waiting = unfinished.requests if unfinished else 0
        found.append(Level("Requests in the queue", waiting, rules.queue_requests_max))
    return found
