"""How much of an engine's daily budget is left: what is spent, and what the requests inside it will likely cost.

A day is one of UTC, as the limits of most accounts are. Amounts are millionths of a US dollar: with prices in USD for
a million tokens that is tokens times price, exactly.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from overnight.core import charge
from overnight.core.prices import Rate
from overnight.core.tokens import Tokens
from overnight.wire.message import Usage

USD: Final = 1_000_000
_NOTHING: Final = Decimal(0)


class Purse(Struct, frozen=True, kw_only=True):
    """One budget on one day."""

    budget: Decimal
    day: str  # ISO text, such as "2026-11-25".
    spent: Decimal = _NOTHING
    reserved: Decimal = _NOTHING  # For requests of batches that are inside the engine.
    turned_away: Decimal = _NOTHING  # The likely cost of the last request that did not fit.


def of_day(budget_usd: float, *, now_ms: int) -> Purse:
    """A purse of which nothing is spent."""
    return Purse(budget=Decimal(str(budget_usd)) * USD, day=day_of(now_ms))


def day_of(now_ms: int) -> str:
    """The day of an instant, ISO text."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()


def next_day_ms(now_ms: int) -> int:
    """When the day of an instant ends."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return round((today + timedelta(days=1)).timestamp() * 1000)


def fits(purse: Purse, likely: Decimal) -> bool:
    """Whether one more request of about that cost stays within the budget."""
    return purse.spent + purse.reserved + likely <= purse.budget


def is_shut(purse: Purse) -> bool:
    """Whether nothing more is taken: the last request that was turned away would still not fit."""
    return not fits(purse, purse.turned_away)


def is_over(purse: Purse) -> bool:
    """Whether it stays shut today, even if the requests inside should cost nothing."""
    return purse.spent + purse.turned_away > purse.budget


def after_turned_away(purse: Purse, likely: Decimal) -> Purse:
    """The purse after a request did not fit. One that fits on no day shuts nothing: it says nothing about others."""
    return purse if likely > purse.budget else replace(purse, turned_away=likely)


def after_taken(purse: Purse, likely: Decimal) -> Purse:
    """The purse after a request went in."""
    return replace(purse, reserved=purse.reserved + likely)


def after_left(purse: Purse, likely: Decimal, *, cost: Decimal) -> Purse:
    """The purse after it came out, and cost that much."""
    return replace(purse, reserved=purse.reserved - likely, spent=purse.spent + cost)


def after_spent(purse: Purse, cost: Decimal) -> Purse:
    """The purse after something was paid that nothing was reserved for."""
    return replace(purse, spent=purse.spent + cost)


def after_midnight(purse: Purse, *, now_ms: int) -> Purse:
    """The purse of the day of `now_ms`. A clock that is set back opens no earlier day: its budget may be spent."""
    day = day_of(now_ms)
    return replace(purse, day=day, spent=_NOTHING, turned_away=_NOTHING) if day > purse.day else purse


def likely_cost(rate: Rate, tokens: Tokens, *, is_batched: bool) -> Decimal:
    """What a request will cost that takes about `tokens`, none of them cached."""
    found = rate.for_prompt(tokens.input)
    prices = found.batch if is_batched else found.realtime
    return tokens.input * prices.input + tokens.output * prices.output


def true_cost(rate: Rate, usage: Usage) -> Decimal:
    """What an answer cost. It says itself whether it came out of a batch (`service_tier`)."""
    return charge.usd_micro(rate, usage)
