"""A Messages body becomes a body of POST /v1/chat/completions, in the dialect of one server. Pure.

- What is not asked for is left out, so that the server's own defaults count (temperature, thinking).
- `thinking` is passed on only if the caller writes it: vLLM refuses `chat_template_kwargs` for Mistral's tokenizers.
- With llama.cpp a tool that must be called is a schema, as it is for the embedded model (`engines.forced`).
- `metadata` stays here: the engine needs no name for a caller's user.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from overnight.engines import chat, turns
from overnight.engines.chat import Plan, Shape
from overnight.engines.conversation import Conversation, ToolChoice, VisibleBlock
from overnight.engines.openaidialect import Dialect
from overnight.errors import InvalidRequest

READER = "an engine behind chat/completions"
_PRIORITY = {"standard": 0, "batch": 1}  # vLLM: lower is earlier, and 0 is what requests without one have.


class _Name(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    function: _Name
    type: str = "function"


class _Body(msgspec.Struct, kw_only=True):
    model: str
    messages: list[turns.Message]
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop: Sequence[str] | UnsetType = UNSET
    response_format: chat.ResponseFormat | UnsetType = UNSET
    tools: list[chat.OfferedTool] | UnsetType = UNSET
    tool_choice: str | _Choice | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    chat_template_kwargs: dict[str, bool] | UnsetType = UNSET
    continue_final_message: bool | UnsetType = UNSET
    add_generation_prompt: bool | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    verbose: bool | UnsetType = UNSET
    return_progress: bool | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    stream_options: dict[str, bool] | UnsetType = UNSET


def plan(
    conversation: Conversation[VisibleBlock],
    dialect: Dialect,
    *,
    tier: Literal["batch", "standard"],
    is_streamed: bool,
) -> Plan:
    """How to ask a server of `dialect`. Raises InvalidRequest for what it cannot be asked, naming the place."""
    chat.check(conversation, reader=READER)
    shape = _shape(conversation, dialect)
    body = _body(conversation, shape, dialect)
    if dialect.has_priority:
        body.priority = _PRIORITY[tier]
    if is_streamed:
        body.stream, body.stream_options = True, {"include_usage": True}
        body.return_progress = dialect.is_verbose or UNSET
    return Plan(
        body=msgspec.json.encode(body).decode(),
        model=conversation.model,
        max_tokens=conversation.max_tokens,
        stop_sequences=() if isinstance(body.stop, UnsetType) else body.stop,
        forced=shape.forced,
        schema_path=shape.schema_path,
        may_think=chat.may_think(conversation),
        keeps_ids=True,
        echo=_echo(body, dialect),
    )


def _shape(conversation: Conversation[VisibleBlock], dialect: Dialect) -> Shape:
    if dialect.forces_by_schema:
        return chat.shape_by_schema(conversation, knows_tools=True)
    chat.wanted_tools(conversation)  # Refuses a choice that no tool satisfies.
    structured = chat.structured_shape(conversation) or Shape()
    choice = conversation.tool_choice or ToolChoice()
    offered = conversation.tools or () if choice.type != "none" else ()
    return Shape(schema=structured.schema, schema_path=structured.schema_path, offered=offered)


def _body(conversation: Conversation[VisibleBlock], shape: Shape, dialect: Dialect) -> _Body:
    messages = chat.chat_messages(conversation, shape, knows_tools=True)
    body = _Body(model=conversation.model, messages=messages)
    if dialect.has_max_completion_tokens:
        body.max_completion_tokens = conversation.max_tokens
    else:
        body.max_tokens = conversation.max_tokens
    body.temperature = _or_unset(conversation.temperature)
    body.top_p = _or_unset(conversation.top_p)
    if dialect.has_top_k and conversation.top_k is not None:
        body.top_k = conversation.top_k
    if conversation.stop_sequences and not shape.forced:
        body.stop = conversation.stop_sequences
        body.verbose = dialect.is_verbose or UNSET
    if shape.schema is not None:
        body.response_format = chat.ResponseFormat(chat.JsonSchema(shape.schema))
    if dialect.has_template_kwargs and conversation.thinking is not None:
        thinks = chat.may_think(conversation)
        body.chat_template_kwargs = {"enable_thinking": thinks, "thinking": thinks}  # Qwen's name, and DeepSeek's.
    _add_tools(body, conversation, shape)
    _add_prefill(body, dialect)
    return body


def _add_tools(body: _Body, conversation: Conversation[VisibleBlock], shape: Shape) -> None:
    if not shape.offered:
        return
    choice = conversation.tool_choice or ToolChoice()
    body.tools = [chat.offer(tool) for tool in shape.offered]
    if choice.type == "any":
        body.tool_choice = "required"
    elif choice.type == "tool":
        body.tool_choice = _Choice(_Name(choice.name or ""))
    if choice.disable_parallel_tool_use:
        body.parallel_tool_calls = False


def _add_prefill(body: _Body, dialect: Dialect) -> None:
    if body.messages[-1].role != "assistant" or dialect.prefill == "turn":
        return
    if not dialect.prefill:
        raise InvalidRequest(
            "messages: a final assistant message cannot be continued by this engine: end with a user message, or "
            "ask a model on vLLM, SGLang or llama.cpp"
        )
    body.continue_final_message, body.add_generation_prompt = True, False


def _echo(body: _Body, dialect: Dialect) -> str:
    last = body.messages[-1]
    is_repeated = last.role == "assistant" and dialect.prefill == "turn"
    return last.content if is_repeated and isinstance(last.content, str) else ""


def _or_unset(value: float | None) -> float | UnsetType:
    return UNSET if value is None else value
