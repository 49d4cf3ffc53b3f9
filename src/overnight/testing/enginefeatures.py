"""Claims about what an engine can do beyond text, by its `capabilities`: schemas, tools, images, caches, counts."""

import base64
import struct
import zlib
from contextlib import suppress
from typing import Any

import msgspec

from overnight.core.retry import Answered, Refused
from overnight.engines.engine import Engine
from overnight.errors import ApiError
from overnight.testing.enginecases import (
    LINE,
    SIZE,
    SYSTEM,
    TOOL,
    EngineCases,
    asked,
    case,
    may_depart,
    prompt_tokens,
    read,
    text_of,
)

_FORMAT: dict[str, Any] = {"format": {"type": "json_schema", "schema": SIZE}}
_TOOLS: dict[str, Any] = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "choose"}}


class EngineFeatureCases(EngineCases):
    """Each thing works, or the engine says that it cannot do it."""

    @may_depart("schema")
    @case
    async def test_a_structured_answer_satisfies_its_schema(self, engine: Engine) -> None:
        outcome = await engine.answer(self.call(output_config=_FORMAT, max_tokens=64))
        if not engine.capabilities.has_schema:
            assert isinstance(outcome, Answered | Refused), outcome
            return
        assert is_size(text_of(read(outcome)))

    @may_depart("forced_tool")
    @case
    async def test_a_tool_that_must_be_called_is_called(self, engine: Engine) -> None:
        outcome = await engine.answer(self.call(**_TOOLS, max_tokens=64))
        if not engine.capabilities.has_tools:
            assert isinstance(outcome, Answered | Refused), outcome
            return
        whole = read(outcome)
        [block] = _tool_uses(whole)
        assert block["name"] == "choose"
        assert block["id"]
        assert isinstance(block["input"], dict)
        assert whole["stop_reason"] == "tool_use"

    @may_depart("tool_input")
    @case
    async def test_the_input_of_a_strict_tool_satisfies_its_schema(self, engine: Engine) -> None:
        """Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs (strict tool use)."""
        if engine.capabilities.has_tools:
            [block] = _tool_uses(await asked(engine, self.call(**_TOOLS, max_tokens=64)))
            assert is_size(msgspec.json.encode(block["input"]))

    @may_depart("tool_result")
    @case
    async def test_the_result_of_a_tool_reaches_the_model(self, engine: Engine) -> None:
        outcome = await engine.answer(self.call(messages=_with_result("short"), tools=[TOOL], max_tokens=1))
        if not engine.capabilities.has_tools:
            assert isinstance(outcome, Answered | Refused), outcome
            return
        long = await asked(engine, self.call(messages=_with_result("long " * 50), tools=[TOOL], max_tokens=1))
        assert prompt_tokens(read(outcome)) + 40 < prompt_tokens(long)

    @may_depart("image")
    @case
    async def test_an_image_is_looked_at_or_refused(self, engine: Engine) -> None:
        """An engine that has images may still run a model without eyes."""
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(_png()).decode()}
        blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
        outcome = await engine.answer(self.call(blocks))
        if isinstance(outcome, Answered) and engine.capabilities.has_images:
            assert text_of(read(outcome))
        else:
            assert isinstance(outcome, Refused), outcome
            assert (outcome.status, outcome.type) == (400, "invalid_request_error")

    @case
    async def test_usage_counts_the_prompt_whether_it_is_cached_or_not(self, engine: Engine) -> None:
        first, second = [await asked(engine, self.call(system=_guide(), max_tokens=2)) for _ in range(2)]
        assert prompt_tokens(first) == prompt_tokens(second) > 300

    @may_depart("cached_tokens")
    @case
    async def test_a_prefix_that_was_seen_before_is_told_apart(self, engine: Engine) -> None:
        await asked(engine, self.call(system=_guide(), max_tokens=2))
        usage = (await asked(engine, self.call(system=_guide(), max_tokens=2)))["usage"]
        cached = usage.get("cache_read_input_tokens") or 0
        if engine.capabilities.shows_cached_tokens:
            assert cached > usage["input_tokens"] >= 0
        else:
            assert cached == 0

    @may_depart("count_tokens")
    @case
    async def test_counted_tokens_are_those_of_the_answers_usage(self, engine: Engine) -> None:
        call = self.call(system=SYSTEM)
        if not engine.capabilities.counts_tokens:
            with suppress(ApiError):
                assert await engine.count_tokens(call) > 0
            return
        try:
            counted = await engine.count_tokens(call)
        except ApiError as error:
            raise AssertionError("it claims to count tokens, and does not") from error
        assert counted == prompt_tokens(await asked(engine, call))

    @case
    async def test_it_lists_what_it_serves(self, engine: Engine) -> None:
        listed = await engine.models()
        assert listed
        assert all(model.id and model.display_name for model in listed)


def _tool_uses(whole: dict[str, Any]) -> list[dict[str, Any]]:
    found = [block for block in whole["content"] if block["type"] == "tool_use"]
    assert found, whole["content"]
    return found


def is_size(text: str | bytes) -> bool:
    """Whether `text` is JSON that satisfies the schema `SIZE`."""
    try:
        found: Any = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return found in ({"size": "S"}, {"size": "XL"})


def _guide() -> str:
    return f"{SYSTEM} " + "Treat all customers with respect. " * 60


def _with_result(result: str) -> list[dict[str, Any]]:
    use = {"type": "tool_use", "id": "toolu_1", "name": "choose", "input": {"size": "S"}}
    return [
        {"role": "user", "content": LINE},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": result}]},
    ]


def _png() -> bytes:
    """A red square. Some readers refuse one that is smaller than a patch of theirs."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 64
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * side) * side)
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
