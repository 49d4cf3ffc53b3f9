"""What the endpoints share: settings, store, runner, and the questions every request asks first."""

from dataclasses import dataclass, field

from starlette.requests import Request as HttpRequest

from overnight.core import ratelimit
from overnight.errors import InvalidRequest, NotAuthenticated, RateLimited
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.tallies import Tallies
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server.access import Caller, Doors
from overnight.server.config import Settings
from overnight.server.receive import Uploads
from overnight.store.store import Store
from overnight.wire.batch import rfc3339

API_VERSIONS = ("2023-01-01", "2023-06-01", "2026-10-21")
_BUCKETS_MAX = 10_000


@dataclass(kw_only=True)
class Context:
    """One per process. Mutable parts: rate limit buckets and the count of bytes being uploaded."""

    settings: Settings
    store: Store
    fleet: Fleet
    worker: Worker
    upkeep: Upkeep
    tallies: Tallies
    world: World
    doors: Doors
    uploads: Uploads = field(default_factory=Uploads)
    buckets: dict[WorkspaceId, ratelimit.Bucket] = field(default_factory=dict)


def of(http_request: HttpRequest) -> Context:
    """The context of the app that got this request."""
    found = http_request.app.state.context
    assert isinstance(found, Context)
    return found


def caller_of(http_request: HttpRequest) -> Caller:
    """Who is asking, from `x-api-key` or `Authorization: Bearer`; NotAuthenticated if we do not know them."""
    here = of(http_request)
    headers = http_request.headers
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    shown = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
    if not shown and here.doors.needs_key:
        raise NotAuthenticated("x-api-key: header is required")
    caller = here.doors.caller_of(shown, now_ms=here.world.clock.now_ms())
    if caller is None:
        raise NotAuthenticated("API key is invalid.")
    if here.doors.needs_key:
        http_request.state.workspace = caller.workspace
    return caller


def workspace_of(http_request: HttpRequest) -> WorkspaceId:
    """The workspace of who is asking; NotAuthenticated if we do not know them."""
    return caller_of(http_request).workspace


def api_version_of(http_request: HttpRequest) -> str:
    """`anthropic-version`; InvalidRequest if it is missing (unless relaxed) or unknown."""
    version = http_request.headers.get("anthropic-version", "")
    if not version:
        if of(http_request).settings.strict_version:
            raise InvalidRequest("anthropic-version: header is required")
        return API_VERSIONS[-1]
    if version not in API_VERSIONS:
        raise InvalidRequest(f"anthropic-version: {version[:40]!r} is not a valid version")
    return version


def admit(http_request: HttpRequest) -> Caller:
    """Who sent a request to a batch endpoint, after version and rate limit were checked."""
    caller = caller_of(http_request)
    api_version_of(http_request)
    context, workspace = of(http_request), caller.workspace
    per_minute = context.doors.rules_of(workspace).requests_per_minute
    if per_minute is not None:
        now_ms = context.world.clock.now_ms()
        if len(context.buckets) > _BUCKETS_MAX:
            context.buckets.clear()
        bucket = context.buckets.get(workspace) or ratelimit.full(per_minute, now_ms=now_ms)
        verdict = ratelimit.take(bucket, per_minute=per_minute, now_ms=now_ms)
        context.buckets[workspace] = verdict.bucket
        http_request.state.limit_headers = {
            "anthropic-ratelimit-requests-limit": str(per_minute),
            "anthropic-ratelimit-requests-remaining": str(verdict.remaining),
            "anthropic-ratelimit-requests-reset": rfc3339(verdict.reset_at_ms),
        }
        if not verdict.is_allowed:
            raise RateLimited(
                f"This request would exceed the rate limit of {per_minute} requests per minute.",
                retry_after_s=verdict.retry_after_s,
            )
    return caller
