"""A real Prometheus that scrapes a real server: every expression of the dashboard has an answer, and alerts fire."""

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

import pytest
from boards import PROMETHEUS, expressions, needed

from overnight.testing.observed import upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import WireClient, params, request

_PATIENCE_S = 60.0
_AGAIN_S = 0.2
_NOBODY = "http://127.0.0.1:9"  # The port of "discard": nobody listens.
_SETTINGS = """
metrics_by_workspace = true
[[engines]]
spec = "{upstream}"
models = ["claude-*"]
budget_usd_per_day = 5
prices = {{ "claude-test" = {{ input = 1, output = 5 }} }}
[[engines]]
spec = "{nobody}"
models = ["nobody"]
"""


class Prometheus:
    """A running one, over its HTTP API."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pause = threading.Event()

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; None while it does not answer."""
        try:
            with urlopen(f"{self._url}/api/v1/{path}?{urlencode(query)}", timeout=10) as response:
                return json.load(response)["data"]
        except OSError:
            return None

    def wait(self, path: str, is_there: Any, **query: str) -> Any:
        """What it answers once that is what is waited for."""
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            found = self.get(path, **query)
            if found is not None and is_there(found):
                return found
            assert time.monotonic() < until_s, f"{path} {query}: {found}"
            self._pause.wait(_AGAIN_S)

    def samples(self, expression: str) -> list[Any]:
        """What an expression finds, as soon as it finds anything."""
        return list(self.wait("query", lambda data: data["result"], query=expression)["result"])


@contextmanager
def _prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """It scrapes and evaluates every second, and alerts do not wait."""
    folder.mkdir()
    rules = re.sub(r"for: \d+m", "for: 0s", (PROMETHEUS / "alerts.yml").read_text())
    settings = (PROMETHEUS / "prometheus.yml").read_text().replace("15s", "1s").replace("127.0.0.1:8642", target)
    (folder / "alerts.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(settings)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        needed("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that has scraped a server which did some work, and has some that it cannot do."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "overnight.toml"
    with ExitStack() as stack:
        upstream = stack.enter_context(upstream_process())
        config.write_text(_SETTINGS.format(upstream=upstream, nobody=_NOBODY))
        server = stack.enter_context(running_server(folder / "data", "--config", str(config)))
        target = urlsplit(server.url).netloc
        found = stack.enter_context(_prometheus(folder / "prometheus", target))
        found.wait("targets", lambda data: [item["health"] for item in data["activeTargets"]] == ["up"])
        _work(server.url)
        yield found


def _work(url: str) -> None:
    with closing(WireClient(url)) as client:
        batch = client.create([request("a"), request("b"), request("c", "[[400]] no")])
        while client.retrieve(batch["id"])["processing_status"] != "ended":
            pass
        assert client.call("POST", "/v1/messages", params()).status == 200
        assert client.call("GET", "/nothing").status == 404
        client.create([request("a", model="nobody"), request("b", model="nobody")])


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_of_the_dashboard_has_an_answer(prometheus: Prometheus, expression: str) -> None:
    for sample in prometheus.samples(expression):
        assert sample["value"][1] != "NaN" or "histogram_quantile" in expression


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('overnight_requests_total{outcome="succeeded"}', 2),
        ('overnight_requests_total{outcome="errored"}', 1),
        ('overnight_batches_total{event="created"}', 2),
        ("overnight_open_batches", 1),
        ('overnight_workspace_unfinished_requests{workspace="wrkspc_01default"}', 2),
        ('overnight_http_requests_total{route="other",status="4xx"}', 1),
        ("sum(overnight_http_request_duration_seconds_count) - sum(overnight_http_requests_total)", 0),
        ("overnight_budget_usd", 5),
        ('overnight_used_tokens_total{service_tier="standard",kind="output"}', 3),
        ('overnight_hook_deliveries{state="dead"}', 0),
        ("overnight_store_up", 1),
    ],
)
def test_what_the_server_did_is_what_prometheus_has(prometheus: Prometheus, expression: str, value: float) -> None:
    asked = f"({expression}) == {value}"
    assert [float(sample["value"][1]) for sample in prometheus.samples(asked)] == [value]


def test_what_a_batch_and_a_person_cost_is_counted_once_each(prometheus: Prometheus) -> None:
    """Each answer takes 24 tokens in and 3 out, at 1 and 5 USD a million; nothing is off for a batch, as this engine
    is asked one by one."""
    (sample,) = prometheus.samples("sum(overnight_cost_usd_total) > 0.00011")
    assert float(sample["value"][1]) == pytest.approx(3 * (24 * 1 + 3 * 5) / 1e6)


def test_the_deadline_of_what_waits_is_a_day_ahead(prometheus: Prometheus) -> None:
    (sample,) = prometheus.samples("overnight_deadline_slack_seconds")
    assert 86_000 < float(sample["value"][1]) <= 86_400


def test_an_engine_that_is_down_is_an_alert_and_one_that_is_up_is_none(prometheus: Prometheus) -> None:
    def has_fired(data: Any) -> bool:
        return any(alert["state"] == "firing" and "engine" in alert["labels"] for alert in data["alerts"])

    alerts = prometheus.wait("alerts", has_fired)["alerts"]
    down = [alert for alert in alerts if alert["labels"]["alertname"] == "OvernightEngineDown"]
    assert [alert["labels"]["engine"] for alert in down] == [f"messages {_NOBODY}"]
    assert down[0]["annotations"]["summary"] == f"Engine messages {_NOBODY} is away"
    assert not [alert for alert in alerts if alert["labels"]["alertname"] == "OvernightServerDown"]
