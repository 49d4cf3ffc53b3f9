"""wire.params: what of a request is judged before an engine sees it, and in which words."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_values import VALUES, written

from overnight.errors import InvalidRequest
from overnight.wire import params

_TURNS: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
_GOOD: dict[str, Any] = {"model": "m", "max_tokens": 8, "messages": _TURNS}


def _without(key: str) -> bytes:
    return json.dumps({name: value for name, value in _GOOD.items() if name != key}).encode()


def _with(**more: object) -> bytes:
    return json.dumps({**_GOOD, **more}).encode()


def _refusal(text: bytes, *, is_strict: bool = False) -> str:
    with pytest.raises(InvalidRequest) as caught:
        params.read_batched(text, is_strict=is_strict)
    return str(caught.value)


# What the hosted API writes into errored rows, word for word where it was captured.
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_without("messages"), "messages: Field required"),
        (_without("max_tokens"), "max_tokens: Field required"),
        (_without("model"), "model: Field required"),
        (_with(stream=True), '"stream=True" is not supported in the Message Batches API'),
        (_with(max_tokens=0), "max_tokens: must be greater than or equal to 1"),
        (_with(max_tokens=-5), "max_tokens: must be greater than or equal to 1"),
        (_with(max_tokens="8"), "max_tokens: Input should be a valid integer"),
        (_with(max_tokens=1.5), "max_tokens: Input should be a valid integer"),
        (_with(max_tokens=None), "max_tokens: Input should be a valid integer"),
        (_with(messages=[]), "messages: at least one message is required"),
        (_with(messages="hi"), "messages: Input should be a valid list"),
        (_with(messages=[{"role": "user"}]), "messages.0.content: Field required"),
        (
            _with(messages=[*_TURNS, {"role": "user", "content": ""}]),
            "messages.1: all messages must have non-empty content",
        ),
        (
            _with(messages=[{"role": "assistant", "content": []}, *_TURNS]),
            "messages.0: all messages must have non-empty content",
        ),
        (
            _with(messages=[{"role": "user", "content": 3}]),
            "messages.0.content: Input should be a valid string or list",
        ),
        (_with(messages=[{"role": "user", "content": [{}]}]), "messages.0.content.0.type: Field required"),
        (_with(messages=[{"role": "system", "content": "x"}]), "messages.0.role: Invalid enum value 'system'"),
        (_with(system=3), "system: Input should be a valid string or list"),
        (_with(system=[{"type": "image"}]), "system.0.type: Input should be 'text'"),
        (_with(stream="yes"), "stream: Input should be a valid boolean"),
        (_with(model=7), "model: Input should be a valid string"),
        (b"[]", "Input should be a valid dictionary"),
        *(
            (_with(**{field: value}), f'"{field}" is not supported in the Message Batches API')
            for field in (
                "speed",
                "store",
                "previous_thread_event_id",
                "cache_hint",
                "context_hint",
                "fallbacks",
                "research_preview_2026_02",
            )
            for value in ("x", None)
        ),
    ],
)
def test_the_words_of_an_errored_row(text: bytes, said: str) -> None:
    assert _refusal(text) == said
    assert _refusal(text, is_strict=True) == said


def test_a_request_is_read_for_its_model() -> None:
    assert params.read_batched(_with(model="claude-x", stream=False, temperature=0.5)).model == "claude-x"


def test_an_empty_last_turn_of_the_assistant_is_a_prefill() -> None:
    assert params.read_batched(_with(messages=[*_TURNS, {"role": "assistant", "content": ""}])).model == "m"


def test_unknown_fields_are_refused_only_if_asked_to() -> None:
    text = _with(extra_body={}, temperature=1)
    assert params.read_batched(text).model == "m"
    assert params.read_interactive(text).model == "m"
    assert _refusal(text, is_strict=True) == "extra_body: Extra inputs are not permitted"
    with pytest.raises(InvalidRequest, match=r"^extra_body: Extra inputs are not permitted$"):
        params.read_interactive(text, is_strict=True)


def test_every_documented_field_passes_the_strict_reading() -> None:
    known = {"temperature": 1, "top_k": 1, "top_p": 0.5, "tools": [], "tool_choice": {"type": "auto"}, "thinking": {}}
    known |= {"metadata": {}, "stop_sequences": [], "service_tier": "auto", "system": "x", "output_config": {}}
    assert params.read_batched(_with(**known), is_strict=True).model == "m"


def test_what_a_batch_may_not_have_an_interactive_request_may() -> None:
    assert params.read_interactive(_with(stream=True, speed="fast")).stream is True


def test_counting_needs_no_max_tokens_but_messages() -> None:
    assert params.read_countable(_without("max_tokens")).model == "m"
    for text, said in (
        (_without("messages"), "messages: Field required"),
        (_with(messages=[]), "messages: at least one message is required"),
        (b"{", "The request body is not valid JSON: Input data was truncated"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            params.read_countable(text)
        assert str(caught.value) == said


_LOOSE = st.fixed_dictionaries(
    {},
    optional={
        "model": VALUES,
        "max_tokens": st.integers(-2, 9) | VALUES,
        "messages": st.lists(
            st.fixed_dictionaries(
                {}, optional={"role": st.sampled_from(["user", "assistant"]) | VALUES, "content": VALUES}
            ),
            max_size=3,
        )
        | VALUES,
        "system": VALUES,
        "stream": VALUES,
        "tools": VALUES,
    },
)


@given(written(_LOOSE | VALUES))
def test_any_json_is_read_or_refused_in_words(pair: tuple[Any, bytes]) -> None:
    value, text = pair
    readings, refusals = [], []
    for read in (params.read_batched, params.read_interactive, params.read_countable):
        try:
            read(text)
        except InvalidRequest as error:
            refusals.append(str(error))
        else:
            readings.append(read)
    assert all(refusals), "a refusal without a word"
    if params.read_batched in readings:
        assert isinstance(value["model"], str)
        assert value["max_tokens"] >= 1
        assert value["messages"]
        assert not value.get("stream")
        assert len(readings) == 3


@given(written(_LOOSE))
def test_the_parts_are_the_bytes_that_were_sent(pair: tuple[Any, bytes]) -> None:
    value, text = pair
    parts = params.decode_parts(text)
    for name in ("model", "tools", "system", "messages"):
        found = bytes(getattr(parts, name))
        assert (json.loads(found) if found else None) == value.get(name)
        assert bool(found) == (name in value)
