"""Hooks are sent until they are taken, and nowhere but to public addresses: the sender against real receivers."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import run
from typing import NamedTuple, TypeVar

import pytest
from standardwebhooks import Webhook

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.hook import Event, Heard
from overnight.errors import StoreError, UsageError
from overnight.ports.clock import SystemClock
from overnight.ports.world import World
from overnight.runner.hooks import HookSender
from overnight.runner.outward import Outward, Resolver
from overnight.store.committer import Committer, Operation, ThreadCommitter
from overnight.store.sqlite import SqliteControl, connect
from overnight.store.sqlitehooks import SqliteHooks
from overnight.testing.controlcases import OURS, created
from overnight.testing.hookcases import SECRET, added, all_of
from overnight.testing.hookreceiver import Reply, running_receiver
from overnight.testing.scripted import ScriptedServer
from overnight.testing.virtualtime import VirtualClock

T = TypeVar("T")


class Names:
    """A resolver of a few names. Each look takes the next answer; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.looks = 0

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        self.looks += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class Bench(NamedTuple):
    """A sender over a real outbox, with a clock that a test sets."""

    store: SqliteHooks
    control: SqliteControl
    sender: HookSender
    clock: VirtualClock

    async def announce(self, what: str = "budget") -> None:
        await self.store.announce(
            Event(type="budget.reached", workspace=OURS, what=what, data={"which": "day"}), now_ms=self.clock.now_ms()
        )


@asynccontextmanager
async def bench(
    tmp_path: Path,
    *,
    to_private: bool = True,
    resolver: Resolver | None = None,
    over: Callable[[Committer], Committer] = lambda committer: committer,
) -> AsyncIterator[Bench]:
    committer = over(ThreadCommitter(connect(tmp_path / "control.sqlite3")))
    clock = VirtualClock(epoch_ms=SystemClock().now_ms())  # Receivers refuse signatures of another time.
    outward = Outward(clock, to_private=to_private, resolver=resolver)
    store = SqliteHooks(committer)
    try:
        yield Bench(store, SqliteControl(committer), HookSender(store, World(clock=clock), outward), clock)
    finally:
        await committer.close()


def outward(*, to_private: bool = False, resolver: Resolver | None = None, timeout_s: float = 15.0) -> Outward:
    return Outward(SystemClock(), to_private=to_private, resolver=resolver, timeout_s=timeout_s)


def posted(url: str, **what: object) -> Heard:
    return asyncio.run(outward(**what).post(url, b"{}", headers={}))  # type: ignore[arg-type]


# --- Delivery -------------------------------------------------------------------------------------------------------


