"""Uvicorn's HTTP/1.1 with the bounds it lacks: how large a head may be, how long it may take, and how long a
connection that is closed may go on sending to somebody who does not read.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from overnight import limits

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _idle_bytes = 0  # Received since the parser last came to the end of a head or to a byte of a body.
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _EndingTransport(transport, self.loop)))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > limits.HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse_head()

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._idle_bytes = 0
        super().on_message_complete()

    def _await_head(self) -> None:
        self._head_came()
        self._head_timer = self.loop.call_later(limits.HEAD_S_MAX, self._head_is_late)

    def _head_came(self) -> None:
        self._idle_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._is_answering():
            self._await_head()  # The start of a next request, sent too early: the answer to this one goes first.
        else:
            self.transport.abort()

    def _refuse_head(self) -> None:
        if self._is_answering():  # Trailers or chunk extensions without end.
            self.transport.abort()
        else:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class _EndingTransport:
    """A transport that is gone a while after it was closed, even if the other end never takes what was written."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop

    def close(self) -> None:
        """Flush and close, within `limits.DOWNLOAD_STALL_S`."""
        if not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(limits.DOWNLOAD_STALL_S, self._transport.abort)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
