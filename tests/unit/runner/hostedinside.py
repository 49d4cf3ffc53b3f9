"""The hosted double of `testing.hosted` inside the event loop: the same service under virtual time, no socket."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

from overnight.engines.transport import ConnectFailed, ConnectionLost, Reply
from overnight.testing.hosted import HostedApi
from overnight.testing.hostedwire import Head

LATENCY_S = 0.05
_PIECE_BYTES = 1_000


class HostedInside:
    """A `claudewire.Wire` to a `HostedApi` that was never entered."""

    def __init__(self, hosted: HostedApi, *, has_date: bool = False) -> None:
        """With `has_date`, answers say the time of day of the service."""
        self.hosted = hosted
        self.is_away = False
        self.after_call: Callable[[], None] = lambda: None
        self.paths: list[tuple[float, str, str]] = []  # Loop time, method and path of every call.
        self._has_date = has_date

    async def post(self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return await self._exchange("POST", path, headers, body)

    async def get(self, path: str, *, headers: Mapping[str, str], timeout_s: float) -> Reply:
        return await self._exchange("GET", path, headers, b"")

    async def stream(
        self, path: str, body: bytes, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        yield await self._exchange("POST", path, headers, body)

    async def download(
        self, path: str, *, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncGenerator[Reply | bytes, None]:
        reply = await self._exchange("GET", path, headers, b"")
        yield Reply(status=reply.status, headers=reply.headers, body=b"")
        for start in range(0, len(reply.body), _PIECE_BYTES):
            yield reply.body[start : start + _PIECE_BYTES]
            await asyncio.sleep(0)
        if "x-cut" in reply.headers:
            raise ConnectionLost("the connection broke")

    async def close(self) -> None:
        pass

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        loop, service = asyncio.get_running_loop(), self.hosted._service
        await asyncio.sleep(LATENCY_S)
        if self.is_away:
            raise ConnectFailed("nobody is there")
        address = urlsplit(path)
        self.paths.append((loop.time(), method, address.path))
        sent = {**headers, "x-api-key": self.hosted.key}
        head = Head(method, address.path, dict(parse_qsl(address.query)), sent)
        found = None if service.is_dropped(head) else service.answer(head, body)
        self.after_call()
        if found is None:
            raise ConnectionLost("the connection broke")
        shown = {name.lower(): value for name, value in found.headers.items()}
        if self._has_date:
            shown["date"] = formatdate(service._now_ms() / 1000, usegmt=True)
        content = found.body
        if found.cut_after is not None:
            content, shown["x-cut"] = content[: found.cut_after], "1"
        return Reply(status=found.status, headers=shown, body=content)
