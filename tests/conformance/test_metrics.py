"""GET /metrics, /ready and /health of a real server: who may read what, and what load balancers are told."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from overnight.testing.observed import upstream_process
from overnight.testing.processes import ServerProcess, running_server
from overnight.testing.wireclient import BATCHES, WireClient, params, request

_ADMIN, _BLUE = "sk-admin", "sk-blue"
_SECRET_MODEL = "claude-of-nobody-elses-business"
_AFAR = {"x-forwarded-for": "10.0.0.9"}  # As a proxy says of whoever is not on this machine.
_SETTINGS = """
metrics_by_workspace = {by_workspace}
[[engines]]
spec = "{upstream}"
[[keys]]
sha256 = "{admin}"
role = "admin"
[[keys]]
sha256 = "{blue}"
workspace = "wrkspc_blue"
"""


def _server(stack: ExitStack, folder: Path, *, by_workspace: bool) -> ServerProcess:
    """A server with two keys that did some work of one workspace, and has some left."""
    upstream = stack.enter_context(upstream_process())
    config = folder / "overnight.toml"
    digests = {"admin": sha256(_ADMIN.encode()).hexdigest(), "blue": sha256(_BLUE.encode()).hexdigest()}
    config.write_text(
        _SETTINGS.format(upstream=upstream, by_workspace=json.dumps(by_workspace), **digests), encoding="utf-8"
    )
    server = stack.enter_context(running_server(folder / "data", "--config", str(config)))
    with closing(WireClient(server.url, api_key=_BLUE)) as client:
        batch = client.create([request("a", model=_SECRET_MODEL)])
        while client.retrieve(batch["id"])["processing_status"] != "ended":
            pass
        client.create([request("a", "[[529 after 600]]", model=_SECRET_MODEL)])
        for number in range(50):
            client.call("GET", f"/nothing/{number}")
            client.call("PROPFIND", "/health")
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ExitStack() as stack:
        yield _server(stack, tmp_path_factory.mktemp("metrics"), by_workspace=True)


def _scraped(server: ServerProcess, key: str, headers: dict[str, str]) -> tuple[int, str]:
    with closing(WireClient(server.url, api_key=key)) as client:
        answer = client.call("GET", "/metrics", headers=headers, without=() if key else ("x-api-key",))
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    ("key", "headers", "sees_names"),
    [
        pytest.param(_ADMIN, _AFAR, True, id="an admin from afar"),
        pytest.param("", {}, True, id="this machine without a key"),
        pytest.param(_BLUE, _AFAR, False, id="a workspace's key from afar"),
    ],
)
def test_models_workspaces_and_cost_are_named_to_admins_and_this_machine_only(
    server: ServerProcess, key: str, headers: dict[str, str], sees_names: bool
) -> None:
    status, text = _scraped(server, key, headers)
    assert status == 200
    assert (_SECRET_MODEL in text) == sees_names
    assert ("wrkspc_" in text) == sees_names
    assert ("overnight_cost_usd_total{" in text) == sees_names
    assert 'overnight_requests_total{outcome="succeeded"} 1.0' in text


@pytest.mark.parametrize("key", ["", "sk-wrong"])
def test_from_afar_it_needs_a_key(server: ServerProcess, key: str) -> None:
    status, text = _scraped(server, key, _AFAR)
    assert status == 401
    assert "overnight_" not in text


def test_unless_the_operator_wants_them_workspaces_are_named_to_nobody(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = _server(stack, tmp_path, by_workspace=False)
        assert "wrkspc_" not in _scraped(server, _ADMIN, _AFAR)[1]
        assert _SECRET_MODEL in _scraped(server, _ADMIN, _AFAR)[1]


def test_what_clients_think_up_makes_no_label(server: ServerProcess) -> None:
    _, text = _scraped(server, _ADMIN, {})
    found = {family.name: family.samples for family in text_string_to_metric_families(text)}
    ways = {(item.labels["route"], item.labels["method"]): item.value for item in found["overnight_http_requests"]}
    assert ways["other", "GET"] == 50
    assert ways["/health", "other"] == 50
    assert not [route for route, _ in ways if "nothing" in route]


def test_a_batch_is_counted_by_its_route_and_not_by_its_id(server: ServerProcess) -> None:
    _, text = _scraped(server, _ADMIN, {})
    assert f'route="{BATCHES}/{{batch_id}}"' in text
    assert "msgbatch_" not in text


def test_ready_and_health_need_no_key_and_name_no_workspace(server: ServerProcess) -> None:
    with closing(WireClient(server.url)) as client:
        for path in ("/ready", "/health"):
            answer = client.call("GET", path, without=("x-api-key",), headers=_AFAR)
            assert answer.status == 200
            assert b"wrkspc_" not in answer.body


def test_without_an_engine_a_server_is_alive_and_not_ready_until_one_is_there(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "data", "--engine", "http://127.0.0.1:9") as server,
        closing(WireClient(server.url)) as client,
    ):
        assert client.call("GET", "/ready").status == 200  # Nobody has missed it yet.
        client.create([request("a")])
        while (ready := client.call("GET", "/ready")).status != 503:
            pass
        assert ready.json["ready"] is False
        assert "messages http://127.0.0.1:9 is away" in ready.json["trouble"]["engines"]
        health = client.call("GET", "/health")
        assert (health.status, health.json["status"]) == (200, "degraded")
        assert client.call("POST", BATCHES, {"requests": [request("b")]}).status == 200  # It still takes batches.


def test_an_engine_that_is_closed_for_now_is_no_reason_to_turn_clients_away(tmp_path: Path) -> None:
    config = tmp_path / "overnight.toml"
    config.write_text('[[engines]]\nspec = "http://127.0.0.1:9"\nhours = ["00:00-00:01"]\ntime_zone = "UTC"\n')
    with (
        running_server(tmp_path / "data", "--config", str(config)) as server,
        closing(WireClient(server.url)) as client,
    ):
        client.create([request("a")])
        assert client.call("GET", "/ready").json == {"ready": True, "trouble": {}}
        assert client.call("POST", "/v1/messages", params()).status == 529
