"""What answers took and what they cost, summed up. Money is counted in billionths of a US dollar (nano): a token at a
dollar for a million is 1,000 of them, so that sums of tokens are exact for any price people write.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from overnight.wire.message import Usage

NANO: Final = 1_000_000_000
CAUSES_MAX: Final = 20  # Different causes that are told apart in one segment; the rest is one more,
OTHER_CAUSES: Final = ("other", "(others)")  # with this for its type and message.
CAUSE_CHARACTERS_MAX: Final = 200  # Of a type or a message: engines say anything, and it is read on one line.
COUNT_MAX: Final = 10**9  # Tokens of a kind in one answer: servers may tell anything, and sums must fit a column.


class Cost(Struct, frozen=True):
    """What one answer cost here, and what the same tokens cost where they are asked one by one, in nano USD.
    None: nobody knows a price."""

    usd_nano: int | None
    realtime_usd_nano: int | None


UNPRICED: Final = Cost(None, None)


class Sums(Struct, frozen=True, kw_only=True):
    """Answers added up. The order of the fields is that of the columns in the database."""

    requests: int = 0
    input_tokens: int = 0  # Neither read from a prompt cache nor written to one.
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    web_searches: int = 0
    usd_nano: int = 0
    realtime_usd_nano: int = 0
    unpriced: int = 0  # Requests that nobody knows a price for.

    def plus(self, other: "Sums") -> "Sums":
        """Field by field."""
        return Sums(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


NOTHING: Final = Sums()


def summed(items: Iterable[Sums]) -> Sums:
    """All of them added up; for the thousand answers of a segment a tenth of the time of `plus`."""
    columns = zip(*map(astuple, items), strict=True)
    totals = map(sum, columns)
    return Sums(**dict(zip(Sums.__struct_fields__, totals, strict=False)))


class Used(Struct, frozen=True, kw_only=True):
    """Sums of one model at one engine."""

    model: str  # As the caller names it.
    engine: str
    service_tier: str  # "batch", or "standard" for people who wait.
    sums: Sums


class Cause(Struct, frozen=True, kw_only=True):
    """Why so many requests came to nothing: the words of their errors."""

    type: str  # Of the error, as the API has it.
    message: str
    requests: int
    example: str  # A custom_id.


class Bill(Struct, frozen=True, kw_only=True):
    """What is written down beside the results of one segment, in the same transaction."""

    used: tuple[Used, ...] = ()
    causes: tuple[Cause, ...] = ()


NO_BILL: Final = Bill()


def of_answer(usage: Usage, cost: Cost) -> Sums:
    """One answer as sums. Counts below 0 are none: no server takes tokens back."""
    written = _bounded(usage.cache_creation_input_tokens)
    told = usage.cache_creation
    hourly = min(written, _bounded(told.ephemeral_1h_input_tokens)) if told else 0
    return Sums(
        requests=1,
        input_tokens=_bounded(usage.input_tokens),
        cache_read_tokens=_bounded(usage.cache_read_input_tokens),
        cache_write_5m_tokens=written - hourly,
        cache_write_1h_tokens=hourly,
        output_tokens=_bounded(usage.output_tokens),
        web_searches=_bounded(usage.server_tool_use.web_search_requests) if usage.server_tool_use else 0,
        usd_nano=cost.usd_nano or 0,
        realtime_usd_nano=cost.realtime_usd_nano or 0,
        unpriced=int(cost.usd_nano is None),
    )


def _bounded(count: int | None) -> int:
    return min(max(0, count or 0), COUNT_MAX)


def usd(nano: int) -> Decimal:
    """Nano as US dollars, exactly."""
    return Decimal(nano) / NANO
