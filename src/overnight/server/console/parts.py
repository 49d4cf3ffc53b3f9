"""A request and its answer as texts that people can read. What is in them came from anywhere: it is only ever text.

Images and documents are named with their size, never shown and never loaded.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from overnight import limits
from overnight.wire import reading
from overnight.wire.reading import Answer

_LABEL_CHARACTERS_MAX = 120
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
# Signs that are not seen, or change how others are seen (https://www.unicode.org/reports/tr36/, bidirectional text).
_SIGNS: Final = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    **{code: f"[U+{code:04X}]" for code in _BIDI},
}


class Part(NamedTuple):
    """One text of a request or an answer, whole."""

    label: str
    text: str
    is_code: bool = False


class Block(NamedTuple):
    """A part as a page shows it."""

    number: int  # Of the part.
    label: str
    text: str
    is_code: bool
    characters: int  # Of the whole text.

    @property
    def is_cut(self) -> bool:
        """Whether more of it is left."""
        return self.characters > len(self.text)


class Shown(NamedTuple):
    """The parts that fit on a page, and how many do not."""

    blocks: list[Block]
    left_out: int


def visible(text: str) -> str:
    """The text with a symbol for each control character and a name for each that turns the direction of others."""
    return text.replace("\r\n", "\n").translate(_SIGNS)


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    most = limits.EXCERPT_CHARACTERS
    words = " ".join(text[: 4 * most].split())
    return visible(words if len(words) <= most and len(text) <= 4 * most else words[:most] + "…")


def shown(parts: Sequence[Part]) -> Shown:
    """The parts as blocks, each cut where it is too long, until the page is full."""
    blocks: list[Block] = []
    left = limits.PAGE_CHARACTERS_MAX
    for number, part in enumerate(parts[: limits.BLOCKS_MAX]):
        if left <= 0:
            break
        cut = visible(part.text[: min(left, limits.BLOCK_CHARACTERS_MAX)])
        hidden = max(0, len(part.text) - min(left, limits.BLOCK_CHARACTERS_MAX))
        left -= len(cut)
        blocks.append(Block(number, _label(part.label), cut, part.is_code, len(cut) + hidden))
    return Shown(blocks, len(parts) - len(blocks))


def _label(text: str) -> str:
    return visible(reading.whole(text[:_LABEL_CHARACTERS_MAX])).replace("\n", " ")


# --- Requests -------------------------------------------------------------------------------------------------------


def of_request(params: bytes) -> list[Part]:
    """System, messages, tools, then everything else."""
    found = reading.lenient(params)
    try:
        if isinstance(found, dict):
            return list(_request(found))
    except RecursionError:
        pass
    return [Part("params", params.decode(errors="replace"), is_code=True)]


def _request(params: dict[str, Any]) -> Iterator[Part]:
    if "system" in params:
        yield from _content("system", params["system"])
    messages = params.get("messages")
    for turn in messages if isinstance(messages, list) else ():
        if isinstance(turn, dict):
            yield from _content(str(turn.get("role")), turn.get("content"))
    tools = params.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        name = tool.get("name") if isinstance(tool, dict) else ""
        yield _code(f"tool {name}", tool)
    yield _code("params", {key: value for key, value in params.items() if key not in ("system", "messages", "tools")})


def _content(label: str, content: Any) -> Iterator[Part]:
    if not isinstance(content, str | list):
        yield _code(label, content)
        return
    for block in reading.blocks(content):
        yield from _block(label, block)


def _block(label: str, block: dict[str, Any]) -> Iterator[Part]:
    match block:
        case {"type": "text", "text": str(text)}:
            yield Part(label, reading.whole(text))
        case {"type": "thinking", "thinking": str(text)}:
            yield Part(f"{label}, thinking", reading.whole(text))
        case {"type": "image" | "document" as kind, "source": dict(source)}:
            yield from _source(f"{label}, {kind}", kind, source)
        case {"type": "tool_result", "content": str() | list() as content}:
            yield from _content(f"{label}, result of {block.get('tool_use_id')}", content)
        case _:
            yield _code(f"{label}, {block.get('type')}", block)


def _source(label: str, kind: str, source: dict[str, Any]) -> Iterator[Part]:
    match source:
        case {"type": "base64", "data": str(data)}:
            yield Part(label, f"{kind}, {_size(data)}, {reading.whole(str(source.get('media_type')))}")
        case {"type": "text", "data": str(text)}:
            yield Part(label, reading.whole(text))
        case {"type": "content", "content": str() | list() as content}:
            yield from _content(label, content)
        case _:
            yield _code(label, source)


def _size(base64: str) -> str:
    length = len(base64) * 3 // 4
    if length < 1000:
        return f"{length} bytes"
    return f"{length / 1000:.0f} kB" if length < 1_000_000 else f"{length / 1_000_000:.1f} MB"


def _code(label: str, value: Any) -> Part:
    text = json.dumps(_without_data(value), indent=2, ensure_ascii=False)
    return Part(label, reading.whole(text), is_code=True)


def _without_data(value: Any) -> Any:
    """The value with the size of what is encoded in base64 in its place."""
    match value:
        case {"type": "base64", "data": str(data)}:
            return {**value, "data": _size(data)}
        case dict():
            return {key: _without_data(inner) for key, inner in value.items()}
        case list():
            return [_without_data(inner) for inner in value]
        case _:
            return value


# --- Answers --------------------------------------------------------------------------------------------------------


def of_answer(answer: Answer) -> list[Part]:
    """The content of a message, then its usage; or the error."""
    if answer.type == "errored":
        return [Part(answer.error_type or "error", answer.error_message)]
    if not answer.message:
        return []
    found = reading.lenient(answer.message)
    try:
        if isinstance(found, dict):
            usage = [_code("usage", found["usage"])] if "usage" in found else []
            return [*_content("answer", found.get("content")), *usage]
    except RecursionError:
        pass
    return [Part("message", answer.message.decode(errors="replace"), is_code=True)]
