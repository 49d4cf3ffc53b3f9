"""An engine that batches continuously, as a model of its steps: under virtual time, hours of a GPU in seconds.

A step takes `step_ms + running_us * running + prefill_us * prefilled tokens`. It decodes one token of each request
that is prefilled, and spends what its budget of tokens leaves on prompts, in the order they came, in pieces where
needed. A request enters if there is a slot and memory for its prompt; memory that overflows later throws the
youngest out, which begins again. A waiting `standard` request overtakes `batch` ones if `has_priority`, but none
that runs: so does vLLM (its issue 40004). Sizes come from the text: `in=400 out=30`, and for a
shared prefix its number and tokens, `prefix=7/320`.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from overnight.core import ratelimit
from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Call, Capabilities, Load, Model, Unlimited

BLOCK_TOKENS = 16  # Of the prefix cache; vLLM's default.
_SIZES = re.compile(rb"in=(\d+) out=(\d+)(?: prefix=(\d+)/(\d+))?")


class Sizes(NamedTuple):
    """What a request takes. The first `prefix_tokens` of its input are those of every request with this prefix."""

    input: int
    output: int
    prefix: int = 0
    prefix_tokens: int = 0


class Profile(Struct, frozen=True, kw_only=True):
    """A machine with a model on it. Figures: docs/explanation/scheduling.md."""

    name: str
    step_ms: float
    running_us: float  # Per step and running request.
    prefill_us: float  # Per token.
    slots: int = 1_024  # `max_num_seqs` of vLLM.
    step_tokens: int = 8_192  # `max_num_batched_tokens` of vLLM.
    kv_tokens: int
    typical: Sizes = Sizes(400, 30)


SMALL = Profile(name="0.6B-like", step_ms=4, running_us=10, prefill_us=1.2, kv_tokens=2_000_000)
MEDIUM = Profile(name="8B-like", step_ms=8, running_us=15, prefill_us=15, kv_tokens=450_000)
DECODING = replace(MEDIUM, name="decode-heavy", running_us=30, typical=Sizes(400, 300))
SLOTS = Profile(name="llama.cpp", step_ms=20, running_us=4_000, prefill_us=300, slots=8, kv_tokens=65_536)
PROFILES = (SMALL, MEDIUM, DECODING, SLOTS)


def sizes_in_text(params: bytes) -> Sizes | None:
    """What the text of a request says of its sizes; None if nothing."""
    found = _SIZES.search(params)
    return None if found is None else Sizes(*(int(number or 0) for number in found.groups()))


class _Request:
    __slots__ = ("call", "ends_at", "future", "generated", "is_told", "prefill_left", "since", "sizes", "state")

    def __init__(self, call: Call, sizes: Sizes, future: asyncio.Future[Outcome]) -> None:
        self.call, self.sizes, self.future = call, sizes, future
        self.state = "waiting"  # Then prefilling, decoding, gone; waiting again if thrown out.
        self.generated = 0  # Tokens before `since`.
        self.since = self.ends_at = 0  # Steps.
        self.prefill_left = 0
        self.is_told = False


class PrefixCache:
    """Which prefixes an engine still holds: blocks, the least recently used go first, of a prefix its end first."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, int] = OrderedDict()
        self._unique = 0

    def hit(self, sizes: Sizes) -> int:
        """Tokens of this prompt that need no prefill now. One is always computed, for its answer."""
        held = self._blocks.get(sizes.prefix, 0)
        if held:
            self._blocks.move_to_end(sizes.prefix)
        return min(held * BLOCK_TOKENS, sizes.prefix_tokens, max(0, sizes.input - 1))

    def enter(self, sizes: Sizes) -> None:
        """A prompt was computed: its prefix and what is unique about it are held now, if there is room at all."""
        self._unique -= 1
        shared = sizes.prefix_tokens // BLOCK_TOKENS
        for key, blocks in ((sizes.prefix, shared), (self._unique, sizes.input // BLOCK_TOKENS - shared)):
            if blocks > 0:
                self._left -= max(0, blocks - self._blocks.get(key, 0))
                self._blocks[key] = max(blocks, self._blocks.get(key, 0))
                self._blocks.move_to_end(key)
        while self._left < 0:
            key, blocks = next(iter(self._blocks.items()))
            taken = min(blocks, -self._left)
            self._left += taken
            if taken == blocks:
                del self._blocks[key]
            else:
                self._blocks[key] = blocks - taken


class StepEngine(Unlimited):
    """See the module. Counts: `answers`, `preemptions`, `prefilled_tokens`, `refusals`, `steps`."""

    def __init__(
        self,
        profile: Profile,
        *,
        name: str = "step",
        in_flight_max: int = 4_096,
        tells_load: bool = True,
        tells_first_token: bool = True,
        has_priority: bool = False,
        has_slots: bool = False,
        requests_per_minute: int = 0,
        cache_tokens: int = 0,
        sizes: Callable[[bytes], Sizes | None] = sizes_in_text,
    ) -> None:
        """`requests_per_minute` and `cache_tokens`: 0 is no such limit, and no cache. `sizes` reads `Call.params`."""
        self.profile = profile  # May be changed at any time: a machine that grows or shrinks.
        self.name, self.in_flight_max = name, in_flight_max
        self.capabilities = Capabilities(
            has_slots=has_slots,
            tells_load=tells_load,
            tells_first_token=tells_first_token,
            has_priority=has_priority,
        )
        self.is_down = False
        self.answers = self.preemptions = self.prefilled_tokens = self.refusals = self.steps = 0
        self._sizes, self._slowness = sizes, 1.0
        self._rate, self._bucket = requests_per_minute, ratelimit.full(requests_per_minute, now_ms=0)
        self._cache = PrefixCache(cache_tokens)
        self._waiting: tuple[deque[_Request], deque[_Request]] = (deque(), deque())  # Standard, batch.
        self._prefilling: deque[_Request] = deque()
        self._prefilled: list[_Request] = []  # In this step.
        self._ends: dict[int, list[_Request]] = {}
        self._order: list[_Request] = []  # Running ones as they came, and some that are gone.
        self._running = self._decoding = self._kv = 0
        self._load = Load(running=0, waiting=0, kv_share=0.0, preemptions=0)
        self._next: asyncio.Handle | None = None

    # --- what an engine is ------------------------------------------------------------------------------------------

    async def answer(self, call: Call) -> Outcome:
        if self.is_down:
            return Busy(reason="connection refused", status=503)
        sizes = self._sizes(call.params)
        if sizes is None or sizes.input + sizes.output > self.profile.kv_tokens:
            return Refused(status=400, type="invalid_request_error", message="no sizes in the text, or too large")
        loop = asyncio.get_running_loop()
        if self._rate:
            verdict = ratelimit.take(self._bucket, per_minute=self._rate, now_ms=round(loop.time() * 1000))
            self._bucket = verdict.bucket
            if not verdict.is_allowed:
                self.refusals += 1
                return Busy(reason="rate limit", status=429, retry_after_ms=verdict.retry_after_s * 1000)
        request = _Request(call, sizes, loop.create_future())
        self._queue(request).append(request)
        if self._next is None:
            self._next = loop.call_soon(self._begin_step)
        try:
            return await request.future
        except asyncio.CancelledError:
            self._leave(request)
            raise

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        outcome = await self.answer(call)
        yield outcome.message if isinstance(outcome, Answered) else b"event: error\n\n"

    async def count_tokens(self, call: Call) -> int:
        sizes = self._sizes(call.params)
        return 0 if sizes is None else sizes.input

    async def load(self) -> Load | None:
        """As of the end of the last step, as vLLM has it: who came since then is not counted yet."""
        return None if self.is_down or not self.capabilities.tells_load else self._load

    async def is_there(self) -> bool:
        return not self.is_down

    async def models(self) -> Sequence[Model]:
        return (Model(id=self.profile.name, display_name=self.profile.name),)

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self.break_down()

    # --- what happens to it -----------------------------------------------------------------------------------------

    def slow_down(self, factor: float) -> None:
        """Every step takes this often its time from now on; below 1 it is faster, 1 is as in the profile."""
        self._slowness = factor

    def break_down(self) -> None:
        """The server is gone, and with it what is inside. `is_down = False` is a new one."""
        self.is_down = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for request in [*self._waiting[0], *self._waiting[1], *self._order]:
            self._leave(request)
            if not request.future.done():
                request.future.set_result(Broken(reason="connection lost"))
        for queue in (*self._waiting, self._prefilling, self._prefilled, self._order):
            queue.clear()
        self._load = Load(running=0, waiting=0, kv_share=0.0, preemptions=self.preemptions)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _queue(self, request: _Request) -> deque[_Request]:
        is_first = self.capabilities.has_priority and request.call.service_tier == "standard"
        return self._waiting[0 if is_first else 1]

    def _begin_step(self) -> None:
        self._make_room()
        budget = tokens = self.profile.step_tokens - self._decoding
        while self._prefilling and budget > 0:
            budget = self._prefill(self._prefilling[0], budget)
        while budget > 0 and not self._prefilling and (request := self._admitted()) is not None:
            self._prefilling.append(request)
            budget = self._prefill(request, budget)
        self.prefilled_tokens += tokens - budget
        if not self._running:
            self._next = None
            return
        profile = self.profile
        spent_us = profile.running_us * self._running + profile.prefill_us * (tokens - budget)
        step_s = (profile.step_ms / 1e3 + spent_us / 1e6) * self._slowness
        self._next = asyncio.get_running_loop().call_later(step_s, self._end_step)

    def _prefill(self, request: _Request, budget: int) -> int:
        """What is left of `budget` after the first in the queue has had its part."""
        taken = min(budget, request.prefill_left)
        request.prefill_left -= taken
        if request.prefill_left == 0:
            self._prefilling.popleft()
            self._prefilled.append(request)
        return budget - taken

    def _admitted(self) -> _Request | None:
        for queue in self._waiting:
            while queue and queue[0].state == "gone":
                queue.popleft()
            if not queue:
                continue
            request = queue[0]
            held = request.sizes.input + request.generated
            if self._running >= self.profile.slots or self._kv + held + self._decoding > self.profile.kv_tokens:
                return None
            queue.popleft()
            request.state = "prefilling"
            request.prefill_left = held - self._cache.hit(request.sizes)
            self._running += 1
            self._kv += held
            self._order.append(request)
            return request
        return None

    def _make_room(self) -> None:
        """Memory for one more token of each: vLLM throws out the youngest, batch before standard if it knows them."""
        if len(self._order) > 2 * self._running + 64:
            self._order = [request for request in self._order if request.state in ("prefilling", "decoding")]
        while self._kv + self._decoding > self.profile.kv_tokens and self._running > 1:
            running = [request for request in self._order if request.state in ("prefilling", "decoding")]
            batch = [request for request in running if self._queue(request) is self._waiting[1]]
            youngest = (batch or running)[-1]
            self._order.remove(youngest)
            self._leave(youngest)
            youngest.state = "waiting"
            self._queue(youngest).appendleft(youngest)
            self.preemptions += 1

    def _leave(self, request: _Request) -> None:
        """Give back what it holds, whatever it does at the moment."""
        if request.state == "decoding":
            self._decoding -= 1
            request.generated += self.steps - request.since
        if request.state in ("prefilling", "decoding"):
            self._running -= 1
            self._kv -= request.sizes.input + request.generated
        if request.state == "prefilling":
            request.prefill_left = 0
            if request in self._prefilling:
                self._prefilling.remove(request)
        request.state = "gone"

    def _end_step(self) -> None:
        self.steps += 1
        self._kv += self._decoding
        prefilled, self._prefilled = self._prefilled, []
        for request in prefilled:
            if request.state == "prefilling":
                self._first_token(request)
        for request in self._ends.pop(self.steps, ()):
            if request.state == "decoding" and request.ends_at == self.steps:
                self._leave(request)
                self._answer(request)
        self._load = Load(
            running=self._running,
            waiting=sum(map(len, self._waiting)),
            kv_share=self._kv / self.profile.kv_tokens,
            preemptions=self.preemptions,
        )
        self._begin_step()

    def _first_token(self, request: _Request) -> None:
        self._cache.enter(request.sizes)
        request.state, request.since = "decoding", self.steps - 1
        self._decoding += 1
        self._kv += 1
        request.ends_at = request.since + max(1, request.sizes.output - request.generated)
        self._ends.setdefault(request.ends_at, []).append(request)
        if not request.is_told:
            request.is_told = True
            is_streamed = request.call.service_tier == "standard"  # People see their first token anyway.
            if request.call.on_first_token and (is_streamed or self.capabilities.tells_first_token):
                request.call.on_first_token()

    def _answer(self, request: _Request) -> None:
        self.answers += 1
        sizes = request.sizes
        usage = b'{"input_tokens":%d,"output_tokens":%d}' % (sizes.input, sizes.output)
        message = b'{"type":"message","role":"assistant","content":[],"usage":%s}' % usage
        if not request.future.done():
            request.future.set_result(Answered(message))
