"""The price or carbon signal of an engine, read every few minutes. What it means is decided in `core.offpeak`."""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from overnight import __version__, limits
from overnight.core import offpeak
from overnight.core.offpeak import Found, Miss, Signal

_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": f"overnight/{__version__}"}


class Meter:
    """One signal and what was last read of it. Belongs to the event loop of `run`."""

    def __init__(self, signal: Signal, *, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is called when `is_cheap` has changed. Raises UsageError for a signal that cannot be asked."""
        offpeak.check(signal)
        self.signal = signal
        self._seen = offpeak.UNSEEN
        self._on_change = on_change

    @property
    def is_cheap(self) -> bool:
        """Whether batch work may run; also before the first reading, and when there is none that counts."""
        return offpeak.is_cheap(self.signal, self._seen)

    @property
    def value(self) -> float | None:
        """What was last read, in the unit of the signal; None if nothing counts."""
        return self._seen.value

    @property
    def trouble(self) -> str:
        """Why the last reading failed, and what counts meanwhile; empty after a success. For health."""
        return f"signal {offpeak.place(self.signal)}: {self._seen.trouble}" if self._seen.trouble else ""

    async def run(self) -> None:
        """Read now and every `every_s`, until cancelled."""
        async with self._session() as session:
            while True:
                was_cheap = self.is_cheap
                self._seen = offpeak.after(self._seen, await self._read(session))
                if self.is_cheap != was_cheap:
                    self._on_change()
                await asyncio.sleep(self.signal.every_s)

    async def _read(self, session: aiohttp.ClientSession) -> Found:
        """One try. aiohttp's errors name the URL, which may hold a key, so only their kind is told."""
        try:
            async with session.get(URL(self.signal.url, encoded=True), allow_redirects=False) as response:
                if response.status != 200:
                    return Miss(_refused(response.status))
                body = await _bounded(response.content)
        except TimeoutError:
            return Miss(f"no answer in {limits.SIGNAL_TIMEOUT_S:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Miss(f"no answer: {type(error).__name__}")
        if body is None:
            return Miss(f"the answer is larger than {limits.SIGNAL_BODY_BYTES_MAX} bytes")
        return offpeak.read(body, field=self.signal.field)

    def _session(self) -> aiohttp.ClientSession:
        """`auto_decompress` off: a small answer must not become a large one. The proxy is asked for by hand, as
        aiohttp's `trust_env` also sends passwords from ~/.netrc."""
        parts = urlsplit(self.signal.url)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True),  # Minutes pass between two readings.
            timeout=aiohttp.ClientTimeout(total=limits.SIGNAL_TIMEOUT_S),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            proxy=None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme),
        )


def _refused(status: int) -> str:
    if 300 <= status < 400:
        return f"the answer is {status}, a redirect, which is not followed: set url to where it leads"
    return f"the answer is {status}"


async def _bounded(content: aiohttp.StreamReader) -> bytes | None:
    """All of a body; None as soon as it is larger than `SIGNAL_BODY_BYTES_MAX`."""
    body = bytearray()
    while piece := await content.readany():
        body += piece
        if len(body) > limits.SIGNAL_BODY_BYTES_MAX:
            return None
    return bytes(body)
