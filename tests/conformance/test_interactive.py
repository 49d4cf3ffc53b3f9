"""POST /v1/messages beside batches: it goes first, and nothing works for a caller who has gone.

The engine is a server that the test leads by the hand, so the order of what reaches it is exact.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from overnight.testing.processes import ServerProcess
from overnight.testing.scripted import Peer, ScriptedServer

_HEADERS = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
_ANSWER = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
).encode()


def _params(text: str, **more: object) -> dict[str, object]:
    return {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": text}], **more}


def _say_answer(peer: Peer) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER)
    peer.say(head + _ANSWER)


@asynccontextmanager
async def _serving(
    tmp_path: Path, engine: ScriptedServer, *, in_flight_max: int
) -> AsyncIterator[aiohttp.ClientSession]:
    config = tmp_path / "overnight.toml"
    config.write_text(f'[[engines]]\nspec = "{engine.url}"\nin_flight_max = {in_flight_max}\n')
    server = await asyncio.to_thread(ServerProcess, tmp_path / "data", "--config", str(config))
    try:
        async with aiohttp.ClientSession(server.url, headers=_HEADERS) as session:
            yield session
    finally:
        await asyncio.to_thread(server.kill)


async def _post(session: aiohttp.ClientSession, path: str, body: object) -> tuple[int, bytes]:
    async with session.post(path, json=body) as response:
        return response.status, await response.read()


def test_an_interactive_request_enters_the_engine_at_once_and_batch_work_stands_back(tmp_path: Path) -> None:
    """Invariant I10. One batch request fills the window; an interactive one does not wait for it, and the second
    batch request waits until the interactive one is done."""

    async def case() -> None:
        async with ScriptedServer() as engine, _serving(tmp_path, engine, in_flight_max=1) as session:
            requests = [{"custom_id": f"r{number}", "params": _params(f"batch {number}")} for number in range(2)]
            await _post(session, "/v1/messages/batches", {"requests": requests})
            first = await engine.accept()
            assert b"batch " in await first.request()
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(_post(session, "/v1/messages", _params("interactive")))
                second = await engine.accept()
                assert b"interactive" in await second.request()
                _say_answer(first)
                starting = group.create_task(first.request())
                _, body = await _post(session, "/v1/messages/count_tokens", {"model": "nobody-has-it", "messages": 1})
                assert b"invalid_request_error" in body  # A whole round trip later …
                assert not starting.done()  # … the batch still stands back.
                _say_answer(second)
                assert (await asking)[0] == 200
                other = group.create_task(second.request())  # Whichever connection was used last is used first.
                done, waiting = await asyncio.wait({starting, other}, return_when=asyncio.FIRST_COMPLETED)
                assert b"batch " in done.pop().result()
                waiting.pop().cancel()

    asyncio.run(asyncio.wait_for(case(), 60))


def test_a_caller_who_goes_away_stops_the_engine(tmp_path: Path) -> None:
    """Whole or streamed: the connection to the engine is closed, so it works for nobody."""

    async def case(*, stream: bool) -> None:
        async with ScriptedServer() as engine, _serving(tmp_path, engine, in_flight_max=4) as session:
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(_post(session, "/v1/messages", _params("hello", stream=stream)))
                peer = await engine.accept()
                await peer.request()
                asking.cancel()
            assert await peer.is_closed()

    for stream in (False, True):
        asyncio.run(asyncio.wait_for(case(stream=stream), 60))


def test_a_streamed_answer_passes_through_as_it_comes(tmp_path: Path) -> None:
    """The first event arrives while the engine still works on the second."""

    async def case() -> None:
        async with (
            ScriptedServer() as engine,
            _serving(tmp_path, engine, in_flight_max=4) as session,
            asyncio.TaskGroup() as group,
        ):
            posting = group.create_task(session.post("/v1/messages", json=_params("hello", stream=True)))
            peer = await engine.accept()
            await peer.request()
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: ping\ndata: {}\n\n")
            response = await posting
            assert response.headers["content-type"].startswith("text/event-stream")
            assert await response.content.readuntil(b"\n\n") == b"event: ping\ndata: {}\n\n"
            peer.say(b"event: message_stop\ndata: {}\n\n")
            peer.end()
            assert await response.read() == b"event: message_stop\ndata: {}\n\n"

    asyncio.run(asyncio.wait_for(case(), 60))
