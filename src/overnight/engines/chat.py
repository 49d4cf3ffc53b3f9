"""A Messages body becomes a chat body of llama.cpp. Pure.

llama.cpp speaks `POST /v1/messages` itself, but echoes a prefill, ignores `output_config.format`, and reports a
matched stop sequence as `end_turn`; so the mapping is done here, on its chat body.

- Sampling is greedy unless asked otherwise. The API's default temperature is 1.0; a model small enough to be
  embedded is only useful at 0. `top_p` or `top_k` without `temperature` ask for sampling, at 1.0.
- `tool_choice` any and tool are enforced (`engines.forced`). With auto the tools are offered if the model's template
  knows tools; otherwise the model answers in text, as it is free to. A structured answer offers no tools.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from overnight.engines import forced, turns
from overnight.engines.conversation import Conversation, Tool, ToolChoice
from overnight.errors import InvalidRequest


class Function(msgspec.Struct):
    """What a tool is called, means and takes."""

    name: str
    description: str
    parameters: msgspec.Raw


class OfferedTool(msgspec.Struct):
    """A tool that the model may call."""

    function: Function
    type: str = "function"


class JsonSchema(msgspec.Struct):
    """A schema, with the name that the API wants for it."""

    schema: msgspec.Raw
    name: str = "answer"
    strict: bool = True


class ResponseFormat(msgspec.Struct):
    """What the whole answer must satisfy."""

    json_schema: JsonSchema
    type: str = "json_schema"


class _Body(msgspec.Struct, kw_only=True):
    messages: list[turns.Message]
    max_tokens: int
    temperature: float
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop: Sequence[str] | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET
    tools: list[OfferedTool] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    chat_template_kwargs: dict[str, bool]
    verbose: bool  # Adds which stop sequence matched, and copies of prompt and answer: only on demand.
    stream: bool = True  # Also where nobody streams: only a streaming call can be stopped.
    stream_options: dict[str, bool] = msgspec.field(default_factory=lambda: {"include_usage": True})
    return_progress: bool = True  # Tells the input tokens before the first output token: a stream begins with them.


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer must or may look like."""

    schema: msgspec.Raw | None = None
    schema_path: str = ""
    forced: Sequence[Tool] = ()
    offered: Sequence[Tool] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask a chat server, and what one must know to read what it says."""

    body: str  # JSON.
    model: str
    max_tokens: int
    stop_sequences: Sequence[str]
    forced: Sequence[Tool]  # The answer calls one of these; none: it is free.
    schema_path: str  # Where the caller wrote the schema that is enforced, for complaints.
    may_think: bool
    keeps_ids: bool = False  # Tool calls keep the ids that the server gave them.
    echo: str = ""  # What a whole answer repeats in front of its own text: the prefill, with llama.cpp.


def plan(conversation: Conversation[Any], *, output_tokens_max: int, knows_tools: bool) -> Plan:
    """How to answer `conversation`. Raises InvalidRequest for what cannot be answered, naming the place.

    `knows_tools`: whether the model's chat template renders tools.
    """
    if conversation.max_tokens > output_tokens_max:
        raise InvalidRequest(
            f"max_tokens: {conversation.max_tokens} > {output_tokens_max}, which is the maximum allowed number of "
            f"output tokens for {conversation.model}"
        )
    check(conversation, reader="the embedded model")
    shape = shape_by_schema(conversation, knows_tools=knows_tools)
    body = _body(conversation, shape, knows_tools=knows_tools)
    return Plan(
        body=msgspec.json.encode(body).decode(),
        model=conversation.model,
        max_tokens=conversation.max_tokens,
        stop_sequences=() if isinstance(body.stop, UnsetType) else body.stop,
        forced=shape.forced,
        schema_path=shape.schema_path,
        may_think=may_think(conversation),
    )


def may_think(conversation: Conversation[Any]) -> bool:
    """Whether the caller asks for thoughts. Programs that do not ask take the first block of an answer for text."""
    return conversation.thinking is not None and conversation.thinking.type != "disabled"


def check(conversation: Conversation[Any], *, reader: str) -> None:
    """Raise InvalidRequest for what no chat body can say, or only to no effect. `reader` is what the engine is."""
    for place, sequence in enumerate(conversation.stop_sequences or ()):
        if not sequence.strip():
            raise InvalidRequest(f"stop_sequences.{place}: each stop sequence must contain non-whitespace")
    for place, tool in enumerate(conversation.tools or ()):
        if tool.type not in (None, "custom"):
            raise InvalidRequest(f"tools.{place}: {tool.type!r} is not supported by {reader}")
        if not bytes(tool.input_schema).startswith(b"{"):
            raise InvalidRequest(f"tools.{place}.input_schema: Input should be a valid dictionary")


def shape_by_schema(conversation: Conversation[Any], *, knows_tools: bool) -> Shape:
    """What llama.cpp may or must answer: a tool that must be called, and its input, is a schema."""
    tools = conversation.tools or []
    choice = conversation.tool_choice or ToolChoice()
    if wanted := wanted_tools(conversation):
        chosen = [tools[place] for place in wanted]
        path = f"tools.{wanted[0]}.input_schema" if len(wanted) == 1 else "tools"
        return Shape(schema=forced.schema(chosen), schema_path=path, forced=chosen)
    structured = structured_shape(conversation)
    if structured is not None:
        return structured
    return Shape(offered=tools if knows_tools and choice.type == "auto" else ())


def wanted_tools(conversation: Conversation[Any]) -> list[int]:
    """The places of the tools of which one must be called; none if the answer is free. Raises InvalidRequest."""
    choice = conversation.tool_choice or ToolChoice()
    if choice.type not in ("any", "tool"):
        return []
    tools = enumerate(conversation.tools or [])
    wanted = [place for place, tool in tools if choice.type == "any" or tool.name == choice.name]
    if not wanted:
        missing = f"Tool '{choice.name}' not found in provided tools" if choice.name else "there are no tools"
        raise InvalidRequest(f"tool_choice: {missing}")
    return wanted


def structured_shape(conversation: Conversation[Any]) -> Shape | None:
    """The schema that the answer must satisfy, if any. Raises InvalidRequest."""
    structured = conversation.output_config.format if conversation.output_config else None
    if structured is None and conversation.output_format is None:
        return None
    path = "output_config.format.schema" if structured else "output_format.schema"
    schema = (structured or conversation.output_format).schema  # type: ignore[union-attr]
    if not bytes(schema).startswith(b"{"):  # llama.cpp would silently enforce nothing.
        raise InvalidRequest(f"{path}: Input should be a valid dictionary")
    return Shape(schema=schema, schema_path=path)


def _body(conversation: Conversation[Any], shape: Shape, *, knows_tools: bool) -> _Body:
    is_sampled = conversation.top_p is not None or conversation.top_k is not None
    default_temperature = 1.0 if is_sampled else 0.0
    stop = UNSET if shape.forced else conversation.stop_sequences or UNSET
    choice = conversation.tool_choice or ToolChoice()
    return _Body(
        messages=chat_messages(conversation, shape, knows_tools=knows_tools),
        max_tokens=conversation.max_tokens,
        temperature=default_temperature if conversation.temperature is None else conversation.temperature,
        top_p=UNSET if conversation.top_p is None else conversation.top_p,
        top_k=UNSET if conversation.top_k is None else conversation.top_k,
        stop=stop,
        response_format=ResponseFormat(JsonSchema(shape.schema)) if shape.schema else UNSET,
        tools=[offer(tool) for tool in shape.offered] or UNSET,
        parallel_tool_calls=not choice.disable_parallel_tool_use if shape.offered else UNSET,
        chat_template_kwargs={"enable_thinking": may_think(conversation)},
        verbose=stop is not UNSET,
    )


def chat_messages(conversation: Conversation[Any], shape: Shape, *, knows_tools: bool) -> list[turns.Message]:
    """The system prompt and the turns. Raises InvalidRequest."""
    system = turns.system_text(conversation.system)
    if shape.forced:
        system = f"{forced.instruction(shape.forced)}\n\n{system}".rstrip()
    messages = turns.messages(conversation.messages, system=system, knows_tools=knows_tools)
    if shape.schema and messages[-1].role == "assistant":  # The schema would begin anew behind the prefill.
        raise InvalidRequest("messages: a final assistant message cannot be continued in a prescribed format")
    return messages


def offer(tool: Tool) -> OfferedTool:
    """The tool as a chat body has it."""
    return OfferedTool(Function(tool.name, tool.description or "", tool.input_schema))
