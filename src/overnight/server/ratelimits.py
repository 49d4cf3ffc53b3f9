"""GET /v1/organizations/rate_limits: which limits the caller's workspace has.

Source: https://platform.claude.com/docs/en/manage-claude/rate-limits-api, where it is for admin keys. Here every key
may ask, and is told of its own workspace.
"""

from typing import Literal

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.workspace import Rules
from overnight.errors import NotFound
from overnight.server import answers, context
from overnight.wire.batch import Count


class Limiter(msgspec.Struct, frozen=True):
    """One limit."""

    type: Literal["enqueued_batch_requests", "requests_per_minute"]
    value: Count


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one group. Only batches have any here."""

    type: Literal["rate_limit"] = "rate_limit"
    group_type: Literal["batch"] = "batch"
    models: None = None
    limits: list[Limiter]


class RateLimitPage(msgspec.Struct, frozen=True, kw_only=True):
    """All of them; there is never a second page."""

    data: list[RateLimit]
    next_page: None = None


async def page(http_request: HttpRequest) -> Response:
    """200 with the limits that there are. NotFound for a `model`, as no limit is of a model."""
    workspace, query = context.workspace_of(http_request), http_request.query_params
    if "model" in query:
        raise NotFound(f"model: {query['model'][:200]} has no rate limits")
    found = _limiters(context.of(http_request).doors.rules_of(workspace))
    is_asked = query.get("group_type", "batch") == "batch"
    return answers.json(RateLimitPage(data=[RateLimit(limits=found)] if found and is_asked else []))


def _limiters(rules: Rules) -> list[Limiter]:
    found: list[Limiter] = []
    if rules.queue_requests_max is not None:
        found.append(Limiter("enqueued_batch_requests", rules.queue_requests_max))
    if rules.requests_per_minute is not None:
        found.append(Limiter("requests_per_minute", rules.requests_per_minute))
    return found
