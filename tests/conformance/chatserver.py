"""A chat/completions server that says what a test tells it to, and the engine on it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec

from overnight.engines.engine import Call
from overnight.engines.openai import Chat
from overnight.testing.scripted import Peer, ScriptedServer

KEY = "sk-hush-0123456789"
CASE_S = 60.0
Asked: TypeAlias = tuple[str, Any]  # A path, and a body if there was one.

TOOL = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object"}}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}}


def call(**params: Any) -> Call:
    """A call whose body has `params` beside a question."""
    settings = {name: params.pop(name) for name in ("service_tier", "timeout_s") if name in params}
    body = {"model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}], **params}
    return Call(
        params=msgspec.json.encode(body),
        model="m",
        api_version="2023-06-01",
        **({"timeout_s": 30.0} | settings),
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    """`main`, which must end within `CASE_S`."""

    async def bounded() -> None:
        async with asyncio.timeout(CASE_S):
            await main

    asyncio.run(bounded())


def http(status: int, body: bytes, *headers: str) -> bytes:
    """An answer as it is sent."""
    lines = "".join(f"{line}\r\n" for line in headers).encode()
    return b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body)


async def _serve(peer: Peer, answers: dict[str, list[bytes]], seen: list[Asked]) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):  # The engine is done.
        while True:
            head, _, body = (await peer.request()).partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            seen.append((path, json.loads(body) if body else None))
            queue = answers.get(path, [http(404, b"{}")])
            peer.say(queue.pop(0) if len(queue) > 1 else queue[0])


async def _welcome(server: ScriptedServer, answers: dict[str, list[bytes]], seen: list[Asked]) -> None:
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(_serve(await server.accept(), answers, seen))


def with_server(
    case: Callable[[Chat], Coroutine[Any, Any, None]], answers: dict[str, list[bytes]], **settings: Any
) -> list[Asked]:
    """Run `case` with an engine on a server that gives `answers` by path: each once, the last for ever.

    What was asked comes back, in order.
    """
    seen: list[Asked] = []

    async def hold() -> None:
        async with ScriptedServer() as server:
            welcoming = asyncio.create_task(_welcome(server, answers, seen))
            engine = Chat(server.url, api_key=KEY, **settings)
            try:
                await case(engine)
            finally:
                await engine.close()
                welcoming.cancel()
                with suppress(asyncio.CancelledError):
                    await welcoming

    run(hold())
    return seen
