"""How much room one engine has for batch requests now: the narrowest of several doors.

- the gate: nothing for a while after the engine was busy or away (`core.gate`);
- the window: as many as keep it full (`core.window`), in requests and in tokens;
- people: what they need goes first (`core.beside`);
- the hours: a part of it, or nothing, outside the off-peak windows (`core.offpeak`);
- the limits of its rate, which the engine knows itself;
- the budget: nothing for the rest of the day once it is spent (`core.purse`).

`reason` says which of them is the narrowest, for those who ask why a batch waits.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from overnight.core import beside as besides
from overnight.core import gate as gates
from overnight.core import offpeak
from overnight.core import window as windows
from overnight.core.offpeak import Due, Hours
from overnight.core.retry import Busy
from overnight.core.tokens import Tokens
from overnight.engines.engine import Engine, Load
from overnight.ports.clock import Clock
from overnight.runner.busy import BusyClock
from overnight.runner.purse import Bill, Purse
from overnight.runner.signal import Meter

PERIOD_S = 0.5  # Between two looks at how an engine does.
_SPEED_MEMORY = 0.02  # Weight of the newest answer in the speed.
_ANSWERS_MAX = 256  # Older ones weigh less than a hundredth in a pace.


class Visit:
    """One request of a batch inside the engine."""

    __slots__ = ("began_ms", "bill", "entered", "is_prefilled", "share_nano", "tokens")

    def __init__(self, tokens: int, bill: Bill | None, entered: int) -> None:
        self.tokens = tokens  # As estimated.
        self.bill = bill  # Within a budget; to be paid or closed.
        self.entered = entered  # By the engine's busy clock.
        self.share_nano: int | None = None  # Of an hour's price, in nano USD; known once it has left.
        self.began_ms = asyncio.get_running_loop().time() * 1000
        self.is_prefilled = False  # Or gone.


class Guest:
    """One request of somebody who waits, inside the engine."""

    def __init__(self, admission: "Admission", *, shows_first_token: bool) -> None:
        self._admission = admission
        self._began_ms = admission.loop_ms()
        self._is_awaited = shows_first_token
        self._entered = admission.enter_hours()
        self._has_left = False
        self.share_nano: int | None = None  # Of an hour's price, in nano USD; known once it has left.

    def on_first_token(self) -> None:
        """Its first token, or the first that is seen of it, is there."""
        if self._is_awaited:
            self._is_awaited = False
            self._admission.served(ttft_ms=self._admission.loop_ms() - self._began_ms)

    def leave(self) -> None:
        """It is not inside any more. Twice is once."""
        if not self._has_left:
            self._has_left = True
            self.share_nano = self._admission.leave_hours(self._entered)
            self._admission.gone(is_unserved=self._is_awaited)


class Admission:
    """The doors of one engine. On one event loop; `steer` keeps them right."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        capabilities = engine.capabilities
        self.gate = gates.OPEN
        self.window = windows.begun(most=engine.in_flight_max, fixed=capabilities.has_slots)
        self.hours: Hours = offpeak.ALWAYS
        self.meter: Meter | None = None  # Of the signal that closes it too.
        self.purse: Purse | None = None  # Of the engine and its replicas.
        self.busy: BusyClock | None = None  # If the engine is paid by the hour.
        self.share = 1.0  # Of the window that batch work may use now.
        self.beside = besides.NOBODY
        self.in_flight = 0  # Requests of batches.
        self.wake: Callable[[], None] = lambda: None  # Told when there may be more room.
        self.load: Load | None = None  # As last told.
        self.turned_away: Literal["memory", "rate", "budget"] | None = None  # What the last one lacked.
        self.rate_free_ms = 0.0  # Loop time until which the limits of its rate let none pass.
        self.speed_per_s: float | None = None  # Requests finished in a second at full speed; None: not known yet.
        self._away_since_ms: float | None = None
        self._engine, self._clock = engine, clock
        self._tokens_in_flight = 0
        self._completed = self._tokens = 0  # In this period.
        self._was_starved = False
        self._waking: asyncio.TimerHandle | None = None
        self._pace = besides.Pace()
        self._answers = deque[tuple[float, int]](maxlen=_ANSWERS_MAX)  # Milliseconds and output that it has not seen.
        self._input = self._output = 0  # Tokens of all answers.
        self._young: deque[Visit] = deque()  # By when they began; those that are prefilled leave lazily.
        self._stirred = asyncio.Event()

    @property
    def limit(self) -> int:
        """The window, in requests."""
        return self.window.limit

    @property
    def is_away(self) -> bool:
        """Whether the engine was not reached, or broke, when it was last asked."""
        return self._away_since_ms is not None

    @property
    def away_ms(self) -> float:
        """For how long."""
        return 0.0 if self._away_since_ms is None else self.loop_ms() - self._away_since_ms

    @property
    def is_cheap(self) -> bool:
        """Whether its signal lets batch work run."""
        return self.meter is None or self.meter.is_cheap

    @property
    def is_spent(self) -> bool:
        """Whether its budget lets no request of a batch in today."""
        return self.purse is not None and self.purse.is_shut

    def can_pay(self, model: str) -> bool:
        """Whether requests for a model may go in at all: within a budget only if its price is known."""
        return self.purse is None or self.purse.knows(model)

    def loop_ms(self) -> float:
        """Loop time."""
        return asyncio.get_running_loop().time() * 1000

    @property
    def took(self) -> Tokens:
        """All answers of batches together."""
        return Tokens(self._input, self._output)

    @property
    def tokens_in_flight(self) -> int:
        """Of the requests of batches inside, as estimated."""
        return self._tokens_in_flight

    @property
    def interactive(self) -> int:
        """Requests of people inside the engine."""
        return self.beside.people

    # --- Doors ------------------------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether one more request of a batch may enter."""
        if self.in_flight >= self.window.limit or self.is_away or self.is_spent:
            return False
        if self.gate is gates.OPEN and self.beside is besides.NOBODY and self.share >= 1.0:
            return True  # Most of the time.
        now_ms = self.loop_ms()
        window = gates.room(self.gate, now_ms=now_ms, in_flight_max=self.window.limit)
        if self.share < 1.0:
            window = min(window, math.ceil(self.share * self.window.limit))
        if self.in_flight >= window:
            return False
        if besides.is_idle(self.beside, now_ms=now_ms):
            return True
        if not self.in_flight and not self.beside.unserved and self.interactive < window:
            return True  # What people kept free and do not use is no reason for a batch to stand still.
        unprefilled = self._unprefilled(now_ms)
        room = besides.room(
            self.beside, now_ms=now_ms, window=window, in_flight=self.in_flight, unprefilled=unprefilled
        )
        if room <= 0 and not self.beside.people:
            self._wake_later(self.beside.at_ms + besides.IDLE_MS - now_ms)
        return room > 0

    def admits(self, tokens: Tokens, model: str) -> bool:
        """Whether a request of about these tokens may enter; if it may later, `wake` is called then. `model` as its
        caller names it."""
        if self.purse is not None and not self.purse.admits(model, tokens):
            self.turned_away = "budget"
            return False
        limit = self.window.tokens_limit
        if limit is not None and self.in_flight and self._tokens_in_flight + tokens.total > limit:
            self.turned_away = "memory"
            return False
        wait_ms = self._engine.wait_ms(tokens)
        self.turned_away = "rate" if wait_ms > 0 else None
        if wait_ms > 0:
            self.rate_free_ms = self.loop_ms() + wait_ms
            self._wake_later(wait_ms)
            return False
        self._engine.spend(tokens)
        return True

    def consider(self, due: Sequence[Due]) -> None:
        """Look at the clock: `due` is all work that waits for this engine."""
        now_ms = self._clock.now_ms()
        self.share = offpeak.share(self.hours, now_ms=now_ms, due=due, is_cheap=self.is_cheap)

    # --- Visits -----------------------------------------------------------------------------------------------------

    def enter(self, tokens: Tokens, model: str) -> Visit:
        """A request of a batch goes in."""
        total = tokens.total
        visit = Visit(total, None if self.purse is None else self.purse.take(model, tokens), self.enter_hours())
        self._young.append(visit)
        while self._young[0].is_prefilled:
            self._young.popleft()
        self.in_flight += 1
        self._tokens_in_flight += total
        if not self.window.is_fixed:
            self._stirred.set()
        return visit

    def left(self, visit: Visit) -> None:
        """A request of a batch is not inside any more."""
        visit.is_prefilled = True
        visit.share_nano = self.leave_hours(visit.entered)
        self.in_flight -= 1
        self._tokens_in_flight -= visit.tokens

    def finished(self, visit: Visit, took: Tokens) -> None:
        """A request of a batch was answered, or broke; it has left already."""
        ms = asyncio.get_running_loop().time() * 1000 - visit.began_ms
        self._completed += 1
        self._tokens += took.input + took.output
        self._input += took.input
        self._output += took.output
        self._answers.append((ms, took.output))
        inside = self.in_flight + 1
        if 2 * inside < self.window.limit or ms <= 0:
            return
        seen_s = ms / inside / 1000  # Little's law; the mean of its inverse would count short answers too much.
        mean_s = seen_s if self.speed_per_s is None else 1 / self.speed_per_s
        self.speed_per_s = 1 / (mean_s + _SPEED_MEMORY * (seen_s - mean_s))

    def prefilled(self, visit: Visit) -> None:
        """The first token of a request of a batch is there."""
        visit.is_prefilled = True
        if self.beside.people:
            self.wake()

    def enter_hours(self) -> int:
        """Somebody goes in; what `leave_hours` wants to know."""
        return 0 if self.busy is None else self.busy.enter(now_s=asyncio.get_running_loop().time())

    def leave_hours(self, entered: int) -> int | None:
        """Somebody came out; their share of an hour's price in nano USD, None if the engine has none."""
        return None if self.busy is None else self.busy.leave(entered, now_s=asyncio.get_running_loop().time())

    def arrive(self, *, shows_first_token: bool) -> Guest:
        """A request of somebody who waits goes in."""
        self.beside = besides.after_arrival(self.beside, shows_first_token=shows_first_token, now_ms=self.loop_ms())
        return Guest(self, shows_first_token=shows_first_token)

    def served(self, *, ttft_ms: float) -> None:
        """Somebody's first token is there."""
        self.beside = besides.after_first_token(self.beside, ttft_ms=ttft_ms, now_ms=self.loop_ms())
        self.wake()

    def gone(self, *, is_unserved: bool) -> None:
        """Somebody's request is not inside any more."""
        self.beside = besides.after_end(self.beside, is_unserved=is_unserved, now_ms=self.loop_ms())
        self._wake_later(besides.IDLE_MS)
        self.wake()

    def _unprefilled(self, now_ms: float) -> int:
        """How many requests of batches are inside without a first token; `wake` is told when there may be fewer."""
        while self._young and self._young[0].is_prefilled:
            self._young.popleft()
        if self._engine.capabilities.tells_first_token:
            return sum(not visit.is_prefilled for visit in self._young)
        while self._answers:  # Looked at only now: mostly nobody is there, and nobody asks.
            ms, output_tokens = self._answers.popleft()
            self._pace = besides.after_answer(self._pace, latency_ms=ms, output_tokens=output_tokens)
        prefill_ms = besides.prefill_ms(self._pace)
        young = [visit for visit in self._young if not visit.is_prefilled and now_ms < visit.began_ms + prefill_ms]
        if young and math.isfinite(prefill_ms):
            self._wake_later(young[0].began_ms + prefill_ms - now_ms + 1)
        return len(young)

    def _wake_later(self, ms: float) -> None:
        """Tell `wake` after so long, once however many ask: the earliest counts, and who looks then asks again."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + ms / 1000
        if self._waking is not None and self._waking.when() <= at_s:
            return
        if self._waking is not None:
            self._waking.cancel()
        self._waking = loop.call_at(at_s, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = None
        self.wake()

    def starved(self) -> None:
        """There was room, and nothing to take."""
        self.turned_away = None
        self._was_starved = True

    # --- Steering ---------------------------------------------------------------------------------------------------

    def refused(self, busy: Busy, *, jitter: float) -> None:
        """The engine had no room, or nobody was there."""
        now_ms = self.loop_ms()
        if not busy.is_away and not self.gate.bursts:  # A single try that is refused says nothing of the window.
            self.window = windows.after_refusal(self.window, now_ms=now_ms)
        if busy.is_away and self._away_since_ms is None:
            self._away_since_ms = now_ms
        self.gate = gates.after_busy(self.gate, now_ms=now_ms, asked_ms=busy.retry_after_ms, jitter=jitter)
        self._stirred.set()

    def recovered(self) -> None:
        """The engine answered, so it is there, whatever others were told before."""
        self.gate, self._away_since_ms = gates.OPEN, None

    def broke(self) -> None:
        """The breaker has closed the gate: the engine is looked at before it is asked again."""
        if self._away_since_ms is None:
            self._away_since_ms = self.loop_ms()
        self._stirred.set()

    async def steer(self, on_closed: Callable[[], None]) -> None:
        """Keep the doors right until cancelled; `on_closed` is told when the gate has shut."""
        while True:
            await self._stirred.wait()
            closed_ms = self.gate.closed_until_ms - self.loop_ms()
            if closed_ms > 0:
                on_closed()
                await asyncio.sleep(closed_ms / 1000 + 0.001)
                if self.is_away:
                    await self._knock()
            elif self.window.is_fixed or not self.in_flight:
                self._stirred.clear()
            else:
                await asyncio.sleep(PERIOD_S)
                await self._look()
            self.wake()

    async def _knock(self) -> None:
        if await self._engine.is_there():
            self._away_since_ms = None
        else:
            self.gate = gates.after_busy(self.gate, now_ms=self.loop_ms(), asked_ms=None, jitter=0.5)

    async def _look(self) -> None:
        self.load = await self._engine.load() if self._engine.capabilities.tells_load else None
        load, now_ms = self.load, self.loop_ms()
        peoples = 0
        if not besides.is_idle(self.beside, now_ms=now_ms):  # What is kept for them is in use.
            peoples = besides.reserved(self.beside, window=self.window.limit, now_ms=now_ms)
        seen = windows.Period(
            ms=PERIOD_S * 1000,
            completed=self._completed,
            tokens=self._tokens,
            in_flight=self.in_flight + self.interactive,
            tokens_in_flight=self._tokens_in_flight,
            is_saturated=not self._was_starved and self.in_flight + peoples >= self.window.limit,
            running=load.running if load else 0,
            waiting=load.waiting if load else None,
            kv_share=load.kv_share if load else None,
            preemptions=load.preemptions if load else None,
        )
        self.window = windows.after_period(self.window, seen, now_ms=now_ms)
        self._completed = self._tokens = 0
        self._was_starved = False
