"""The engine inside: llama.cpp in this process, with a small model of our own, or any GGUF.

What it serves is text. The tiny model that comes with the package knows a few tasks (reviews, support tickets,
comments, invoice lines, languages: see its card, docs/reference/embedded-model.md) and nothing else; it is there so
that everything can be tried on a fresh machine. Every `claude-*` name may be routed here, so any `max_tokens` a
Claude user is used to is accepted (`OUTPUT_TOKENS_MAX`), though an answer ends where its slot's context does, with
stop reason `model_context_window_exceeded`. The answer names the model that was asked for.

Greedy answers repeat almost always, not always: which requests share a step changes the rounding, and of 300
invoices 2 differed by a digit from one run to the next.

One slot more than `in_flight_max` is kept, so that an interactive request finds room beside a batch at full
speed. Threads live only here: one per slot, joined by `close` before the model goes.
"""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from overnight.core.retry import Answered, Broken, Outcome, Refused
from overnight.engines import answer, chat, completion, conversation, streaming
from overnight.engines.chat import Plan
from overnight.engines.completion import Chunk, Reading
from overnight.engines.engine import Call, Capabilities, Load, Model, Unlimited
from overnight.engines.interactive import api_error
from overnight.engines.llama import Failed, Llama, Rejected
from overnight.engines.streaming import Trouble
from overnight.errors import EngineFailed, InvalidRequest
from overnight.ports.entropy import Entropy

IN_FLIGHT_MAX: Final = 4  # On CPU one to four slots gain 1.5x, more gain nothing and share fewer prefixes.
CONTEXT_TOKENS: Final = 4096  # Per slot: prompt and answer. 52 MB in all for the tiny model.
OUTPUT_TOKENS_MAX: Final = 64_000  # The cap of most Claude models, so that what worked there is not refused here.


def tiny_weights() -> Path:
    """The model that comes with the package: 12 million parameters, 14.3 MB."""
    return Path(str(files("overnight.engines").joinpath("weights", "tiny.q8_0.gguf")))


