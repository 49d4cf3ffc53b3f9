"""The Message Batches endpoints of an upstream, Anthropic's or any that speaks the same: bytes out, values in.

Nothing is tried again here: what an outcome means is decided where it can be written down first.
`Busy` did nothing, and is for later; `Broken` may have done it; `Refused` did nothing and says why.
https://platform.claude.com/docs/en/api/creating-message-batches
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from overnight import limits
from overnight.core import handoff as handoffs
from overnight.core.handoff import Shown, Verdict
from overnight.core.retry import Answered, Broken, Busy, Refused
from overnight.engines.coding import Gunzip, is_gzip
from overnight.engines.head import is_header_value
from overnight.engines.pooled import PooledTransport
from overnight.engines.replies import outcome_of, outcome_of_error, retry_after_ms
from overnight.engines.transport import Reply, Transport, TransportError
from overnight.ports.clock import Clock

_PATH = "/v1/messages/batches"
_VERSION = {"anthropic-version": "2023-06-01"}
_TIMEOUT_S = 60.0  # One look; a list of 1,000 batches included.
_PIECE_TIMEOUT_S = 120.0  # Between two pieces of results.
_is_id = re.compile(r"[A-Za-z0-9_-]{1,128}").fullmatch  # It becomes a part of a path.

T = TypeVar("T")


class Stopped(Exception):
    """Results are not there, or broke off; what was read before is good."""

    def __init__(self, outcome: Refused | Busy | Broken) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class Look(NamedTuple):
    """A batch, and how long the upstream wants not to be asked again (ms)."""

    shown: Shown
    retry_after_ms: int | None


class Page(NamedTuple):
    """Some batches, newest first."""

    shown: list[Shown]
    after_id: str | None  # Where the next page begins; None: there is none.
    clock_ms: int | None  # The upstream's time of day; None: it does not say.
    has_keys: bool  # It is a server of ours, which honours Idempotency-Key.


class Row(NamedTuple):
    """One line of results."""

    custom_id: str
    verdict: Verdict


class Wire(Transport, Protocol):
    """A transport that can also read a long answer to a GET as it arrives."""

    def download(
        self, path: str, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        """As `stream`, without a body."""
        ...


class PooledWire(PooledTransport):
    """The real one."""

    async def download(
        self, path: str, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        exchange = self._exchange("GET", path, headers, None)
        with self._translated(exchange):
            async with asyncio.timeout(timeout_s):
                response = await self._head(exchange, None)
        try:
            head = Reply(
                status=response.status, headers={k.lower(): v for k, v in response.headers.items()}, body=b""
            )
            yield head
            gunzip = Gunzip() if is_gzip(head.headers) else None
            while piece := await self._next_piece(response, timeout_s, exchange):
                for part in (piece,) if gunzip is None else gunzip.feed(piece):
                    yield part
            if gunzip is not None:
                gunzip.finish()
        finally:
            response.release()


class _Batch(msgspec.Struct):
    id: str
    processing_status: str
    request_counts: dict[str, int]
    created_at: datetime


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


class Batches:
    """The batches of one account. Belongs to one event loop."""

    def __init__(self, wire: Wire, *, clock: Clock, secret: str | None) -> None:
        """`wire` sends the key by itself; `secret` is blotted out of what the upstream says (I12)."""
        self._wire, self._clock, self._secret = wire, clock, secret

    async def create(self, body: bytes, *, key: str, api_version: str, betas: str) -> Shown | Refused | Busy | Broken:
        """POST a batch. `key` makes a second try harmless where the upstream honours it."""
        headers = {"content-type": "application/json", "idempotency-key": key, "anthropic-version": api_version}
        if betas:
            headers["anthropic-beta"] = betas
        for name, value in headers.items():
            if not is_header_value(value):
                text = f"{name}: holds characters that cannot stand in a header"
                return Refused(status=400, type="invalid_request_error", message=text)
        try:
            reply = await self._wire.post(_PATH, body, headers=headers, timeout_s=limits.ENGINE_TIMEOUT_S)
        except TransportError as error:
            return outcome_of_error(error)
        found = self._read(reply, _Batch)
        if isinstance(found, Busy) and reply.status >= 500:
            return Broken(reason=found.reason)  # Whoever sits before the upstream may have passed it on.
        if isinstance(found, Refused) and _is_the_operators(found):
            return Busy(reason=found.message)
        return _shown(found) if isinstance(found, _Batch) else found

    async def retrieve(self, batch_id: str) -> Look | Refused | Busy | Broken:
        """One batch as it is now. Refused with status 404 if there is none."""
        return await self._look("GET", f"{_PATH}/{batch_id}")

    async def cancel(self, batch_id: str) -> Look | Refused | Busy | Broken:
        """Ask to cancel a batch; it ends some time later."""
        return await self._look("POST", f"{_PATH}/{batch_id}/cancel")

    async def page(self, after_id: str | None) -> Page | Refused | Busy | Broken:
        """Up to 1,000 batches, newest first, behind that one."""
        query = f"?limit={limits.LIST_LIMIT_MAX}" + (f"&after_id={after_id}" if after_id else "")
        reply = await self._reply("GET", f"{_PATH}{query}")
        if not isinstance(reply, Reply):
            return reply
        found = self._read(reply, _Page)
        if not isinstance(found, _Page):
            return found
        shown = [one for one in map(_shown, found.data) if isinstance(one, Shown)]
        after = shown[-1].id if found.has_more and shown else None
        return Page(shown, after, _clock_ms(reply), "overnight-version" in reply.headers)

    async def results(self, batch_id: str) -> AsyncGenerator[Row, None]:
        """The rows of an ended batch in any order, as they arrive; a line that is no row is none. Raises Stopped."""
        parts = self._wire.download(f"{_PATH}/{batch_id}/results", headers=_VERSION, timeout_s=_PIECE_TIMEOUT_S)
        async with aclosing(parts):
            try:
                head = await anext(parts)
                assert isinstance(head, Reply)
                if head.status != 200:
                    raise Stopped(await self._failure(head, parts))
                async with aclosing(_lines(parts)) as lines:
                    async for line in lines:
                        if (row := _row(line)) is not None:
                            yield row
            except TransportError as error:
                raise Stopped(outcome_of_error(error)) from error

    async def close(self) -> None:
        """Give back the connections."""
        await self._wire.close()

    async def _failure(self, head: Reply, parts: AsyncIterator[Reply | bytes]) -> Refused | Busy | Broken:
        body = b""
        async for part in parts:
            if isinstance(part, bytes) and len(body) < limits.MIB:
                body += part
        reply = Reply(status=head.status, headers=head.headers, body=body)
        outcome = outcome_of(reply, clock=self._clock, secret=self._secret)
        assert not isinstance(outcome, Answered), "the status is not 200"
        return outcome

    async def _look(self, method: str, path: str) -> Look | Refused | Busy | Broken:
        reply = await self._reply(method, path)
        if not isinstance(reply, Reply):
            return reply
        found = self._read(reply, _Batch)
        if not isinstance(found, _Batch):
            return found
        shown = _shown(found)
        return shown if isinstance(shown, Broken) else Look(shown, retry_after_ms(reply, clock=self._clock))

    async def _reply(self, method: str, path: str) -> Reply | Busy | Broken:
        try:
            if method == "GET":
                return await self._wire.get(path, headers=_VERSION, timeout_s=_TIMEOUT_S)
            return await self._wire.post(path, b"", headers=_VERSION, timeout_s=_TIMEOUT_S)
        except TransportError as error:
            return outcome_of_error(error)

    def _read(self, reply: Reply, kind: type[T]) -> T | Refused | Busy | Broken:
        outcome = outcome_of(reply, clock=self._clock, secret=self._secret)
        if not isinstance(outcome, Answered):
            return outcome
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Broken(reason=f"it answered 200 with something else: {error}")


def _is_the_operators(refused: Refused) -> bool:
    """Whether no batch at all would be taken: there is no such endpoint, or our account may not use it."""
    return refused.status in (404, 405) or handoffs.is_of_the_account(refused.type, refused.message)


def _shown(batch: _Batch) -> Shown | Broken:
    if _is_id(batch.id) is None:
        return Broken(reason=f"it names a batch {batch.id[:100]!r}, which cannot stand in a path")
    return Shown(
        id=batch.id,
        requests=sum(batch.request_counts.values()),
        created_at_ms=int(batch.created_at.timestamp() * 1000),
        has_ended=batch.processing_status == "ended",
    )


def _clock_ms(reply: Reply) -> int | None:
    try:
        return int(parsedate_to_datetime(reply.headers["date"]).timestamp() * 1000)
    except (KeyError, ValueError, OverflowError):
        return None


async def _lines(parts: AsyncIterator[Reply | bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a body. Raises Stopped at one that is longer than any answer."""
    begun, size = list[bytes](), 0
    async for part in parts:
        assert isinstance(part, bytes)
        end, *others = part.split(b"\n")
        begun.append(end)
        size += len(end)
        if size > limits.ENGINE_REPLY_BYTES_MAX:
            raise Stopped(Broken(reason=f"a line of results is longer than {limits.ENGINE_REPLY_BYTES_MAX} bytes"))
        if others:
            yield b"".join(begun)
            for line in others[:-1]:
                yield line
            begun, size = [others[-1]], len(others[-1])
    if size:
        yield b"".join(begun)


def _row(line: bytes) -> Row | None:
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match found.result.type:
        case "succeeded":
            return Row(found.custom_id, Answered(bytes(found.result.message)))
        case "errored":
            return Row(found.custom_id, handoffs.verdict_of_error(bytes(found.result.error)))
        case other:
            return Row(found.custom_id, handoffs.Unasked(f"{other[:50]} at the upstream"))
