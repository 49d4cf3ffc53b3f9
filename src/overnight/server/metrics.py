"""GET /metrics: the snapshot of `runner.status` and what `families` adds, in the text format of Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/. Everything is read when it is asked for. No prompt and
no key is in it. Names of models, and cost, are for admins and for this machine; workspaces too, and only if the
operator wants them (I7).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import __version__
from overnight.core.tokens import Tokens
from overnight.runner import status as statuses
from overnight.runner.status import DOORS, EngineStatus, Status
from overnight.server import context
from overnight.server.config import is_loopback
from overnight.server.context import Context
from overnight.server.families import Own, bounded, families

_OUTCOMES = ("answered", "refused", "busy", "broken")
_ROWS = ("succeeded", "errored", "canceled", "expired")
_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[^:]*)(:[0-9]+)?")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")

_NOWHERE: Any = None

# Name behind `overnight_engine_`, what it says, and the field of `EngineStatus`.
_GAUGES = (
    ("window_requests", "Requests that are to be inside at once now.", "window"),
    ("window_max_requests", "Requests that may be inside at the very most.", "window_max"),
    ("ceiling_requests", "Requests inside when it last refused more.", "ceiling"),
    ("in_flight_requests", "Requests of batches inside.", "in_flight"),
    ("interactive_requests", "Requests of people inside.", "interactive"),
    ("in_flight_tokens", "Tokens of the requests of batches inside, estimated.", "tokens_in_flight"),
    ("limit_tokens", "Tokens that its memory holds, as found out.", "tokens_limit"),
    ("off_peak_ratio", "Part of the window that batches may use by hours and signal.", "share"),
    ("signal", "Its price or carbon signal as last read, in its own unit.", "signal"),
    ("speed_requests_per_second", "Requests finished in a second at full speed.", "speed_per_s"),
    ("running_requests", "Requests that run inside by its own word, everybody's together.", "running"),
    ("waiting_requests", "Requests that wait inside by its own word.", "waiting"),
    ("kv_cache_ratio", "Part of its memory for prompts and answers that is used.", "kv_share"),
    ("rate_wait_seconds", "Time until the limits of its rate let the next request pass.", "rate_wait_s"),
)


class Counted(NamedTuple):
    """What one engine has done since the server was started."""

    outcomes: Mapping[str, int]  # Attempts by kind.
    took: Tokens


async def metrics(http_request: HttpRequest) -> Response:
    """200 with all metrics. Where keys are set it needs one, unless somebody on this machine asks directly."""
    here = context.of(http_request)
    sees_names = _is_near(http_request) or context.caller_of(http_request).is_admin
    status = statuses.snapshot(here.fleet, here.worker, now_ms=here.world.clock.now_ms())
    counted = [Counted(pool.outcomes, pool.admission.took) for pool in here.fleet.pools]
    own = await _own(here, sees_names=sees_names)
    if not sees_names:
        status = _without_models(status)
    text = rendered(status, counted, here.worker.rows, own, process=_process())
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _is_near(http_request: HttpRequest) -> bool:
    """Whether a process on this machine asks, for itself and not for a client of a proxy."""
    client = http_request.client
    is_forwarded = any(name in http_request.headers for name in _FORWARDED)
    host = _HOST.fullmatch(http_request.headers.get("host", ""))
    if client is None or host is None or is_forwarded:
        return False
    return is_loopback(client.host) and is_loopback(host["name"].strip("[]"))


async def _own(here: Context, *, sees_names: bool) -> Own:
    journal = here.journal
    return Own(
        batches=journal.batches,
        traffic=here.traffic,
        stored=await here.reading.read(),
        troubles=_troubles(here),
        lag_s=here.lag.most_s,
        used=journal.used if sees_names else {},
        purses=here.fleet.purses if sees_names else (),
        by_workspace=sees_names and here.settings.metrics_by_workspace,
        now_ms=here.world.clock.now_ms(),
    )


def _troubles(here: Context) -> dict[str, int]:
    return {
        "results": int(bool(here.worker.recorder.trouble)),
        "work": len(here.worker.troubles),
        "engines": len(here.fleet.trouble()),
        "upkeep": int(bool(here.upkeep.trouble)),
        "keys": int(bool(here.doors.trouble)),
        "usage": int(bool(here.fleet.charges.trouble)),
    }


def _process() -> Sequence[Collector]:
    """What Prometheus' own client tells of any process. Kept out of its global registry, which we do not use."""
    return ProcessCollector(registry=_NOWHERE), PlatformCollector(registry=_NOWHERE)