def test_a_receiver_verifies_what_it_gets_with_the_library(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with bench(tmp_path) as here:
            await added(here.store, "a", url=url)
            await here.announce()
            assert await here.sender.once() == 1
            (item,) = await all_of(here.store)
            assert (item.status, item.attempts, item.trouble) == ("delivered", 1, "")
            assert await here.sender.once() == 0

    with running_receiver() as receiver:
        asyncio.run(main(receiver.url))
        (got,) = receiver.got
    assert got.path == "/hook"
    told = Webhook(hooks.secret_text(SECRET)).verify(got.body, got.headers)
    assert (told["type"], told["data"]) == ("budget.reached", {"which": "day"})


def test_a_receiver_that_fails_gets_it_again_by_the_schedule_with_the_same_id(tmp_path: Path) -> None:
    answers = iter([Reply(500), Reply(429, {"retry-after": "900"}), Reply(302, {"location": "/"}), Reply(200)])

    async def main(url: str) -> None:
        async with bench(tmp_path) as here:
            await added(here.store, "a", url=url)
            await here.announce()
            assert await here.sender.once() == 1
            for too_early_ms, in_time_ms in ((4_499, 5_500), (899_999, 900_000), (1_619_999, 1_980_000)):
                here.clock.jump(too_early_ms)
                assert await here.sender.once() == 0
                here.clock.jump(in_time_ms - too_early_ms)
                assert await here.sender.once() == 1
            (item,) = await all_of(here.store)
            assert (item.status, item.attempts) == ("delivered", 4)

    with running_receiver(lambda _: next(answers)) as receiver:
        asyncio.run(main(receiver.url))
        assert len(receiver.got) == 4
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert len({got.body for got in receiver.got}) == 1
    times = [int(got.headers["webhook-timestamp"]) for got in receiver.got]
    assert times == sorted(set(times)), "each attempt has a time of its own, which its signature holds"
    for got in receiver.got[:1]:
        Webhook(hooks.secret_text(SECRET)).verify(got.body, got.headers)


def test_one_that_is_dead_goes_out_again_when_it_is_resent(tmp_path: Path) -> None:
    answers = iter([Reply(410), Reply(200)])

    async def main(url: str) -> None:
        async with bench(tmp_path) as here:
            await added(here.store, "a", url=url)
            await here.announce()
            await here.sender.once()
            (dead,) = await all_of(here.store, status="dead")
            here.clock.jump(10**9)
            assert await here.sender.once() == 0
            await here.store.resend(dead.id, now_ms=here.clock.now_ms())
            assert await here.sender.once() == 1
            assert [item.id for item in await all_of(here.store, status="delivered")] == [dead.id]

    with running_receiver(lambda _: next(answers)) as receiver:
        asyncio.run(main(receiver.url))
        first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_time_brings_what_expires_and_takes_what_is_old(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with bench(tmp_path) as here:
            await added(here.store, "a", url=url)
            batch = await created(here.control, "a", at_ms=here.clock.now_ms())
            here.clock.jump(limits.BATCH_LIFETIME_MS - limits.HOOK_EXPIRING_MS - 1)
            assert await here.sender.once() == 0
            here.clock.jump(limits.UPKEEP_EVERY_MS)
            assert await here.sender.once() == 1
            (item,) = await all_of(here.store)
            assert (item.event, json.loads(item.body)["data"]["id"]) == ("batch.expiring", batch.id)
            here.clock.jump(limits.DELIVERIES_LIFETIME_MS)
            assert await here.sender.once() == 0
            assert await all_of(here.store) == []

    with running_receiver() as receiver:
        asyncio.run(main(receiver.url))
        assert len(receiver.got) == 1


def test_a_receiver_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as here, ScriptedServer() as hanging, ScriptedServer() as well:
            await added(here.store, "hangs", "budget.reached", url=hanging.url)
            for number in range(limits.HOOK_SENDS_MAX + 1):
                await here.announce(f"old {number}")
            here.clock.jump(1)
            await added(here.store, "well", "budget.reached", url=well.url)
            await here.announce("new")
            sending = asyncio.create_task(here.sender.once())
            peer = await well.accept()
            await peer.request()
            held = [await hanging.accept() for _ in range(limits.HOOK_SENDS_EACH_MAX)]
            for taken in (peer, *held):
                taken.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert await sending == limits.HOOK_SENDS_EACH_MAX + 1
            assert hanging.connections == limits.HOOK_SENDS_EACH_MAX
            delivered = await all_of(here.store, status="delivered")
            assert len(delivered) == limits.HOOK_SENDS_EACH_MAX + 1, "none had to time out first"

    asyncio.run(main())


def test_only_so_many_are_on_their_way_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as here, ScriptedServer() as server:
            for number in range(limits.HOOK_SENDS_MAX // limits.HOOK_SENDS_EACH_MAX + 1):
                await added(here.store, str(number), url=server.url)
            for number in range(limits.HOOK_SENDS_EACH_MAX):
                await here.announce(str(number))
            sending = asyncio.create_task(here.sender.once())
            peers = [await server.accept() for _ in range(limits.HOOK_SENDS_MAX)]
            for peer in peers:
                await peer.request()
                peer.say(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert await sending == server.connections == limits.HOOK_SENDS_MAX

    asyncio.run(main())


class Failing:
    """A committer whose writes fail so often, once it is told."""

    def __init__(self, inner: Committer) -> None:
        self.failures = 0
        self._inner = inner

    async def write(self, operation: Operation[T]) -> T:
        if self.failures:
            self.failures -= 1
            raise StoreError("no space left")
        return await self._inner.write(operation)

    async def read(self, operation: Operation[T]) -> T:
        return await self._inner.read(operation)

    async def close(self) -> None:
        await self._inner.close()


def test_what_cannot_be_noted_is_not_sent_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOOK_LOOK_S", 0.0)
    committers: list[Failing] = []

    def failing(inner: Committer) -> Committer:
        committers.append(Failing(inner))
        return committers[-1]

    async def main(url: str) -> None:
        async with bench(tmp_path, over=failing) as here:
            await added(here.store, "a", url=url)
            await here.announce()
            committers[0].failures = 3
            assert await here.sender.once() == 1
            assert (committers[0].failures, here.sender.trouble) == (0, "no space left")
            assert [item.status for item in await all_of(here.store)] == ["delivered"]

    with running_receiver() as receiver:
        asyncio.run(main(receiver.url))
        assert len(receiver.got) == 1


# --- Where it may not go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "①②⑦.⓪.⓪.①",
        "%31%32%37.0.0.1",
        "localhost",
        "LOCALHOST.",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1%25lo]",
        "169.254.169.254",
        "10.0.0.1",
    ],
)
def test_this_machine_is_refused_in_every_notation(host: str) -> None:
    with running_receiver() as receiver:
        url = f"http://{host}:{receiver.port}/"
        with pytest.raises(UsageError):
            asyncio.run(outward().target(url))
        heard = posted(url)
        assert (heard.status, bool(heard.trouble)) == (None, True)
        assert receiver.got == []


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.1.",
        "8.8.8.8.",
        "%31%32%37.0.0.1",
        "[fe80::1%25lo]",
        "a..b",
    ],
)
def test_a_host_that_programs_read_differently_is_refused_whatever_it_leads_to(host: str) -> None:
    names = Names(["8.8.8.8"])
    with pytest.raises(UsageError, match="neither a name nor an address"):
        asyncio.run(outward(resolver=names, to_private=True).target(f"https://{host}/"))
    assert names.looks == 0


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("ftp://example.com/", "that is no URL", id="another scheme"),
        pytest.param("file:///etc/passwd", "that is no URL", id="a file"),
        pytest.param("//example.com/", "that is no URL", id="no scheme"),
        pytest.param("https:///x", "that is no URL", id="no host"),
        pytest.param("https://exa mple.com/", "that is no URL", id="a blank"),
        pytest.param("https://example.com/\r\nx: y", "that is no URL", id="a header"),
        pytest.param("https://example.com\\@127.0.0.1/", "that is no URL", id="a backslash"),
        pytest.param("https://user:hunter2@example.com/", "has a user or password", id="a password"),
        pytest.param("https://hunter2@example.com/", "has a user or password", id="a user"),
        pytest.param("https://example.com:0/", "no port 0", id="port 0"),
        pytest.param("https://example.com:99999/hunter2", "that is no URL", id="no such port"),
        pytest.param("https://" + "a" * 64 + ".com/", "is not found", id="a label that is too long"),
        pytest.param("https://example.com/" + "a" * limits.HOOK_URL_CHARACTERS_MAX, "longer than 2,048", id="long"),
    ],
)
def test_what_is_no_url_is_refused_and_not_repeated(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        asyncio.run(outward().target(url))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["127.0.0.1"], id="only a private one"),
        pytest.param(["8.8.8.8", "127.0.0.1"], id="one of two"),
        pytest.param(["8.8.8.8", "::ffff:10.0.0.1"], id="a mapped one"),
        pytest.param([], id="none"),
    ],
)
def test_a_name_is_refused_if_any_of_its_addresses_is_not_public(addresses: list[str]) -> None:
    with pytest.raises(UsageError, match=r"hooks\.example\.com"):
        asyncio.run(outward(resolver=Names(addresses)).target("https://hooks.example.com/"))


