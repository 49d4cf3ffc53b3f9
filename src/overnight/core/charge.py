"""What one answer costs, from its usage and the rates of its model.

https://platform.claude.com/docs/en/about-claude/pricing; docs/how-to/cost.md has it as a table.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from overnight.core import usage as usages
from overnight.core.prices import Prices, Rate
from overnight.core.usage import UNPRICED, Cost, Sums
from overnight.wire.message import Usage

_NANO_OF_MTOK: Final = 1_000  # USD for a million tokens is as many thousand nano USD for one.
_NANO_OF_THOUSAND: Final = 1_000_000  # USD for a thousand pieces is as many million nano USD for one.
_NANO_MAX: Final = 10**13  # 10,000 USD. A server may tell any count of tokens, and sums must fit their columns.


def cost(usage: Usage, *, rate: Rate | None, public: Rate | None, is_batch: bool) -> Cost:
    """What an answer costs by the rate of whoever answered. Unpriced if there is none.

    `public`: the rate of the model as the caller names it, for the comparison with real time. An answer of a batch
    that its server counts in another tier was paid in full: Claude's /v1/messages has no batch price."""
    if rate is None:
        return UNPRICED
    counts = counted(usage)
    is_half = is_batch and usage.service_tier in (None, "batch")
    own, compared = rate.for_prompt(_prompt(counts)), (public or rate).for_prompt(_prompt(counts))
    return Cost(_nano(counts, own.batch if is_half else own.realtime), _nano(counts, compared.realtime))


def own_cost(usage: Usage, usd_nano: int, *, public: Rate | None) -> Cost:
    """What an answer costs whose price does not go by tokens: a share of the hours of a machine, or nothing."""
    if public is None:
        return Cost(usd_nano, usd_nano)
    counts = counted(usage)
    return Cost(usd_nano, _nano(counts, public.for_prompt(_prompt(counts)).realtime))


def usd_micro(rate: Rate, usage: Usage) -> Decimal:
    """What an answer cost that says itself whether it came out of a batch, in millionths of a US dollar, exactly."""
    counts = counted(usage)
    found = rate.for_prompt(_prompt(counts))
    return _usd_micro(counts, found.batch if usage.service_tier == "batch" else found.realtime)


def by_tokens(usage: Usage, measured: Sums) -> int | None:
    """What an answer likely cost in nano USD where its tokens cost what those measured have cost, all kinds of them
    alike; None if none were measured."""
    tokens = _tokens(measured)
    return _tokens(counted(usage)) * measured.usd_nano // tokens if tokens > 0 else None


def counted(usage: Usage) -> Sums:
    """The counts of an answer. One below 0 is none: no server gives money back."""
    return usages.of_answer(usage, UNPRICED)


def _prompt(counts: Sums) -> int:
    return (
        counts.input_tokens + counts.cache_read_tokens + counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    )


def _tokens(counts: Sums) -> int:
    return _prompt(counts) + counts.output_tokens


def _nano(counts: Sums, prices: Prices) -> int:
    exact = _usd_micro(counts, prices) * _NANO_OF_MTOK
    return min(int(exact.quantize(Decimal(1), rounding=ROUND_HALF_EVEN)), _NANO_MAX)


def _usd_micro(counts: Sums, prices: Prices) -> Decimal:
    terms = (
        (counts.input_tokens, prices.input),
        (counts.output_tokens, prices.output),
        (counts.cache_read_tokens, prices.cache_read),
        (counts.cache_write_5m_tokens, prices.cache_write),
        (counts.cache_write_1h_tokens, prices.cache_write_1h),
        (counts.web_searches * (_NANO_OF_THOUSAND // _NANO_OF_MTOK), prices.web_searches),
    )
    return sum((count * price for count, price in terms if count), Decimal(0))  # Most are 0, and decimals are slow.
