"""A Messages body becomes a chat body of llama.cpp. Pure.

llama.cpp speaks `POST /v1/messages` itself, but echoes a prefill, ignores `output_config.format`, and reports a
matched stop sequence as `end_turn`; so the mapping is done here, on its chat body.

- Sampling is greedy unless asked otherwise. The API's default temperature is 1.0; a model small enough to be
  embedded is only useful at 0. `top_p` or `top_k` without `temperature` ask for sampling, at 1.0.
- `tool_choice` any and tool are enforced (`engines.forced`). With auto the tools are offered if the model's template
  knows tools; otherwise the model answers in text, as it is free to. A structured answer offers no tools.
"""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from overnight.engines import forced, turns
from overnight.engines.conversation import Conversation, Tool, ToolChoice
from overnight.errors import InvalidRequest


class _Function(msgspec.Struct):
    name: str
    description: str
    parameters: msgspec.Raw


class _OfferedTool(msgspec.Struct):
    function: _Function
    type: str = "function"


class _Schema(msgspec.Struct):
    schema: msgspec.Raw
    name: str = "answer"
    strict: bool = True


class _ResponseFormat(msgspec.Struct):
    json_schema: _Schema
    type: str = "json_schema"


class _Body(msgspec.Struct, kw_only=True):
    messages: list[turns.Message]
    max_tokens: int
    temperature: float
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop: Sequence[str] | UnsetType = UNSET
    response_format: _ResponseFormat | UnsetType = UNSET
    tools: list[_OfferedTool] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    chat_template_kwargs: dict[str, bool]
    verbose: bool  # Adds which stop sequence matched, and copies of prompt and answer: only on demand.
    stream: bool = True  # Also where nobody streams: only a streaming call can be stopped.
    stream_options: dict[str, bool] = msgspec.field(default_factory=lambda: {"include_usage": True})
    return_progress: bool = True  # Tells the input tokens before the first output token: a stream begins with them.


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must or may look like."""

    schema: msgspec.Raw | None = None
    schema_path: str = ""
    forced: Sequence[Tool] = ()
    offered: Sequence[Tool] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask llama.cpp, and what one must know to read what it says."""

    body: str  # JSON.
    model: str
    max_tokens: int
    stop_sequences: Sequence[str]
    forced: Sequence[Tool]  # The answer calls one of these; none: it is free.
    schema_path: str  # Where the caller wrote the schema that is enforced, for complaints.
    may_think: bool


def plan(conversation: Conversation, *, output_tokens_max: int, knows_tools: bool) -> Plan:
    """How to answer `conversation`. Raises InvalidRequest for what cannot be answered, naming the place.

    `knows_tools`: whether the model's chat template renders tools.
    """
    _check(conversation, output_tokens_max=output_tokens_max)
    shape = _shape(conversation, knows_tools=knows_tools)
    body = _body(conversation, shape, knows_tools=knows_tools)
    return Plan(
        body=msgspec.json.encode(body).decode(),
        model=conversation.model,
        max_tokens=conversation.max_tokens,
        stop_sequences=() if isinstance(body.stop, UnsetType) else body.stop,
        forced=shape.forced,
        schema_path=shape.schema_path,
        may_think=body.chat_template_kwargs["enable_thinking"],
    )


def _check(conversation: Conversation, *, output_tokens_max: int) -> None:
    if conversation.max_tokens > output_tokens_max:
        raise InvalidRequest(
            f"max_tokens: {conversation.max_tokens} > {output_tokens_max}, which is the maximum allowed number of "
            f"output tokens for {conversation.model}"
        )
    for place, sequence in enumerate(conversation.stop_sequences or ()):
        if not sequence.strip():
            raise InvalidRequest(f"stop_sequences.{place}: each stop sequence must contain non-whitespace")
    for place, tool in enumerate(conversation.tools or ()):
        if tool.type not in (None, "custom"):
            raise InvalidRequest(f"tools.{place}: {tool.type!r} is not supported by the embedded model")
        if not bytes(tool.input_schema).startswith(b"{"):
            raise InvalidRequest(f"tools.{place}.input_schema: Input should be a valid dictionary")


def _shape(conversation: Conversation, *, knows_tools: bool) -> _Shape:
    tools = conversation.tools or []
    choice = conversation.tool_choice or ToolChoice()
    if choice.type in ("any", "tool"):
        wanted = [place for place, tool in enumerate(tools) if choice.type == "any" or tool.name == choice.name]
        if not wanted:
            missing = f"Tool '{choice.name}' not found in provided tools" if choice.name else "there are no tools"
            raise InvalidRequest(f"tool_choice: {missing}")
        chosen = [tools[place] for place in wanted]
        path = f"tools.{wanted[0]}.input_schema" if len(wanted) == 1 else "tools"
        return _Shape(schema=forced.schema(chosen), schema_path=path, forced=chosen)
    structured = conversation.output_config.format if conversation.output_config else None
    if structured is None and conversation.output_format is None:
        return _Shape(offered=tools if knows_tools and choice.type == "auto" else ())
    path = "output_config.format.schema" if structured else "output_format.schema"
    schema = (structured or conversation.output_format).schema  # type: ignore[union-attr]
    if not bytes(schema).startswith(b"{"):  # llama.cpp would silently enforce nothing.
        raise InvalidRequest(f"{path}: Input should be a valid dictionary")
    return _Shape(schema=schema, schema_path=path)


def _body(conversation: Conversation, shape: _Shape, *, knows_tools: bool) -> _Body:
    is_sampled = conversation.top_p is not None or conversation.top_k is not None
    default_temperature = 1.0 if is_sampled else 0.0
    stop = UNSET if shape.forced else conversation.stop_sequences or UNSET
    choice = conversation.tool_choice or ToolChoice()
    return _Body(
        messages=_messages(conversation, shape, knows_tools=knows_tools),
        max_tokens=conversation.max_tokens,
        temperature=default_temperature if conversation.temperature is None else conversation.temperature,
        top_p=UNSET if conversation.top_p is None else conversation.top_p,
        top_k=UNSET if conversation.top_k is None else conversation.top_k,
        stop=stop,
        response_format=_ResponseFormat(_Schema(shape.schema)) if shape.schema else UNSET,
        tools=[_offer(tool) for tool in shape.offered] or UNSET,
        parallel_tool_calls=not choice.disable_parallel_tool_use if shape.offered else UNSET,
        chat_template_kwargs={
            "enable_thinking": conversation.thinking is not None and conversation.thinking.type != "disabled"
        },
        verbose=stop is not UNSET,
    )


def _messages(conversation: Conversation, shape: _Shape, *, knows_tools: bool) -> list[turns.Message]:
    system = turns.system_text(conversation.system)
    if shape.forced:
        system = f"{forced.instruction(shape.forced)}\n\n{system}".rstrip()
    messages = turns.messages(conversation.messages, system=system, knows_tools=knows_tools)
    if shape.schema and messages[-1].role == "assistant":  # The schema would begin anew behind the prefill.
        raise InvalidRequest("messages: a final assistant message cannot be continued in a prescribed format")
    return messages


def _offer(tool: Tool) -> _OfferedTool:
    return _OfferedTool(_Function(tool.name, tool.description or "", tool.input_schema))