def _without_models(status: Status) -> Status:
    waiting = {"other": total} if (total := sum(status.backlog.waiting.values())) else {}
    return replace(status, backlog=replace(status.backlog, waiting=waiting))


def rendered(
    status: Status,
    counted: Sequence[Counted],
    rows: Mapping[str, int],
    own: Own,
    *,
    process: Sequence[Collector] = (),
) -> bytes:
    """The text. `counted` belongs to the engines of `status`, in their order; `rows` are results by kind; `process`
    says what the machine knows of us."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status, counted, rows, own))
    for collector in process:
        registry.register(collector)
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, status: Status, counted: Sequence[Counted], rows: Mapping[str, int], own: Own) -> None:
        self._status, self._counted, self._rows, self._own = status, counted, rows, own

    def collect(self) -> Iterator[Metric]:
        yield from _of_server(self._status, self._rows)
        yield from families(self._own)
        yield from _gauges(self._status.engines)
        yield from _counters(self._status.engines, self._counted)


def _of_server(status: Status, rows: Mapping[str, int]) -> Iterator[Metric]:
    info = GaugeMetricFamily("overnight_info", "Always 1; the version is its label.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    results = CounterMetricFamily("overnight_requests", "Rows recorded, by kind of result.", labels=["outcome"])
    for kind in _ROWS:
        results.add_metric([kind], rows.get(kind, 0))
    yield results
    backlog = status.backlog
    waiting = GaugeMetricFamily("overnight_backlog_requests", "Requests leased and waiting.", labels=["model"])
    for model, count in bounded(backlog.waiting).items():
        waiting.add_metric([model], count)
    yield waiting
    yield GaugeMetricFamily("overnight_backlog_segments", "Segments leased.", backlog.segments)
    yield GaugeMetricFamily(
        "overnight_unfinished_requests", "Requests of all unfinished batches.", backlog.unfinished or 0
    )
    in_danger = int(backlog.danger_until is not None)
    yield GaugeMetricFamily("overnight_deadline_in_danger", "Whether a deadline is in danger: 1, else 0.", in_danger)


def _gauges(engines: Sequence[EngineStatus]) -> Iterator[Metric]:
    up = GaugeMetricFamily("overnight_engine_up", "Whether it is there: 1, else 0.", labels=["engine"])
    doors = GaugeMetricFamily("overnight_engine_held", "1 for its narrowest door, else 0.", labels=["engine", "by"])
    for engine in engines:
        up.add_metric([engine.name], int(not engine.is_away))
        for door in DOORS:
            doors.add_metric([engine.name, door], int(engine.held_by == door))
    yield up
    yield doors
    for name, said, field in _GAUGES:
        family = GaugeMetricFamily(f"overnight_engine_{name}", said, labels=["engine"])
        for engine in engines:
            if (value := getattr(engine, field)) is not None:
                family.add_metric([engine.name], value)
        yield family


def _counters(engines: Sequence[EngineStatus], counted: Sequence[Counted]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "overnight_engine_attempts", "Attempts that ended, by kind of outcome.", labels=["engine", "outcome"]
    )
    tokens = CounterMetricFamily(
        "overnight_engine_tokens", "Tokens of answers to batches, as it counts them.", labels=["engine", "kind"]
    )
    for engine, done in zip(engines, counted, strict=True):
        for outcome in _OUTCOMES:
            attempts.add_metric([engine.name, outcome], done.outcomes.get(outcome, 0))
        tokens.add_metric([engine.name, "input"], done.took.input)
        tokens.add_metric([engine.name, "output"], done.took.output)
    yield attempts
    yield tokens
