"""The engine for every server that speaks POST /v1/messages: Claude, vLLM, SGLang, llama.cpp, Ollama.

`params` go out as the bytes they are and the answer comes back as the bytes it is; that it is a Message is checked
by whoever records it (`wire.message.as_batch`). What the answers mean is in `replies`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import msgspec

from overnight.core.retry import Answered, Outcome, Refused
from overnight.core.tokens import Tokens
from overnight.engines import listing
from overnight.engines.address import Address, address
from overnight.engines.engine import Call, Capabilities, Load, Model, Unlimited
from overnight.engines.head import is_header_value
from overnight.engines.interactive import api_error
from overnight.engines.load import Metrics, is_there
from overnight.engines.pace import Pace
from overnight.engines.plain import PlainTransport
from overnight.engines.pooled import PooledTransport
from overnight.engines.replies import outcome_of, outcome_of_error
from overnight.engines.transport import Reply, Transport, TransportError
from overnight.errors import EngineFailed, UsageError
from overnight.ports.clock import Clock, SystemClock
from overnight.wire import problem

Auth = Literal["auto", "x-api-key", "bearer"]

IN_FLIGHT_MAX = 1024  # What vLLM runs at once on a large GPU; the runner finds the best number below it.
_MODELS_TIMEOUT_S = 10.0
_COUNT_TIMEOUT_S = 60.0
_EVENT_BYTES_MAX = 1024 * 1024  # Held back at most; a longer event is passed on in pieces.


class _TokenCount(msgspec.Struct):
    input_tokens: int


class Messages(Unlimited):
    """An `Engine` on the other end of HTTP."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        auth: Auth = "auto",
        in_flight_max: int = IN_FLIGHT_MAX,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        """A `/v1` at the end of `base_url` is dropped, as OpenAI's clients want it and this API does not.

        `auth` auto sends `x-api-key` to anthropic.com, which takes a bearer for something else, and both headers to
        others, because some look at one and some at the other. A given `transport` must send the key by itself;
        else it is `PlainTransport` for http, `PooledTransport` for https.
        Raises UsageError for an address or a key that cannot work.
        """
        server = address(base_url.rstrip("/").removesuffix("/v1"))
        check_key(api_key, server)
        self._name = f"messages {server.url}"
        self._in_flight_max = in_flight_max
        self._secret = api_key
        self._clock = clock or SystemClock()
        self._transport = transport or transport_to(server, auth_headers(server, api_key, auth))
        self._metrics = Metrics(self._transport)
        is_claude = _is_claude(server)
        self._pace = Pace(is_expected=is_claude)
        self.capabilities = Capabilities(charges_cache_writes=is_claude, tells_load=not is_claude)

    @property
    def name(self) -> str:
        return self._name

    @property
    def in_flight_max(self) -> int:
        return self._in_flight_max

    def __repr__(self) -> str:
        return f"<{self._name}>"

    async def models(self) -> Sequence[Model]:
        try:
            reply = await self._transport.get("/v1/models?limit=1000", headers=_VERSION, timeout_s=_MODELS_TIMEOUT_S)
        except TransportError:
            return []
        return [listing.model(listed) for listed in listing.read(reply.body)] if reply.status == 200 else []

    async def load(self) -> Load | None:
        return await self._metrics.load()

    async def is_there(self) -> bool:
        return await is_there(self._transport, models_path="/v1/models")

    def wait_ms(self, tokens: Tokens) -> int:
        return self._pace.wait_ms(tokens)

    def spend(self, tokens: Tokens) -> None:
        self._pace.spend(tokens)

    async def answer(self, call: Call) -> Outcome:
        if (refused := _refused_headers(call)) is not None:
            return refused
        since = self._pace.mark()
        try:
            reply = await self._transport.post(
                "/v1/messages", call.params, headers=_headers(call), timeout_s=call.timeout_s
            )
        except TransportError as error:
            return outcome_of_error(error)
        self._pace.heard(reply.headers, since=since)
        return outcome_of(reply, clock=self._clock, secret=self._secret)

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """See `engine.Engine`. Pieces end where events end, so that what follows a failure is an event of its own."""
        if (refused := _refused_headers(call)) is not None:
            raise api_error(refused, name=self._name)
        headers, since = _headers(call), self._pace.mark()
        parts = self._transport.stream("/v1/messages", call.params, headers=headers, timeout_s=call.timeout_s)
        async with aclosing(parts):
            try:
                head = await anext(parts)
            except TransportError as error:
                raise api_error(outcome_of_error(error), name=self._name) from error
            assert isinstance(head, Reply)
            self._pace.heard(head.headers, since=since)
            self._check_stream(head)
            tail = b""
            try:
                async for part in parts:
                    assert isinstance(part, bytes)
                    whole, tail = _whole_events(tail + part)
                    if len(tail) > _EVENT_BYTES_MAX:
                        whole, tail = whole + tail, b""
                    if whole:
                        yield whole
            except TransportError as error:
                yield self._error_event(error)
                return
            if tail:
                yield tail

    async def count_tokens(self, call: Call) -> int:
        """See `engine.Engine`. Its headers are not heard: counting has limits of its own."""
        if (refused := _refused_headers(call)) is not None:
            raise api_error(refused, name=self._name)
        try:
            reply = await self._transport.post(
                "/v1/messages/count_tokens", call.params, headers=_headers(call), timeout_s=_COUNT_TIMEOUT_S
            )
        except TransportError as error:
            raise api_error(outcome_of_error(error), name=self._name) from error
        outcome = outcome_of(reply, clock=self._clock, secret=self._secret)
        if not isinstance(outcome, Answered):
            raise api_error(outcome, name=self._name)
        try:
            return msgspec.json.decode(reply.body, type=_TokenCount).input_tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed(f"The engine {self._name} gave no count of tokens.") from error

    async def start(self) -> None:
        """Connects to nothing: a server that is not there yet is waited for, as one that is there no more."""

    async def close(self) -> None:
        await self._transport.close()

    def _check_stream(self, head: Reply) -> None:
        """Raise the ApiError that `head` amounts to, unless it begins a stream of events."""
        outcome = outcome_of(head, clock=self._clock, secret=self._secret)
        if not isinstance(outcome, Answered):
            raise api_error(outcome, name=self._name)
        if not head.headers.get("content-type", "").startswith("text/event-stream"):
            raise EngineFailed(f"The engine {self._name} does not stream.")

    def _error_event(self, error: TransportError) -> bytes:
        failed = api_error(outcome_of_error(error), name=self._name)
        return b"event: error\ndata: %b\n\n" % problem.encode(failed.type, str(failed), request_id=None)


