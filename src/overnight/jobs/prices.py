"""What a model costs: the job's own price, else the data of genai-prices as it was installed; nothing is downloaded.

A name is all there is to go by: a local model that is called like a hosted one has the hosted price, until the job
says otherwise (`[prices."deepseek-r1:7b"] input = 0, output = 0`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import genai_prices
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from overnight.jobs import jobfile

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


def rate_of(
    model: str, overrides: Mapping[str, jobfile.Price], *, at: datetime, cache: Literal["", "5m", "1h"] = ""
) -> Rate | None:
    """The rate of `model` at a time (UTC if naive); None if nobody knows it. `cache` is the job's `[prompt] cache`.

    Where a price for cached tokens is missing they cost what input costs. Prices for long prompts (some models, from
    100,000 or 200,000 tokens on) are left out: a job of such prompts costs more than this says.
    """
    if (override := overrides.get(model)) is not None:
        return _rate_in_job(override)
    try:
        found = genai_prices.calc_price(genai_prices.Usage(), model, genai_request_timestamp=at, price_context=_BATCH)
    except LookupError:
        return None
    realtime = _prices(found.model.get_prices(at), cache)
    if realtime is None:
        return None
    batch = _prices(found.model_price, cache) if _has_batch_price(found.model, at) else None
    return Rate(batch=batch or _share(realtime, BATCH_SHARE), realtime=realtime)


def _rate_in_job(price: jobfile.Price) -> Rate:
    given = _decimal(price.input)
    realtime = Prices(
        input=given,
        output=_decimal(price.output),
        cache_read=given if price.cache_read is None else _decimal(price.cache_read),
        cache_write=given if price.cache_write is None else _decimal(price.cache_write),
    )
    return Rate(batch=_share(realtime, _decimal(price.batch)), realtime=realtime)


def _has_batch_price(model: ModelInfo, at: datetime) -> bool:
    """Comparing the two prices would not tell: for gpt-3.5-turbo-1106 the batch price is the full one."""
    return any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _prices(price: ModelPrice, cache: str) -> Prices | None:
    """None for what is not sold by input and output tokens, such as speech and embeddings."""
    given, output = _base(price.input_mtok), _base(price.output_mtok)
    if given is None or output is None:
        return None
    write = _base(price.cache_write_1h_mtok) if cache == "1h" else None
    if write is None:
        write = _base(price.cache_write_mtok)
    read = _base(price.cache_read_mtok)
    return Prices(given, output, given if read is None else read, given if write is None else write)


def _base(price: Decimal | TieredPrices | None) -> Decimal | None:
    return price.base if isinstance(price, TieredPrices) else price


def _share(prices: Prices, share: Decimal) -> Prices:
    return Prices(*(price * share for price in prices))


def _decimal(number: float) -> Decimal:
    return Decimal(str(number))  # 0.8 as it is written, not the nearest binary fraction.


def rate_at(job: jobfile.JobFile, now_ms: int, model: str = "") -> Rate | None:
    """The rate of a job's model, or of another one, at an instant (ms since the epoch)."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return rate_of(model or job.model, job.prices, at=at, cache=job.prompt.cache)
