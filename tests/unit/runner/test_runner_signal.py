"""runner.signal against a real socket: what is asked, how it fails, and that nothing secret is told."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from overnight import limits
from overnight.core.offpeak import Signal
from overnight.errors import UsageError
from overnight.runner.signal import Meter
from overnight.testing.scripted import Peer, ScriptedServer

CASE_S = 30  # A case that hangs fails.


def ok(body: bytes, *, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


class Reader:
    """A meter that asks a scripted server without pause, and how often it told of a change."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.changes = 0
        signal = Signal(url=f"{server.url}/now?key=secret", field="price", at_most=0.2, every_s=0.0)
        self.meter = Meter(signal, on_change=self._on_change)
        self.changed = asyncio.Event()
        self._peer: Peer | None = None

    async def request(self) -> bytes:
        """What it asks now."""
        return await (await self._asking()).request()

    async def reply(self, *replies: bytes) -> None:
        """Give these answers, each to a request of its own, and return when the last one was taken in."""
        for reply in replies:
            await self.request()
            await self.say(reply)

    async def say(self, reply: bytes) -> None:
        """Answer what was asked, and return when the meter asks again."""
        peer = await self._asking()
        peer.say(reply)
        peer.end()
        self._peer = await self.server.accept()

    async def _asking(self) -> Peer:
        self._peer = self._peer or await self.server.accept()
        return self._peer

    def _on_change(self) -> None:
        self.changes += 1
        self.changed.set()


def read_by(drive: Callable[[Reader], Awaitable[None]]) -> None:
    """Run a meter while `drive` plays the server; then cancel it."""

    async def main() -> None:
        async with asyncio.timeout(CASE_S), ScriptedServer() as server:
            reader = Reader(server)
            running = asyncio.create_task(reader.meter.run())
            await drive(reader)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()

    asyncio.run(main())


def test_a_signal_is_asked_with_its_whole_address_and_without_compression() -> None:
    async def drive(reader: Reader) -> None:
        head = (await reader.request()).lower()
        assert head.startswith(b"get /now?key=secret http/1.1\r\n")
        assert b"\r\naccept-encoding: identity\r\n" in head

    read_by(drive)


def test_batch_work_may_run_until_the_first_reading_says_otherwise() -> None:
    async def drive(reader: Reader) -> None:
        assert reader.meter.is_cheap
        assert (reader.meter.value, reader.meter.trouble) == (None, "")
        await reader.reply(ok(b'{"price": 0.9}'))
        assert not reader.meter.is_cheap
        assert (reader.meter.value, reader.meter.trouble) == (0.9, "")

    read_by(drive)


def test_whoever_waits_is_told_when_the_signal_crosses_its_limit_and_only_then() -> None:
    async def drive(reader: Reader) -> None:
        for price, crosses in ((0.1, False), (0.9, True), (0.8, False), (0.2, True), (0.1, False)):
            before = reader.changes
            await reader.reply(ok(b'{"price": %.1f}' % price))
            assert reader.changes == before + crosses, price

    read_by(drive)


