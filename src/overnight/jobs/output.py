"""From one line of results to what it says: a state, fields, tokens. One bad answer never stops the others."""

import json
from typing import Any, NamedTuple

import msgspec

from overnight.errors import JobError
from overnight.jobs.jobfile import Output
from overnight.jobs.row import State
from overnight.jobs.schema import NotValid, Shape

_MAX_ERROR = 2_000  # Characters of an error that the ledger keeps.
_STARTS_MAX = (
    20  # Braces at which an object may begin; an answer of braces alone would take the square of its length.
)


class Reading(NamedTuple):
    """What one result says. `text` is the answer as it came, for asking again about an invalid one."""

    state: State
    fields: dict[str, Any]
    error_type: str = ""
    error: str = ""
    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read: int = 0
    cache_write: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""
    input: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Problem(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Envelope(msgspec.Struct):
    error: _Problem = msgspec.field(default_factory=_Problem)


class _Result(msgspec.Struct):
    type: str
    message: _Message | None = None
    error: _Envelope | None = None


class Line(msgspec.Struct):
    """One line of results; unknown fields are ignored."""

    custom_id: str
    result: _Result


decode_line = msgspec.json.Decoder(Line).decode
_decode_message = msgspec.json.Decoder(_Message).decode


class Reader:
    """Reads answers as [output] wants them."""

    def __init__(self, output: Output, shape: Shape | None) -> None:
        self._choices = {_folded(choice): choice for choice in output.choices}
        self._shape = shape
        if len(self._choices) < len(output.choices):
            raise JobError("[output] choices: two of them differ only in case or spaces")

    def of_result(self, result: _Result) -> Reading:
        """What a result of a batch says."""
        match result.type:
            case "succeeded" if result.message is not None:
                return self._of(result.message)
            case "errored":
                problem = result.error.error if result.error is not None else _Problem()
                return failed("errored", problem.type, problem.message)
            case "canceled":
                return failed("canceled", "", "the batch was cancelled before the request was sent")
            case "expired":
                return failed("expired", "", "the batch expired before the request was sent")
        return failed("errored", "", f"a result of type {result.type!r}, which is unknown")

    def of_message(self, message: bytes) -> Reading:
        """What an answer in real time says."""
        try:
            return self._of(_decode_message(message))
        except msgspec.DecodeError as error:
            return failed("errored", "", f"the answer is no message: {error}")

    def _of(self, message: _Message) -> Reading:
        text = "".join(block.text for block in message.content if block.type == "text")
        state, fields, error = self._judged(message, text)
        usage = message.usage
        return Reading(
            state,
            fields,
            error=storable(error),
            text=text,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read=usage.cache_read_input_tokens or 0,
            cache_write=usage.cache_creation_input_tokens or 0,
        )

    def _judged(self, message: _Message, text: str) -> tuple[State, dict[str, Any], str]:
        if message.stop_reason == "refusal":
            return "refused", {}, text.strip() or "the model declined to answer"
        is_cut = message.stop_reason in ("max_tokens", "model_context_window_exceeded")
        try:
            if is_cut and self._shape is None and not self._choices:
                raise NotValid("the text is cut")
            return "succeeded", self._fields(message, text), ""
        except NotValid as error:
            if is_cut:
                return "truncated", {}, f"the answer was cut ({message.stop_reason})"
            return "invalid", {}, str(error)

    def _fields(self, message: _Message, text: str) -> dict[str, Any]:
        if self._choices:
            return {"value": self._choice(text)}
        if self._shape is None:
            return {"value": text.strip()}
        called = next((block.input for block in message.content if block.type == "tool_use"), None)
        value = self._shape.checked(called if isinstance(called, dict) else json_in(text))
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        return plain if isinstance(plain, dict) else {"value": plain}

    def _choice(self, text: str) -> str:
        found = self._choices.get(_folded(text))
        if found is None:
            raise NotValid(f"{_short(text)} is none of {', '.join(self._choices.values())}")
        return found


def failed(state: State, error_type: str, error: str) -> Reading:
    """A reading without an answer."""
    return Reading(state, {}, error_type=error_type, error=storable(error))


def storable(error: str) -> str:
    """An error as the ledger keeps it: not too long, and without what PostgreSQL has no form for."""
    return error[:_MAX_ERROR].replace("\x00", "\\x00")


def json_in(text: str) -> Any:
    """The JSON value of an answer: all of it, or the first object in it, as in a code fence. NotValid if none.

    Only what can be stored is JSON here: `json` alone would take NaN, and half of a surrogate pair.
    """
    stripped = text.strip()
    try:
        return msgspec.json.decode(stripped)
    except (ValueError, RecursionError):
        pass
    start = -1
    for _ in range(_STARTS_MAX):
        start = stripped.find("{", start + 1)
        if start < 0:
            break
        try:
            end = json.JSONDecoder().raw_decode(stripped, start)[1]
            return msgspec.json.decode(stripped[start:end])
        except (ValueError, RecursionError):
            continue
    raise NotValid(f"no JSON object in {_short(text)}")


def _folded(text: str) -> str:
    return text.strip().strip("\"'`*.").strip().casefold()


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return repr(shown if len(shown) <= 80 else f"{shown[:77]}...")
