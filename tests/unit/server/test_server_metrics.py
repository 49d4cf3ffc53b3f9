"""server.metrics: what a scrape reads, by Prometheus' own parser, and who may scrape."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from http_requests import http_request
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from overnight import __version__
from overnight.core.tokens import Tokens
from overnight.core.usage import Sums
from overnight.ids import WorkspaceId
from overnight.runner.journal import Line
from overnight.runner.status import DOORS, BacklogStatus, EngineStatus, Status
from overnight.server import metrics
from overnight.server.families import Own
from overnight.server.metrics import Counted, rendered
from overnight.server.reading import Sizes, Stored
from overnight.server.traffic import BUCKETS_S, Counts, Way
from overnight.store.figures import Figures, Open

_ENGINE = EngineStatus(
    name="messages http://127.0.0.1:8000",
    rank=0,
    is_replica=False,
    held_by="window",
    held="is full: 64 requests are inside",
    is_away=False,
    away_since=None,
    in_flight=64,
    interactive=2,
    window=64,
    window_max=4096,
    ceiling=80,
    tokens_in_flight=12_000,
    tokens_limit=20_000,
    share=0.25,
    hours="always open",
    signal=180.5,
    speed_per_s=4.5,
    running=60,
    waiting=6,
    kv_share=0.75,
    rate_wait_s=1.5,
    trouble="",
)
_NONE = replace(
    _ENGINE,
    ceiling=None,
    tokens_limit=None,
    signal=None,
    speed_per_s=None,
    running=None,
    waiting=None,
    kv_share=None,
)
_BACKLOG = BacklogStatus(waiting={"m": 7}, segments=3, danger_until="2026-05-28T20:26:40Z", unfinished=900)
_OWN = Own(batches={}, traffic=Counts(), stored=Stored(None, None), troubles={}, lag_s=0.25)
_COUNTED = Counted({"answered": 10, "busy": 2}, Tokens(1_000, 200))


def _scraped(
    *engines: EngineStatus, backlog: BacklogStatus = _BACKLOG, counted: Counted = _COUNTED, own: Own = _OWN
) -> dict[str, Metric]:
    status = Status(at="2026-05-28T20:26:40Z", engines=list(engines), backlog=backlog)
    text = rendered(status, [counted] * len(engines), {"succeeded": 8, "errored": 1}, own).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def _value(found: dict[str, Metric], name: str, **labels: str) -> float:
    """The one sample of this name with these labels."""
    (sample,) = [
        sample
        for family in found.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sample.value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("up", 1),
        ("window_requests", 64),
        ("window_max_requests", 4096),
        ("ceiling_requests", 80),
        ("in_flight_requests", 64),
        ("interactive_requests", 2),
        ("in_flight_tokens", 12_000),
        ("limit_tokens", 20_000),
        ("off_peak_ratio", 0.25),
        ("signal", 180.5),
        ("speed_requests_per_second", 4.5),
        ("running_requests", 60),
        ("waiting_requests", 6),
        ("kv_cache_ratio", 0.75),
        ("rate_wait_seconds", 1.5),
    ],
)
def test_each_figure_of_an_engine_has_a_gauge(name: str, value: float) -> None:
    found = _scraped(_ENGINE)
    assert found[f"overnight_engine_{name}"].type == "gauge"
    assert _value(found, f"overnight_engine_{name}", engine=_ENGINE.name) == value


def test_counters_and_the_backlog_are_there() -> None:
    found = _scraped(_ENGINE)
    assert _value(found, "overnight_info", version=__version__) == 1
    assert _value(found, "overnight_requests_total", outcome="succeeded") == 8
    assert _value(found, "overnight_requests_total", outcome="expired") == 0
    assert _value(found, "overnight_engine_attempts_total", engine=_ENGINE.name, outcome="busy") == 2
    assert _value(found, "overnight_engine_attempts_total", engine=_ENGINE.name, outcome="broken") == 0
    assert _value(found, "overnight_engine_tokens_total", engine=_ENGINE.name, kind="output") == 200
    assert found["overnight_requests"].type == found["overnight_engine_tokens"].type == "counter"
    assert _value(found, "overnight_backlog_requests", model="m") == 7
    assert _value(found, "overnight_backlog_segments") == 3
    assert _value(found, "overnight_unfinished_requests") == 900
    assert _value(found, "overnight_deadline_in_danger") == 1
    assert _value(_scraped(backlog=replace(_BACKLOG, danger_until=None)), "overnight_deadline_in_danger") == 0


def test_of_all_doors_the_one_that_holds_is_1() -> None:
    found = _scraped(_ENGINE)
    held = {door: _value(found, "overnight_engine_held", by=door) for door in DOORS}
    assert [door for door, value in held.items() if value] == ["window"]


def test_an_engine_that_is_away_is_not_up() -> None:
    assert _value(_scraped(replace(_ENGINE, is_away=True)), "overnight_engine_up") == 0


def test_what_is_not_known_has_no_sample_of_that_engine_and_hides_no_other() -> None:
    other = replace(_ENGINE, name="other")
    found = _scraped(_NONE, other)
    for name in ("ceiling_requests", "limit_tokens", "signal", "kv_cache_ratio", "waiting_requests"):
        samples = found[f"overnight_engine_{name}"].samples
        assert [sample.labels["engine"] for sample in samples] == ["other"]


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", 'x"} 1\novernight_up{y="', "ä 模型"])
def test_labels_say_what_was_meant_and_cannot_become_lines(text: str) -> None:
    found = _scraped(replace(_ENGINE, name=text), backlog=replace(_BACKLOG, waiting={text: 5}))
    assert _value(found, "overnight_engine_window_requests", engine=text) == 64
    assert _value(found, "overnight_backlog_requests", model=text) == 5
    assert set(found) == set(_scraped(_ENGINE))


@pytest.mark.parametrize(("models", "named"), [(99, 99), (100, 100), (101, 101), (1000, 101)])
def test_at_most_a_hundred_models_are_named(models: int, named: int) -> None:
    waiting = {f"m{number}": number + 1 for number in range(models)}
    samples = _scraped(backlog=replace(_BACKLOG, waiting=waiting))["overnight_backlog_requests"].samples
    assert len(samples) == named
    assert sum(sample.value for sample in samples) == sum(waiting.values())
    assert ("other" in {sample.labels["model"] for sample in samples}) == (models > 100)
    assert samples[0].labels["model"] == f"m{models - 1}"  # Those with the most stay.


def test_a_model_that_is_called_other_is_counted_with_the_rest() -> None:
    waiting = {"other": 1000, **{f"m{number}": 1 for number in range(150)}}
    samples = _scraped(backlog=replace(_BACKLOG, waiting=waiting))["overnight_backlog_requests"].samples
    assert [sample.value for sample in samples if sample.labels["model"] == "other"] == [1000 + 51]


_LOCAL = {"host": "127.0.0.1:8642"}


@pytest.mark.parametrize(
    ("client", "headers", "is_near"),
    [
        pytest.param("127.0.0.1", _LOCAL, True, id="this machine"),
        pytest.param("::1", {"host": "[::1]:8642"}, True, id="this machine, IPv6"),
        pytest.param("127.0.0.1", {"host": "localhost"}, True, id="by name"),
        pytest.param("10.0.0.9", _LOCAL, False, id="another machine"),
        pytest.param("127.0.0.1", {**_LOCAL, "x-forwarded-for": "10.0.0.9"}, False, id="a proxy's client"),
        pytest.param("127.0.0.1", {**_LOCAL, "x-forwarded-proto": "https"}, False, id="a proxy that says less"),
        pytest.param("127.0.0.1", {**_LOCAL, "forwarded": "for=10.0.0.9"}, False, id="RFC 7239"),
        pytest.param("127.0.0.1", {"host": "batches.example.com"}, False, id="a proxy that says nothing"),
        pytest.param("127.0.0.1", {"host": "[::1"}, False, id="half a host"),
        pytest.param("127.0.0.1", {}, False, id="no host"),
    ],
)
def test_only_this_machine_itself_is_near(client: str, headers: dict[str, str], is_near: bool) -> None:
    asked = http_request(headers, client=(client, 5), app=cast(Any, SimpleNamespace()))
    assert metrics._is_near(asked) == is_near


# --- Of the server itself -------------------------------------------------------------------------------------------


def _open(batches: int, requests: int, *, created: int = 1_000, expires: int = 61_000) -> Open:
    return Open(batches=batches, requests=requests, oldest_created_at_ms=created, nearest_expires_at_ms=expires)


def _stored(found: dict[str, Open]) -> Stored:
    figures = Figures(open={WorkspaceId(name): item for name, item in found.items()}, hooks_pending=4, hooks_dead=3)
    return Stored(figures, Sizes({"wal": 9}, 77))


def test_what_is_open_is_summed_up_and_aged() -> None:
    stored = _stored({"blue": _open(2, 30), "red": _open(1, 5, created=500, expires=900)})
    found = _scraped(own=_OWN._replace(stored=stored, now_ms=1_500))
    assert _value(found, "overnight_open_batches") == 3
    assert _value(found, "overnight_oldest_batch_age_seconds") == 1.0
    assert _value(found, "overnight_deadline_slack_seconds") == -0.6  # It is late, and that must be seen.
    assert _value(found, "overnight_hook_deliveries", state="pending") == 4
    assert _value(found, "overnight_hook_deliveries", state="dead") == 3
    assert _value(found, "overnight_store_bytes", part="wal") == 9
    assert _value(found, "overnight_disk_free_bytes") == 77
    assert _value(found, "overnight_store_up") == 1
    assert not [name for name in found if name.startswith("overnight_workspace")]


def test_while_nothing_is_open_there_is_no_age_and_no_deadline() -> None:
    found = _scraped(own=_OWN._replace(stored=_stored({})))
    assert _value(found, "overnight_open_batches") == 0
    assert found["overnight_oldest_batch_age_seconds"].samples == []
    assert found["overnight_deadline_slack_seconds"].samples == []


def test_a_store_that_cannot_be_read_is_told_and_hides_nothing_else() -> None:
    found = _scraped(_ENGINE, own=_OWN)
    assert _value(found, "overnight_store_up") == 0
    assert _value(found, "overnight_event_loop_lag_seconds") == 0.25
    assert _value(found, "overnight_engine_up") == 1
    assert "overnight_open_batches" not in found


@pytest.mark.parametrize(("workspaces", "named"), [(99, 99), (100, 100), (101, 101), (500, 101)])
def test_workspaces_are_named_if_wanted_and_at_most_a_hundred(workspaces: int, named: int) -> None:
    stored = _stored({f"w{number}": _open(1, number + 1) for number in range(workspaces)})
    found = _scraped(own=_OWN._replace(stored=stored, by_workspace=True))
    samples = found["overnight_workspace_unfinished_requests"].samples
    assert len(samples) == named
    assert sum(sample.value for sample in samples) == workspaces * (workspaces + 1) / 2


def test_durations_are_a_histogram_that_adds_up() -> None:
    traffic = Counts()
    for took_s in (0.001, 0.01, 0.5, 99.0, 5_000.0):
        traffic.note(Way("/x", "GET", "2xx"), took_s)
    traffic.note(Way("/x", "GET", "5xx"), 0.05)
    found = _scraped(own=_OWN._replace(traffic=traffic))
    name = "overnight_http_request_duration_seconds"
    counts = [_value(found, f"{name}_bucket", route="/x", le=le) for le in (*map(str, BUCKETS_S), "+Inf")]
    assert counts == [2, 3, 4, 4, 5, 6]
    assert _value(found, f"{name}_count", route="/x") == 6
    assert _value(found, f"{name}_sum", route="/x") == pytest.approx(5_099.561)
    assert _value(found, "overnight_http_requests_total", route="/x", status="2xx") == 5
    assert _value(found, "overnight_http_requests_total", route="/x", status="5xx") == 1


def test_money_and_tokens_are_told_by_engine_model_and_tier() -> None:
    sums = Sums(
        requests=2, input_tokens=5, cache_write_5m_tokens=1, cache_write_1h_tokens=2, unpriced=1, usd_nano=2_500
    )
    found = _scraped(own=_OWN._replace(used={Line("m", "e", "batch"): sums}))
    labels = {"model": "m", "engine": "e", "service_tier": "batch"}
    assert _value(found, "overnight_cost_usd_total", **labels) == 0.0000025
    assert _value(found, "overnight_used_tokens_total", **labels, kind="cache_write") == 3
    assert _value(found, "overnight_unpriced_requests_total", **labels) == 1
