"""`results_url`: both SDKs fetch it exactly as we wrote it, with the key: so it must lead to us and nobody else."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from anthropic import Anthropic
from reverseproxy import reverse_proxy

from overnight.testing.observed import ObservedServer, observed_server, upstream_process
from overnight.testing.wireclient import BATCHES, WireClient, request

_FORWARDED = {
    "x-forwarded-proto": "https",
    "x-forwarded-host": "batches.example.com",
    "x-forwarded-prefix": "/llm/v2",
}


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    """Without a key a server answers to no name but its own (tests/security)."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OVERNIGHT_API_KEY", "any")
        yield


@pytest.fixture(scope="module")
def engine_url(key: None) -> Iterator[str]:
    with upstream_process() as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[ObservedServer]:
    with observed_server(tmp_path_factory.mktemp("urls") / "data", "--engine", engine_url) as found:
        yield found


def _base_seen(server: ObservedServer, headers: Mapping[str, str]) -> str:
    """What `results_url` of an ended batch begins with for a client that sends these headers."""
    with closing(WireClient(server.url)) as client:
        batch_id = server.wait_ended(client, client.create([request("a")])["id"])["id"]
        answer = client.call("GET", f"{BATCHES}/{batch_id}", headers=headers)
        (listed,) = client.call("GET", f"{BATCHES}?limit=1", headers=headers).json["data"]
    url = answer.json["results_url"]
    assert listed["results_url"] == url
    assert isinstance(url, str)
    assert url.endswith(f"{BATCHES}/{batch_id}/results")
    return url.removesuffix(f"{BATCHES}/{batch_id}/results")


def test_without_a_proxy_it_is_the_host_that_the_client_called(server: ObservedServer) -> None:
    assert _base_seen(server, {}) == server.url
    assert _base_seen(server, {"host": "batches.lan:8642"}) == "http://batches.lan:8642"
    assert _base_seen(server, {"host": "[::1]:8642"}) == "http://[::1]:8642"


def test_a_trusted_proxy_says_how_clients_reach_us(server: ObservedServer) -> None:
    """Loopback is trusted unless the operator says otherwise. Of a chain of proxies the first entry counts."""
    assert _base_seen(server, _FORWARDED) == "https://batches.example.com/llm/v2"
    assert _base_seen(server, {"x-forwarded-proto": "https", "host": "a.example"}) == "https://a.example"
    chain = {"x-forwarded-proto": "https, http", "x-forwarded-host": "outer.example, inner.example:8080"}
    assert _base_seen(server, chain) == "https://outer.example"
    assert _base_seen(server, {"x-forwarded-prefix": "/llm/"}) == f"{server.url}/llm"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-host": "evil.example/path?"},
        {"x-forwarded-host": "user@evil.example"},
        {"x-forwarded-host": "a b"},
        {"x-forwarded-proto": "javascript"},
        {"x-forwarded-prefix": "//evil.example"},
        {"x-forwarded-prefix": "/{brace}/.."},
        {"host": "evil.example/{x}"},
    ],
)
def test_nonsense_never_gets_into_the_url(server: ObservedServer, headers: Mapping[str, str]) -> None:
    """The Python SDK raises on braces and dot segments in it, and any other host would be sent the key."""
    base = _base_seen(server, headers)
    assert base.startswith("http://127.0.0.1:")
    assert base.count("/") == 2


def test_an_untrusted_proxy_says_nothing(tmp_path: Path, engine_url: str) -> None:
    config = tmp_path / "overnight.toml"
    config.write_text(f'trusted_proxies = ["10.0.0.0/8"]\n[[engines]]\nspec = "{engine_url}"\n')
    with observed_server(tmp_path / "data", "--config", str(config)) as server:
        assert _base_seen(server, _FORWARDED) == server.url


@pytest.mark.parametrize("public_url", ["https://batches.example.org", "https://example.org/llm/"])
def test_the_operators_public_url_comes_first(tmp_path: Path, engine_url: str, public_url: str) -> None:
    flags = ("--engine", engine_url, "--public-url", public_url)
    with observed_server(tmp_path / "data", *flags) as server:
        assert _base_seen(server, {}) == public_url.rstrip("/")
        assert _base_seen(server, _FORWARDED) == public_url.rstrip("/")


def _complete_a_batch(server: ObservedServer, url: str) -> list[str]:
    """What the official Python SDK does, at this URL: the texts of the results."""
    with Anthropic(base_url=url, api_key="any", max_retries=0) as sdk, closing(WireClient(url)) as client:
        params = {"model": "claude-test", "max_tokens": 8, "messages": [{"role": "user", "content": "through"}]}
        batch = sdk.messages.batches.create(requests=[{"custom_id": "a", "params": params}])  # type: ignore[typeddict-item]
        server.wait_ended(client, batch.id)
        assert str(sdk.messages.batches.retrieve(batch.id).results_url).startswith(f"{url}/v1/")
        results = sdk.messages.batches.results(batch.id)
        return [line.result.message.content[0].text for line in results]  # type: ignore[union-attr]


def test_the_sdk_completes_a_batch_through_a_proxy_with_a_prefix(server: ObservedServer) -> None:
    """The proxy takes its prefix off and says so in `X-Forwarded-Prefix`."""

    async def case() -> list[str]:
        async with reverse_proxy(server.url, "/llm/v2") as proxy:
            return await asyncio.to_thread(_complete_a_batch, server, proxy.url)

    assert asyncio.run(case()) == ["echo: through"]


def test_the_sdk_completes_a_batch_through_a_proxy_that_says_nothing(tmp_path: Path, engine_url: str) -> None:
    """Then the operator says it, with `public_url`; the server is told the proxy's address when it is known."""

    async def case() -> list[str]:
        async with reverse_proxy("", "/llm", is_forwarding=False) as proxy:
            flags = ("--engine", engine_url, "--public-url", proxy.url)
            with observed_server(tmp_path / "data", *flags) as server:
                proxy.target = server.url
                return await asyncio.to_thread(_complete_a_batch, server, proxy.url)

    assert asyncio.run(case()) == ["echo: through"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("/v1/batches", "/v1/messages/batches"),
        ("/v1/batches/msgbatch_1/results", "/v1/messages/batches/msgbatch_1/results"),
        ("/v1/messages/batch", "/v1/messages/batches"),
        ("/v1/message_batches", "/v1/messages/batches"),
        ("/v1/chat/completions", "/v1/messages"),
    ],
)
def test_a_path_that_is_remembered_wrongly_names_the_right_one(
    server: ObservedServer, wrong: str, right: str
) -> None:
    with closing(WireClient(server.url)) as client:
        status, kind, said = client.call("POST", wrong, {"requests": []}).error
    assert (status, kind) == (404, "not_found_error")
    assert said.endswith(f" Did you mean {right}?")


@pytest.mark.parametrize("path", ["/v1/messages/batches/", "/v1//messages/batches"])
def test_nothing_is_redirected(server: ObservedServer, path: str) -> None:
    """SDKs follow redirects, and some take the key with them."""
    with closing(WireClient(server.url)) as client:
        answer = client.call("GET", path)
    assert answer.status == 404
    assert "location" not in answer.headers
