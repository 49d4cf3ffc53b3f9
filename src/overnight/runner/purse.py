"""The budget of an engine that costs money, shared by its replicas. What fits is decided in `core.purse`.

What is spent is written down at most once a second, never for each request (I8): a crash forgets at most the answers
of the last second. Requests of people are counted and never refused.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil

from overnight import limits
from overnight.core import prices
from overnight.core import purse as purses
from overnight.core.prices import Listed, Rate
from overnight.core.retry import Answered, Broken, Outcome
from overnight.core.tokens import Tokens
from overnight.errors import StoreError
from overnight.ports.clock import Clock
from overnight.store.control import Control
from overnight.wire.message import Usage

_LOOK_S = 60.0  # How late a day that began because the clock was set may be noticed.
_MISSED_MS = 60_000  # How long it is told that a price was missing: three plans of the worker.
_SUM_MAX = 2**63 - 1  # What a column holds: a server may tell any count of tokens.
_NAME_MAX = 100  # Characters of a model's name that are repeated to people.


class Bill:
    """What one request of a batch will likely cost, set aside until it is closed; the first closing counts."""

    __slots__ = ("_likely", "_model", "_purse")

    def __init__(self, purse: "Purse", model: str, likely: Decimal) -> None:
        self._purse: Purse | None = purse
        self._model, self._likely = model, likely

    def pay(self, usage: Usage) -> None:
        """It was answered: this is what it took."""
        if self._purse is not None:
            self._close(self._purse.cost(self._model, usage))

    def close(self, outcome: Outcome | None) -> None:
        """It left the engine without an answer that counts; None: it was stopped. What the engine may have worked on,
        it may charge for, so that is counted as it was estimated."""
        was_worked_on = outcome is None or isinstance(outcome, Answered)
        if isinstance(outcome, Broken):
            was_worked_on = outcome.is_lost or outcome.type == "timeout_error"
        self._close(self._likely if was_worked_on else Decimal(0))

    def _close(self, cost: Decimal) -> None:
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.give_back(self._likely, cost=cost)


class Purse:
    """One budget. Shut until `recall` knows what earlier processes spent today; `run` keeps it. On one event loop."""

    def __init__(
        self,
        name: str,
        usd_per_day: float,
        *,
        clock: Clock,
        prices: Mapping[str, Rate] | None = None,
        aliases: Mapping[str, str] | None = None,
        price_list: Sequence[Listed] = (),
        is_batched: bool = False,
    ) -> None:
        """`name` is what its spending is noted under. `prices`: of models as the engine calls them, in the place of
        what the operator's `price_list` says, and in its place what is known. `aliases`: what the engine calls models
        that callers call otherwise. `is_batched`: it asks a batch endpoint, at its price."""
        self.name, self.usd_per_day = name, usd_per_day
        self.on_open: list[Callable[[], None]] = []  # Told when it takes again.
        self._clock, self._is_batched = clock, is_batched
        self._told, self._aliases = dict(prices or {}), dict(aliases or {})
        self._price_list = tuple(price_list)
        self._state = purses.of_day(usd_per_day, now_ms=clock.now_ms())
        self._rates: dict[str, Rate | None] = {}  # Of this day.
        self._missed: tuple[str, int] | None = None  # A model whose price was missing, and when.
        self._outsized = Decimal(0)  # What the last request would have cost that fits on no day.
        self._is_recalled = False
        self._unsaved: dict[str, int] = {}  # Sums by day.
        self._changed = asyncio.Event()
        self._store_trouble = ""
        self.rate_of("")  # The data are read now, and not while requests wait.

    # --- Asking -----------------------------------------------------------------------------------------------------

    @property
    def is_shut(self) -> bool:
        """Whether no request of a batch may go in today."""
        return not self._is_recalled or purses.is_shut(self._state)

    @property
    def spent_usd(self) -> Decimal:
        """Today."""
        return self._state.spent / purses.USD

    @property
    def reserved_usd(self) -> Decimal:
        """For the requests of batches that are inside."""
        return self._state.reserved / purses.USD

    @property
    def trouble(self) -> str:
        """What holds work up, in words for health; empty if nothing does."""
        if self._store_trouble:
            return self._store_trouble
        if self.is_shut:
            return self.shown
        if self._missed is not None and self._clock.now_ms() - self._missed[1] < _MISSED_MS:
            model = self._missed[0]
            return f"nobody knows what {model!r} costs, so no batch may ask for it: set its price in prices"
        if self._outsized:
            likely = self._outsized / purses.USD
            return f"a request of about {likely:.2f} USD is more than the budget of {self.usd_per_day:.2f} USD a day"
        return ""

    @property
    def shown(self) -> str:
        """How much is left, for people."""
        budget = f"budget of {self.usd_per_day:.2f} USD for today"
        if not self._is_recalled:
            return f"{budget} waits for the store to say what is spent"
        if not self.is_shut:
            return f"{budget}: {self.spent_usd:.2f} USD spent, {self.reserved_usd:.2f} USD reserved"
        if purses.is_over(self._state):
            return f"{budget} is spent; opens 00:00 UTC"
        return f"{budget} is reserved for the requests inside"

    def rate_of(self, model: str) -> Rate | None:
        """What a model costs today, by the name that the engine knows; None if nobody knows."""
        if model not in self._rates:
            if len(self._rates) >= limits.PRICES_MAX:
                self._rates.clear()
            now_ms = self._clock.now_ms()
            told = self._told.get(model) or prices.listed(self._price_list, model, day=purses.day_of(now_ms))
            self._rates[model] = told or prices.known(model, at=datetime.fromtimestamp(now_ms / 1000, UTC))
        return self._rates[model]

    def knows(self, model: str) -> bool:
        """Whether the price of a model is known, by the name that callers use."""
        return self.rate_of(self._aliases.get(model, model)) is not None

    def takes(self, model: str) -> bool:
        """Whether requests for a model may go in now, by the name that callers use. Notes a price that is missing."""
        if self.is_shut:
            return False
        if not self.knows(model):
            self._missed = (model[:_NAME_MAX], self._clock.now_ms())
            return False
        return True

    # --- Counting ---------------------------------------------------------------------------------------------------

    def admits(self, model: str, tokens: Tokens) -> bool:
        """Whether a request of about these tokens fits; if it does not, what follows waits behind it."""
        self._look()
        likely = self._likely(model, tokens)
        if purses.fits(self._state, likely):
            self._outsized = Decimal(0)
            return True
        self._state = purses.after_turned_away(self._state, likely)
        self._outsized = likely if likely > self._state.budget else self._outsized
        return False

    def take(self, model: str, tokens: Tokens) -> Bill:
        """A request goes in."""
        likely = self._likely(model, tokens)
        self._state = purses.after_taken(self._state, likely)
        return Bill(self, self._aliases.get(model, model), likely)

    def give_back(self, likely: Decimal, *, cost: Decimal) -> None:
        """A request came out, and cost that much."""
        was_shut = self.is_shut
        self._look()
        self._state = purses.after_left(self._state, likely, cost=cost)
        if cost:
            self._note()
        if was_shut and not self.is_shut:
            self._wake()

    def count(self, model: str, usage: Usage) -> None:
        """Somebody who waited was answered; `model` as the engine calls it."""
        self._look()
        if cost := self.cost(model, usage):
            self._state = purses.after_spent(self._state, cost)
            self._note()

    def cost(self, model: str, usage: Usage) -> Decimal:
        """What an answer cost, in millionths of a US dollar; nothing if nobody knows the price."""
        rate = self.rate_of(model)
        return Decimal(0) if rate is None else purses.true_cost(rate, usage)

    def _likely(self, model: str, tokens: Tokens) -> Decimal:
        rate = self.rate_of(self._aliases.get(model, model))
        return Decimal(0) if rate is None else purses.likely_cost(rate, tokens, is_batched=self._is_batched)

    def _note(self) -> None:
        self._unsaved[self._state.day] = min(ceil(self._state.spent), _SUM_MAX)
        self._changed.set()

    def _look(self) -> None:
        """Look at the clock: with a new day there is a new budget, and perhaps another price."""
        before = self._state
        self._state = purses.after_midnight(before, now_ms=self._clock.now_ms())
        if self._state.day != before.day:
            self._rates.clear()
            self._outsized = Decimal(0)

    def _wake(self) -> None:
        for wake in self.on_open:
            wake()

    # --- Keeping ----------------------------------------------------------------------------------------------------

    async def recall(self, control: Control) -> None:
        """Add what earlier processes spent today; it opens then. StoreError if the store cannot be read."""
        found = await control.spent(self.name, self._state.day)
        self._state = purses.after_spent(self._state, Decimal(found))
        self._is_recalled = True
        if self._unsaved:
            self._note()
        self._wake()

    async def save(self, control: Control) -> None:
        """Write down what changed: on return it is durable. StoreError if it cannot be written."""
        if not self._is_recalled:
            return  # It would replace what it does not know yet.
        for day, usd_micro in list(self._unsaved.items()):
            await control.note_spent(self.name, day, usd_micro)
            if self._unsaved[day] == usd_micro:
                del self._unsaved[day]

    async def run(self, control: Control) -> None:
        """Recall, then save and look at the clock until cancelled."""
        while True:
            self._changed.clear()
            if await self._tried(control):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._changed.wait()
            was_shut = self.is_shut
            self._look()
            if was_shut and not self.is_shut:
                self._wake()
            await asyncio.sleep(limits.SPENDING_SAVE_MS / 1000)

    async def _tried(self, control: Control) -> bool:
        try:
            await (self.save(control) if self._is_recalled else self.recall(control))
        except StoreError as error:
            self._store_trouble = f"spending: {error}"
            return False
        self._store_trouble = ""
        return True

    def _pause_s(self) -> float:
        now_ms = self._clock.now_ms()
        return min(_LOOK_S, (purses.next_day_ms(now_ms) - now_ms) / 1000 + 0.001)