def test_a_name_that_leads_elsewhere_after_it_was_checked_is_refused_when_it_is_sent(tmp_path: Path) -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])

    async def main(port: int) -> None:
        async with bench(tmp_path, to_private=False, resolver=names) as here:
            url = f"http://hooks.example.com:{port}/"
            assert (await outward(resolver=names).target(url)).addresses == ["8.8.8.8"]
            await added(here.store, "a", url=url)
            await here.announce()
            assert await here.sender.once() == 1
            (item,) = await all_of(here.store)
            assert (item.status, item.attempts) == ("pending", 1)
            assert "127.0.0.1, which is not a public address" in item.trouble

    with running_receiver() as receiver:
        asyncio.run(main(receiver.port))
        assert receiver.got == []
    assert names.looks == 2


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    with running_receiver() as receiver:
        heard = posted(f"http://hooks.example.com:{receiver.port}/x?y=1#z", to_private=True, resolver=names)
        (got,) = receiver.got
    assert (heard.status, names.looks) == (204, 1)
    assert (got.headers["host"], got.path) == (f"hooks.example.com:{receiver.port}", "/x?y=1")


def test_redirects_are_not_followed() -> None:
    with running_receiver() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            with running_receiver(lambda _, status=status: Reply(status, {"location": elsewhere.url})) as receiver:  # type: ignore[misc]
                heard = posted(receiver.url, to_private=True)
                assert (heard.status, heard.is_taken, len(receiver.got)) == (status, False, 1)
        assert elsewhere.got == []


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_receiver() as proxy, running_receiver() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert posted(receiver.url, to_private=True).status == 204
        assert (proxy.got, len(receiver.got)) == ([], 1)


