"""What an HTTP answer of an engine means: one table, shared by the engines that speak HTTP.

400, 413, 422, other 4xx    Refused  The request is at fault, and the error says how.
429, 503, 529               Busy     No room now; `retry-after-ms`, then `retry-after`, says when.
401, 402, 403, 407          Busy     Our key or account is at fault, not the request: 100,000 of them wait for the
                                     operator instead of becoming 100,000 errored rows.
404, 405 without an error   Busy     The address is wrong, or a proxy has lost its server. (With an API error
in the body                          inside it is an unknown model, and Refused.)
3xx                         Busy     The address is wrong. Following could carry the key elsewhere.
408, 409, 5xx, odd 1xx 2xx  Broken   Perhaps the request's own doing, so it counts; 408 and 504 are timeouts.
no connection               Busy     Nobody has worked on it.
lost, timed out, not HTTP   Broken
"""

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from overnight import limits
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.transport import ConnectFailed, Reply, TimedOut, TransportError
from overnight.ports.clock import Clock
from overnight.wire import problem

_OPERATORS = frozenset({401, 402, 403, 407})
_NO_ROOM = frozenset({429, 503, 529})


class _Envelope(msgspec.Struct):
    error: msgspec.Raw


def outcome_of(reply: Reply, *, clock: Clock, secret: str | None) -> Outcome:
    """What `reply` means. `secret` is blotted out of everything that the engine said."""
    status = reply.status
    if status == 200:
        return Answered(reply.body)
    found = problem.read(reply.body, status=status)
    said = blotted(found.error.message, secret)
    if (reason := _not_the_requests_fault(reply, said)) is not None:
        is_full = status in _NO_ROOM
        wait_ms = retry_after_ms(reply, clock=clock) if is_full else None
        return Busy(reason=reason, status=status if is_full else 529, retry_after_ms=wait_ms)
    if not 400 <= status < 500 or status in (408, 409):
        is_timeout = status in (408, 504)
        return Broken(reason=f"HTTP {status}: {said}", type="timeout_error" if is_timeout else "api_error")
    request_id = found.request_id or reply.headers.get("request-id") or reply.headers.get("x-request-id")
    return Refused(status=status, type=found.error.type, message=said, request_id=request_id)


def _not_the_requests_fault(reply: Reply, said: str) -> str | None:
    """Why no request at all would have been answered; None if this one may be at fault."""
    status = reply.status
    if status in _NO_ROOM:
        return f"HTTP {status}: {said}"
    if status in _OPERATORS:
        return f"it refuses our key or account (HTTP {status}: {said})"
    if 300 <= status < 400 or (status in (404, 405) and not _is_api_error(reply.body)):
        return f"there is no such API at this address (HTTP {status}): check the engine's URL"
    return None


def outcome_of_error(error: TransportError) -> Busy | Broken:
    """What it means that there is no reply."""
    match error:
        case ConnectFailed():
            return Busy(reason=str(error), is_away=True)
        case TimedOut():
            return Broken(reason=str(error), type="timeout_error")
        case _:
            return Broken(reason=str(error), is_lost=True)


def retry_after_ms(reply: Reply, *, clock: Clock) -> int | None:
    """How long the engine asks us to stay away, at most `limits.RETRY_AFTER_MS_MAX`; None if it does not say.

    As the official SDKs read it: `retry-after-ms`, else `retry-after` in seconds, fractions
    included, or as an HTTP date.
    """
    asked = _number(reply.headers.get("retry-after-ms", ""))
    if asked is None:
        text = reply.headers.get("retry-after", "")
        seconds = _number(text)
        asked = _until_ms(text, clock=clock) if seconds is None else seconds * 1000
    return None if asked is None else int(min(max(asked, 0.0), limits.RETRY_AFTER_MS_MAX))


def blotted(text: str, secret: str | None) -> str:
    """`text` without `secret`: some servers repeat the key that they refuse (I12)."""
    return text.replace(secret, "[key]") if secret else text


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def _until_ms(text: str, *, clock: Clock) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # The latter for a year or an offset of many digits.
        return None
    if date.tzinfo is None:  # "-0000" says: UTC, of an unknown place.
        date = date.replace(tzinfo=UTC)
    return date.timestamp() * 1000 - clock.now_ms()


def _is_api_error(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
