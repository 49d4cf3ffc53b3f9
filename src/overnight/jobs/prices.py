"""What a job's model costs: the job's own price (`[prices."deepseek-r1:7b"] input = 0, output = 0`), else what is
known of its name (`core.prices`)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from overnight.core import prices
from overnight.core.prices import Rate
from overnight.jobs import jobfile


def rate_of(
    model: str, overrides: Mapping[str, jobfile.Price], *, at: datetime, cache: Literal["", "5m", "1h"] = ""
) -> Rate | None:
    """The rate of `model` at a time (UTC if naive); None if nobody knows it. `cache`: the job's `[prompt] cache`, by
    which all its writes are priced. A job's tokens are sums, so the price of its long prompts is not seen."""
    override = overrides.get(model)
    if override is None:
        found = prices.known(model, at=at)
        return _of_an_hour(found) if found is not None and cache == "1h" else found
    return prices.told(
        input=override.input,
        output=override.output,
        cache_read=override.cache_read,
        cache_write=override.cache_write,
        batch=override.batch,
    )


def rate_at(job: jobfile.JobFile, now_ms: int, model: str = "") -> Rate | None:
    """The rate of a job's model, or of another one, at an instant (ms since the epoch)."""
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return rate_of(model or job.model, job.prices, at=at, cache=job.prompt.cache)


def _of_an_hour(rate: Rate) -> Rate:
    """A job counts all that is written to the cache together, and asks for one length of time."""
    batch, realtime = (found._replace(cache_write=found.cache_write_1h) for found in (rate.batch, rate.realtime))
    return Rate(batch, realtime)
