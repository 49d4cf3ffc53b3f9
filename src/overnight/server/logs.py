"""The log: one line an event, as text or as JSON, on stderr.

No value can end a line or move a cursor: whatever is not printable is escaped. Exceptions are told by their types and
places only, for their words may repeat what they failed on, and prompts have no place in a log.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final, Literal, TypeAlias

from overnight.ports import logs
from overnight.ports.logs import Field

Format: TypeAlias = Literal["text", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]

_LINE_CHARACTERS_MAX: Final = 2_000  # Of one value: log collectors split or drop longer lines.
_FRAMES_MAX: Final = 30  # Of one exception, the innermost ones.
_CAUSES_MAX: Final = 10  # Exceptions told of one.
_PLAIN = re.compile(r"[0-9A-Za-z_.:/@+%,{}\[\]*-]+")  # Needs no quotes in a text line.


def set_up(log_format: Format, level: Level, *, stream: IO[str] | None = None) -> None:
    """Let all logging of this process go to `stream`, by default stderr, in place of what was set up before.

    At `debug` only our own modules say more; libraries would repeat what they send and receive.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    wanted = getattr(logging, level.upper())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(logging.INFO, wanted))
    logging.getLogger("overnight").setLevel(wanted)
    for name in ("uvicorn", "opentelemetry"):
        logging.getLogger(name).setLevel(max(logging.WARNING, wanted))
    logging.raiseExceptions = False  # A line that cannot be written is lost; its words go nowhere else.


class TextLines(logging.Formatter):
    """`2026-05-28T20:26:40.123Z INFO overnight.http: GET /health status=200 …`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = "".join(f" {name}={_text(value)}" for name, value in _fields(record).items())
        return f"{_time(record)} {record.levelname} {record.name}: {printable(_message(record))}{fields}"


class JsonLines(logging.Formatter):
    """One JSON object a line, in ASCII: also U+2028 and the like end no line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        always = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(_message(record)),
        }
        fields = {name: _cut(value) if isinstance(value, str) else value for name, value in _fields(record).items()}
        return json.dumps({**always, **fields, **always}, default=str)


def printable(text: str) -> str:
    """The text with everything escaped that is not to be seen: ends of lines, control and direction characters."""
    if text.isprintable():
        return _cut(text)  # Almost always.
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "backslashreplace").decode() for sign in text
    )
    return _cut(shown)


def _message(record: logging.LogRecord) -> str:
    """asyncio shows objects from the second line on, and with them what they hold."""
    message = record.getMessage()
    return message.partition("\n")[0] if record.name == "asyncio" else message.strip()


def _fields(record: logging.LogRecord) -> Mapping[str, Field]:
    own: Mapping[str, Field] = getattr(record, "fields", {})
    error = record.exc_info[1] if record.exc_info else None
    where: Mapping[str, Field] = {"exception": f"Traceback: {'; '.join(_told(error))}"} if error is not None else {}
    return {name: value for name, value in {**logs.ids(), **own, **where}.items() if value is not None}


def _told(error: BaseException) -> Iterator[str]:
    """The exception, then what led to it, each with its places, outermost first."""
    left = [error]
    for _ in range(_CAUSES_MAX):
        if not left:
            return
        found = left.pop(0)
        yield f"{type(found).__qualname__} {' > '.join(_places(found.__traceback__)) or '(nowhere)'}"
        before = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
        inner = found.exceptions if isinstance(found, BaseExceptionGroup) else ()
        left += [*inner, *([before] if before is not None else [])]


def _places(trace: TracebackType | None) -> list[str]:
    found = []
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return found[-_FRAMES_MAX:]


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def _text(value: Field) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    return value if _PLAIN.fullmatch(value) and len(value) <= _LINE_CHARACTERS_MAX else json.dumps(_cut(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LINE_CHARACTERS_MAX else text[: _LINE_CHARACTERS_MAX - 3] + "..."
