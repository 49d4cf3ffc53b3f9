"""POST /v1/messages and /v1/messages/count_tokens: straight to the engine, ahead of all batch work (I10).

Source: https://platform.claude.com/docs/en/api/messages/create and …/count_tokens.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple, TypeVar, assert_never

from msgspec.structs import replace
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from overnight import limits
from overnight.core.retry import Answered, Broken, Busy, Refused
from overnight.engines.engine import Call
from overnight.engines.interactive import api_error
from overnight.errors import ApiError, InvalidRequest, NotFound, PermissionDenied
from overnight.runner.charges import Asker
from overnight.runner.fleet import Way
from overnight.runner.pool import Pool
from overnight.server import answers, context, receive
from overnight.server.access import Caller
from overnight.server.context import Context
from overnight.wire import complaint, params, text
from overnight.wire.message import StreamedUsage, Usage, usage_of

T = TypeVar("T")
_NO_USAGE = Usage()


async def create(http_request: HttpRequest) -> Response:
    """POST /v1/messages, whole or streamed."""
    caller = context.caller_of(http_request)
    context.check_spending(http_request, caller.workspace)
    async with AsyncExitStack() as held:
        body = await _json_body(http_request, held)
        prompt = params.read_interactive(body, is_strict=context.of(http_request).settings.strict_params)
        way = _way(http_request, caller, prompt.model)
        pool, call = way.pool, _call(http_request, body, way)
        counter = _Counter(context.of(http_request), caller, prompt.model, way)
        if prompt.stream:
            return await _streamed(http_request, _pieces(pool, call, held.pop_all(), counter))
        tells = pool.engine.capabilities.tells_first_token
        with pool.interactive(shows_first_token=tells) as guest:
            told = replace(call, on_first_token=guest.on_first_token)
            outcome = await _unless_gone(http_request, pool.engine.answer(told))
    match outcome:
        case Answered(message=message):
            counter.note(usage_of(message), share_nano=guest.share_nano)
            return Response(message, media_type="application/json")
        case Refused() | Busy() | Broken():
            raise api_error(outcome, name=pool.engine.name)
        case _:
            assert_never(outcome)


async def count_tokens(http_request: HttpRequest) -> Response:
    """POST /v1/messages/count_tokens."""
    caller = context.caller_of(http_request)
    async with AsyncExitStack() as held:
        body = await _json_body(http_request, held)
        prompt = params.read_countable(body)
        way = _way(http_request, caller, prompt.model)
        with way.pool.interactive():
            count = await way.pool.engine.count_tokens(_call(http_request, body, way))
    return answers.json({"input_tokens": count})


async def _unless_gone(http_request: HttpRequest, answer: Coroutine[None, None, T]) -> T:
    """The answer, unless the client goes away first: then the engine is told to stop, and ClientDisconnect.
    An ApiError of `answer` is raised as it is."""

    async def watch() -> None:
        while (await http_request.receive())["type"] != "http.disconnect":
            pass
        answering.cancel()

    async def asked() -> T | ApiError:  # A group would wrap it.
        try:
            return await answer
        except ApiError as error:
            return error

    async with asyncio.TaskGroup() as group:
        answering = group.create_task(asked())
        watching = group.create_task(watch())
        answering.add_done_callback(lambda _: watching.cancel())
    if answering.cancelled():
        raise ClientDisconnect
    answered = answering.result()
    if isinstance(answered, ApiError):
        raise answered
    return answered


async def _json_body(http_request: HttpRequest, held: AsyncExitStack) -> bytes:
    """The body on one line. Its place among the uploads is given back when `held` is closed."""
    size_bytes = receive.announced_bytes(http_request, bytes_max=limits.MESSAGE_BODY_BYTES_MAX)
    await held.enter_async_context(context.of(http_request).uploads.place(size_bytes))
    body = bytes(await receive.body(http_request, bytes_max=limits.MESSAGE_BODY_BYTES_MAX))
    try:
        return text.on_one_line(body)
    except (ValueError, RecursionError) as error:  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors.
        raise InvalidRequest(complaint.of_syntax(error)) from error


def _way(http_request: HttpRequest, caller: Caller, model: str) -> Way:
    fleet = context.of(http_request).fleet
    if not fleet.rules_of(caller.workspace).allows_model(model):
        raise PermissionDenied(f"model: {model[:200]} is not allowed in this workspace")
    way = fleet.way_for(model, caller.workspace)
    if way is None:
        raise NotFound(f"model: {model[:200]}")
    return way


def _call(http_request: HttpRequest, body: bytes, way: Way) -> Call:
    return Call(
        params=way.named(body),
        model=way.model,
        api_version=context.api_version_of(http_request),
        betas=http_request.headers.get("anthropic-beta", ""),
        service_tier="standard",
        timeout_s=limits.ENGINE_TIMEOUT_S,
        traceparent=getattr(http_request.state, "traceparent", ""),
    )


async def _streamed(http_request: HttpRequest, pieces: AsyncGenerator[bytes, None]) -> Response:
    async def first_piece() -> bytes:
        return await anext(pieces, b"")

    try:
        first = await _unless_gone(http_request, first_piece())  # Errors before it still get their own status.
    except BaseException:
        await pieces.aclose()
        raise
    return StreamingResponse(_joined(first, pieces), media_type="text/event-stream")


async def _pieces(pool: Pool, call: Call, held: AsyncExitStack, counter: "_Counter") -> AsyncGenerator[bytes, None]:
    async with held, aclosing(pool.engine.stream(call)) as pieces:
        with pool.interactive(shows_first_token=True) as guest:
            seen = StreamedUsage()
            try:
                async for piece in pieces:
                    guest.on_first_token()
                    seen.read(piece)
                    yield piece
            finally:
                guest.leave()
                counter.note(seen.usage, share_nano=guest.share_nano)  # Also of an answer that was broken off.


class _Counter(NamedTuple):
    """Who pays for an answer, and to whom."""

    here: Context
    caller: Caller
    model: str  # As the caller names it.
    way: Way

    def note(self, usage: Usage | None, *, share_nano: int | None) -> None:
        """It took that much. `share_nano`: of the hours of the engine."""
        pool = self.way.pool
        if usage is None or usage == _NO_USAGE:
            return
        if pool.admission.purse is not None:
            pool.admission.purse.count(self.way.model, usage)
        asker = Asker(self.caller.workspace, self.caller.key_id, self.model)
        self.here.fleet.charges.note_person(asker, pool.engine.name, usage, share_nano=share_nano)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece
