"""Claims about requests while they run: streams, many at once, giving up, who goes first, what is inside."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from overnight.core.retry import Answered, Broken, Outcome
from overnight.engines.engine import Engine
from overnight.errors import ApiError
from overnight.testing.enginecases import (
    ENDLESS_TOKENS,
    SYSTEM,
    TOOL,
    EngineCases,
    asked,
    becomes,
    case,
    events_of,
    load_of,
    may_depart,
    prompt_tokens,
    text_of,
)

_SHORTER = ENDLESS_TOKENS // 4
_LOOKS = 10  # Metrics may lag behind by a step, and what is left of a longer answer takes far more of them.


class EngineStreamCases(EngineCases):
    """An answer in events."""

    @case
    async def test_a_stream_tells_the_whole_answer_in_order(self, engine: Engine) -> None:
        whole = await asked(engine, self.call(system=SYSTEM))
        events = await events_of(engine, self.call(system=SYSTEM, stream=True))
        names = [event["type"] for event in events if event["type"] != "content_block_delta"]
        assert names == [
            "message_start",
            "content_block_start",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        assert "".join(delta["text"] for delta in deltas) == text_of(whole)
        assert {event["index"] for event in events if "index" in event} == {0}
        end = events[-2]
        assert end["delta"]["stop_reason"] == whole["stop_reason"]
        assert end["usage"]["output_tokens"] == whole["usage"]["output_tokens"]

    @may_depart("forced_tool")
    @case
    async def test_a_streamed_tool_call_carries_its_input(self, engine: Engine) -> None:
        choice = {"type": "tool", "name": "choose"}
        call = self.call(tools=[TOOL], tool_choice=choice, max_tokens=64, stream=True)
        if not engine.capabilities.has_tools:
            return
        events = await events_of(engine, call)
        starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
        assert [block["name"] for block in starts if block["type"] == "tool_use"] == ["choose"]
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        said = msgspec.json.decode("".join(delta.get("partial_json", "") for delta in deltas))
        assert isinstance(said, dict)

    @case
    async def test_a_stream_that_is_refused_raises_before_its_first_piece(self, engine: Engine) -> None:
        with pytest.raises(ApiError) as caught:
            await events_of(engine, self.call("word " * self.words_too_many, stream=True))
        assert caught.value.status in (400, 413), caught.value


class EngineWorkCases(EngineCases):
    """Many requests, and requests that nobody wants any more."""

    @case
    async def test_concurrent_answers_do_not_mix(self, engine: Engine) -> None:
        """Told apart by the lengths of their prompts."""
        calls = [self.call("word " * 5 * count, max_tokens=4) for count in range(1, 17)]
        alone = [prompt_tokens(await asked(engine, call)) for call in (calls[0], calls[-1])]
        together = [prompt_tokens(whole) for whole in await asyncio.gather(*(asked(engine, call) for call in calls))]
        assert together == sorted(set(together))
        assert [together[0], together[-1]] == alone

    @may_depart("load")
    @case
    async def test_it_tells_how_many_requests_run_and_wait(self, engine: Engine) -> None:
        if not engine.capabilities.tells_load:
            assert await engine.load() is None
            return
        await becomes(engine, 0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.answer(self.endless())) for _ in range(3)]
            await becomes(engine, 3)
            for task in tasks:
                task.cancel()

    @may_depart("cancel")
    @case
    async def test_a_cancelled_answer_frees_the_engine(self, engine: Engine) -> None:
        """Of two that begin together the longer one is given up: it is gone when the other one ends."""
        is_told = await _is_idle(engine)
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(engine.answer(self.endless(tokens=_SHORTER)))
            given_up = group.create_task(engine.answer(self.endless()))
            await _are_inside(engine, 2, self, is_told=is_told)
            given_up.cancel()
            is_freed = await _is_freed(engine, kept, is_told=is_told)
        assert is_freed
        assert text_of(await asked(engine, self.call(system=SYSTEM)))

    @case
    async def test_a_closed_stream_frees_the_engine(self, engine: Engine) -> None:
        """As with cancelled answers; it is closed at its first piece."""
        is_told = await _is_idle(engine)
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(engine.answer(self.endless(tokens=_SHORTER)))
            async with aclosing(engine.stream(self.endless(stream=True))) as pieces:
                await anext(pieces)
                await _are_inside(engine, 2, self, is_told=is_told)
            is_freed = await _is_freed(engine, kept, is_told=is_told)
        assert is_freed
        assert text_of(await asked(engine, self.call(system=SYSTEM)))

    @case
    async def test_an_answer_that_takes_too_long_is_broken_by_timeout(self, engine: Engine) -> None:
        await asked(engine, self.call(max_tokens=1))  # So that connecting takes no time of it.
        outcome = await engine.answer(self.endless(timeout_s=0.05))
        assert isinstance(outcome, Broken), outcome
        assert outcome.type == "timeout_error"

    @case
    async def test_the_first_token_is_told_once_and_before_the_answer(self, engine: Engine) -> None:
        told: list[str] = []
        outcome = await engine.answer(self.call(system=SYSTEM, on_first_token=lambda: told.append("first token")))
        told.append(type(outcome).__name__)
        expected = ["first token"] if engine.capabilities.tells_first_token else []
        assert told == [*expected, "Answered"]

    @may_depart("priority")
    @case
    async def test_an_interactive_request_overtakes_those_of_batches(self, engine: Engine) -> None:
        """Twice as many wait as the engine works on, and some still wait when the one that came last is answered."""
        if not engine.capabilities.has_priority:
            assert isinstance(await engine.answer(self.call(tier="batch")), Answered)
            return
        many = 3 * engine.in_flight_max
        async with asyncio.TaskGroup() as group:
            calls = [self.call(f"{number}", tier="batch", max_tokens=64) for number in range(many)]
            tasks = [group.create_task(engine.answer(call)) for call in calls]
            await becomes(engine, many)
            await asked(engine, self.call(max_tokens=1))
            left = sum(not task.done() for task in tasks)
            for task in tasks:
                task.cancel()
        assert left > engine.in_flight_max

    @case
    async def test_calls_inside_a_closing_engine_end_as_outcomes(self, engine: Engine) -> None:
        other = self.engine()
        await other.start()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(other.answer(self.endless()))
            await engine.answer(self.call(max_tokens=1))  # By then it has begun.
            await other.close()
        outcome = task.result()
        assert isinstance(outcome, Answered | Broken), outcome

    @case
    async def test_it_is_there(self, engine: Engine) -> None:
        assert await engine.is_there()
        assert engine.name
        assert engine.in_flight_max > 0


async def _is_idle(engine: Engine) -> bool:
    """Wait until nothing of earlier tests is inside. False if the engine does not tell."""
    if not engine.capabilities.tells_load or await engine.load() is None:
        return False
    await becomes(engine, 0)
    return True


async def _are_inside(engine: Engine, count: int, suite: EngineCases, *, is_told: bool) -> None:
    """Wait until so many requests are inside, or most likely are."""
    if is_told:
        await becomes(engine, count)
    else:
        await engine.answer(suite.call(max_tokens=1))


async def _is_freed(engine: Engine, kept: asyncio.Task[Outcome], *, is_told: bool) -> bool:
    """Whether nothing is inside once `kept` is done, or is not told. Until then the server hears of others as well:
    llama.cpp looks for clients that have gone only in a second without any news."""
    while is_told and not kept.done():
        await load_of(engine)
    await kept
    looks = [await load_of(engine) for _ in range(_LOOKS if is_told else 0)]
    return not is_told or any(load.running + load.waiting == 0 for load in looks)
