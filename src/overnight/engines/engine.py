"""What an engine is: it answers one request, and failing is an answer too.

Expected failures are values (`Outcome`), so that `core.retry` can decide about them under virtual time;
an exception out of an engine is a bug. Engines know nothing of batches, segments, leases or storage.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, Protocol

import msgspec

from overnight.core.retry import Outcome
from overnight.core.tokens import Tokens


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request as an engine sees it."""

    params: bytes  # The body of POST /v1/messages, valid JSON, checked by `wire.params`, without raw newlines.
    model: str  # What `params` names; routing has already chosen this engine by it.
    api_version: str  # `anthropic-version` of the batch or of the interactive request.
    betas: str = ""  # `anthropic-beta`, comma list as the client wrote it.
    service_tier: Literal["batch", "standard"] = "batch"
    timeout_s: float
    traceparent: str = ""  # Of the span it is asked in, for the server that is asked; empty if nothing is traced.
    on_first_token: Callable[[], None] | None = None  # Told once, by engines that `tells_first_token`.


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do beyond answering. The runner and the conformance suite go by it."""

    has_slots: bool = False  # `in_flight_max` is how many it works on at once: there is no better number to find.
    tells_load: bool = False  # `load` says how many requests run and wait inside it.
    tells_first_token: bool = False  # It calls `Call.on_first_token`.
    has_priority: bool = False  # Interactive calls overtake batch calls inside it.
    charges_cache_writes: bool = False  # A prefix is cached by its first answer, at a price: one leader goes first.
    counts_tokens: bool = True
    has_schema: bool = True  # `output_config.format` is enforced.
    has_tools: bool = True
    has_images: bool = True
    shows_cached_tokens: bool = True  # `usage` tells what came from the prompt cache.


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself at one moment, everybody's requests together."""

    running: int
    waiting: int
    kv_share: float | None = None  # Of the memory for prompts and answers, 0 to 1.
    preemptions: int | None = None  # Since it was started: requests that were thrown out and begin again.


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
        """How many batch requests may be inside at once; the runner finds the best number below it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; known before `start`, and the same for its life."""
        ...

    async def load(self) -> Load | None:
        """What it says of itself now; None if it cannot tell, or does not answer. Never raises."""
        ...

    async def is_there(self) -> bool:
        """Whether it would answer, found out without asking a model, after it was away. Never raises."""
        ...

    def wait_ms(self, tokens: Tokens) -> int:
        """How long a request of about these tokens has to wait for the limits of its rate; 0: it may go now."""
        ...

    def spend(self, tokens: Tokens) -> None:
        """A request of about these tokens is sent: what it takes of the limits of the rate is taken now."""
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


class Unlimited:
    """What most engines say to the questions that only some can answer: nothing known, nothing in the way."""

    capabilities: Capabilities = Capabilities()

    async def load(self) -> Load | None:
        """It cannot tell."""
        return None

    async def is_there(self) -> bool:
        """Nothing that can be seen without asking it."""
        return True

    def wait_ms(self, tokens: Tokens) -> int:
        """There is no limit of its rate."""
        return 0

    def spend(self, tokens: Tokens) -> None:
        """Nothing is counted."""
