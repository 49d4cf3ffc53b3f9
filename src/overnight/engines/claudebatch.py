"""The engine for batch endpoints: Anthropic's own at half price, or any server with POST /v1/messages/batches.

Batch requests do not go through `answer`: `runner.handoff` hands them over in large runs, through `batches`.
What is asked for by somebody who waits goes to the real-time endpoint of the same server.
"""

from collections.abc import AsyncGenerator, Sequence

from overnight import limits
from overnight.core.retry import Outcome
from overnight.core.tokens import Tokens
from overnight.engines.address import address
from overnight.engines.claudewire import Batches, PooledWire, Wire
from overnight.engines.engine import Call, Capabilities, Load, Model
from overnight.engines.messages import Auth, Messages, auth_headers
from overnight.errors import UsageError
from overnight.ports.clock import Clock, SystemClock


class ClaudeBatch:
    """An `Engine` whose batch requests become batches of the upstream."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        auth: Auth = "auto",
        requests_max: int = limits.BATCH_REQUESTS_MAX,
        bytes_max: int = limits.HANDOFF_BYTES_MAX,
        wire: Wire | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`requests_max` and `bytes_max` bound one batch at the upstream, within the API's own limits.

        Raises UsageError for an address, a key or a bound that cannot work.
        """
        for name, value, most in (
            ("batch_requests_max", requests_max, limits.BATCH_REQUESTS_MAX),
            ("batch_bytes_max", bytes_max, limits.HANDOFF_BYTES_MAX),
        ):
            if not 0 < value <= most:
                raise UsageError(f"{name} of a claude-batch engine is {value}; it must be from 1 to {most}.")
        server = address(base_url.rstrip("/").removesuffix("/v1"))
        used = clock or SystemClock()
        self.realtime = Messages(base_url, api_key=api_key, auth=auth, clock=used)
        self.requests_max, self.bytes_max = requests_max, bytes_max
        self.batches = Batches(
            wire or PooledWire(server.url, headers=auth_headers(server, api_key, auth)), clock=used, secret=api_key
        )
        self._name = f"claude-batch {server.url}"

    @property
    def name(self) -> str:
        return self._name

    @property
    def in_flight_max(self) -> int:
        return self.realtime.in_flight_max

    @property
    def capabilities(self) -> Capabilities:
        return self.realtime.capabilities

    def __repr__(self) -> str:
        return f"<{self._name}>"

    async def load(self) -> Load | None:
        return await self.realtime.load()

    async def is_there(self) -> bool:
        return await self.realtime.is_there()

    def wait_ms(self, tokens: Tokens) -> int:
        return self.realtime.wait_ms(tokens)

    def spend(self, tokens: Tokens) -> None:
        self.realtime.spend(tokens)

    async def models(self) -> Sequence[Model]:
        return await self.realtime.models()

    async def answer(self, call: Call) -> Outcome:
        """One answer in real time, at its full price."""
        return await self.realtime.answer(call)

    def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        return self.realtime.stream(call)

    async def count_tokens(self, call: Call) -> int:
        return await self.realtime.count_tokens(call)

    async def start(self) -> None:
        await self.realtime.start()

    async def close(self) -> None:
        await self.realtime.close()
        await self.batches.close()
