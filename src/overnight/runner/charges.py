"""What answers cost, as they come: for the bill of a segment, for people who wait, and for the budgets of workspaces.

Rates are dated: an answer costs what its model costs on the day it comes.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from overnight import limits
from overnight.core import charge, prices
from overnight.core import usage as usages
from overnight.core.prices import Rate
from overnight.core.purse import day_of
from overnight.core.usage import NOTHING, Cost, Sums, Used
from overnight.errors import StoreError
from overnight.ids import WorkspaceId
from overnight.ports.clock import Clock, SystemClock
from overnight.store.usage import Entry, UsageStore
from overnight.wire.message import Usage

BATCH, STANDARD = "batch", "standard"


class Tariff(NamedTuple):
    """What an engine costs: prices of models as it calls them; otherwise what is known of them, unless it is ours."""

    prices: Mapping[str, Rate] = {}
    aliases: Mapping[str, str] = {}  # What the engine calls models that callers call otherwise.
    is_own: bool = False  # It runs in this process: nobody charges for it.


NO_TARIFF: Final = Tariff()


class Asker(NamedTuple):
    """Who pays for an answer that somebody waits for."""

    workspace: WorkspaceId
    api_key: str
    model: str  # As the caller names it.


class Charges:
    """One per process, on one event loop."""

    def __init__(self, *, clock: Clock | None = None, tariffs: Mapping[str, Tariff] | None = None) -> None:
        """`tariffs` by the name of the engine."""
        self.on_cost: list[Callable[[WorkspaceId, int], None]] = []  # Told what a workspace has spent, in nano USD.
        self.trouble = ""
        self._clock = clock or SystemClock()
        self._tariffs = dict(tariffs or {})
        self._rates: dict[tuple[str, str], Rate | None] = {}  # Of this day, by engine and model.
        self._day = ""
        self._people: dict[tuple[WorkspaceId, str, str, str], Sums] = {}
        self._changed = asyncio.Event()

    def of_batch(self, workspace: WorkspaceId, engine: str, model: str, usage: Usage) -> Sums:
        """What an answer of a batch took and cost; `model` as the caller names it."""
        return self._counted(workspace, self._cost(engine, model, usage, is_batch=True), usage)

    def note_person(self, asker: Asker, engine: str, usage: Usage) -> None:
        """An answer to somebody who waited; written down within a second."""
        cost = self._cost(engine, asker.model, usage, is_batch=False)
        sums = self._counted(asker.workspace, cost, usage)
        key = (asker.workspace, asker.api_key, asker.model, engine)
        self._people[key] = self._people.get(key, NOTHING).plus(sums)
        self._changed.set()

    def _counted(self, workspace: WorkspaceId, cost: Cost, usage: Usage) -> Sums:
        if cost.usd_nano:
            for tell in self.on_cost:
                tell(workspace, cost.usd_nano)
        return usages.of_answer(usage, cost)

    def _cost(self, engine: str, model: str, usage: Usage, *, is_batch: bool) -> Cost:
        tariff = self._tariffs.get(engine, NO_TARIFF)
        known_as = tariff.aliases.get(model, model)
        own = None if tariff.is_own and known_as not in tariff.prices else self._rate(engine, known_as)
        return charge.cost(usage, rate=own, public=self._rate("", model), is_own=tariff.is_own, is_batch=is_batch)

    def _rate(self, engine: str, model: str) -> Rate | None:
        day = day_of(self._clock.now_ms())
        if day != self._day or len(self._rates) >= limits.PRICES_MAX:
            self._day = day
            self._rates.clear()
        if (engine, model) not in self._rates:
            told = self._tariffs.get(engine, NO_TARIFF).prices.get(model)
            at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
            self._rates[engine, model] = told or prices.known(model, at=at)
        return self._rates[engine, model]

    def warm(self) -> None:
        """Read the data now, and not while requests wait: 0.2 s."""
        self._rate("", "")

    async def save(self, store: UsageStore) -> None:
        """Write down what people used: durable on return. StoreError if it cannot be written; it is kept then."""
        people, self._people = self._people, {}
        entries = [
            Entry(
                workspace=workspace,
                api_key=api_key,
                used=Used(model=model, engine=engine, service_tier=STANDARD, sums=sums),
            )
            for (workspace, api_key, model, engine), sums in people.items()
        ]
        if not entries:
            return
        try:
            await store.note(entries, now_ms=self._clock.now_ms())
        except StoreError:
            for key, sums in people.items():
                self._people[key] = self._people.get(key, NOTHING).plus(sums)
            raise

    async def run(self, store: UsageStore) -> None:
        """Save, at most once a second, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.save(store)
                self.trouble = ""
            except StoreError as error:
                self.trouble = f"usage: {error}"
                self._changed.set()
            await asyncio.sleep(limits.SPENDING_SAVE_MS / 1000)
