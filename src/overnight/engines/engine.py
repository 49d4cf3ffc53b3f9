"""What an engine is: it answers one request, and failing is an answer too.

Expected failures are values (`Outcome`), so that `core.retry` can decide about them under virtual time;
an exception out of an engine is a bug. Engines know nothing of batches, segments, leases or storage.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

import msgspec

from overnight.core.retry import Outcome


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request as an engine sees it."""

    params: bytes  # The body of POST /v1/messages, valid JSON, checked by `wire.params`, without raw newlines.
    model: str  # What `params` names; routing has already chosen this engine by it.
    api_version: str  # `anthropic-version` of the batch or of the interactive request.
    betas: str = ""  # `anthropic-beta`, comma list as the client wrote it.
    service_tier: Literal["batch", "standard"] = "batch"
    timeout_s: float


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model an engine serves, for GET /v1/models and for refusals."""

    id: str
    display_name: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None  # The largest output; None: unknown here, the engine checks by itself.


class Engine(Protocol):
    """A source of answers. One instance serves many concurrent calls."""

    @property
    def name(self) -> str:
        """What operators read in logs: kind and address, never a key."""
        ...

    @property
    def in_flight_max(self) -> int:
        """How many batch requests to keep inside at once."""
        ...

    async def models(self) -> Sequence[Model]:
        """What it serves now; empty if it cannot tell. Never raises."""
        ...

    async def answer(self, call: Call) -> Outcome:
        """The outcome of one attempt. Cancelling stops the work as soon as the engine can."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events, in pieces ready for the wire; `call.params` says `stream: true`.

        Raises an `errors.ApiError` before the first piece if the engine refuses, is busy or broken; afterwards
        failures are `event: error` pieces. Closing the iterator stops the work."""
        ...

    async def count_tokens(self, call: Call) -> int:
        """Input tokens of `call.params` (no max_tokens needed). Raises `errors.ApiError`."""
        ...

    async def start(self) -> None:
        """Make ready: load weights, open pools. Raises `errors.UsageError` with what to do."""
        ...

    async def close(self) -> None:
        """Release everything. Calls still inside end as `Broken` outcomes or are waited for."""
        ...
