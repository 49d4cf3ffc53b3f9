"""A small reverse proxy, as nginx or Caddy would stand before a server: under a path prefix that it takes off."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


class ReverseProxy:
    """Passes everything below `prefix` on to `target`. `url` is what clients are told."""

    def __init__(self, session: aiohttp.ClientSession, target: str, prefix: str, *, is_forwarding: bool) -> None:
        self.url = ""
        self.lost = 0  # How many answers to creates were not delivered.
        self.answers_to_lose = 0
        self.target = target
        self._session, self._prefix = session, prefix
        self._is_forwarding = is_forwarding

    async def handle(self, http_request: web.Request) -> web.StreamResponse:
        """Pass one request on; or lose its answer, by closing the connection without a word."""
        url = self.target + http_request.raw_path.removeprefix(self._prefix)
        body = await http_request.read()
        async with self._session.request(
            http_request.method, url, data=body or None, headers=self._headers(http_request), allow_redirects=False
        ) as found:
            if http_request.method == "POST" and self.lost < self.answers_to_lose:
                await found.read()
                self.lost += 1
                assert http_request.transport is not None
                http_request.transport.abort()
                return web.Response()
            kept = {name: value for name, value in found.headers.items() if name.lower() not in _HOP_BY_HOP}
            answer = web.StreamResponse(status=found.status, headers=kept)
            await answer.prepare(http_request)
            async for piece in found.content.iter_any():
                await answer.write(piece)
            await answer.write_eof()
            return answer

    def _headers(self, http_request: web.Request) -> Mapping[str, str]:
        left_out = {*_HOP_BY_HOP, "host", "content-length"}
        kept = {name: value for name, value in http_request.headers.items() if name.lower() not in left_out}
        if self._is_forwarding:
            kept |= {
                "X-Forwarded-Proto": "http",
                "X-Forwarded-Host": http_request.host,
                "X-Forwarded-Prefix": self._prefix,
            }
        return kept


@asynccontextmanager
async def reverse_proxy(target: str, prefix: str, *, is_forwarding: bool = True) -> AsyncIterator[ReverseProxy]:
    """A proxy on a free port of 127.0.0.1; it says where clients called it unless `is_forwarding` is off."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = ReverseProxy(session, target, prefix, is_forwarding=is_forwarding)
        runner = web.ServerRunner(web.Server(proxy.handle), handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            assert runner.addresses
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
            yield proxy
        finally:
            await asyncio.wait_for(runner.cleanup(), 10)
