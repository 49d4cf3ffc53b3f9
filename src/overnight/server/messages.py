"""POST /v1/messages and /v1/messages/count_tokens: straight to the engine, ahead of all batch work (I10).

Source: https://platform.claude.com/docs/en/api/messages/create and …/count_tokens.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import assert_never

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from overnight import limits
from overnight.core.retry import Answered, Broken, Busy, Refused
from overnight.engines.engine import Call
from overnight.engines.interactive import api_error
from overnight.errors import (
    InvalidRequest,
    NotFound,
)
from overnight.runner.pool import Pool
from overnight.server import answers, context, receive
from overnight.wire import complaint, params, text


async def create(http_request: HttpRequest) -> Response:
    """POST /v1/messages, whole or streamed."""
    context.workspace_of(http_request)
    body = await _json_body(http_request)
    prompt = params.read_interactive(body, is_strict=context.of(http_request).settings.strict_params)
    pool, call = _pool(http_request, prompt.model), _call(http_request, body, prompt.model)
    if prompt.stream:
        return await _streamed(pool, call)
    with pool.interactive():
        outcome = await pool.engine.answer(call)
    match outcome:
        case Answered(message=message):
            return Response(message, media_type="application/json")
        case Refused() | Busy() | Broken():
            raise api_error(outcome, name=pool.engine.name)
        case _:
            assert_never(outcome)


async def count_tokens(http_request: HttpRequest) -> Response:
    """POST /v1/messages/count_tokens."""
    context.workspace_of(http_request)
    body = await _json_body(http_request)
    prompt = params.read_countable(body)
    pool = _pool(http_request, prompt.model)
    with pool.interactive():
        count = await pool.engine.count_tokens(_call(http_request, body, prompt.model))
    return answers.json({"input_tokens": count})


async def _json_body(http_request: HttpRequest) -> bytes:
    here = context.of(http_request)
    size_bytes = receive.announced_bytes(http_request, bytes_max=limits.MESSAGE_BODY_BYTES_MAX)
    async with here.uploads.place(size_bytes):
        body = bytes(await receive.body(http_request, bytes_max=limits.MESSAGE_BODY_BYTES_MAX))
    try:
        return text.on_one_line(body)
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors.
        raise InvalidRequest(complaint.of_syntax(error)) from error


def _pool(http_request: HttpRequest, model: str) -> Pool:
    pool = context.of(http_request).fleet.pool_for(model)
    if pool is None:
        raise NotFound(f"model: {model[:200]}")
    return pool


def _call(http_request: HttpRequest, body: bytes, model: str) -> Call:
    return Call(
        params=body,
        model=model,
        api_version=context.api_version_of(http_request),
        betas=http_request.headers.get("anthropic-beta", ""),
        service_tier="standard",
        timeout_s=limits.ENGINE_TIMEOUT_S,
    )


async def _streamed(pool: Pool, call: Call) -> Response:
    pieces = _pieces(pool, call)
    try:
        first = await anext(pieces, b"")  # Errors before the first byte still get their own status.
    except BaseException:
        await pieces.aclose()
        raise
    return StreamingResponse(
        _joined(first, pieces), media_type="text/event-stream", headers={"cache-control": "no-cache"}
    )


async def _pieces(pool: Pool, call: Call) -> AsyncGenerator[bytes, None]:
    with pool.interactive():
        async for piece in pool.engine.stream(call):
            yield piece


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
