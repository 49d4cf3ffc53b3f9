"""Error bodies: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

The same envelope stands in HTTP error answers and, whole, inside errored result rows.
Source: https://platform.claude.com/docs/en/api/errors.
"""

import msgspec


class Details(msgspec.Struct, frozen=True):
    """What newer errors say more exactly than by their type."""

    error_code: str


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The inner error: a type that programs read and a message that people read."""

    type: str
    message: str
    details: Details | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The error envelope. `request_id` equals the `request-id` header, or is null in rows that never ran."""

    error: Detail
    request_id: str | None = None


_STATUS_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


_TYPES = frozenset({*_STATUS_TYPES.values(), "api_error"})


def type_of_status(status: int) -> str:
    """The API's error type for an HTTP status: unlisted 4xx are invalid requests, 5xx are api_error."""
    return _STATUS_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def encode(error_type: str, message: str, *, request_id: str | None, code: str = "") -> bytes:
    """The envelope as JSON bytes on one line. `code`: the `error_code` of its details, if it has any."""
    detail = Detail(error_type, message, Details(code) if code else None)
    return msgspec.json.encode(Problem(error=detail, request_id=request_id))


class _LooseDetail(msgspec.Struct):
    type: str = ""
    message: str = ""


class _LooseProblem(msgspec.Struct):
    error: _LooseDetail | str = msgspec.field(default_factory=_LooseDetail)
    message: str = ""
    request_id: str | None = None


def read(body: bytes, *, status: int) -> Problem:
    """What an upstream's error answer says, whatever dialect it is in; never raises.

    Understands the Anthropic and OpenAI envelopes, `{"message": …}` and plain text, cut to 500 characters. A type
    that is none of the API's becomes that of the status.
    """
    try:
        loose = msgspec.json.decode(body, type=_LooseProblem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body[:500].decode("utf-8", "replace").strip() or f"HTTP {status}"
        return Problem(error=Detail(type_of_status(status), text))
    inner = loose.error if isinstance(loose.error, _LooseDetail) else _LooseDetail(message=loose.error)
    known = inner.type if inner.type in _TYPES else type_of_status(status)
    text = inner.message or loose.message or f"HTTP {status}"
    return Problem(error=Detail(known, text[:2000]), request_id=loose.request_id)
