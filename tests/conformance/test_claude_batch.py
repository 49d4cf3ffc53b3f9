"""engines.claudebatch over real sockets: against the hosted double, a scripted server, and our own server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.core.handoff import Shown, Unasked
from overnight.core.lease import SegmentRef
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.claudebatch import ClaudeBatch
from overnight.engines.claudewire import Look, Page, PooledWire, Row, Stopped
from overnight.engines.engine import Call
from overnight.engines.transport import ConnectionLost, Reply
from overnight.errors import UsageError
from overnight.ids import BatchId
from overnight.ports.world import World
from overnight.store.store import open_directory
from overnight.testing import hosted as double
from overnight.testing.handingover import Night
from overnight.testing.hosted import HostedApi, text
from overnight.testing.observed import upstream_process
from overnight.testing.processes import running_server
from overnight.testing.wireclient import WireClient

SEGMENT = SegmentRef(BatchId("msgbatch_01a"), 0)


def body(*says: str) -> bytes:
    """A create body whose requests are named as ours are."""
    requests = [
        {"custom_id": handoffs.name(SEGMENT, index, "h"), "params": params(said)} for index, said in enumerate(says)
    ]
    return msgspec.json.encode({"requests": requests})


def params(said: str) -> dict[str, Any]:
    return {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": said}]}


@asynccontextmanager
async def opened(url: str, *, key: str | None = HostedApi.key) -> AsyncIterator[ClaudeBatch]:
    engine = ClaudeBatch(url, api_key=key)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def created(engine: ClaudeBatch, *says: str) -> Shown:
    found = await engine.batches.create(body(*says), key="k", api_version="2023-06-01", betas="")
    assert isinstance(found, Shown)
    return found


async def rows(engine: ClaudeBatch, batch_id: str) -> dict[str, Row]:
    return {row.custom_id: row async for row in engine.batches.results(batch_id)}


def ask(hosted: HostedApi, drive: Callable[[ClaudeBatch], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(hosted.url) as engine:
            await drive(engine)

    asyncio.run(main())


def test_a_batch_of_the_upstream_from_its_creation_to_its_results() -> None:
    def script(custom_id: str, params: dict[str, Any]) -> double.Outcome:
        said = params["messages"][0]["content"]
        return {"late": double.expired(), "bad": double.failed("invalid_request_error", "no")}.get(said, text("ok"))

    async def drive(engine: ClaudeBatch) -> None:
        shown = await created(engine, "good", "late", "bad")
        assert (shown.requests, shown.has_ended) == (3, False)
        look = await engine.batches.retrieve(shown.id)
        assert isinstance(look, Look)
        assert (look.shown.created_at_ms, look.retry_after_ms) == (shown.created_at_ms, limits.POLL_AFTER_S * 1000)
        page = await engine.batches.page(None)
        assert isinstance(page, Page)
        assert ([one.id for one in page.shown], page.after_id, page.has_keys) == ([shown.id], None, False)
        assert page.shown[0].has_ended
        verdicts = [row.verdict for _, row in sorted((await rows(engine, shown.id)).items())]
        assert isinstance(verdicts[0], Answered)
        assert msgspec.json.decode(verdicts[0].message)["content"][0]["text"] == "ok"
        assert isinstance(verdicts[1], Unasked)
        assert isinstance(verdicts[2], Refused)

    with HostedApi(script) as hosted:
        ask(hosted, drive)
        (create,) = hosted.creates
        assert create.headers["idempotency-key"] == "k"


def test_lists_are_read_page_by_page() -> None:
    async def drive(engine: ClaudeBatch) -> None:
        first, second = await created(engine, "a"), await created(engine, "b")
        page = await engine.batches.page(second.id)
        assert isinstance(page, Page)
        assert [one.id for one in page.shown] == [first.id]

    with HostedApi() as hosted:
        ask(hosted, drive)


CREATES = [
    ("busy", Busy),
    ("billing", Busy),
    ("overloaded", Broken),
    ("500", Broken),
    ("500-nothing", Broken),
    ("lost", Broken),
    ("dropped", Broken),
    ("413", Refused),
]


@pytest.mark.parametrize(("what", "kind"), CREATES)
def test_only_a_create_that_certainly_did_nothing_is_busy(what: str, kind: type[Outcome]) -> None:
    async def drive(engine: ClaudeBatch) -> None:
        found = await engine.batches.create(body("a"), key="k", api_version="2023-06-01", betas="")
        assert isinstance(found, kind)

    with HostedApi() as hosted:
        hosted.next_create(what, 7)
        ask(hosted, drive)


def test_a_server_without_batches_or_with_another_key_is_the_operators_to_mend() -> None:
    async def main(url: str) -> None:
        for base, key in ((url, "wrong"), (f"{url}/elsewhere", HostedApi.key)):
            async with opened(base, key=key) as engine:
                found = await engine.batches.create(body("a"), key="k", api_version="2023-06-01", betas="")
                assert isinstance(found, Busy), found

    with HostedApi() as hosted:
        asyncio.run(main(hosted.url))


def test_nobody_there_is_busy_and_a_batch_that_is_not_there_is_refused() -> None:
    async def drive(engine: ClaudeBatch) -> None:
        for look in (engine.batches.retrieve("msgbatch_0x"), engine.batches.cancel("msgbatch_0x")):
            found = await look
            assert isinstance(found, Refused)
            assert found.status == 404
        with pytest.raises(Stopped) as stopped:
            await rows(engine, "msgbatch_0x")
        assert isinstance(stopped.value.outcome, Refused)

    with HostedApi() as hosted:
        ask(hosted, drive)
        url = hosted.url

    async def main() -> None:
        async with opened(url) as engine:
            assert isinstance(await engine.batches.retrieve("msgbatch_0x"), Busy)
            found = await engine.batches.create(body("a"), key="k", api_version="2023-06-01", betas="")
            assert isinstance(found, Busy)

    asyncio.run(main())


def test_results_that_break_off_stop_after_what_was_whole() -> None:
    async def drive(engine: ClaudeBatch) -> None:
        shown = await created(engine, *(f"a{index}" for index in range(50)))
        await engine.batches.page(None)
        hosted.next_results("cut", 5_000)
        found = []

        async def read() -> None:
            async for row in engine.batches.results(shown.id):
                found.append(row)

        with pytest.raises(Stopped) as stopped:
            await read()
        assert isinstance(stopped.value.outcome, Broken)
        assert 0 < len(found) < 50
        assert len(await rows(engine, shown.id)) == 50

    with HostedApi() as hosted:
        ask(hosted, drive)


@pytest.mark.parametrize("value", ["2023-06-01\r\nx-evil: 1", "beta\n"])
def test_a_header_of_a_client_cannot_add_another(value: str) -> None:
    async def drive(engine: ClaudeBatch) -> None:
        found = await engine.batches.create(body("a"), key="k", api_version="2023-06-01", betas=value)
        assert isinstance(found, Refused)
        found = await engine.batches.create(body("a"), key="k", api_version=value, betas="")
        assert isinstance(found, Refused)

    with HostedApi() as hosted:
        ask(hosted, drive)
        assert hosted.calls == []


def test_somebody_who_waits_is_answered_in_real_time() -> None:
    async def drive(engine: ClaudeBatch) -> None:
        call = Call(
            params=msgspec.json.encode(params("now")),
            model="claude-haiku-4-5",
            api_version="2023-06-01",
            service_tier="standard",
            timeout_s=10,
        )
        assert isinstance(await engine.answer(call), Answered)

    with HostedApi() as hosted:
        ask(hosted, drive)
        assert len(hosted.realtime) == 1


@pytest.mark.parametrize(
    "bounds", [{"requests_max": 0}, {"requests_max": limits.BATCH_REQUESTS_MAX + 1}, {"bytes_max": 10**9}]
)
def test_bounds_beyond_those_of_the_api_are_refused_at_the_start(bounds: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be from 1 to"):
        ClaudeBatch("https://api.anthropic.com", **bounds)  # type: ignore[arg-type]


def test_the_key_is_not_in_what_it_says_of_itself() -> None:
    engine = ClaudeBatch("https://api.anthropic.com", api_key="sk-secret")
    assert (engine.name, "secret" in repr(engine)) == ("claude-batch https://api.anthropic.com", False)


# --- What a server may not do to us ---------------------------------------------------------------------------------


class ScriptedWire(PooledWire):
    """Answers as told; the results come in the pieces that are given."""

    def __init__(self, reply: Reply, *pieces: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self.reply, self.pieces = reply, pieces

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return self.reply

    async def download(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Any:
        yield Reply(status=200, headers={}, body=b"")
        for piece in self.pieces:
            yield piece


def scripted(answer: object, *pieces: bytes) -> ClaudeBatch:
    reply = Reply(status=200, headers={}, body=msgspec.json.encode(answer))
    return ClaudeBatch("http://127.0.0.1:1", wire=ScriptedWire(reply, *pieces))


def shown_batch(batch_id: str) -> dict[str, object]:
    return {
        "id": batch_id,
        "processing_status": "ended",
        "request_counts": {"succeeded": 1},
        "created_at": "2026-11-25T10:00:00+00:00",
    }


@pytest.mark.parametrize("batch_id", ["../../v1/keys", "a/b", "a?b", "", "x" * 129, "a b", "ä"])
def test_an_id_that_cannot_stand_in_a_path_is_none(batch_id: str) -> None:
    engine = scripted(shown_batch(batch_id))
    assert isinstance(asyncio.run(engine.batches.retrieve("m")), Broken)
    listed = asyncio.run(scripted({"data": [shown_batch(batch_id), shown_batch("m1")]}).batches.page(None))
    assert isinstance(listed, Page)
    assert [one.id for one in listed.shown] == ["m1"]


LINE = b'{"custom_id":"a","result":{"type":"canceled"}}\n'


@pytest.mark.parametrize(
    ("pieces", "count"),
    [
        ([LINE * 3], 3),
        ([LINE[:10], LINE[10:] + LINE[:5], LINE[5:]], 2),
        ([bytes([byte]) for byte in LINE * 2], 2),
        ([LINE, b"\n\n", LINE[:-1]], 2),
        ([LINE, b"not json\n", b'{"custom_id":3}\n', b"[" * 100_000 + b"\n", b"\xff\n", LINE], 2),
    ],
    ids=["in one piece", "cut anywhere", "byte by byte", "blank lines, no last newline", "what is no row"],
)
def test_lines_are_found_however_they_arrive(pieces: list[bytes], count: int) -> None:
    async def main() -> int:
        return len([row async for row in scripted({}, *pieces).batches.results("m")])

    assert asyncio.run(main()) == count


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    piece = b"x" * (8 * limits.MIB)

    async def main() -> None:
        with pytest.raises(Stopped) as stopped:
            async for _ in scripted({}, *[piece] * 9).batches.results("m"):
                pass
        assert isinstance(stopped.value.outcome, Broken)

    asyncio.run(main())


# --- Our own server above us ----------------------------------------------------------------------------------------


class LosingWire(PooledWire):
    """Loses the answer to its first create, which the server has made."""

    is_lost = False

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        reply = await super().post(path, body, headers=headers, timeout_s=timeout_s)
        if not self.is_lost and path.endswith("/batches"):
            self.is_lost = True
            raise ConnectionLost("the connection broke")
        return reply


def test_a_server_of_ours_is_an_upstream_and_its_keys_make_a_lost_answer_harmless(tmp_path: Path) -> None:
    async def night(url: str) -> None:
        world = World()
        async with open_directory(tmp_path / "below", world) as store:
            engine = ClaudeBatch(url, wire=LosingWire(url))
            night = Night(store, engine, world)
            async with night.working():
                batch = await night.create([(f"r{index}", params(f"say {index}")) for index in range(30)])
                await night.until_ended(batch)
                results = await night.results(batch)
                assert {name: found["message"]["content"][0]["text"] for name, found in results.items()} == {
                    f"r{index}": f"echo: say {index}" for index in range(30)
                }
                assert {found["message"]["usage"]["service_tier"] for found in results.values()} == {"batch"}
            await engine.close()
        world.offload.close()

    with upstream_process() as model, running_server(tmp_path / "above", "--engine", model) as server:
        asyncio.run(night(server.url))
        with closing(WireClient(server.url)) as client:
            assert len(client.ids()) == 1
