"""What answers cost, as they come: for the bill of a segment, for people who wait, and for the budgets of workspaces.

Rates are dated: an answer costs what its model costs on the day it comes. The rules are a table in
docs/how-to/cost.md.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from overnight import limits
from overnight.core import charge, prices
from overnight.core import usage as usages
from overnight.core.prices import Listed, Rate
from overnight.core.purse import day_of
from overnight.core.usage import NOTHING, UNPRICED, Cost, Sums, Used
from overnight.errors import StoreError
from overnight.ids import WorkspaceId
from overnight.limits import DAY_MS
from overnight.ports.clock import Clock, SystemClock
from overnight.store.usage import Entry, UsageStore
from overnight.wire.message import Usage

STANDARD: Final = "standard"  # The service tier of people who wait.
MEASURED_MS: Final = 7 * DAY_MS  # How far back own hardware is looked at: a week has all hours of a load.


class Tariff(NamedTuple):
    """What an engine costs. Its hours, if it is paid by them; else the prices of models as it calls them; else what
    is known of them, unless it is ours."""

    prices: Mapping[str, Rate] = {}
    aliases: Mapping[str, str] = {}  # What the engine calls models that callers call otherwise.
    is_own: bool = False  # It runs in this process: nobody charges for it.
    is_by_hour: bool = False  # A request costs its share of the hours (`runner.busy`).


NO_TARIFF: Final = Tariff()


class Asker(NamedTuple):
    """Who pays for an answer that somebody waits for."""

    workspace: WorkspaceId
    api_key: str
    model: str  # As the caller names it.


class Charges:
    """One per process, on one event loop."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        tariffs: Mapping[str, Tariff] | None = None,
        price_list: Sequence[Listed] = (),
    ) -> None:
        """`tariffs` by the name of the engine. `price_list`: the operator's, before what is known of models."""
        self.on_cost: list[Callable[[WorkspaceId, int], None]] = []  # Told what a workspace has spent, in nano USD.
        self.on_person: Callable[[Used], None] = lambda used: None  # Told what somebody who waited has used.
        self.trouble = ""
        self._clock = clock or SystemClock()
        self._tariffs, self._price_list = dict(tariffs or {}), tuple(price_list)
        self._rates: dict[tuple[str, str], Rate | None] = {}  # Of this day, by engine and model.
        self._day = 0  # Since the epoch.
        self._measured: Mapping[tuple[str, str], Sums] = {}  # By engine and model.
        self._people: dict[tuple[WorkspaceId, str, str, str], Sums] = {}
        self._changed = asyncio.Event()

    def of_batch(
        self,
        workspace: WorkspaceId,
        engine: str,
        model: str,
        usage: Usage,
        *,
        share_nano: int | None = None,
        is_told: bool = False,
    ) -> Sums:
        """What an answer of a batch took and cost; `model` as the caller names it. `share_nano`: of the hours of an
        engine that is paid by them; None: nobody noted it, so it is what tokens have cost there lately.
        `is_told`: its cost was told before."""
        cost = self._cost(engine, model, usage, share_nano, is_batch=True)
        if not is_told:
            self._tell(workspace, cost)
        return usages.of_answer(usage, cost)

    def note_person(self, asker: Asker, engine: str, usage: Usage, *, share_nano: int | None = None) -> None:
        """An answer to somebody who waited; written down within a second."""
        cost = self._cost(engine, asker.model, usage, share_nano, is_batch=False)
        self._tell(asker.workspace, cost)
        sums = usages.of_answer(usage, cost)
        key = (asker.workspace, asker.api_key, asker.model, engine)
        self._people[key] = self._people.get(key, NOTHING).plus(sums)
        self.on_person(Used(model=asker.model, engine=engine, service_tier=STANDARD, sums=sums))
        self._changed.set()

    def _tell(self, workspace: WorkspaceId, cost: Cost) -> None:
        if cost.usd_nano:
            for tell in self.on_cost:
                tell(workspace, cost.usd_nano)

    def _cost(self, engine: str, model: str, usage: Usage, share_nano: int | None, *, is_batch: bool) -> Cost:
        tariff = self._tariffs.get(engine, NO_TARIFF)
        public = self._rate("", model)
        if tariff.is_by_hour:
            if share_nano is None and (measured := self._measured.get((engine, model))) is not None:
                share_nano = charge.by_tokens(usage, measured)
            return UNPRICED if share_nano is None else charge.own_cost(usage, share_nano, public=public)
        rate = self._rate(engine, tariff.aliases.get(model, model))
        if rate is None and tariff.is_own:
            return charge.own_cost(usage, 0, public=public)
        return charge.cost(usage, rate=rate, public=public, is_batch=is_batch)

    def _rate(self, engine: str, model: str) -> Rate | None:
        """Of a model as the engine calls it; as everybody does, if the engine is ""."""
        now_ms = self._clock.now_ms()
        day = now_ms // limits.DAY_MS
        if day != self._day or len(self._rates) >= limits.PRICES_MAX:
            self._day = day
            self._rates.clear()
        if (engine, model) not in self._rates:
            self._rates[engine, model] = self._looked_up(engine, model, now_ms)
        return self._rates[engine, model]

    def _looked_up(self, engine: str, model: str, now_ms: int) -> Rate | None:
        tariff = self._tariffs.get(engine, NO_TARIFF)
        if tariff.is_own or model in tariff.prices:  # The price list is about names, and ours takes any name.
            return tariff.prices.get(model)
        told = prices.listed(self._price_list, model, day=day_of(now_ms))
        return told or prices.known(model, at=datetime.fromtimestamp(now_ms / 1000, UTC))

    def warm(self) -> None:
        """Read the data now, and not while requests wait: 0.2 s."""
        prices.known("", at=datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC))

    async def recall(self, store: UsageStore) -> None:
        """Learn what tokens have cost lately at engines that are paid by the hour. StoreError if nobody can say."""
        if any(tariff.is_by_hour for tariff in self._tariffs.values()):
            self._measured = await store.measured(since_ms=self._clock.now_ms() - MEASURED_MS)

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