_VERSION = {"anthropic-version": "2023-06-01"}


def _headers(call: Call) -> Mapping[str, str]:
    headers = _headers_of(call.api_version, call.betas)
    return {**headers, "traceparent": call.traceparent} if call.traceparent else headers


@lru_cache(maxsize=256)  # All requests of a batch send the same.
def _headers_of(api_version: str, betas: str) -> Mapping[str, str]:
    headers = {"content-type": "application/json", "anthropic-version": api_version}
    if betas:
        headers["anthropic-beta"] = betas
    return MappingProxyType(headers)


def _refused_headers(call: Call) -> Refused | None:
    """The refusal of a call whose version or betas cannot be sent: callers choose both."""
    return _refused_values(call.api_version, call.betas)


@lru_cache(maxsize=256)
def _refused_values(api_version: str, betas: str) -> Refused | None:
    for name, value in (("anthropic-version", api_version), ("anthropic-beta", betas)):
        if not is_header_value(value):
            text = f"{name}: holds characters that cannot stand in a header"
            return Refused(status=400, type="invalid_request_error", message=text)
    return None


def _is_claude(server: Address) -> bool:
    return server.host == "anthropic.com" or server.host.endswith(".anthropic.com")


def auth_headers(server: Address, api_key: str | None, auth: Auth) -> dict[str, str]:
    """How `server` learns the key: see `Messages`."""
    if api_key is None:
        return {}
    headers = {}
    if auth != "bearer":
        headers["x-api-key"] = api_key
    if auth == "bearer" or (auth == "auto" and not _is_claude(server)):
        headers["authorization"] = f"Bearer {api_key}"
    return headers


def check_key(api_key: str | None, server: Address) -> None:
    """Raise UsageError, which does not repeat it, for a key that cannot stand in a header."""
    if api_key is not None and (not api_key.isascii() or not api_key.isprintable() or " " in api_key or not api_key):
        raise UsageError(f"The key for {server.url} is empty, or holds spaces, line ends or other characters.")


def transport_to(server: Address, headers: Mapping[str, str]) -> Transport:
    """The transport that fits the scheme of `server`; `headers` go with every request."""
    chosen = PlainTransport if server.scheme == "http" else PooledTransport
    return chosen(server.url, headers=headers)


def _whole_events(text: bytes) -> tuple[bytes, bytes]:
    """`text` up to the end of its last event, and the rest."""
    end = max(text.rfind(b"\n\n") + 2, text.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in text else 0)
    return (text[:end], text[end:]) if end > 1 else (b"", text)