class Embedded(Unlimited):
    """Answers with a GGUF model in this process. `start` before any call.

    `threads` compute; by default all cores this process may use but one, which the server needs. More threads
    than idle cores make it slower, not faster. `chat_template` (Jinja) replaces the model's own.
    """

    def __init__(
        self,
        path: Path,
        *,
        entropy: Entropy,
        model_id: str = "overnight-tiny",
        display_name: str = "overnight tiny (embedded)",
        in_flight_max: int = IN_FLIGHT_MAX,
        context_tokens: int = CONTEXT_TOKENS,
        output_tokens_max: int = OUTPUT_TOKENS_MAX,
        threads: int | None = None,
        chat_template: str = "",
    ) -> None:
        self.capabilities = Capabilities(has_slots=True, tells_load=True, tells_first_token=True, has_images=False)
        self._path = path
        self._entropy = entropy
        self._model_id = model_id
        self._display_name = display_name
        self._in_flight_max = in_flight_max
        self._slots = in_flight_max + 1
        self._context_tokens = context_tokens
        self._output_tokens_max = output_tokens_max
        self._threads = threads or max(1, _usable_cores() - 1)
        self._chat_template = chat_template
        self._llama: Llama | None = None
        self._jobs: set[_Job] = set()
        self._answering = ThreadPoolExecutor(self._slots, thread_name_prefix="overnight-answer")
        self._counting = ThreadPoolExecutor(1, thread_name_prefix="overnight-count")

    @property
    def name(self) -> str:
        return f"embedded:{self._path.name}"

    @property
    def in_flight_max(self) -> int:
        return self._in_flight_max

    async def start(self) -> None:
        assert self._llama is None, "started twice"
        loop = asyncio.get_running_loop()
        self._llama = await loop.run_in_executor(self._counting, self._load)

    async def close(self) -> None:
        llama, self._llama = self._llama, None
        for job in self._jobs:
            job.stop.set()
        await asyncio.to_thread(self._answering.shutdown)
        await asyncio.to_thread(self._counting.shutdown)
        if llama is not None:
            await asyncio.to_thread(llama.close)

    async def load(self) -> Load | None:
        """Answers in a slot, and those that wait for one."""
        inside = len(self._jobs)
        running = min(inside, self._slots)
        return Load(running=running, waiting=inside - running)

    async def models(self) -> Sequence[Model]:
        context_tokens = self._llama.context_tokens if self._llama else self._context_tokens
        served = Model(
            id=self._model_id,
            display_name=self._display_name,
            max_input_tokens=context_tokens,
            max_tokens=self._output_tokens_max,
        )
        return [served]

    async def answer(self, call: Call) -> Outcome:
        if self._llama is None:
            return Broken(reason=f"{self.name} is not running")
        try:
            plan = self._plan(call, self._llama)
        except InvalidRequest as error:
            return Refused(status=error.status, type=error.type, message=str(error))
        reading = Reading(plan)
        job = self._begin(plan, call, reading.take, self._llama)
        try:
            async with asyncio.timeout(call.timeout_s):
                trouble = await asyncio.shield(job.done)
        except TimeoutError:
            return Broken(reason=_too_slow(call), type="timeout_error")
        finally:
            await job.abandon()
        said = trouble or reading.outcome()
        if not isinstance(said, completion.Completion):
            return said
        return Answered(answer.message(said, model=call.model, tier=call.service_tier, entropy=self._entropy))

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        if self._llama is None:
            raise EngineFailed(f"{self.name} is not running")
        plan = self._plan(call, self._llama)
        pieces = self._pieces(plan, call, self._llama)
        events = streaming.events(pieces, plan, tier=call.service_tier, name=self.name, entropy=self._entropy)
        async with aclosing(events):
            async for event in events:
                yield event

    async def count_tokens(self, call: Call) -> int:
        if self._llama is None:
            raise EngineFailed(f"{self.name} is not running")
        plan = self._plan(call, self._llama)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._counting, self._llama.count, plan.body)
        except Rejected as error:
            raise api_error(completion.outcome_of_rejection(str(error), plan), name=self.name) from error
        except Failed as error:
            raise EngineFailed(str(error)) from error

    def _load(self) -> Llama:
        return Llama(
            self._path,
            slots=self._slots,
            context_tokens=self._context_tokens,
            threads=self._threads,
            key=self._entropy.bytes(24).hex(),
            chat_template=self._chat_template,
        )

    def _plan(self, call: Call, llama: Llama) -> Plan:
        asked = conversation.read(call.params)
        return chat.plan(asked, output_tokens_max=self._output_tokens_max, knows_tools=llama.knows_tools)

    def _begin(self, plan: Plan, call: Call, take: Callable[[Chunk], None], llama: Llama) -> "_Job":
        if call.on_first_token is not None:
            take = _telling(call.on_first_token, take, asyncio.get_running_loop())
        job = _Job(plan, take, llama, self._answering)
        self._jobs.add(job)
        job.done.add_done_callback(lambda _: self._jobs.discard(job))
        return job

    async def _pieces(self, plan: Plan, call: Call, llama: Llama) -> AsyncGenerator[Chunk | Trouble, None]:
        """The chunks as they come, then the trouble if there was any. Closing it stops the work."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + call.timeout_s
        # No bound: the context bounds the answer, and the slot should not wait for a slow reader.
        queue: asyncio.Queue[Chunk | None] = asyncio.Queue()
        job = self._begin(plan, call, lambda chunk: _hand_over(loop, queue, chunk), llama)
        job.done.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (chunk := await asyncio.wait_for(queue.get(), deadline - loop.time())) is not None:
                yield chunk
            if trouble := job.done.result():
                yield trouble
        except TimeoutError:
            yield Broken(reason=_too_slow(call), type="timeout_error")
        finally:
            await job.abandon()


class _Job:
    """One answer in the making, in a thread of `pool`."""

    def __init__(self, plan: Plan, take: Callable[[Chunk], None], llama: Llama, pool: ThreadPoolExecutor) -> None:
        self.stop = threading.Event()
        self._plan = plan
        self._take = take
        self._nonsense = ""
        self._future: Future[Trouble | None] = pool.submit(self._work, llama)
        self.done: asyncio.Future[Trouble | None] = asyncio.wrap_future(self._future)

    async def abandon(self) -> None:
        """Stop, if it has not ended, and wait until the slot is free: one token, or the step of a long prompt."""
        self.stop.set()
        if not self.done.done() and not self._future.cancel():
            await asyncio.wait([self.done])

    def _work(self, llama: Llama) -> Trouble | None:
        if self.stop.is_set():
            return None
        try:
            llama.chat(self._plan.body, self._on_chunk)
        except Rejected as error:
            return completion.outcome_of_rejection(str(error), self._plan)
        except Failed as error:
            return Broken(reason=str(error))
        return Broken(reason=self._nonsense) if self._nonsense else None

    def _on_chunk(self, text: str) -> bool:
        try:
            self._take(completion.read_chunk(text))
        except msgspec.DecodeError as error:  # llama.cpp would swallow it and go on.
            self._nonsense = f"llama.cpp sent a chunk that cannot be read: {error}"
        return self.stop.is_set() or bool(self._nonsense)


def _telling(
    on_first_token: Callable[[], None], take: Callable[[Chunk], None], loop: asyncio.AbstractEventLoop
) -> Callable[[Chunk], None]:
    """`take`, which tells the loop of the first chunk that is not about the reading of the prompt."""
    is_told = False

    def taking(chunk: Chunk) -> None:
        nonlocal is_told
        if not is_told and chunk.choices and chunk.prompt_progress is None:
            is_told = True
            loop.call_soon_threadsafe(on_first_token)
        take(chunk)

    return taking


def _hand_over(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Chunk | None], chunk: Chunk) -> None:
    loop.call_soon_threadsafe(queue.put_nowait, chunk)


def _too_slow(call: Call) -> str:
    return f"the embedded model had not answered after {call.timeout_s:g} s"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
