"""wire.result: lines that the official SDK's types take as they are."""

import json

import pytest
from anthropic.types.messages import MessageBatchIndividualResponse
from hypothesis import given
from hypothesis import strategies as st

from overnight.wire import message, problem, result
from overnight.wire.message import Usage

_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "é\n\u2028"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4},
}
_IDS = st.from_regex(r"\A[a-zA-Z0-9_-]{1,64}\Z")


def _succeeded(custom_id: str) -> bytes:
    return result.succeeded(custom_id, message.as_batch(json.dumps(_MESSAGE, ensure_ascii=False).encode())[0])


def _errored(custom_id: str) -> bytes:
    return result.errored(
        custom_id, problem.encode("invalid_request_error", "messages: Field required", request_id=None)
    )


_MAKERS = {
    "succeeded": _succeeded,
    "errored": _errored,
    "canceled": result.canceled,
    "expired": result.expired,
}


@pytest.mark.parametrize("kind", _MAKERS)
@given(custom_id=_IDS)
def test_a_line_is_what_the_official_types_expect(kind: str, custom_id: str) -> None:
    line = _MAKERS[kind](custom_id)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    found = MessageBatchIndividualResponse.model_validate_json(line)
    assert (found.custom_id, found.result.type) == (custom_id, kind)


def test_an_answer_comes_whole() -> None:
    found = MessageBatchIndividualResponse.model_validate_json(_succeeded("a")).result
    assert found.type == "succeeded"
    assert found.message.content[0].type == "text"
    assert found.message.content[0].text == "é\n\u2028"
    assert found.message.usage.service_tier == "batch"


def test_an_error_is_a_whole_envelope_inside() -> None:
    found = json.loads(_errored("a"))
    assert found == {
        "custom_id": "a",
        "result": {
            "type": "errored",
            "error": {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "messages: Field required"},
                "request_id": None,
            },
        },
    }


@pytest.mark.parametrize("make", [result.canceled, result.expired])
def test_what_never_ran_says_no_more(make: object) -> None:
    assert callable(make)
    assert set(json.loads(make("a"))["result"]) == {"type"}


@given(st.lists(st.tuples(st.sampled_from(sorted(_MAKERS)), _IDS), max_size=6))
def test_our_own_lines_are_read_again(wanted: list[tuple[str, str]]) -> None:
    lines = result.read_lines(b"".join(_MAKERS[kind](custom_id) for kind, custom_id in wanted))
    assert [(line.result.type, line.custom_id) for line in lines] == wanted


def _deeply(frames: int, lines: bytes) -> list[result.Line]:
    """What `read_lines` says where that much less of the stack is left."""
    return _deeply(frames - 1, lines) if frames else result.read_lines(lines)


def test_the_deepest_answer_that_was_taken_is_read_again_wherever_that_happens() -> None:
    taken = b""
    for depth in range(800, 1100):
        nested = b'{"type":"message","role":"assistant","usage":{},"content":[%b]}' % (b"[" * depth + b"]" * depth)
        try:
            taken, _ = message.as_batch(nested)
        except message.NotAMessage:
            break
    assert taken, "not even the first was taken"
    (line,) = _deeply(50, result.succeeded("a", taken))
    assert (line.custom_id, line.result.type) == ("a", "succeeded")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b'{"custom_id":"a","result":{"type":"other"}}\n',
        b'{"custom_id":"a b","result":{"type":"expired"}}\n',
        b' {"custom_id":"a","result":{"type":"expired"}}\n',
    ],
)
def test_a_line_that_is_not_ours_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a result line: "):
        result.read_lines(result.expired("a") + line)


def test_a_line_that_did_not_end_is_not_read() -> None:
    assert result.read_lines(result.expired("a") + b'{"custom_id":"b","res') == result.read_lines(result.expired("a"))


@pytest.mark.parametrize(
    ("told", "read"),
    [("", "batch"), ('"service_tier":"batch",', "batch"), ('"service_tier":"standard",', "standard")],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_a_line_tells_after_a_crash_whether_another_tier_was_paid(told: str, read: str, is_last: bool) -> None:
    counts = '"input_tokens":7'
    usage = f"{counts},{told}".rstrip(",") if is_last else f"{told}{counts}"
    answered = f'{{"type":"message","role":"assistant","content":[],"usage":{{{usage}}}}}'
    line = result.succeeded("a", message.as_batch(answered.encode())[0])
    assert json.loads(line)["result"]["message"]["usage"] == {"input_tokens": 7, "service_tier": "batch"}
    assert result.read_usage(line) == Usage(input_tokens=7, service_tier=read)
