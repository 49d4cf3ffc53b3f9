"""HTTP requests as an ASGI server would hand them over, without a server."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import Message


def http_request(
    headers: Mapping[str, str] | None = None,
    *,
    pieces: Iterable[bytes] = (),
    is_whole: bool = True,
    **scope: Any,
) -> HttpRequest:
    """A POST with these headers and this body; a client that goes away after it unless it `is_whole`."""
    messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b""} if is_whole else {"type": "http.disconnect"})

    async def receive() -> Message:
        return messages.pop(0)

    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    defaults = {"type": "http", "method": "POST", "path": "/", "scheme": "http", "client": ("10.0.0.9", 1)}
    return HttpRequest({**defaults, "headers": raw, **scope}, receive)
