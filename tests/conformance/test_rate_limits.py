"""`Messages` against a server with limits of its rate: over real connections, headers steer it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from overnight.core.retry import Answered, Busy
from overnight.core.tokens import Tokens
from overnight.engines.engine import Call
from overnight.engines.messages import Messages
from overnight.errors import ApiError
from overnight.testing.ratelimited import RateLimiter
from overnight.testing.upstream import Upstream

SMALL = Tokens(20, 5)
CASE_S = 30.0


def call(*, stream: bool = False) -> Call:
    params = {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    return Call(params=msgspec.json.encode(params), model="echo", api_version="2023-06-01", timeout_s=CASE_S)


def limiter(requests: int) -> RateLimiter:
    return RateLimiter(requests=requests, input_tokens=10**6, output_tokens=10**6)


def with_limits(limits: RateLimiter | None, case: Callable[[Messages], Coroutine[Any, Any, None]]) -> None:
    async def hold() -> None:
        async with asyncio.timeout(CASE_S), Upstream(limits=limits) as upstream:
            engine = Messages(upstream.url)
            try:
                await case(engine)
            finally:
                await engine.close()

    asyncio.run(hold())


def test_who_asks_while_nothing_is_to_be_waited_for_is_never_refused() -> None:
    """And comes to a point where there is; that waiting is enough is shown in virtual time (tests/sim)."""
    limits = limiter(6)

    async def case(engine: Messages) -> None:
        while not engine.wait_ms(SMALL):
            engine.spend(SMALL)
            assert isinstance(await engine.answer(call()), Answered)

    with_limits(limits, case)
    assert (0 < limits.passed <= 6, limits.refused) == (True, 0)


def test_who_does_not_is_refused_and_then_told_to_wait() -> None:
    limits = limiter(5)

    async def case(engine: Messages) -> None:
        for _ in range(5):
            engine.spend(SMALL)
            assert isinstance(await engine.answer(call()), Answered)
        engine.spend(SMALL)
        outcome = await engine.answer(call())
        assert isinstance(outcome, Busy)
        assert outcome.status == 429
        assert outcome.retry_after_ms is not None
        assert engine.wait_ms(SMALL) >= outcome.retry_after_ms - 1_000

    with_limits(limits, case)
    assert (limits.passed, limits.refused) == (5, 1)


@pytest.mark.parametrize("requests", [pytest.param(1, id="none-left"), pytest.param(6_000, id="plenty-left")])
def test_the_head_of_a_stream_is_heard(requests: int) -> None:
    async def case(engine: Messages) -> None:
        assert engine.wait_ms(SMALL) == 0
        assert [piece async for piece in engine.stream(call(stream=True))]
        assert (engine.wait_ms(SMALL) > 0) == (requests == 1)

    with_limits(limiter(requests), case)


def test_the_head_of_a_refused_stream_is_heard() -> None:
    limits = limiter(1)

    async def case(engine: Messages) -> None:
        assert limits.arrive(1, now_ms=asyncio.get_running_loop().time() * 1000).status == 200  # Somebody else's.
        with pytest.raises(ApiError):
            [piece async for piece in engine.stream(call(stream=True))]
        assert engine.wait_ms(SMALL) > 0

    with_limits(limits, case)


def test_a_server_without_limits_holds_nothing_back() -> None:
    async def case(engine: Messages) -> None:
        for _ in range(200):
            assert engine.wait_ms(SMALL) == 0
            engine.spend(SMALL)
            await engine.answer(call())

    with_limits(None, case)


def test_counting_tokens_has_limits_of_its_own() -> None:
    async def case(engine: Messages) -> None:
        assert await engine.count_tokens(call()) > 0
        assert engine.wait_ms(SMALL) == 0

    with_limits(limiter(1), case)


@pytest.mark.parametrize(
    ("url", "is_claude"), [("https://api.anthropic.com", True), ("https://anthropic.com.example", False)]
)
def test_claude_charges_for_cache_writes_and_tells_its_limits(url: str, is_claude: bool) -> None:
    async def case() -> None:
        engine = Messages(url, api_key="k")
        assert engine.capabilities.charges_cache_writes == is_claude
        assert not engine.capabilities.has_priority
        engine.spend(SMALL)
        assert (engine.wait_ms(SMALL) > 0) == is_claude
        await engine.close()

    asyncio.run(case())
