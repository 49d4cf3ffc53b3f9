"""What a workspace has spent this day and this month, and whether that is all it may: days and months of UTC, as the
hosted API counts them. Money is nano USD (`core.usage`).
"""

from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

from overnight.core.usage import NANO
from overnight.core.workspace import Rules

Which: TypeAlias = Literal["day", "month"]


class Spent(Struct, frozen=True, kw_only=True):
    """What one workspace has spent."""

    day_began_ms: int
    month_began_ms: int
    day: int = 0
    month: int = 0


class Reached(NamedTuple):
    """A limit that is spent, and when it opens."""

    which: Which
    limit_usd: float
    spent: int
    opens_at_ms: int


def nothing(*, now_ms: int) -> Spent:
    """Nothing yet."""
    return Spent(day_began_ms=day_began_ms(now_ms), month_began_ms=month_began_ms(now_ms))


def at(spent: Spent, *, now_ms: int) -> Spent:
    """The same in the day and the month of an instant. A clock that is set back opens no earlier one: its budget may
    be spent."""
    day, month = max(spent.day_began_ms, day_began_ms(now_ms)), max(spent.month_began_ms, month_began_ms(now_ms))
    return Spent(
        day_began_ms=day,
        month_began_ms=month,
        day=spent.day if day == spent.day_began_ms else 0,
        month=spent.month if month == spent.month_began_ms else 0,
    )


def after_cost(spent: Spent, cost: int, *, now_ms: int) -> Spent:
    """After something more was paid."""
    now = at(spent, now_ms=now_ms)
    return Spent(
        day_began_ms=now.day_began_ms,
        month_began_ms=now.month_began_ms,
        day=now.day + cost,
        month=now.month + cost,
    )


def reached(spent: Spent, rules: Rules) -> tuple[Reached, ...]:
    """The limits that are spent, the one that opens last at the end."""
    day_ms, month_ms = _next_day_ms(spent.day_began_ms), next_month_ms(spent.month_began_ms)
    found: list[Reached] = []
    if rules.usd_per_day is not None and spent.day >= rules.usd_per_day * NANO:
        found.append(Reached("day", rules.usd_per_day, spent.day, day_ms))
    if rules.usd_per_month is not None and spent.month >= rules.usd_per_month * NANO:
        found.append(Reached("month", rules.usd_per_month, spent.month, month_ms))
    return tuple(found)


def shown(limit: Reached) -> str:
    """A limit that is spent, for people."""
    if limit.which == "day":
        return f"workspace budget of {limit.limit_usd:,.2f} USD for today is spent; opens 00:00 UTC"
    opens = f"{_utc(limit.opens_at_ms):%Y-%m-%d %H:%M} UTC"
    return f"workspace budget of {limit.limit_usd:,.2f} USD for this month is spent; opens {opens}"


def refusal(limit: Reached) -> str:
    """The words of the hosted API for a limit that its customer set."""
    opens = f"{_utc(limit.opens_at_ms):%Y-%m-%d at %H:%M} UTC"
    return f"You have reached your specified workspace API usage limits. You will regain access on {opens}."


def day_began_ms(now_ms: int) -> int:
    """When the day of an instant began."""
    return _ms(_utc(now_ms).replace(hour=0, minute=0, second=0, microsecond=0))


def month_began_ms(now_ms: int) -> int:
    """When the month of an instant began."""
    return _ms(_utc(now_ms).replace(day=1, hour=0, minute=0, second=0, microsecond=0))


def next_change_ms(now_ms: int) -> int:
    """When the next day begins, and with it perhaps a month."""
    return _next_day_ms(day_began_ms(now_ms))


def _next_day_ms(began_ms: int) -> int:
    return began_ms + 24 * 3600 * 1000  # UTC knows no summer time.


def next_month_ms(began_ms: int) -> int:
    """When the month that began then is over."""
    began = _utc(began_ms)
    return _ms(began.replace(year=began.year + began.month // 12, month=began.month % 12 + 1))


def _utc(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
