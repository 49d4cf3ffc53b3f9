"""The engine for every server that speaks POST /v1/chat/completions: vLLM, SGLang, TGI, llama.cpp, OpenAI, Groq, …

A Messages body is translated on the way out (`openaibody`) and the answer on the way back (`openaireply`). Where a
server speaks POST /v1/messages itself, `engines.messages` loses nothing in between.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec.structs import replace

from overnight.core.retry import Broken, Outcome, Refused
from overnight.core.tokens import Tokens
from overnight.engines import completion, conversation, listing, openaibody, openaidialect, openaireply, streaming
from overnight.engines.address import address
from overnight.engines.chat import Plan
from overnight.engines.completion import Chunk
from overnight.engines.engine import Call, Capabilities, Load, Model, Unlimited
from overnight.engines.interactive import api_error
from overnight.engines.listing import Listed
from overnight.engines.load import LOOK_TIMEOUT_S, Metrics, is_there
from overnight.engines.messages import IN_FLIGHT_MAX, auth_headers, check_key, transport_to
from overnight.engines.openaidialect import Dialect, DialectName
from overnight.engines.openaistream import Lines, TooLong
from overnight.engines.pace import Pace
from overnight.engines.replies import outcome_of_error
from overnight.engines.streaming import Trouble
from overnight.engines.transport import Reply, Transport, TransportError
from overnight.errors import EngineFailed, InvalidRequest, NotFound
from overnight.ports.clock import Clock, SystemClock
from overnight.ports.entropy import Entropy, SystemEntropy

_COUNT_TIMEOUT_S: Final = 60.0
_HEADERS: Final[Mapping[str, str]] = {"content-type": "application/json"}
_NO_PRIORITY: Final = "riority scheduling is not enabled"  # vLLM before its V1 engine, for any priority but 0.


class _TokenCount(msgspec.Struct):
    count: int | None = None  # vLLM's word.
    input_tokens: int | None = None  # llama.cpp's.


class Chat(Unlimited):
    """An `Engine` on the other end of HTTP, in OpenAI's words."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
        dialect: DialectName = "auto",
        transport: Transport | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        """`base_url` is what OpenAI's clients call so: calls go to its /chat/completions. A bare host gets a /v1.

        `dialect` auto is found with the first call, from what the server calls itself. A given `transport` leads to
        the root, which is `base_url` without a /v1 at its end, and must send the key by itself.
        Raises UsageError for an address or a key that cannot work.
        """
        root = base_url.rstrip("/").removesuffix("/v1")
        server = address(root)
        check_key(api_key, server)
        self._prefix = "/v1" if root != base_url.rstrip("/") or not server.base_path else ""
        self._name = f"chat {server.url}"
        self._in_flight_max = in_flight_max
        self._dialect = openaidialect.given(dialect, host=server.host)
        self._looking = asyncio.Lock()
        self._looks = 0
        self.capabilities = _capabilities(self._dialect)
        self._transport = transport or transport_to(server, auth_headers(server, api_key, "bearer"))
        self._metrics = Metrics(self._transport)
        self._pace = Pace()
        self._entropy = entropy or SystemEntropy()
        self._reader = openaireply.Reader(clock=clock or SystemClock(), entropy=self._entropy, secret=api_key)

    @property
    def name(self) -> str:
        return self._name

    @property
    def in_flight_max(self) -> int:
        return self._in_flight_max

    def __repr__(self) -> str:
        return f"<{self._name}>"

    async def load(self) -> Load | None:
        return await self._metrics.load()

    async def is_there(self) -> bool:
        return await is_there(self._transport, models_path=f"{self._prefix}/models")

    def wait_ms(self, tokens: Tokens) -> int:
        return self._pace.wait_ms(tokens)

    def spend(self, tokens: Tokens) -> None:
        self._pace.spend(tokens)

    async def models(self) -> Sequence[Model]:
        reply = await self._listing()
        return [listing.model(listed) for listed in _listed(reply)]

    async def answer(self, call: Call) -> Outcome:
        dialect = await self._known()
        outcome = await self._ask(call, dialect)
        if dialect.has_priority and isinstance(outcome, Refused) and _NO_PRIORITY in outcome.message:
            self._dialect = replace(dialect, has_priority=False)
            outcome = await self._ask(call, self._dialect)
        return outcome

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """See `engine.Engine`. A tool call is sent when it is complete, as one `input_json_delta`."""
        plan = _plan(call, await self._known(), is_streamed=True)
        chunks = self._chunks(plan, call)
        events = streaming.events(chunks, plan, tier=call.service_tier, name=self._name, entropy=self._entropy)
        async with aclosing(events):
            async for event in events:
                yield event

    async def count_tokens(self, call: Call) -> int:
        """See `engine.Engine`. NotFound from servers that have no way to count a conversation."""
        dialect = await self._known()
        if not dialect.count_path:
            raise NotFound(f"The engine {self._name} cannot count tokens: vLLM and llama.cpp can.")
        plan = _plan(call, dialect, is_streamed=False)
        try:
            reply = await self._transport.post(
                dialect.count_path, plan.body.encode(), headers=_HEADERS, timeout_s=_COUNT_TIMEOUT_S
            )
        except TransportError as error:
            raise api_error(outcome_of_error(error), name=self._name) from error
        if reply.status != 200:
            raise api_error(self._reader.refused(reply), name=self._name)
        return self._count(reply)

    async def start(self) -> None:
        """Connects to nothing: a server that is not there yet is waited for, as one that is there no more."""

    async def close(self) -> None:
        await self._transport.close()

    # --- One call -----------------------------------------------------------------------------------------------

    async def _ask(self, call: Call, dialect: Dialect) -> Outcome:
        try:
            plan = _plan(call, dialect, is_streamed=False)
        except InvalidRequest as error:
            return Refused(status=error.status, type=error.type, message=str(error))
        since = self._pace.mark()
        try:
            path, body = f"{self._prefix}/chat/completions", plan.body.encode()
            reply = await self._transport.post(path, body, headers=_headers(call), timeout_s=call.timeout_s)
        except TransportError as error:
            return outcome_of_error(error)
        self._pace.heard(reply.headers, since=since)
        return self._reader.whole(reply, plan, tier=call.service_tier)

    async def _chunks(self, plan: Plan, call: Call) -> AsyncGenerator[Chunk | Trouble, None]:
        """The chunks of the answer as they come, then the trouble if there was any."""
        path = f"{self._prefix}/chat/completions"
        parts = self._transport.stream(path, plan.body.encode(), headers=_headers(call), timeout_s=call.timeout_s)
        lines, since = Lines(), self._pace.mark()
        async with aclosing(parts):
            try:
                head = await anext(parts)
                assert isinstance(head, Reply)
                self._pace.heard(head.headers, since=since)
                if (trouble := self._trouble_of(head)) is not None:
                    yield trouble
                    return
                async for part in parts:
                    assert isinstance(part, bytes)
                    for data in lines.feed(part):
                        yield self._chunk(data)
                    if lines.is_done:
                        return
            except TransportError as error:
                yield outcome_of_error(error)
            except TooLong as error:
                yield Broken(reason=str(error))

    def _chunk(self, data: bytes) -> Chunk | Trouble:
        chunk = openaireply.read_chunk(data)
        if isinstance(chunk, Broken):
            return chunk
        return self._reader.blotted(completion.outcome_of(chunk.error)) if chunk.error else chunk

    def _trouble_of(self, head: Reply) -> Trouble | None:
        if head.status != 200:
            return self._reader.refused(head)
        if not head.headers.get("content-type", "").startswith("text/event-stream"):
            return Broken(reason="it does not stream")
        return None

    def _count(self, reply: Reply) -> int:
        try:
            said = msgspec.json.decode(reply.body, type=_TokenCount)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailed(f"The engine {self._name} gave no count of tokens.") from error
        count = said.input_tokens if said.count is None else said.count
        if count is None:
            raise EngineFailed(f"The engine {self._name} gave no count of tokens.")
        return count

    # --- Which server it is -------------------------------------------------------------------------------------

    async def _known(self) -> Dialect:
        """The dialect. Callers that come while it is looked for share one look.

        A server that does not answer properly now is spoken to as any other, and looked at again with the next call.
        """
        if self._dialect is None:
            looks = self._looks
            async with self._looking:
                if self._dialect is None and looks == self._looks:
                    await self._look()
        return self._dialect or openaidialect.COMMON

    async def _look(self) -> None:
        reply = await self._listing()
        self._looks += 1
        if reply is None or reply.status >= 500 or reply.status == 429:
            return
        owners = [openaidialect.of_owner(listed.owned_by) for listed in _listed(reply)]
        found = next((owner for owner in owners if owner), None)
        self._dialect = found or openaidialect.of_owner(await self._metrics.maker()) or openaidialect.COMMON

    async def _listing(self) -> Reply | None:
        try:
            return await self._transport.get(f"{self._prefix}/models", headers={}, timeout_s=LOOK_TIMEOUT_S)
        except TransportError:
            return None


def _headers(call: Call) -> Mapping[str, str]:
    return {**_HEADERS, "traceparent": call.traceparent} if call.traceparent else _HEADERS


def _plan(call: Call, dialect: Dialect, *, is_streamed: bool) -> Plan:
    asked = conversation.read_with_images(call.params, reader=openaibody.READER)
    return openaibody.plan(asked, dialect, tier=call.service_tier, is_streamed=is_streamed)


def _listed(reply: Reply | None) -> list[Listed]:
    return listing.read(reply.body) if reply is not None and reply.status == 200 else []


def _capabilities(dialect: Dialect | None) -> Capabilities:
    """What is certain before the server was asked; None is a dialect that is not known yet."""
    if dialect is None:
        return Capabilities(tells_load=True, counts_tokens=False)
    return Capabilities(
        tells_load=dialect.name in ("vllm", "sglang", "llamacpp"),
        has_priority=dialect.has_priority,
        counts_tokens=bool(dialect.count_path),
    )
