"""The turns of a conversation as messages of a chat body. Pure.

- Blocks of a user turn are joined by newlines, those of an assistant turn by nothing: the API cuts its own
  sentences into blocks where citations stand.
- Neighbouring turns of one role become one message, as on the API; many chat templates insist on it.
- Tool calls and results of the past are messages of their own if the template knows tools, else tagged text.
"""

from collections.abc import Sequence

import msgspec

from overnight.engines.conversation import (
    Block,
    Document,
    PlainText,
    Readable,
    SearchResult,
    Text,
    ToolResult,
    ToolUse,
    Turn,
)
from overnight.errors import InvalidRequest


class PastFunction(msgspec.Struct):
    """Which tool was called, with which input."""

    name: str
    arguments: str  # JSON.


class PastCall(msgspec.Struct):
    """A call of an earlier turn, as a chat body has it."""

    id: str
    function: PastFunction
    type: str = "function"


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a chat body."""

    role: str
    content: str
    tool_calls: list[PastCall] = []
    tool_call_id: str = ""


def messages(turns: Sequence[Turn], *, system: str, knows_tools: bool) -> list[Message]:
    """`system`, if any, and the turns. The last one is of the assistant only if it is a prefill to continue.

    Raises InvalidRequest for an end that cannot be continued.
    """
    found = [Message(role="system", content=system)] if system else []
    for turn in turns:
        for message in _of_turn(turn, knows_tools=knows_tools):
            _append(found, message)
    if turns[-1].role == "assistant":
        _check_prefill(turns, found[-1].content)
        if not turns[-1].content:  # An empty prefill is none.
            found.pop()
    return found


def system_text(system: str | list[Text] | None) -> str:
    """The system prompt as one text."""
    return system if isinstance(system, str) else "\n".join(block.text for block in system or [])


def _of_turn(turn: Turn, *, knows_tools: bool) -> list[Message]:
    if isinstance(turn.content, str):
        return [Message(role=turn.role, content=turn.content)]
    separator = "\n" if turn.role == "user" else ""
    if not knows_tools:
        texts = [text for block in turn.content if (text := _tagged(block))]
        return [Message(role=turn.role, content=separator.join(texts))]
    results = [
        Message(role="tool", content=_result(block), tool_call_id=block.tool_use_id)
        for block in turn.content
        if isinstance(block, ToolResult)
    ]
    texts = [_text(block) for block in turn.content if isinstance(block, Readable)]
    calls = [_past_call(block) for block in turn.content if isinstance(block, ToolUse)]
    own = Message(role=turn.role, content=separator.join(texts), tool_calls=calls)
    return results + ([own] if texts or calls or not results else [])


def _append(found: list[Message], message: Message) -> None:
    last = found[-1] if found else None
    if last is None or last.role != message.role or message.role == "tool":
        found.append(message)
        return
    separator = "\n" if message.role == "user" and last.content and message.content else ""
    last.content += separator + message.content
    last.tool_calls = last.tool_calls + message.tool_calls


def _check_prefill(turns: Sequence[Turn], prefill: str) -> None:
    last = turns[-1].content
    uses = [block.id for block in last if isinstance(block, ToolUse)] if isinstance(last, list) else []
    if uses:
        place = f"messages.{len(turns) - 1}"
        raise InvalidRequest(
            f"{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(uses)}"
        )
    if last and prefill != prefill.rstrip():
        raise InvalidRequest("messages: final assistant content cannot end with trailing whitespace")


def _text(block: Readable) -> str:
    match block:
        case Text(text=text):
            return text
        case SearchResult(title=title, source=source, content=content):
            return "\n".join((title, source, *(part.text for part in content)))
        case Document(source=source):
            body = source.data if isinstance(source, PlainText) else system_text(source.content)
            return "\n".join(part for part in (block.title, block.context, body) if part)


def _tagged(block: Block) -> str:
    """The block as text; thinking is dropped. The tags are those most open models were trained with."""
    match block:
        case ToolUse(name=name, input=arguments):
            call = msgspec.json.encode({"name": name, "arguments": arguments}).decode()
            return f"<tool_call>\n{call}\n</tool_call>"
        case ToolResult():
            return f"<tool_response>\n{_result(block)}\n</tool_response>"
        case Text() | SearchResult() | Document():
            return _text(block)
        case _:
            return ""


def _result(result: ToolResult) -> str:
    content = result.content or ""
    text = content if isinstance(content, str) else "\n".join(_text(block) for block in content)
    return f"Error: {text}" if result.is_error else text


def _past_call(block: ToolUse) -> PastCall:
    arguments = msgspec.json.format(bytes(block.input), indent=-1).decode()
    return PastCall(id=block.id, function=PastFunction(name=block.name, arguments=arguments))
