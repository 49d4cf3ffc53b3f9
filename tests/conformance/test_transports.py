"""Both transports keep the promises of `engines.transport`, on both event loops; and what each adds of its own."""

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest
import uvloop

from overnight.engines.plain import PlainTransport
from overnight.engines.pooled import PooledTransport
from overnight.engines.transport import ConnectFailed, ConnectionLost, Transport
from overnight.errors import UsageError
from overnight.testing.exchanges import IMPATIENCE_S, OK, PATIENCE_S, asked_again, body_of, case, post, settled, warm
from overnight.testing.scripted import ScriptedServer
from overnight.testing.transports import TransportSuite


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class TestPlain(TransportSuite):
    def transport(self, base_url: str, headers: Mapping[str, str]) -> Transport:
        return PlainTransport(base_url, headers=headers)

    @case
    async def test_bytes_that_nobody_asked_for_end_an_idle_connection(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        for unasked in (OK, b"H", b"nonsense"):
            peer = await warm(server, transport)
            peer.say(unasked)
            assert await peer.is_closed()

    @case
    async def test_idle_connections_are_closed_after_a_while(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        impatient = PlainTransport(server.url, idle_s=IMPATIENCE_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(settled(post(impatient, timeout_s=600.0)))
            peer = await server.accept()
            await peer.request()
            peer.say(OK)
        assert await peer.is_closed()
        await impatient.close()

    @case
    async def test_the_newest_idle_connection_is_used_first(
        self, server: ScriptedServer, transport: Transport
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(settled(post(transport)))
            peers = [await server.accept(), await server.accept()]
            for peer in peers:
                await peer.request()
            for peer in reversed(peers):
                peer.say(OK)
                await asyncio.sleep(0)
        assert body_of(await asked_again(peers[0], transport)) == b"ok"


class TestPlainOnUvloop(TestPlain):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        uvloop.run(main)


class TestPooled(TransportSuite):
    def transport(self, base_url: str, headers: Mapping[str, str]) -> Transport:
        return PooledTransport(base_url, headers=headers)


class TestPooledOnUvloop(TestPooled):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        uvloop.run(main)


@pytest.mark.parametrize("make", [PlainTransport, PooledTransport])
def test_an_address_may_be_ipv6(make: type[PlainTransport | PooledTransport]) -> None:
    async def ask() -> None:
        async with asyncio.timeout(PATIENCE_S), ScriptedServer("::1") as server:
            transport = make(server.url)
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport)))
                peer = await server.accept()
                assert f"host: [::1]:{server.port}\r\n" in (await peer.request()).decode().lower()
                peer.say(OK)
            assert body_of(asking.result()) == b"ok"
            await transport.close()

    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    asyncio.run(ask())


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("make", [PlainTransport, PooledTransport])
@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://host", "host:80", "http://host:99999", "http://ho st", "http://host/?a=b", "http://h/#x"],
)
def test_an_address_that_cannot_work_is_a_usage_error(make: type[PlainTransport | PooledTransport], url: str) -> None:
    with pytest.raises(UsageError):
        make(url)


@pytest.mark.parametrize("make", [PlainTransport, PooledTransport])
def test_a_password_in_an_address_is_refused_and_not_repeated(make: type[PlainTransport | PooledTransport]) -> None:
    with pytest.raises(UsageError) as refusal:
        make("http://user:hush@host")
    assert "hush" not in str(refusal.value)


def test_plain_has_no_tls() -> None:
    with pytest.raises(UsageError, match="TLS"):
        PlainTransport("https://host")


def test_a_server_without_tls_is_no_connection_for_https() -> None:
    async def ask() -> None:
        async with asyncio.timeout(PATIENCE_S), ScriptedServer() as server:
            transport = PooledTransport(server.url.replace("http:", "https:"))
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport)))
                (await server.accept()).say(b"HTTP/1.1 400 No TLS\r\n\r\n")
            assert isinstance(asking.result(), ConnectFailed)
            await transport.close()

    asyncio.run(ask())


def test_pooled_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> tuple[bytes, object]:
        async with asyncio.timeout(PATIENCE_S), ScriptedServer() as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//user:hush@"))
            monkeypatch.delenv("no_proxy", raising=False)
            transport = PooledTransport("http://engine.invalid/base")
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(settled(post(transport)))
                peer = await proxy.accept()
                request = await peer.request()
                peer.say(OK)
        async with asyncio.timeout(PATIENCE_S):
            refused = await settled(post(transport))
            await transport.close()
        assert body_of(asking.result()) == b"ok"
        return request, refused

    request, refused = asyncio.run(ask())
    assert request.startswith(b"POST http://engine.invalid/base/v1/messages HTTP/1.1\r\n")
    assert b"proxy-authorization: basic " in request.lower()
    assert isinstance(refused, ConnectFailed | ConnectionLost)  # The latter if the request was sent already.
    assert "hush" not in str(refused)
