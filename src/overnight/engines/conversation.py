"""The whole of a Messages body as engines understand it that translate it: what `wire.params` leaves to engines.

A type stands here only if such an engine can honour it. Content none can read (PDFs, the blocks of server tools) has
no type, and images have one only for `read_with_images`, so decoding itself refuses the rest and names the place.
Source: https://platform.claude.com/docs/en/api/messages/create.
"""

import re
from typing import Annotated, Generic, Literal, TypeAlias, TypeVar

import msgspec

from overnight.errors import InvalidRequest
from overnight.wire import complaint


class Text(msgspec.Struct, tag="text", gc=False):
    """A block of text."""

    text: str


class SearchResult(msgspec.Struct, tag="search_result"):
    """Inlined: its title, its source, its text."""

    title: str
    source: str
    content: list[Text]


class PlainText(msgspec.Struct, tag="text", gc=False):
    """A document that is text."""

    data: str


class Passages(msgspec.Struct, tag="content"):
    """A document that comes in pieces."""

    content: str | list[Text]


class Document(msgspec.Struct, tag="document"):
    """Inlined, if its source is text. `citations` are ignored: an answer never cites."""

    source: PlainText | Passages
    title: str | None = None
    context: str | None = None


class Thinking(msgspec.Struct, tag="thinking", gc=False):
    """Left out of the prompt: only the turn that thought it has a use for it."""


class RedactedThinking(msgspec.Struct, tag="redacted_thinking", gc=False):
    """Left out of the prompt, as it was never ours to read."""


class ToolUse(msgspec.Struct, tag="tool_use"):
    """A call that the model made in an earlier turn."""

    id: str
    name: str
    input: msgspec.Raw


class Base64Image(msgspec.Struct, tag="base64", gc=False):
    """A picture that came along."""

    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class LinkedImage(msgspec.Struct, tag="url", gc=False):
    """A picture that the engine fetches: no `file:`, which some servers would read from their own disk."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://")]


class Image(msgspec.Struct, tag="image"):
    """A picture, for engines that see."""

    source: Base64Image | LinkedImage


Readable: TypeAlias = Text | SearchResult | Document
Visible: TypeAlias = Readable | Image
Content = TypeVar("Content")  # Of a tool's result: Readable or Visible.
Block = TypeVar("Block")  # Of a turn: TextBlock or VisibleBlock.


class ToolResult(msgspec.Struct, Generic[Content], tag="tool_result"):
    """What the call of that id came to."""

    tool_use_id: str
    content: str | list[Content] | None = None
    is_error: bool | None = None


_Unseen: TypeAlias = Thinking | RedactedThinking | ToolUse
TextBlock: TypeAlias = Readable | _Unseen | ToolResult[Readable]
VisibleBlock: TypeAlias = Visible | _Unseen | ToolResult[Visible]


class Turn(msgspec.Struct, Generic[Block]):
    """What one side said."""

    role: Literal["user", "assistant"]
    content: str | list[Block]


class Tool(msgspec.Struct):
    """A tool of the caller's. Server tools have a `type` other than "custom" and are refused."""

    name: str
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw(b'{"type":"object"}')
    type: str | None = None


class ToolChoice(msgspec.Struct):
    """Whether the model may, must or must not call a tool, and which."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None  # Only with "tool".
    disable_parallel_tool_use: bool | None = None


class Format(msgspec.Struct):
    """The shape of a structured answer."""

    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct):
    """`effort` is accepted and has no effect."""

    format: Format | None = None


class ThinkingConfig(msgspec.Struct):
    """Whether the model may think before it answers, if its template knows how."""

    type: Literal["enabled", "adaptive", "disabled"]


class Conversation(msgspec.Struct, Generic[Block]):
    """A Messages or count_tokens body. Fields that are not here are accepted and have no effect."""

    model: str
    messages: list[Turn[Block]]
    max_tokens: int = 1  # count_tokens has none.
    system: str | list[Text] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None  # The beta's spelling of output_config.format.
    thinking: ThinkingConfig | None = None


_UNKNOWN_TYPE = re.compile(r"Invalid value '(?P<type>[^']*)' - at `\$(?P<path>.*)\.type`$")
_with_text = msgspec.json.Decoder(Conversation[TextBlock])
_with_images = msgspec.json.Decoder(Conversation[VisibleBlock])


def read(params: bytes) -> Conversation[TextBlock]:
    """The decoded body. Raises InvalidRequest naming what the embedded engine cannot take, and where."""
    return _read(_with_text, params, reader="the embedded model, which reads text only")


def read_with_images(params: bytes, *, reader: str) -> Conversation[VisibleBlock]:
    """As `read`, for an engine that is called `reader` and may see pictures."""
    return _read(_with_images, params, reader=f"{reader}, which reads text and images only")


def _read(decoder: msgspec.json.Decoder[Conversation[Block]], params: bytes, *, reader: str) -> Conversation[Block]:
    try:
        return decoder.decode(params)
    except msgspec.ValidationError as error:
        raise InvalidRequest(_said(error, reader)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(complaint.of_syntax(error)) from error


def _said(error: msgspec.ValidationError, reader: str) -> str:
    unknown = _UNKNOWN_TYPE.match(str(error))
    if unknown is None or not unknown["path"].startswith(".messages"):
        return complaint.of_validation(error)
    path = unknown["path"].replace("[", ".").replace("]", "").lstrip(".")
    return f"{path}: {unknown['type']!r} is not supported by {reader}"
