"""What a model costs: what somebody has told, else the data of genai-prices as installed; nothing is downloaded.

A name is all there is to go by: a local model that is called like a hosted one has the hosted price, until somebody
says otherwise (`[prices]` of a job, of a server, of an engine).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:  # 0.2 s and 16 MB, which a server pays only for models that nobody has told a price of.
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

BATCH_SHARE: Final = Decimal("0.5")  # https://platform.claude.com/docs/en/build-with-claude/batch-processing#pricing
_BATCH: Final = {"processing": "batch"}  # How genai-prices 0.2 names the context of a batch; it ignores any other.
_PRICED: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok")


class Prices(NamedTuple):
    """USD for a million tokens. `input` is what neither came from a prompt cache nor was written to one."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal  # For five minutes.
    cache_write_1h: Decimal
    web_searches: Decimal = Decimal(0)  # USD for a thousand.


class Band(NamedTuple):
    """What a request costs whose prompt is longer: all of it, answer included."""

    above: int  # Tokens of the prompt, cached ones among them.
    batch: Prices
    realtime: Prices


class Rate(NamedTuple):
    """What a model costs in a batch and in real time."""

    batch: Prices
    realtime: Prices
    bands: tuple[Band, ...] = ()  # The shortest first.

    def for_prompt(self, tokens: int) -> "Rate":
        """What a request costs that has so many tokens of prompt, cached ones among them
        (https://platform.claude.com/docs/en/about-claude/pricing, "Long context pricing")."""
        found = self
        for band in self.bands:
            if tokens > band.above:
                found = Rate(band.batch, band.realtime)
        return found


class Listed(NamedTuple):
    """One line of an operator's price list."""

    pattern: str  # A name, or a shell pattern such as `claude-*`; case matters.
    since: str  # The first day it is right, of UTC, ISO text; empty: since ever.
    rate: Rate


def known(model: str, *, at: datetime) -> Rate | None:
    """The rate of `model` at a time (UTC if naive); None if the data do not know it.

    Where a price for cached tokens is missing they cost what input costs; where that of an hour is missing, an hour
    costs what five minutes cost. Searches cost in a batch what they cost in real time, as the data have it.
    """
    import genai_prices  # noqa: PLC0415  See above.

    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model, genai_request_timestamp=at, price_context=_BATCH)
    except LookupError:
        return None
    full = found.model.get_prices(at)
    half = found.model_price if _has_batch_price(found.model, at) else None
    base = _both(full, half, above=None)
    if base is None:
        return None
    bands = []
    for above in _borders(full, half):
        if (band := _both(full, half, above=above)) is not None:
            bands.append(Band(above, *band))
    return Rate(*base, bands=tuple(bands))


def told(
    *,
    input: float,
    output: float,
    cache_read: float | None = None,
    cache_write: float | None = None,
    cache_write_1h: float | None = None,
    web_searches: float = 0.0,
    batch: float | None = None,
) -> Rate:
    """The rate that somebody has set, USD for a million tokens, and for a thousand searches. Cached tokens without a
    price cost what input costs, and writes for an hour what writes cost. `batch` is the share of a price of tokens
    that is paid in a batch; None: half."""
    given = _decimal(input)
    write = given if cache_write is None else _decimal(cache_write)
    realtime = Prices(
        input=given,
        output=_decimal(output),
        cache_read=given if cache_read is None else _decimal(cache_read),
        cache_write=write,
        cache_write_1h=write if cache_write_1h is None else _decimal(cache_write_1h),
        web_searches=_decimal(web_searches),
    )
    return Rate(batch=_share(realtime, BATCH_SHARE if batch is None else _decimal(batch)), realtime=realtime)


def listed(lines: Sequence[Listed], model: str, *, day: str) -> Rate | None:
    """The rate of a price list on a day (ISO text, of UTC); None if it has none. The name itself comes before
    patterns, and the first pattern before later ones; of its lines the newest counts that has begun."""
    patterns = (line.pattern for line in lines if fnmatchcase(model, line.pattern))
    pattern = model if any(line.pattern == model for line in lines) else next(patterns, None)
    begun = [line for line in lines if line.pattern == pattern and line.since <= day]
    return max(begun, key=lambda line: line.since).rate if begun else None


def _has_batch_price(model: "ModelInfo", at: datetime) -> bool:
    """Comparing the two prices would not tell: for gpt-3.5-turbo-1106 the batch price is the full one."""
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _both(full: "ModelPrice", half: "ModelPrice | None", *, above: int | None) -> tuple[Prices, Prices] | None:
    """In a batch and in real time; None for what is not sold by tokens."""
    realtime = _prices(full, above)
    if realtime is None:
        return None
    batch = None if half is None else _prices(half, above)
    return batch or _share(realtime, BATCH_SHARE), realtime


def _borders(*prices: "ModelPrice | None") -> list[int]:
    """Lengths of prompts beyond which something costs more."""
    found = [getattr(price, name) for price in prices if price is not None for name in _PRICED]
    return sorted({tier.start for price in found for tier in getattr(price, "tiers", ())})


def _prices(price: "ModelPrice", above: int | None) -> Prices | None:
    """Of prompts beyond that border. None for what is not sold by input and output tokens, such as speech and
    embeddings."""
    given, output, read, write, write_1h = (_at(getattr(price, name), above) for name in _PRICED)
    if given is None or output is None:
        return None
    write = given if write is None else write
    return Prices(
        input=given,
        output=output,
        cache_read=given if read is None else read,
        cache_write=write,
        cache_write_1h=write if write_1h is None else write_1h,
        web_searches=_at(price.web_searches_kcount, None) or Decimal(0),
    )


def _at(price: "Decimal | TieredPrices | None", above: int | None) -> Decimal | None:
    if price is None or isinstance(price, Decimal):
        return price
    found = price.base
    for tier in price.tiers:
        if above is not None and tier.start <= above:
            found = tier.price
    return found


def _share(prices: Prices, share: Decimal) -> Prices:
    return Prices(*(price * share for price in prices))._replace(web_searches=prices.web_searches)


def _decimal(number: float) -> Decimal:
    return Decimal(str(number))  # 0.8 as it is written, not the nearest binary fraction.
