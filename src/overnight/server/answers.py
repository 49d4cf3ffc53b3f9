"""HTTP answers: JSON from structs, and every error as the API's envelope with its request id."""

import asyncio
import logging
from contextlib import suppress

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight import __version__, ids, limits
from overnight.errors import ApiError, DiskFull, MethodNotAllowed, NotFound, StoreError
from overnight.ports.entropy import Entropy
from overnight.wire import problem

log = logging.getLogger("overnight.server")
encode = msgspec.json.Encoder().encode

# Paths people remember wrongly, and the right ones (seen in programs and issues).
_MISREMEMBERED = {
    "/v1/batches": "/v1/messages/batches",
    "/v1/messages/batch": "/v1/messages/batches",
    "/v1/message_batches": "/v1/messages/batches",
    "/v1/batch": "/v1/messages/batches",
    "/v1/message": "/v1/messages",
    "/v1/chat/completions": "/v1/messages",
    "/v1/completions": "/v1/messages",
    "/v1/complete": "/v1/messages",
}


def json(value: object, *, headers: dict[str, str] | None = None) -> Response:
    """A 200 with a struct as its body. TypeScript's SDK parses it only with this content type."""
    return Response(encode(value), media_type="application/json", headers=headers)


class LastAnswer(Response):
    """An answer to a client that is still sending: what it sends is read and dropped for a while before we close.

    Closing at once would reset the connection, and many clients then lose the answer with it (RFC 9112 9.6): an SDK
    would report a broken connection, and try the same body again, where it should say that the body is too large.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.REFUSED_BODY_S_MAX):
                await _drop_body(receive, bytes_max=limits.REFUSED_BODY_BYTES_MAX)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drop_body(receive: Receive, *, bytes_max: int) -> None:
    more = True
    while more and bytes_max > 0:
        message = await receive()
        bytes_max -= len(message.get("body", b""))
        more = message.get("more_body", False)  # Also False when the client is gone.


async def api_error(http_request: HttpRequest, error: Exception) -> Response:
    """The answer to an ApiError."""
    assert isinstance(error, ApiError)
    body = problem.encode(error.type, str(error), request_id=http_request.state.request_id, code=error.code)
    headers = error.headers()
    if error.status in (408, 413):
        headers["connection"] = "close"  # The rest of the body is not wanted.
    kind = LastAnswer if error.status == 413 else Response
    return kind(body, status_code=error.status, media_type="application/json", headers=headers)


async def store_error(http_request: HttpRequest, error: Exception) -> Response:
    """The answer when the disk or the database failed: our fault, and nothing was acknowledged."""
    log.error("%s: %s", http_request.state.request_id, error)
    said = (
        "The server's disk is full; nothing was created." if isinstance(error, DiskFull) else "Internal server error"
    )
    body = problem.encode("api_error", said, request_id=http_request.state.request_id)
    return Response(body, status_code=500, media_type="application/json")


async def unexpected(http_request: HttpRequest, error: Exception) -> Response:
    """The answer to our own mistake. The server itself logs the traceback. It is sent outside of `RequestIds`."""
    request_id = http_request.state.request_id
    body = problem.encode("api_error", "Internal server error", request_id=request_id)
    headers = {"request-id": request_id, "overnight-version": __version__, "x-content-type-options": "nosniff"}
    return Response(body, status_code=500, media_type="application/json", headers=headers)


async def disconnected(http_request: HttpRequest, error: Exception) -> Response:
    """Nobody is there to read this."""
    log.info("%s: the client went away while it sent its body", http_request.state.request_id)
    return Response(status_code=499)


async def http_error(http_request: HttpRequest, error: Exception) -> Response:
    """Unknown paths and methods, with the right path if this one is a common mistake."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        answer = await api_error(
            http_request, MethodNotAllowed(f"{http_request.method} is not allowed here; try {allowed or 'GET'}")
        )
        if allowed:
            answer.headers["allow"] = allowed
        return answer
    if http_request.scope["path"] == "/" and "text/html" in http_request.headers.get("accept", ""):
        return RedirectResponse("console", status_code=303)  # Relative: there may be a proxy with a prefix.
    return await api_error(http_request, NotFound(_not_found(http_request.scope["path"])))


def _not_found(path: str) -> str:
    for wrong, right in _MISREMEMBERED.items():
        if path == wrong or path.startswith(f"{wrong}/"):
            rest = path[len(wrong) :][:200]
            return f"There is nothing at {path[:200]}. Did you mean {right}{rest}?"
    hint = " The API begins at /v1, the console at /console." if path == "/" else ""
    return f"There is nothing at {path[:200]}.{hint}"


HANDLERS = {
    ApiError: api_error,
    StoreError: store_error,
    ClientDisconnect: disconnected,
    HTTPException: http_error,
    Exception: unexpected,
}


class RequestIds:
    """Gives every request an id, in its scope and in the `request-id` header of its answer, whatever that is. No
    browser is to take an answer for something else than it says (`nosniff`): what is in it came from anywhere.

    `overnight-version` beside it tells a client that `Idempotency-Key` is honoured here.
    """

    def __init__(self, app: ASGIApp, *, entropy: Entropy) -> None:
        self._app, self._entropy = app, entropy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = ids.http_request_id(self._entropy.bytes(ids.ID_ENTROPY_BYTES))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = {"request-id": request_id, "overnight-version": __version__, **state.get("limit_headers", {})}
                if all(name != b"x-content-type-options" for name, _ in message["headers"]):
                    extra["x-content-type-options"] = "nosniff"
                if "workspace" in state:
                    extra["anthropic-workspace-id"] = state["workspace"]
                    extra["anthropic-organization-id"] = state["organization"]
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in extra.items()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_id)
