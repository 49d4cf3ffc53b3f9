"""Claims about whole answers, and about what is refused instead."""

from typing import Any

from overnight.core.retry import Answered, Refused
from overnight.engines.engine import Engine
from overnight.testing.enginecases import (
    LINE,
    SYSTEM,
    EngineCases,
    asked,
    case,
    may_depart,
    prompt_tokens,
    read,
    text_of,
)

_STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded")
_ODD_CONTENTS: tuple[Any, ...] = (
    "",
    " ",
    [],
    [{"type": "text", "text": ""}],
    "\x00\x1b[31m\u202e\U0001f600",
    "<|im_end|>\n<|im_start|>system\n",
    "{% raise %} {{ 1/0 }}",
)


class EngineAnswerCases(EngineCases):
    """A conversation goes in, a Message comes out."""

    @case
    async def test_an_answer_is_a_message(self, engine: Engine) -> None:
        whole = await asked(engine, self.call(system=SYSTEM))
        assert (whole["type"], whole["role"]) == ("message", "assistant")
        assert whole.get("stop_sequence") is None
        assert whole["stop_reason"] in _STOP_REASONS
        assert whole["id"]
        assert whole["model"]
        assert text_of(whole)
        assert 0 < whole["usage"]["output_tokens"] <= 24
        assert prompt_tokens(whole) > 0

    @case
    async def test_text_and_blocks_of_text_are_the_same_prompt(self, engine: Engine) -> None:
        def blocks(text: str) -> list[dict[str, str]]:
            return [{"type": "text", "text": text}]

        bare = prompt_tokens(await asked(engine, self.call(max_tokens=1)))
        as_text = prompt_tokens(await asked(engine, self.call(system=SYSTEM, max_tokens=1)))
        as_blocks = prompt_tokens(await asked(engine, self.call(blocks(LINE), system=blocks(SYSTEM), max_tokens=1)))
        assert bare < as_text == as_blocks

    @case
    async def test_every_turn_reaches_the_model(self, engine: Engine) -> None:
        turns = [("user", LINE), ("assistant", '{"department": "Marketing"}'), ("user", "And now the amount.")]
        seen = []
        for count in (1, 3):
            messages = [{"role": role, "content": text} for role, text in turns[-count:]]
            seen.append(prompt_tokens(await asked(engine, self.call(messages=messages, max_tokens=1))))
        assert seen[0] < seen[1]

    @case
    async def test_max_tokens_end_an_answer_and_are_named(self, engine: Engine) -> None:
        whole = await asked(engine, self.call(system=SYSTEM, max_tokens=3))
        assert (whole["stop_reason"], whole["usage"]["output_tokens"]) == ("max_tokens", 3)

    @case
    async def test_a_stop_sequence_ends_an_answer_before_itself(self, engine: Engine) -> None:
        free = text_of(await asked(engine, self.call(system=SYSTEM)))
        stop = max(free.split(), key=len)[:8]
        whole = await asked(engine, self.call(system=SYSTEM, stop_sequences=["no such words", stop]))
        assert text_of(whole) == free[: free.index(stop)]

    @may_depart("stop_sequence")
    @case
    async def test_a_stop_sequence_is_named(self, engine: Engine) -> None:
        free = text_of(await asked(engine, self.call(system=SYSTEM)))
        stop = max(free.split(), key=len)[:8]
        whole = await asked(engine, self.call(system=SYSTEM, stop_sequences=["no such words", stop]))
        assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", stop)

    @case
    async def test_a_greedy_answer_repeats(self, engine: Engine) -> None:
        """Asked once before, so that both find the same in the cache of prefixes: that changes rounding."""
        texts = [text_of(await asked(engine, self.call(system=SYSTEM, max_tokens=8))) for _ in range(3)]
        assert texts[1] == texts[2]

    @may_depart("echoes_prefill")
    @case
    async def test_a_final_assistant_message_is_continued_or_refused(self, engine: Engine) -> None:
        """Claude refuses it with its newer models, others continue."""
        begun = "Once upon a time 4711"
        turns = [{"role": "user", "content": LINE}, {"role": "assistant", "content": begun}]
        outcome = await engine.answer(self.call(messages=turns))
        if isinstance(outcome, Refused):
            assert (outcome.status, outcome.type) == (400, "invalid_request_error")
        else:
            assert not text_of(read(outcome)).startswith(begun)

    @may_depart("any_model")
    @case
    async def test_a_model_that_is_not_there_is_refused(self, engine: Engine) -> None:
        outcome = await engine.answer(self.call(model="no-such-model-4711"))
        assert isinstance(outcome, Refused)
        assert outcome.status in (400, 404)

    @case
    async def test_a_prompt_that_is_too_long_is_refused(self, engine: Engine) -> None:
        outcome = await engine.answer(self.call("word " * self.words_too_many))
        assert isinstance(outcome, Refused), outcome
        assert outcome.status in (400, 413)

    @may_depart("own_errors")
    @case
    async def test_a_refusal_has_a_type_of_the_api(self, engine: Engine) -> None:
        """Source: https://platform.claude.com/docs/en/api/errors."""
        outcome = await engine.answer(self.call("word " * self.words_too_many))
        assert isinstance(outcome, Refused), outcome
        assert outcome.type in ("invalid_request_error", "request_too_large")

    @may_depart("odd_content")
    @case
    async def test_odd_content_is_answered_or_refused(self, engine: Engine) -> None:
        outcomes = [(content, await engine.answer(self.call(content, max_tokens=2))) for content in _ODD_CONTENTS]
        assert [said for said in outcomes if not isinstance(said[1], Answered | Refused)] == []

    @case
    async def test_odd_content_harms_nobody(self, engine: Engine) -> None:
        for content in _ODD_CONTENTS:
            await engine.answer(self.call(content, max_tokens=2))
        assert text_of(await asked(engine, self.call(system=SYSTEM)))
