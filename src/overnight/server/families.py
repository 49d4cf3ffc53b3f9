"""The metrics beside those of engines: batches, HTTP, cost, hooks, storage, and this process."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from overnight.core.usage import Sums, usd
from overnight.ids import WorkspaceId
from overnight.runner.journal import Event, Line
from overnight.runner.purse import Purse
from overnight.server.reading import Stored
from overnight.server.traffic import BUCKETS_S, Counts
from overnight.store.figures import Open

NAMES_MAX = 100  # Values of a label that clients or admins think up; the rest is one more, "other".
_EVENTS: Sequence[Event] = get_args(Event)


class Own(NamedTuple):
    """What the server says of itself beside `runner.status`."""

    batches: Mapping[Event, int]  # Since the start.
    traffic: Counts
    stored: Stored
    troubles: Mapping[str, int]  # How many, by what they hold up.
    lag_s: float
    used: Mapping[Line, Sums] = {}  # None for those who may not know.
    purses: Sequence[Purse] = ()
    by_workspace: bool = False
    now_ms: int = 0


def families(own: Own) -> Iterator[Metric]:
    """All of them, in the order of the documentation."""
    yield from _batches(own)
    yield from _cost(own)
    yield from _traffic(own.traffic)
    yield from _hooks(own)
    yield from _storage(own.stored)
    troubles = GaugeMetricFamily("overnight_troubles", "What is in trouble, as GET /health tells.", labels=["of"])
    for what, count in own.troubles.items():
        troubles.add_metric([what], count)
    yield troubles
    yield GaugeMetricFamily(
        "overnight_event_loop_lag_seconds", "By how much a timer was late at worst in the last minute.", own.lag_s
    )


def bounded(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest, and all others as one."""
    ordered = Counter(counts).most_common()
    found = dict(ordered[:NAMES_MAX])
    if rest := sum(count for _, count in ordered[NAMES_MAX:]):
        found["other"] = found.get("other", 0) + rest
    return found


def _batches(own: Own) -> Iterator[Metric]:
    events = CounterMetricFamily("overnight_batches", "Batches, by what happened to them.", labels=["event"])
    for event in _EVENTS:
        events.add_metric([event], own.batches.get(event, 0))
    yield events
    if own.stored.figures is None:
        return
    found = own.stored.figures.open
    yield GaugeMetricFamily("overnight_open_batches", "Batches that have not ended.", _sum(found, "batches"))
    yield from _ages(found.values(), own.now_ms)
    if own.by_workspace:
        yield _by_workspace("overnight_workspace_open_batches", "Batches that have not ended.", found, "batches")
        said = "Requests without a sealed result."
        yield _by_workspace("overnight_workspace_unfinished_requests", said, found, "requests")


def _ages(found: Iterable[Open], now_ms: int) -> Iterator[Metric]:
    age = GaugeMetricFamily("overnight_oldest_batch_age_seconds", "Since the oldest open batch was made.", labels=[])
    slack = GaugeMetricFamily("overnight_deadline_slack_seconds", "Until the next open batch expires.", labels=[])
    if items := list(found):
        age.add_metric([], max(0, now_ms - min(item.oldest_created_at_ms for item in items)) / 1000)
        slack.add_metric([], (min(item.nearest_expires_at_ms for item in items) - now_ms) / 1000)
    yield age
    yield slack


def _sum(found: Mapping[WorkspaceId, Open], name: str) -> int:
    return sum(getattr(item, name) for item in found.values())


def _by_workspace(name: str, said: str, found: Mapping[WorkspaceId, Open], field: str) -> Metric:
    family = GaugeMetricFamily(name, said, labels=["workspace"])
    for workspace, value in bounded({key: getattr(item, field) for key, item in found.items()}).items():
        family.add_metric([workspace], value)
    return family


def _cost(own: Own) -> Iterator[Metric]:
    labels = ["engine", "model", "service_tier"]
    tokens = CounterMetricFamily("overnight_used_tokens", "Tokens of answers.", labels=[*labels, "kind"])
    cost = CounterMetricFamily("overnight_cost_usd", "What answers cost.", labels=labels)
    realtime = CounterMetricFamily(
        "overnight_realtime_cost_usd", "What they would have cost one by one, in real time.", labels=labels
    )
    unpriced = CounterMetricFamily(
        "overnight_unpriced_requests", "Answers that nobody knows a price for.", labels=labels
    )
    for line, sums in own.used.items():
        values = [line.engine, line.model, line.service_tier]
        for kind, count in _kinds(sums).items():
            tokens.add_metric([*values, kind], count)
        cost.add_metric(values, float(usd(sums.usd_nano)))
        realtime.add_metric(values, float(usd(sums.realtime_usd_nano)))
        unpriced.add_metric(values, sums.unpriced)
    yield from (tokens, cost, realtime, unpriced)
    budget = GaugeMetricFamily("overnight_budget_usd", "What an engine may cost on a day of UTC.", labels=["engine"])
    spent = GaugeMetricFamily("overnight_budget_spent_usd", "What of it is spent today.", labels=["engine"])
    for purse in own.purses:
        budget.add_metric([purse.name], purse.usd_per_day)
        spent.add_metric([purse.name], float(purse.spent_usd))
    yield from (budget, spent)


def _kinds(sums: Sums) -> Mapping[str, int]:
    return {
        "input": sums.input_tokens,
        "cache_read": sums.cache_read_tokens,
        "cache_write": sums.cache_write_5m_tokens + sums.cache_write_1h_tokens,
        "output": sums.output_tokens,
    }


def _traffic(counts: Counts) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "overnight_http_requests", "HTTP requests that ended.", labels=["route", "method", "status"]
    )
    timed: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * (len(BUCKETS_S) + 1))
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for way, timing in counts.timings.items():
        requests.add_metric(list(way), timing.count)
        rest = timing.count - sum(timing.buckets)
        found = timed[way.route, way.method]
        for number, count in enumerate([*timing.buckets, rest]):
            found[number] += count
        sums[way.route, way.method] += timing.sum_s
    yield requests
    durations = HistogramMetricFamily(
        "overnight_http_request_duration_seconds",
        "From the head of a request to the end of its answer.",
        labels=["route", "method"],
    )
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for key, found in timed.items():
        durations.add_metric(list(key), list(zip(bounds, accumulate(found), strict=True)), sums[key])
    yield durations
    yield GaugeMetricFamily(
        "overnight_http_in_flight_requests", "HTTP requests that are being answered.", counts.in_flight
    )


def _hooks(own: Own) -> Iterator[Metric]:
    if own.stored.figures is None:
        return
    hooks = GaugeMetricFamily(
        "overnight_hook_deliveries", "Deliveries of hooks: still tried, or given up.", labels=["state"]
    )
    hooks.add_metric(["pending"], own.stored.figures.hooks_pending)
    hooks.add_metric(["dead"], own.stored.figures.hooks_dead)
    yield hooks


def _storage(stored: Stored) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "overnight_store_up", "Whether the database answers: 1, else 0.", int(stored.figures is not None)
    )
    if stored.sizes is None:
        return
    parts = GaugeMetricFamily("overnight_store_bytes", "What lies in the data directory.", labels=["part"])
    for part, size in stored.sizes.parts.items():
        parts.add_metric([part], size)
    yield parts
    yield GaugeMetricFamily("overnight_disk_free_bytes", "Room on the disk of the data directory.", stored.sizes.free)
