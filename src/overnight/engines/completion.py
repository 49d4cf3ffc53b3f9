"""What a chat server says while it answers: chunks of its stream, read and added up. Pure.

An answer that comes whole is one chunk whose choice has a `message` where others have a `delta`.
Sources: https://platform.openai.com/docs/api-reference/chat-streaming and …/chat/object. Beyond them
`reasoning_content` (vLLM, SGLang, llama.cpp), `reasoning` (OpenRouter, Groq, newer vLLM), `stop_reason` (vLLM),
`matched_stop` (SGLang), `prompt_progress` and `__verbose` (llama.cpp).
"""

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
    index: int | None = None  # Missing in a whole answer, where each piece is a call.
    id: str | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None

    @property
    def text(self) -> str:
        """For everybody to read."""
        return (self.content or "") + (self.refusal or "")

    @property
    def thinking(self) -> str:
        """Under either of its names: some servers send both, with the same content."""
        return self.reasoning_content or self.reasoning or ""


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None  # The text, or the token, that ended the answer.
    matched_stop: int | str | None = None

    @property
    def said(self) -> _Delta:
        """What is new."""
        return self.delta or self.message or _Delta()


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached_tokens(self) -> int:
        """Never more than the prompt has, whatever the server says."""
        details = self.prompt_tokens_details
        return min(self.prompt_tokens, (details.cached_tokens or 0) if details else 0)


class _Progress(msgspec.Struct, gc=False):
    total: int
    cache: int


class _Verbose(msgspec.Struct, gc=False):
    stopping_word: str = ""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """The server's own refusal. llama.cpp tells the counts if the prompt did not fit."""

    code: int | str | None = None
    message: str | None = None
    type: str | None = None
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


_NOT_ITS_FAULT = frozenset({401, 402, 403, 429, 503, 529})  # As in `engines.replies`.
_ABORTED = frozenset({"abort", "error"})  # vLLM's and SGLang's words for an answer that they gave up.


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
        self._calls: dict[int, _CallDelta] = {}
        self._finish_reason = ""
        self._has_refused = False
        self._stopping_word: int | str = ""
        self._usage = _Usage()
        self.failure: Failure | None = None

    def take(self, chunk: Chunk) -> None:
        """Add the next chunk."""
        self.failure = chunk.error or self.failure
        self._usage = chunk.usage or self._usage
        if chunk.verbose:
            self._stopping_word = chunk.verbose.stopping_word
        for choice in chunk.choices:
            said = choice.said
            self._finish_reason = choice.finish_reason or self._finish_reason
            self._has_refused |= bool(said.refusal)
            self._stopping_word = choice.stop_reason or choice.matched_stop or self._stopping_word
            self._text.append(said.text)
            self._thinking.append(said.thinking)
            for place, piece in enumerate(said.tool_calls or ()):
                self._take_call(place, piece)

    def outcome(self) -> Completion | Refused | Busy | Broken:
        """The answer, or why there is none."""
        if self.failure:
            return outcome_of(self.failure)
        if not self._finish_reason or self._finish_reason in _ABORTED:
            return Broken(reason="the answer was stopped before it was complete")
        calls = self._all_calls()
        word = self._stopping_word
        stop_sequence = word if isinstance(word, str) and word in self._plan.stop_sequences else None
        return Completion(
            text="" if self._plan.forced else "".join(self._text),
            thinking="".join(self._thinking) if self._plan.may_think else "",
            calls=calls,
            stop_reason=self._stop_reason(stop_sequence, has_calls=bool(calls)),
            stop_sequence=stop_sequence,
            input_tokens=self._usage.prompt_tokens,
            cached_tokens=self._usage.cached_tokens,
            output_tokens=self._usage.completion_tokens,
        )

    def _all_calls(self) -> list[ToolCall]:
        if self._plan.forced:
            return forced.read("".join(self._text), self._plan.forced)
        return [
            forced.call(said.function.name or "", said.function.arguments or "", id=self._id(said))
            for said in self._calls.values()
        ]

    def _id(self, said: _CallDelta) -> str:
        return (said.id or "") if self._plan.keeps_ids else ""

    def _stop_reason(self, stop_sequence: str | None, *, has_calls: bool) -> str:
        if self._has_refused or self._finish_reason == "content_filter":
            return "refusal"
        if self._finish_reason == "length":
            is_short = 0 < self._usage.completion_tokens < self._plan.max_tokens
            return "model_context_window_exceeded" if is_short else "max_tokens"
        if stop_sequence is not None:
            return "stop_sequence"
        return "tool_use" if has_calls else "end_turn"

    def _take_call(self, place: int, piece: _CallDelta) -> None:
        whole = self._calls.setdefault(place if piece.index is None else piece.index, _CallDelta(_Function("", "")))
        whole.id = whole.id or piece.id
        whole.function.name = (whole.function.name or "") + (piece.function.name or "")
        whole.function.arguments = (whole.function.arguments or "") + (piece.function.arguments or "")


def outcome_of(failure: Failure) -> Refused | Busy | Broken:
    """What a refusal in the place of an answer means for the request."""
    said = failure.message or "the server failed and gave no reason"
    code = failure.code if isinstance(failure.code, int) else 500
    if failure.type == "exceed_context_size_error":
        said = f"prompt is too long: {failure.n_prompt_tokens} tokens > {failure.n_ctx} maximum"
        return Refused(status=400, type="invalid_request_error", message=said)
    if code in _NOT_ITS_FAULT:
        return Busy(reason=said)
    if 400 <= code < 500:
        return Refused(status=400, type="invalid_request_error", message=said)
    return Broken(reason=said)


def outcome_of_rejection(reason: str, plan: Plan) -> Refused:
    """What it means that llama.cpp read the body before any work, and could not use it: `reason` is its own."""
    _, schema, complaint = reason.partition("JSON schema")
    if schema and plan.schema_path:
        said = f"{plan.schema_path}: {schema}{complaint}"
    else:  # What the chat template itself raised stands last, below a drawing of the place.
        said = f"messages: {reason.rpartition('Jinja Exception: ')[2]}"
    return Refused(status=400, type="invalid_request_error", message=said.strip()[:1000])
