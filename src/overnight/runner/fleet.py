"""All engines of this process, each with its pool, and the way from a model's name to them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from overnight.core.offpeak import Signal
from overnight.core.prices import Listed
from overnight.core.workspace import NO_RULES, Rules
from overnight.engines.claudebatch import ClaudeBatch
from overnight.engines.engine import Engine
from overnight.engines.routing import Route, Router
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.runner.backlog import Backlog, Stretch, Taker
from overnight.runner.budgets import Budgets
from overnight.runner.busy import BusyClock
from overnight.runner.charges import Charges, Tariff
from overnight.runner.pool import Pool
from overnight.runner.purse import Purse
from overnight.runner.signal import Meter
from overnight.wire import params


class Way(NamedTuple):
    """Where a request may go: an engine's pool, and what the engine calls the model."""

    pool: Pool
    model: str
    is_alias: bool

    def named(self, body: bytes) -> bytes:
        """The body of a request, naming the model as the engine does."""
        return params.renamed(body, self.model) if self.is_alias else body


class Fleet:
    """Engines and pools, over one backlog. `start` before use, `close` after."""

    def __init__(
        self,
        routes: Sequence[Route],
        world: World,
        *,
        weights: Mapping[WorkspaceId, float] | None = None,
        rules_of: Callable[[WorkspaceId], Rules] = lambda workspace: NO_RULES,
        price_list: Sequence[Listed] = (),
    ) -> None:
        """`weights` and `rules_of` workspaces: what each may do, which may change at any time. `price_list`: the
        operator's, of models by name."""
        self.router = Router(routes)
        self.rules_of = rules_of
        self.budgets = Budgets(world.clock, rules_of=rules_of)
        self.backlog = Backlog(self._may_take, weights=weights, is_stopped=self.budgets.is_spent)
        self._pools: dict[Engine, Pool] = {}
        for route in self.router.routes:
            if route.engine not in self._pools:
                self._pools[route.engine] = Pool(
                    route.engine, self.backlog, entropy=world.entropy, marks=world.marks, clock=world.clock
                )
        self._names = _names(self._pools)
        self._meters: dict[Signal, Meter] = {}
        for pool in self._pools.values():
            own = [route for route in self.router.routes if route.engine is pool.engine]
            if (signal := own[0].signal) is not None:
                pool.admission.meter = self._meters.setdefault(signal, Meter(signal))
            pool.admission.hours = own[0].hours
            if (usd_per_hour := own[0].usd_per_hour) is not None:
                pool.admission.busy = BusyClock(usd_per_hour)
            pool.on_away = partial(self._wake_others, pool)
            pool.tracer = world.tracer
            pool.name_of = {name: known for route in own for name, known in route.aliases.items()}
        self.purses: Sequence[Purse] = self._with_purses(world, price_list)
        tariffs = {route.engine.name: _tariff(route) for route in routes}
        self.charges = Charges(clock=world.clock, tariffs=tariffs, price_list=price_list)
        self.charges.on_cost.append(self.budgets.on_cost)

    @property
    def pools(self) -> Sequence[Pool]:
        """Every pool, preferred ones first."""
        return tuple(self._pools.values())

    def shown_name(self, engine: Engine) -> str:
        """What people call an engine: kind and address. A second one of the same name has " (2)" behind it."""
        return self._names[engine]

    def routes_for(self, model: str, workspace: WorkspaceId) -> Sequence[Route]:
        """The routes to engines that answer `model` to this workspace, preferred ones first."""
        routes, rules = self.router.routes_for(model), self.rules_of(workspace)
        if not rules.engines:
            return routes
        return [route for route in routes if rules.allows_engine(self._names[route.engine])]

    def knows(self, model: str, workspace: WorkspaceId) -> bool:
        """Whether any engine answers `model` to this workspace."""
        return bool(self.routes_for(model, workspace))

    def way_for(self, model: str, workspace: WorkspaceId) -> Way | None:
        """Whom to ask for somebody who waits: of the preferred engines that are there, the one that has least to do.
        None if nobody answers `model` to this workspace."""
        routes = self.routes_for(model, workspace)
        if not routes:
            return None
        chosen = min(routes, key=self._preference)
        return Way(self._pools[chosen.engine], chosen.aliases.get(model, model), model in chosen.aliases)

    def pools_for(self, model: str) -> list[Pool]:
        """The pools that may take requests for `model`."""
        return [self._pools[route.engine] for route in self.router.routes_for(model)]

    def pool_of(self, route: Route) -> Pool:
        """The pool of a route's engine."""
        return self._pools[route.engine]

    def is_spare(self, pool: Pool) -> bool:
        """Whether it works only when others cannot, so that its speed is not counted on."""
        return self.router.is_spare(pool.engine)

    def trouble(self) -> Mapping[str, str]:
        """What engines that are busy or away last said, by engine name. For health."""
        return {pool.engine.name: pool.trouble for pool in self.pools if pool.trouble}

    async def run(self) -> None:
        """Keep every engine full until cancelled."""
        async with asyncio.TaskGroup() as group:
            for pool in self.pools:
                group.create_task(pool.run())
            for meter in self._meters.values():
                group.create_task(meter.run())

    async def start(self) -> None:
        """Make every engine ready. UsageError says which one cannot be and what to do."""
        for engine in self._pools:
            await engine.start()

    async def close(self) -> None:
        """Release every engine."""
        await asyncio.gather(*(engine.close() for engine in self._pools))

    def _wake_others(self, away: Pool) -> None:
        for pool in self.pools:
            if pool is not away:
                pool.wake()

    def _preference(self, route: Route) -> tuple[bool, int, int]:
        pool = self._pools[route.engine]
        return pool.is_away, route.rank, pool.in_flight + pool.interactive_in_flight

    def _with_purses(self, world: World, price_list: Sequence[Listed]) -> Sequence[Purse]:
        """A purse for each rank that has a budget, in the hands of its pools."""
        found, names = dict[int, Purse](), Counter[str]()
        for route in self.router.routes:
            if route.budget_usd_per_day is None:
                continue
            pool, name = self._pools[route.engine], route.engine.name
            if route.rank not in found:
                names[name] += 1
                found[route.rank] = Purse(
                    name if names[name] == 1 else f"{name} ({names[name]})",
                    route.budget_usd_per_day,
                    clock=world.clock,
                    prices=route.prices,
                    aliases=route.aliases,
                    price_list=price_list,
                    is_batched=isinstance(route.engine, ClaudeBatch),
                )
            pool.admission.purse = found[route.rank]
            found[route.rank].on_open.append(pool.wake)
        return tuple(found.values())

    def _may_take(self, taker: Taker, stretch: Stretch) -> bool:
        """The order of preference, as far as the budgets of workspace and engine reach."""
        pool = self._pools[taker.engine]
        if self.budgets.is_spent(stretch.run.batch.workspace):
            return False
        if pool.handoff not in (None, taker) or not self._is_for(pool, stretch):
            return False
        if pool.handoff is not None and pool.admission.share <= 0.0:
            return False
        return pool.admission.purse is None or pool.admission.purse.takes(stretch.model)

    def _is_for(self, taker: Pool, stretch: Stretch) -> bool:
        """An engine takes what is its own to do, and of what engines before it should do, what they cannot: because
        they are away, or because its deadline is in danger."""
        routes = self.routes_for(stretch.model, stretch.run.batch.workspace)
        own = next((route for route in routes if self._pools[route.engine] is taker), None)
        if own is None:
            return False
        in_danger = self.backlog.danger_ms is not None and stretch.deadline_ms <= self.backlog.danger_ms
        if own.is_shared or own.rank == routes[0].rank or in_danger:
            return True
        before = (route for route in routes if route.rank < own.rank)
        return all(self._pools[route.engine].is_gone for route in before)


def _tariff(route: Route) -> Tariff:
    return Tariff(
        prices=route.prices,
        aliases=route.aliases,
        is_own=route.is_own,
        is_by_hour=route.usd_per_hour is not None,
    )


def _names(engines: Iterable[Engine]) -> dict[Engine, str]:
    seen, found = Counter[str](), dict[Engine, str]()
    for engine in engines:
        seen[engine.name] += 1
        found[engine] = engine.name if seen[engine.name] == 1 else f"{engine.name} ({seen[engine.name]})"
    return found
