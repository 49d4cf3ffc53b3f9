"""Values drawn from a run of bytes: what a fuzzer mutates becomes structure, the same bytes always the same value."""

import json
from typing import Any

from msgspec import Raw

_LAYOUTS = (("",), ("", "", "\r"), ("", " ", "\n"), ("", "", " ", "\n", "\r\n", "\t", " \r ", "\n\n  "))
_NUMBERS = ("0", "-0", "1", "-7", "0.5", "1e5", "1E-7", "2E+3", "123456789012345678901234567890", "9007199254740993")
_TEXTS = ("", "a", "usage", '{"usage":{}}', "é", "😀", "\u2028", "\n", '"', "\\", "\x7f", "[", "service_tier", "\x00")
_KEYS = (
    "usage",
    "params",
    "custom_id",
    "type",
    "content",
    "system",
    "tools",
    "messages",
    "model",
    "é",
    "",
    "\n",
    '"',
)
_DEPTH_MAX = 5


class Choices:
    """Answers questions from `data`; when it is used up, always the first choice."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self._spaces = _LAYOUTS[0]

    def number(self, below: int) -> int:
        """A number from 0 up to but not including `below`, at most 256."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1] % below

    def one_of(self, items: tuple[str, ...]) -> str:
        """One of these."""
        return items[self.number(len(items))]

    def rest(self) -> bytes:
        """Whatever has not been used."""
        rest, self._at = self._data[self._at :], len(self._data)
        return rest

    def choose_layout(self) -> None:
        """Decide what stands between tokens from now on; nothing until then."""
        self._spaces = _LAYOUTS[self.number(len(_LAYOUTS))]

    def space(self) -> str:
        """White space between tokens, often none."""
        return self.one_of(self._spaces)

    def quoted(self, text: str) -> str:
        """`text` as a JSON string, with or without escapes."""
        return json.dumps(text, ensure_ascii=bool(self.number(2)))

    def json(self, depth: int = 0) -> str:
        """JSON text of any type, laid out in any way, without repeated keys."""
        kind = self.number(8 if depth < _DEPTH_MAX else 6)
        if kind < 3:
            return self.quoted(self.one_of(_TEXTS) + self.one_of(_TEXTS))
        if kind < 5:
            return self.one_of(_NUMBERS)
        if kind == 5:
            return self.one_of(("null", "true", "false"))
        if kind == 6:
            return self.array([self.json(depth + 1) for _ in range(self.number(4))])
        return self.any_object(depth + 1)

    def any_object(self, depth: int = 0) -> str:
        """A JSON object with a few unique keys."""
        keys = dict.fromkeys(self.one_of(_KEYS) for _ in range(self.number(5)))
        return self.object({key: self.json(depth) for key in keys})

    def array(self, items: list[str]) -> str:
        """These texts as an array."""
        return "[" + ",".join(self.spaced(item) for item in items) + (self.space() if not items else "") + "]"

    def object(self, fields: dict[str, str]) -> str:
        """These texts as an object, in this order."""
        parts = [f"{self.spaced(self.quoted(key))}:{self.spaced(value)}" for key, value in fields.items()]
        return "{" + ",".join(parts) + (self.space() if not fields else "") + "}"

    def spaced(self, text: str) -> str:
        """`text` with white space around it."""
        return self.space() + text + self.space()

    def cut(self, data: bytes) -> list[bytes]:
        """`data` in pieces."""
        pieces = []
        while data:
            length = self.number(64) + 1
            pieces.append(data[:length])
            data = data[length:]
        return pieces


def strictly(text: bytes | Raw) -> Any:
    """The value of JSON text by another parser, as strict as RFC 8259: ValueError for anything else."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    return json.loads(bytes(text).decode("utf-8"), parse_constant=refuse, parse_int=_Digits, parse_float=_Digits)


class _Digits(str):
    """A number as it was written: comparing values would hide a lost digit."""
