"""Request bodies: taken in pieces, bounded in size, in time, and in how much of all of them is in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from isal import igzip_lib, isal_zlib
from starlette.requests import Request as HttpRequest

from overnight import limits
from overnight.errors import BodyTimeout, InvalidRequest, TooLarge

_SMALL_BYTES = 64 * 1024  # Bodies up to this need no place: connections bound them.
_INFLATED_BYTES = 256 * 1024  # Of a gzip body at once.
_LENGTH_DIGITS_MAX = 18  # Python refuses to read numbers of thousands of digits.


class Uploads:
    """How many bytes of bodies may be in memory at once. Who does not fit waits, unread, in order of arrival."""

    def __init__(self, bytes_max: int = limits.UPLOADS_BYTES_MAX) -> None:
        self._free = bytes_max
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold room for a body of at most this size."""
        if size_bytes <= _SMALL_BYTES:
            yield
            return
        await self._take(size_bytes)
        try:
            yield
        finally:
            self._give_back(size_bytes)

    async def _take(self, size_bytes: int) -> None:
        if not self._waiting and size_bytes <= self._free:
            self._free -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(size_bytes)
            raise

    def _give_back(self, size_bytes: int) -> None:
        self._free += size_bytes
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._free):
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= wanted
                turn.set_result(None)


def announced_bytes(http_request: HttpRequest, *, bytes_max: int) -> int:
    """The most this body can need; TooLarge at once if `content-length` says it is over the limit."""
    text = http_request.headers.get("content-length", "")
    if not text and "transfer-encoding" not in http_request.headers:
        return 0  # No body at all (RFC 9112 6.3).
    encoding = http_request.headers.get("content-encoding", "identity")
    if not text.isascii() or not text.isdigit() or encoding != "identity":
        return bytes_max
    if len(text) > _LENGTH_DIGITS_MAX or int(text) > bytes_max:
        raise _too_large()
    return int(text)


async def body(http_request: HttpRequest, *, bytes_max: int) -> bytearray:
    """The decoded body. Never holds more than `bytes_max` and one network read.

    TooLarge while reading, InvalidRequest for a content encoding that is unknown or broken, BodyTimeout if it
    stops arriving, starlette's ClientDisconnect if the client went away.
    """
    held = bytearray()
    inflater = _inflater(http_request.headers.get("content-encoding", "identity").strip().lower())
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limits.UPLOAD_S_MAX
    try:
        async with asyncio.timeout(limits.UPLOAD_STALL_S) as patience:
            async for piece in http_request.stream():
                _append(held, piece, inflater, bytes_max=bytes_max)
                patience.reschedule(min(end_s, loop.time() + limits.UPLOAD_STALL_S))
    except TimeoutError as error:
        raise BodyTimeout("The request body stopped arriving before it was complete.") from error
    if inflater is not None and not inflater.is_complete:
        raise InvalidRequest("content-encoding: the request body is not complete gzip data")
    return held


def _append(held: bytearray, piece: bytes, inflater: "_Inflater | None", *, bytes_max: int) -> None:
    for part in (piece,) if inflater is None else inflater.take(piece):
        if len(held) + len(part) > bytes_max:
            held.clear()  # The error, and with it this frame, lives until its answer was sent.
            raise _too_large()
        held += part


def _too_large() -> TooLarge:
    return TooLarge("Request exceeds the maximum size")


def _inflater(encoding: str) -> "_Inflater | None":
    if encoding in ("", "identity"):
        return None
    if encoding == "gzip":
        return _Inflater()
    raise InvalidRequest(f"content-encoding: {encoding[:40]!r} is not supported; send gzip or no encoding")


class _Inflater:
    """Gzip of one or more members, inflated a bounded piece at a time."""

    def __init__(self) -> None:
        self._member = isal_zlib.decompressobj(31)
        self._has_input = False

    @property
    def is_complete(self) -> bool:
        """Whether the last member has ended."""
        return self._has_input and self._member.eof

    def take(self, piece: bytes) -> Iterator[bytes]:
        """What `piece` inflates to: a read of 64 KB can hold 64 MB."""
        self._has_input = self._has_input or bool(piece)
        is_full = False  # Then there may be more inside, also when all input was taken.
        try:
            while piece or is_full:
                if self._member.eof:
                    self._member = isal_zlib.decompressobj(31)
                part = self._member.decompress(piece, max_length=_INFLATED_BYTES)
                is_full = len(part) == _INFLATED_BYTES and not self._member.eof
                piece = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                yield part
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # Its stub has no base.
            raise InvalidRequest(f"content-encoding: the request body is not valid gzip data ({error})") from error
