"""What llama.cpp says while it answers: chunks of its chat stream, read and added up. Pure."""

from collections.abc import Sequence

import msgspec

from overnight.core.retry import Broken, Busy, Refused
from overnight.engines import forced
from overnight.engines.chat import Plan
from overnight.engines.forced import ToolCall


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct, gc=False):
    """A piece of a tool call; `index` tells which."""

    function: _Function
    index: int = 0


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details = msgspec.field(default_factory=_Details)


class _Progress(msgspec.Struct, gc=False):
    total: int
    cache: int


class _Verbose(msgspec.Struct, gc=False):
    stopping_word: str = ""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """llama.cpp's own refusal. The counts are there if the prompt did not fit."""

    code: int = 500
    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class Chunk(msgspec.Struct, gc=False):
    """One piece of the stream. The last ones carry the finish reason and the usage."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Failure | None = None
    prompt_progress: _Progress | None = None
    verbose: _Verbose | None = msgspec.field(name="__verbose", default=None)


read_chunk = msgspec.json.Decoder(Chunk).decode


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    text: str
    thinking: str
    calls: Sequence[ToolCall]
    stop_reason: str
    stop_sequence: str | None
    input_tokens: int  # All of the prompt, cached or not.
    cached_tokens: int
    output_tokens: int


class Reading:
    """Adds up the chunks of one answer, in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls: dict[int, _Function] = {}
        self._finish_reason = ""
        self._stopping_word = ""
        self._usage = _Usage(0, 0)
        self.failure: Failure | None = None

    def take(self, chunk: Chunk) -> None:
        """Add the next chunk."""
        self.failure = chunk.error or self.failure
        self._usage = chunk.usage or self._usage
        if chunk.verbose:
            self._stopping_word = chunk.verbose.stopping_word
        for choice in chunk.choices:
            self._finish_reason = choice.finish_reason or self._finish_reason
            self._text.append(choice.delta.content or "")
            self._thinking.append(choice.delta.reasoning_content or "")
            for piece in choice.delta.tool_calls or ():
                self._take_call(piece)

    def outcome(self) -> Completion | Refused | Busy | Broken:
        """The answer, or why there is none."""
        if self.failure:
            return outcome_of(self.failure)
        if not self._finish_reason:
            return Broken(reason="the embedded model was stopped before its answer was complete")
        calls = self._all_calls()
        stop_sequence = self._stopping_word if self._stopping_word in self._plan.stop_sequences else None
        return Completion(
            text="" if self._plan.forced else "".join(self._text),
            thinking="".join(self._thinking) if self._plan.may_think else "",
            calls=calls,
            stop_reason=self._stop_reason(stop_sequence, has_calls=bool(calls)),
            stop_sequence=stop_sequence,
            input_tokens=self._usage.prompt_tokens,
            cached_tokens=self._usage.prompt_tokens_details.cached_tokens,
            output_tokens=self._usage.completion_tokens,
        )

    def _all_calls(self) -> list[ToolCall]:
        if self._plan.forced:
            return forced.read("".join(self._text), self._plan.forced)
        return [forced.call(said.name or "", said.arguments or "") for said in self._calls.values()]

    def _stop_reason(self, stop_sequence: str | None, *, has_calls: bool) -> str:
        if self._finish_reason == "length":
            is_own_limit = self._usage.completion_tokens >= self._plan.max_tokens
            return "max_tokens" if is_own_limit else "model_context_window_exceeded"
        if stop_sequence is not None:
            return "stop_sequence"
        return "tool_use" if has_calls else "end_turn"

    def _take_call(self, piece: _CallDelta) -> None:
        whole = self._calls.setdefault(piece.index, _Function("", ""))
        whole.name = (whole.name or "") + (piece.function.name or "")
        whole.arguments = (whole.arguments or "") + (piece.function.arguments or "")


def outcome_of(failure: Failure) -> Refused | Busy | Broken:
    """What llama.cpp's refusal means for the request."""
    if failure.type == "exceed_context_size_error":
        said = f"prompt is too long: {failure.n_prompt_tokens} tokens > {failure.n_ctx} maximum"
        return Refused(status=400, type="invalid_request_error", message=said)
    if failure.code == 503:
        return Busy(reason=failure.message)
    if 400 <= failure.code < 500:
        return Refused(status=400, type="invalid_request_error", message=failure.message)
    return Broken(reason=failure.message or "llama.cpp failed and gave no reason")


def outcome_of_rejection(reason: str, plan: Plan) -> Refused:
    """What it means that llama.cpp read the body before any work, and could not use it: `reason` is its own."""
    _, schema, complaint = reason.partition("JSON schema")
    if schema and plan.schema_path:
        said = f"{plan.schema_path}: {schema}{complaint}"
    else:  # What the chat template itself raised stands last, below a drawing of the place.
        said = f"messages: {reason.rpartition('Jinja Exception: ')[2]}"
    return Refused(status=400, type="invalid_request_error", message=said.strip()[:1000])
