"""One line of the results file: exactly one per request, matched by `custom_id`, in any order.

Source: https://platform.claude.com/docs/en/api/messages/batches/results. Lines are joined from bytes: a message
is carried as the engine wrote it, and a `custom_id` needs no escaping because its pattern allows no quote.
"""

import re
from typing import Literal, TypeAlias, cast

import msgspec
from msgspec.structs import replace

from overnight.wire.message import Usage

Kind: TypeAlias = Literal["succeeded", "errored", "canceled", "expired"]


def succeeded(custom_id: str, message: bytes) -> bytes:
    """The line of an answer. `message` is one JSON object without raw newlines."""
    return b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}\n' % (
        custom_id.encode(),
        message,
    )


def errored(custom_id: str, problem: bytes) -> bytes:
    """The line of a refusal: `problem` is a whole error envelope (the nesting is the API's)."""
    return b'{"custom_id":"%b","result":{"type":"errored","error":%b}}\n' % (custom_id.encode(), problem)


def canceled(custom_id: str) -> bytes:
    """The line of a request that a cancel came before."""
    return b'{"custom_id":"%b","result":{"type":"canceled"}}\n' % custom_id.encode()


def expired(custom_id: str) -> bytes:
    """The line of a request that `expires_at` came before."""
    return b'{"custom_id":"%b","result":{"type":"expired"}}\n' % custom_id.encode()


def renamed(line: bytes, custom_id: str) -> bytes:
    """A line of ours, as the row of another request."""
    name_ends = line.index(b'"', len(_BEGIN))
    return _BEGIN + custom_id.encode() + line[name_ends:]


_BEGIN = b'{"custom_id":"'


class _Result(msgspec.Struct, gc=False):
    type: Kind


class Line(msgspec.Struct, gc=False):
    """What we read back of our own line: whose it is and of which kind."""

    custom_id: str
    result: _Result


class Error(msgspec.Struct, gc=False):
    """Why a request came to nothing."""

    type: str
    message: str = ""


class _Envelope(msgspec.Struct, gc=False):
    error: Error


class _Errored(msgspec.Struct, gc=False):
    error: _Envelope


class _Measured(msgspec.Struct, gc=False):
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Succeeded(msgspec.Struct, gc=False):
    message: _Measured


class _ErroredLine(msgspec.Struct, gc=False):
    result: _Errored


class _SucceededLine(msgspec.Struct, gc=False):
    result: _Succeeded


_decode_errored = msgspec.json.Decoder(_ErroredLine).decode
_decode_succeeded = msgspec.json.Decoder(_SucceededLine).decode
_decode_usage = msgspec.json.Decoder(Usage | None).decode
_UNKNOWN = Error("api_error", "(not readable)")


def read_error(line: bytes) -> Error:
    """The error of an errored line."""
    try:
        return _decode_errored(line).result.error.error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNKNOWN


def read_usage(line: bytes) -> Usage | None:
    """What the answer of a succeeded line took; None if it does not tell, or is nested deeper than can be read. Its
    tier is `standard` if another one than `batch` was told (`message.as_batch`)."""
    try:
        raw = _decode_succeeded(line).result.message.usage
        usage: Usage | None = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if usage is not None and bytes(raw).startswith(b'{"service_tier":'):
        return replace(usage, service_tier="standard")
    return usage


_read_head = re.compile(
    rb'\{"custom_id":"([a-zA-Z0-9_-]{1,64})","result":\{"type":"(succeeded|errored|canceled|expired)"[,}]'
).match


def parts(line: bytes) -> tuple[str, Kind, bytes]:
    """Whose line it is (without its newline), of which kind, and the JSON of its message or error envelope, empty if
    there is none. Raises ValueError if the line is not ours."""
    head = _read_head(line)
    if head is None:
        raise ValueError(f"not a result line: {line[:80]!r}")
    _, _, inner = (
        line[head.end() : -2].partition(b":") if line[head.end() - 1 : head.end()] == b"," else (b"", b"", b"")
    )
    return head[1].decode(), cast(Kind, head[2].decode()), inner


def read_lines(lines: bytes) -> list[Line]:
    """What lines of ours say, each ended by a newline. Raises ValueError if one is not ours.

    Reads no further than it must: an answer nested as deep as the stack allowed when it came is deeper than the
    stack allows where it is read again, and must not keep a server from starting.
    """
    return [_read_line(line) for line in lines.split(b"\n")[:-1]]


def _read_line(line: bytes) -> Line:
    head = _read_head(line)
    if head is None:
        raise ValueError(f"not a result line: {line[:80]!r}")
    return Line(head[1].decode(), _Result(cast(Kind, head[2].decode())))