def test_a_signal_that_goes_away_counts_for_two_misses_then_lets_work_run() -> None:
    async def drive(reader: Reader) -> None:
        await reader.reply(ok(b'{"price": 0.9}'))
        broken = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
        await reader.reply(*[broken] * (limits.SIGNAL_MISSES_MAX - 1))
        assert not reader.meter.is_cheap
        assert (
            reader.meter.trouble
            == f"signal {reader.server.url}: the answer is 500 (2 in a row; the last value, 0.9, still counts)"
        )
        assert reader.changes == 1
        await reader.reply(broken)
        assert reader.meter.is_cheap
        assert reader.changes == 2
        assert (
            reader.meter.trouble == f"signal {reader.server.url}: the answer is 500 (3 in a row; hours alone decide)"
        )
        await reader.reply(ok(b'{"price": 0.9}'))
        assert (reader.meter.is_cheap, reader.meter.trouble) == (False, "")

    read_by(drive)


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        pytest.param([b"", b""], "no answer: ServerDisconnectedError", id="closed, also when aiohttp asks once more"),
        pytest.param([b"nonsense\r\n\r\n"], "no answer: ", id="not HTTP"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"], "no answer: ClientPayloadError", id="cut"),
        pytest.param([ok(b"<html>secret</html>")], "the answer is not JSON", id="not JSON"),
        pytest.param([ok(b'{"secret": 1}')], "the answer has no 'price'", id="another document"),
        pytest.param(
            [ok(gzip.compress(b'{"price": 0.9}'), head=b"content-encoding: gzip\r\n")],
            "the answer is not JSON",
            id="compressed unasked",
        ),
        pytest.param(
            [ok(b'{"price": 0.1}' + b" " * limits.SIGNAL_BODY_BYTES_MAX)], "larger than 65536 bytes", id="too large"
        ),
        pytest.param(
            [b"HTTP/1.1 302 Found\r\nlocation: http://secret.example.com/\r\ncontent-length: 0\r\n\r\n"],
            "the answer is 302, a redirect, which is not followed: set url to where it leads",
            id="redirect",
        ),
    ],
)
def test_an_answer_that_is_none_is_a_miss_and_tells_no_secret(replies: list[bytes], said: str) -> None:
    async def drive(reader: Reader) -> None:
        await reader.reply(*replies)
        assert f"signal {reader.server.url}: " in reader.meter.trouble
        assert said in reader.meter.trouble
        assert "secret" not in reader.meter.trouble
        assert reader.meter.value is None

    read_by(drive)


def test_an_answer_as_large_as_the_limit_is_read() -> None:
    async def drive(reader: Reader) -> None:
        await reader.reply(ok(b'{"price": 0.9}'.ljust(limits.SIGNAL_BODY_BYTES_MAX)))
        assert reader.meter.value == 0.9

    read_by(drive)


def test_a_body_without_end_is_given_up_at_the_limit() -> None:
    async def drive(reader: Reader) -> None:
        peer = await reader.server.accept()
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"fff\r\n%b\r\n" % (b" " * 4095) * 20)
        await reader.server.accept()  # The next reading has begun; this body never ended.
        assert "larger than 65536 bytes" in reader.meter.trouble

    read_by(drive)


def test_a_redirect_is_not_followed_to_another_host() -> None:
    async def drive(reader: Reader) -> None:
        async with ScriptedServer() as other:
            await reader.reply(f"HTTP/1.1 302 Found\r\nlocation: {other.url}/\r\ncontent-length: 0\r\n\r\n".encode())
            assert other.connections == 0

    read_by(drive)


def test_a_server_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGNAL_TIMEOUT_S", 0.05)

    async def drive(reader: Reader) -> None:
        await reader.server.accept()
        await reader.server.accept()
        assert "no answer in 0.05 s" in reader.meter.trouble

    read_by(drive)


def test_a_server_that_goes_away_does_not_stop_the_night() -> None:
    async def main() -> None:
        async with asyncio.timeout(CASE_S):
            async with ScriptedServer() as server:
                reader = Reader(server)
                running = asyncio.create_task(reader.meter.run())
                await reader.reply(ok(b'{"price": 0.9}'))
                assert not reader.meter.is_cheap
                reader.changed.clear()
            await reader.changed.wait()
            assert reader.meter.is_cheap
            assert f"signal {server.url}: no answer: ClientConnectorError (" in reader.meter.trouble
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(main())


def test_a_meter_that_is_cancelled_closes_its_connection() -> None:
    async def main() -> None:
        async with asyncio.timeout(CASE_S), ScriptedServer() as server:
            running = asyncio.create_task(Meter(Signal(url=server.url, at_most=0.2)).run())
            peer = await server.accept()
            await peer.request()
            running.cancel()
            assert await peer.is_closed()
            await asyncio.wait([running])
            assert running.cancelled()

    asyncio.run(main())


def test_a_signal_that_cannot_be_asked_is_refused_before_it_is() -> None:
    with pytest.raises(UsageError, match="signal: url is no address"):
        Meter(Signal(url="prices.example.com", at_most=0.2))
