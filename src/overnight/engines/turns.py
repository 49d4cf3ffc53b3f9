"""The turns of a conversation as messages of a chat body. Pure.

- Blocks of a user turn are joined by newlines, those of an assistant turn by nothing: the API cuts its own
  sentences into blocks where citations stand.
- Neighbouring turns of one role become one message, as on the API; many chat templates insist on it.
- Tool calls and results of the past are messages of their own if the template knows tools, else tagged text.
- Pictures are parts of a user message. Those of a tool's result stand in the next one: a tool message takes text.
  Source: https://platform.openai.com/docs/api-reference/chat/create (messages).
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from overnight.engines.conversation import (
    Base64Image,
    Document,
    Image,
    PlainText,
    Readable,
    SearchResult,
    Text,
    ToolResult,
    ToolUse,
    Turn,
    Visible,
    VisibleBlock,
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


class TextPart(msgspec.Struct):
    """Text beside pictures."""

    text: str
    type: str = "text"


class ImageUrl(msgspec.Struct):
    """Where a picture is; a `data:` URL holds it."""

    url: str


class ImagePart(msgspec.Struct):
    """A picture."""

    image_url: ImageUrl
    type: str = "image_url"


Parts: TypeAlias = Sequence[TextPart | ImagePart]


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a chat body. Without pictures its content is text, which every server and template takes."""

    role: str
    content: str | Parts
    tool_calls: list[PastCall] = []
    tool_call_id: str = ""


def messages(turns: Sequence[Turn[Any]], *, system: str, knows_tools: bool) -> list[Message]:
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


def _of_turn(turn: Turn[Any], *, knows_tools: bool) -> list[Message]:
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
    said = [*_pictures(turn.content), *(block for block in turn.content if isinstance(block, Visible))]
    calls = [_past_call(block) for block in turn.content if isinstance(block, ToolUse)]
    own = Message(role=turn.role, content=_content(said, separator), tool_calls=calls)
    return results + ([own] if said or calls or not results else [])


def _pictures(blocks: Sequence[VisibleBlock]) -> list[Image]:
    """Those inside the tool results among `blocks`."""
    results = [block.content for block in blocks if isinstance(block, ToolResult)]
    return [part for content in results if isinstance(content, list) for part in content if isinstance(part, Image)]


def _content(said: Sequence[Visible], separator: str) -> str | Parts:
    if not any(isinstance(block, Image) for block in said):
        return separator.join(_text(block) for block in said)
    return [_picture(block) if isinstance(block, Image) else TextPart(_text(block)) for block in said]


def _picture(image: Image) -> ImagePart:
    match image.source:
        case Base64Image(media_type=media_type, data=data):
            return ImagePart(ImageUrl(f"data:{media_type};base64,{data}"))
        case linked:
            return ImagePart(ImageUrl(linked.url))


def _append(found: list[Message], message: Message) -> None:
    last = found[-1] if found else None
    if last is None or last.role != message.role or message.role == "tool":
        found.append(message)
        return
    if isinstance(last.content, str) and isinstance(message.content, str):
        separator = "\n" if message.role == "user" and last.content and message.content else ""
        last.content += separator + message.content
    else:
        last.content = [*_parts(last.content), *_parts(message.content)]
    last.tool_calls = last.tool_calls + message.tool_calls


def _parts(content: str | Parts) -> Parts:
    if isinstance(content, str):
        return [TextPart(content)] if content else []
    return content


def _check_prefill(turns: Sequence[Turn[Any]], prefill: str | Parts) -> None:
    last = turns[-1].content
    uses = [block.id for block in last if isinstance(block, ToolUse)] if isinstance(last, list) else []
    if uses:
        place = f"messages.{len(turns) - 1}"
        raise InvalidRequest(
            f"{place}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(uses)}"
        )
    if not isinstance(prefill, str):
        raise InvalidRequest(f"messages.{len(turns) - 1}: an image cannot be continued by the assistant")
    if last and prefill != prefill.rstrip():
        raise InvalidRequest("messages: final assistant content cannot end with trailing whitespace")


def _text(block: Visible) -> str:
    """What of the block is text; a picture is none."""
    match block:
        case Text(text=text):
            return text
        case SearchResult(title=title, source=source, content=content):
            return "\n".join((title, source, *(part.text for part in content)))
        case Document(source=source):
            body = source.data if isinstance(source, PlainText) else system_text(source.content)
            return "\n".join(part for part in (block.title, block.context, body) if part)
        case Image():
            return ""


def _tagged(block: VisibleBlock) -> str:
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


def _result(result: ToolResult[Any]) -> str:
    content = result.content or ""
    if not isinstance(content, str):
        content = "\n".join(_text(block) for block in content if isinstance(block, Readable))
    return f"Error: {content}" if result.is_error else content


def _past_call(block: ToolUse) -> PastCall:
    arguments = msgspec.json.format(bytes(block.input), indent=-1).decode()
    return PastCall(id=block.id, function=PastFunction(name=block.name, arguments=arguments))
