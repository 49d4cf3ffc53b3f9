"""What the endpoints share: settings, store, runner, and the questions every request asks first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request as HttpRequest

from overnight.core import budget, ratelimit
from overnight.errors import InvalidRequest, NotAuthenticated, PermissionDenied, RateLimited, SpendLimit
from overnight.ids import WorkspaceId
from overnight.ports.tracer import Span
from overnight.ports.world import World
from overnight.runner.fleet import Fleet
from overnight.runner.hooks import HookSender
from overnight.runner.journal import Journal
from overnight.runner.tallies import Tallies
from overnight.runner.upkeep import Upkeep
from overnight.runner.worker import Worker
from overnight.server import browsers
from overnight.server.access import Caller, Doors
from overnight.server.config import Settings
from overnight.server.lag import Lag
from overnight.server.parquet import ParquetFiles
from overnight.server.reading import Reading
from overnight.server.receive import Uploads
from overnight.server.traffic import Counts
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
    organization: str = ""  # What this installation calls itself to those it knows.
    hooks: HookSender | None = None  # None: nothing is sent, as in tests that drive an app alone.
    traffic: Counts = field(default_factory=Counts)
    lag: Lag = field(default_factory=Lag)
    uploads: Uploads = field(default_factory=Uploads)
    parquet_files: ParquetFiles = field(default_factory=ParquetFiles)
    buckets: dict[WorkspaceId, ratelimit.Bucket] = field(default_factory=dict)
    reading: Reading = field(init=False)

    @property
    def journal(self) -> Journal:
        """What happened to batches since the start."""
        return self.worker.recorder.journal

    def __post_init__(self) -> None:
        self.reading = Reading(self.store, self.world, Path(self.settings.data))


def of(http_request: HttpRequest) -> Context:
    """The context of the app that got this request."""
    found = http_request.app.state.context
    assert isinstance(found, Context)
    return found


@contextmanager
def traced(http_request: HttpRequest, name: str) -> Iterator[Span]:
    """A part of answering a request, in the trace of it."""
    span = of(http_request).world.tracer.begin(name, parent=getattr(http_request.state, "traceparent", ""))
    trouble = ""
    try:
        yield span
    except Exception as error:
        trouble = type(error).__name__
        raise
    finally:
        span.end(trouble=trouble)


def caller_of(http_request: HttpRequest) -> Caller:
    """Who is asking, from `x-api-key` or `Authorization: Bearer`; NotAuthenticated if we do not know them. Without
    keys PermissionDenied for what pages of other sites may have sent."""
    here = of(http_request)
    if not here.doors.needs_key:
        browsers.check(http_request, here.settings)
    headers = http_request.headers
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    shown = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
    if not shown and here.doors.needs_key:
        raise NotAuthenticated("x-api-key: header is required")
    caller = here.doors.caller_of(shown, now_ms=here.world.clock.now_ms())
    if caller is None:
        raise NotAuthenticated("API key is invalid.")
    if here.doors.needs_key:
        _check_workspace(http_request, caller)
        http_request.state.workspace, http_request.state.organization = caller.workspace, here.organization
    return caller


def _check_workspace(http_request: HttpRequest, caller: Caller) -> None:
    """A key is of one workspace. Which others there are, the answer does not tell (I7)."""
    if http_request.headers.get("anthropic-workspace-id", caller.workspace) != caller.workspace:
        raise PermissionDenied("anthropic-workspace-id: this API key is not of that workspace")


def workspace_of(http_request: HttpRequest) -> WorkspaceId:
    """The workspace of who is asking; NotAuthenticated if we do not know them."""
    return caller_of(http_request).workspace


def check_spending(http_request: HttpRequest, workspace: WorkspaceId) -> None:
    """SpendLimit if a budget of the workspace is spent: nothing that costs may begin."""
    limit = of(http_request).fleet.budgets.limit_of(workspace)
    if limit is not None:
        raise SpendLimit(budget.refusal(limit))


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
