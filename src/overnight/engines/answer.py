"""A completion as the API's Message: one JSON line, or server-sent events. Pure but for the ids.

Sources: https://platform.claude.com/docs/en/api/messages/create (response),
https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from overnight import ids
from overnight.engines.chat import Plan
from overnight.engines.completion import Chunk, Completion
from overnight.engines.forced import ToolCall
from overnight.ports.entropy import Entropy

Tier: TypeAlias = Literal["batch", "standard"]


class _Text(msgspec.Struct, tag="text"):
    text: str


class _Thinking(msgspec.Struct, tag="thinking"):
    thinking: str
    signature: str = ""  # Ours would prove nothing.


class _ToolUse(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _Usage(msgspec.Struct, kw_only=True):
    input_tokens: int  # Uncached.
    cache_creation_input_tokens: int = 0  # The prefix cache of a slot costs nothing to write.
    cache_read_input_tokens: int
    cache_creation: _CacheCreation = msgspec.field(default_factory=_CacheCreation)
    output_tokens: int
    service_tier: Tier
    inference_geo: str = "not_available"


class _Message(msgspec.Struct, kw_only=True):
    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: Sequence[_Text | _Thinking | _ToolUse]
    stop_reason: str | None
    stop_sequence: str | None
    usage: _Usage


class _MessageDelta(msgspec.Struct):
    stop_reason: str
    stop_sequence: str | None


_NO_INPUT = msgspec.Raw(b"{}")
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def tool_use_id(entropy: bytes) -> str:
    """A new `toolu_…` id, in the shape of the hosted API's."""
    return f"toolu_01{ids.drawn(entropy)}"


def _id_of(call: ToolCall, entropy: Entropy) -> str:
    return call.id or tool_use_id(entropy.bytes(ids.ID_ENTROPY_BYTES))


def message(completion: Completion, *, model: str, tier: Tier, entropy: Entropy) -> bytes:
    """The Message as JSON on one line. An answer without a token has no content blocks, as on the API."""
    content: list[_Text | _Thinking | _ToolUse] = []
    if completion.thinking:
        content.append(_Thinking(completion.thinking))
    if completion.text:
        content.append(_Text(completion.text))
    for call in completion.calls:
        content.append(_ToolUse(_id_of(call, entropy), call.name, call.input))
    return msgspec.json.encode(
        _Message(
            id=ids.message_id(entropy.bytes(ids.ID_ENTROPY_BYTES)),
            model=model,
            content=content,
            stop_reason=completion.stop_reason,
            stop_sequence=completion.stop_sequence,
            usage=_usage(completion, tier),
        )
    )


def _usage(completion: Completion, tier: Tier) -> _Usage:
    return _Usage(
        input_tokens=completion.input_tokens - completion.cached_tokens,
        cache_read_input_tokens=completion.cached_tokens,
        output_tokens=completion.output_tokens,
        service_tier=tier,
    )


class Events:
    """The server-sent events of one answer: `take` each chunk, then `finish`.

    A forced tool call is known only as a whole, so it comes as one `input_json_delta` at the end.
    """

    def __init__(self, plan: Plan, *, tier: Tier, entropy: Entropy) -> None:
        self._plan = plan
        self._tier: Tier = tier
        self._entropy = entropy
        self._open: Literal["", "text", "thinking"] = ""  # The kind of the block that takes deltas now.
        self._blocks = 0
        self.has_begun = False

    def take(self, chunk: Chunk) -> bytes:
        """What to send for `chunk`; nothing to send is empty. While the prompt is read, pings keep the line alive."""
        pieces: list[bytes] = []
        if not self.has_begun:
            pieces.append(self._begin(chunk))
        elif chunk.prompt_progress:
            pieces.append(_PING)
        for choice in chunk.choices if not self._plan.forced else ():
            if choice.said.thinking and self._plan.may_think:
                pieces.append(self._delta("thinking", choice.said.thinking))
            if choice.said.text:
                pieces.append(self._delta("text", choice.said.text))
        return b"".join(pieces)

    def finish(self, completion: Completion) -> bytes:
        """The end: tool calls, why it stopped, what it cost."""
        pieces = [self._close()]
        for call in completion.calls:
            block = _ToolUse(_id_of(call, self._entropy), call.name, _NO_INPUT)
            delta = {"type": "input_json_delta", "partial_json": bytes(call.input).decode()}
            pieces += [self._start_block(block), self._delta_event(delta), self._stop_block()]
        usage = _usage(completion, self._tier)
        pieces.append(
            _event(
                "message_delta",
                delta=_MessageDelta(completion.stop_reason, completion.stop_sequence),
                usage={
                    "input_tokens": usage.input_tokens,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": usage.cache_read_input_tokens,
                    "output_tokens": usage.output_tokens,
                },
            )
        )
        pieces.append(_event("message_stop"))
        return b"".join(pieces)

    def _begin(self, chunk: Chunk) -> bytes:
        self.has_begun = True
        read = chunk.prompt_progress
        total, cached = (read.total, read.cache) if read else (0, 0)
        usage = _Usage(
            input_tokens=total - cached, cache_read_input_tokens=cached, output_tokens=0, service_tier=self._tier
        )
        empty = _Message(
            id=ids.message_id(self._entropy.bytes(ids.ID_ENTROPY_BYTES)),
            model=self._plan.model,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=usage,
        )
        return _event("message_start", message=empty)

    def _delta(self, kind: Literal["text", "thinking"], said: str) -> bytes:
        begin = b""
        if self._open != kind:
            begin = self._close() + self._start_block(_Text("") if kind == "text" else _Thinking(""))
            self._open = kind
        return begin + self._delta_event({"type": f"{kind}_delta", kind: said})

    def _close(self) -> bytes:
        closed = self._stop_block() if self._open else b""
        self._open = ""
        return closed

    def _start_block(self, block: _Text | _Thinking | _ToolUse) -> bytes:
        return _event("content_block_start", index=self._blocks, content_block=block)

    def _delta_event(self, delta: dict[str, str]) -> bytes:
        return _event("content_block_delta", index=self._blocks, delta=delta)

    def _stop_block(self) -> bytes:
        self._blocks += 1
        return _event("content_block_stop", index=self._blocks - 1)


def _event(name: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))


def error_event(problem: bytes) -> bytes:
    """The event that ends a stream that has begun and cannot go on; `problem` as `wire.problem` encodes it."""
    return b"event: error\ndata: %b\n\n" % problem
