"""What a model costs, from the data of genai-prices as it was installed; nothing is downloaded.

A name is all there is to go by: a local model that is called like a hosted one has the hosted price, until somebody
says otherwise (`[prices]` of a job, `prices` of an engine).
"""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:  # 0.2 s and 16 MB, which a server without a budget does not pay.
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

BATCH_SHARE: Final = Decimal("0.5")  # https://platform.claude.com/docs/en/build-with-claude/batch-processing#pricing
_BATCH: Final = {"processing": "batch"}  # How genai-prices 0.2 names the context of a batch; it ignores any other.


class Prices(NamedTuple):
    """USD for a million tokens. `input` is what neither came from a prompt cache nor was written to one."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


class Rate(NamedTuple):
    """What a model costs in a batch and in real time."""

    batch: Prices
    realtime: Prices


def known(model: str, *, at: datetime, cache: Literal["", "5m", "1h"] = "") -> Rate | None:
    """The rate of `model` at a time (UTC if naive); None if the data do not know it. `cache`: how long what is
    written to a prompt cache stays there.

    Where a price for cached tokens is missing they cost what input costs. Prices for long prompts (some models, from
    100,000 or 200,000 tokens on) are left out: such prompts cost more than this says.
    """
    import genai_prices  # noqa: PLC0415  See above.

    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model, genai_request_timestamp=at, price_context=_BATCH)
    except LookupError:
        return None
    realtime = _prices(found.model.get_prices(at), cache)
    if realtime is None:
        return None
    batch = _prices(found.model_price, cache) if _has_batch_price(found.model, at) else None
    return Rate(batch=batch or _share(realtime, BATCH_SHARE), realtime=realtime)


def told(
    *,
    input: float,
    output: float,
    cache_read: float | None = None,
    cache_write: float | None = None,
    batch: float | None = None,
) -> Rate:
    """The rate that somebody has set, USD for a million tokens. Cached tokens without a price cost what input costs.
    `batch` is the share of a price that is paid in a batch; None: half."""
    given = _decimal(input)
    realtime = Prices(
        input=given,
        output=_decimal(output),
        cache_read=given if cache_read is None else _decimal(cache_read),
        cache_write=given if cache_write is None else _decimal(cache_write),
    )
    return Rate(batch=_share(realtime, BATCH_SHARE if batch is None else _decimal(batch)), realtime=realtime)


def _has_batch_price(model: "ModelInfo", at: datetime) -> bool:
    """Comparing the two prices would not tell: for gpt-3.5-turbo-1106 the batch price is the full one."""
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _prices(price: "ModelPrice", cache: str) -> Prices | None:
    """None for what is not sold by input and output tokens, such as speech and embeddings."""
    given, output = _base(price.input_mtok), _base(price.output_mtok)
    if given is None or output is None:
        return None
    write = _base(price.cache_write_1h_mtok) if cache == "1h" else None
    if write is None:
        write = _base(price.cache_write_mtok)
    read = _base(price.cache_read_mtok)
    return Prices(given, output, given if read is None else read, given if write is None else write)


def _base(price: "Decimal | TieredPrices | None") -> Decimal | None:
    return price if price is None or isinstance(price, Decimal) else price.base


def _share(prices: Prices, share: Decimal) -> Prices:
    return Prices(*(price * share for price in prices))


def _decimal(number: float) -> Decimal:
    return Decimal(str(number))  # 0.8 as it is written, not the nearest binary fraction.