# --- What takes too long, or too much -------------------------------------------------------------------------------


def _with_peer(drive: Callable[[ScriptedServer], Coroutine[None, None, None]], *, timeout_s: float) -> Heard:
    async def main() -> Heard:
        async with ScriptedServer() as server, asyncio.TaskGroup() as group:
            there = group.create_task(drive(server))
            found = await outward(to_private=True, timeout_s=timeout_s).post(server.url, b"{}", headers={})
            await there
            return found

    return asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nx: "], ids=["nothing", "half a head"])
def test_a_receiver_that_does_not_answer_is_left(said: bytes) -> None:
    async def drive(server: ScriptedServer) -> None:
        peer = await server.accept()
        await peer.request()
        peer.say(said)
        assert await peer.is_closed()

    heard = _with_peer(drive, timeout_s=0.2)
    assert (heard.status, heard.trouble) == (None, "no answer within 0.2 s")


def test_a_body_that_never_ends_changes_nothing_about_its_status() -> None:
    async def drive(server: ScriptedServer) -> None:
        peer = await server.accept()
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\nhello")
        assert await peer.is_closed()

    heard = _with_peer(drive, timeout_s=0.4)
    assert (heard.status, heard.is_taken, heard.beginning) == (200, True, b"hello")


def test_no_more_of_a_body_is_read_than_the_bound() -> None:
    sent = 0

    async def drive(server: ScriptedServer) -> None:
        nonlocal sent
        peer = await server.accept()
        await peer.request()
        peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"%x\r\n%b\r\n" % (limits.HOOK_ANSWER_BYTES_MAX, bytes(limits.HOOK_ANSWER_BYTES_MAX))
        closed = asyncio.create_task(peer.is_closed())
        while not closed.done():
            peer.say(piece)
            sent += 1
            await asyncio.wait([closed], timeout=0.001)

    assert _with_peer(drive, timeout_s=30.0).is_taken
    assert sent < 200, "or it was read until the time was over"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", id="a long head"),
    ],
)
def test_what_is_no_answer_is_a_failure(said: bytes) -> None:
    async def drive(server: ScriptedServer) -> None:
        peer = await server.accept()
        await peer.request()
        peer.say(said)
        assert await peer.is_closed()

    heard = _with_peer(drive, timeout_s=30.0)
    assert (heard.status, heard.is_taken) == (None, False)
    assert heard.trouble.startswith("the connection broke: ")


def test_nobody_there_is_a_failure() -> None:
    heard = posted("http://127.0.0.1:9/", to_private=True)
    assert (heard.status, heard.trouble) == (None, "cannot connect: Connect call failed ('127.0.0.1', 9)")


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that nobody knows, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    found = folder / "certificate.pem", folder / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    where = ["-out", str(found[0]), "-keyout", str(found[1])]
    run(["openssl", "req", "-x509", *kind, *names, *where], check=True, capture_output=True)
    return found


def test_a_certificate_that_nobody_knows_is_refused(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with running_receiver(context=context) as receiver:
        heard = posted(f"https://localhost:{receiver.port}/", to_private=True)
        assert (heard.status, heard.trouble) == (None, "its TLS certificate is not valid")
        assert receiver.got == []
