"""An engine that answers by a script, under virtual or real time, and remembers what it was asked.

A script is a function of the last user text of the request and of how often that text was asked before; so every
request of a test has a fate that does not depend on the order in which requests arrive.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec

from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Call, Capabilities, Model, Unlimited


class Fate(NamedTuple):
    """What one call ends in, `delay_s` after it began. No outcome: it never ends."""

    outcome: Outcome | None
    delay_s: float = 0.0


Script = Callable[[str, int], Fate]  # The text, and the number of this call among those with the same text, from 1.


class Asked(NamedTuple):
    """One call that has ended, by loop time."""

    text: str
    began_s: float
    ended_s: float
    outcome: Outcome


class _Turn(msgspec.Struct):
    content: str


class _Prompt(msgspec.Struct):
    messages: list[_Turn]


_decode = msgspec.json.Decoder(_Prompt).decode


class ScriptedEngine(Unlimited):
    """An `Engine`. `calls` counts per text, `log` holds what has ended, `inside` what has not."""

    def __init__(
        self,
        script: Script,
        *,
        in_flight_max: int = 4,
        name: str = "scripted",
        capabilities: Capabilities = Capabilities(has_slots=True),  # noqa: B008  Frozen.
    ) -> None:
        self.name, self.capabilities = name, capabilities
        self.is_up = True  # What a look at it finds.
        self.calls = Counter[str]()
        self.begun: list[tuple[str, float]] = []  # Every call: its text, and loop time.
        self.log: list[Asked] = []
        self.inside = Counter[str]()
        self.inside_max = 0
        self._script, self._in_flight_max = script, in_flight_max

    @property
    def in_flight_max(self) -> int:
        return self._in_flight_max

    async def answer(self, call: Call) -> Outcome:
        loop, text = asyncio.get_running_loop(), _decode(call.params).messages[-1].content.strip()
        self.calls[text] += 1
        fate, began_s = self._script(text, self.calls[text]), loop.time()
        self.begun.append((text, began_s))
        self.inside[text] += 1
        self.inside_max = max(self.inside_max, self.inside.total())
        try:
            if fate.outcome is None:
                await asyncio.Event().wait()
            await asyncio.sleep(fate.delay_s)
        finally:
            self.inside[text] -= 1
        assert fate.outcome is not None, "a call without an outcome never ends"
        self.log.append(Asked(text, began_s, loop.time(), fate.outcome))
        return fate.outcome

    async def is_there(self) -> bool:
        return self.is_up

    async def models(self) -> Sequence[Model]:
        return [Model(id="scripted", display_name="Scripted")]

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        outcome = await self.answer(call)
        yield b"event: message_stop\ndata: " + msgspec.json.encode(type(outcome).__name__) + b"\n\n"

    async def count_tokens(self, call: Call) -> int:
        return len(call.params) // 4

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


def answered(text: str, *, size_bytes: int = 0) -> Answered:
    """A Message that says `text` again, with that many bytes behind it which no codec makes smaller than half."""
    said = (text + " " + _noise(text, size_bytes)).strip()
    message = {
        "id": "msg_" + sha256(text.encode()).hexdigest()[:24],
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": said}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard"},
    }
    return Answered(msgspec.json.encode(message))


def _noise(text: str, size_bytes: int) -> str:
    count = -(-size_bytes // 64)
    return "".join(sha256(f"{text} {number}".encode()).hexdigest() for number in range(count))[:size_bytes]


def by_words(text: str, call: int) -> Fate:
    """A script in the text itself: `slow 5` (seconds), `busy 2` (calls), `broken 1`, `refused`, `hung`, `large 9000`.

    Words may be combined: `request 7 busy 1 slow 0.5`. What is left over is answered.
    """
    words = text.split()

    def number(word: str) -> float:
        return float(words[words.index(word) + 1]) if word in words else 0.0

    delay_s = number("slow")
    if "hung" in words:
        return Fate(None)
    if "refused" in words:
        return Fate(Refused(status=400, type="invalid_request_error", message="as scripted"), delay_s)
    if call <= number("busy"):
        return Fate(Busy(reason="as scripted", retry_after_ms=2_000), delay_s)
    if call <= number("busy") + number("broken"):
        return Fate(Broken(reason="as scripted"), delay_s)
    return Fate(answered(text, size_bytes=int(number("large"))), delay_s)
