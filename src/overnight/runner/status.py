"""What the engines do now, and why work waits, as values: for people, for programs and for metrics.

Everything is taken in one go, on the event loop, from what is in memory anyway: no engine is asked, and no store.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from overnight.core import gate as gates
from overnight.core import offpeak
from overnight.core.batch import Batch
from overnight.engines.routing import Route
from overnight.ids import WorkspaceId
from overnight.runner.fleet import Fleet
from overnight.runner.pool import Pool
from overnight.runner.segmentrun import Work
from overnight.runner.worker import Worker
from overnight.wire.batch import Count, Instant, rfc3339, rfc3339_or_none

Door: TypeAlias = Literal[
    "away", "gate", "hours", "signal", "window", "people", "rate", "memory", "budget", "nothing"
]
DOORS: Sequence[Door] = get_args(Door)
_CLOSED = ("away", "gate", "budget", "hours", "signal", "rate")  # What holds a batch up, and is not other work.
_NAMED_MAX = 3  # Engines in one sentence.


class EngineStatus(Struct, frozen=True, kw_only=True):
    """One engine. None stands for what is not known, or what this engine does not tell."""

    name: str  # Kind and address. A second engine of the same name has " (2)" behind it.
    rank: Count  # Its place in the order of preference, from 0.
    is_replica: bool  # Others have the same rank.
    held_by: Door  # The narrowest door for one more request of a batch.
    held: str  # The same for people; reads on after the name.
    is_away: bool
    away_since: Instant | None
    in_flight: Count  # Requests of batches inside.
    interactive: Count  # Requests of people inside.
    window: Count  # How many requests are to be inside now,
    window_max: Count  # at the very most,
    ceiling: Count | None  # and what was refused when last tried.
    tokens_in_flight: Count  # Estimated.
    tokens_limit: Count | None
    share: float  # Of the window that batches may use by the clock and the signal, 0 to 1.
    hours: str  # "opens today 22:00 Europe/Berlin", "always open".
    signal: float | None  # As last read, in its own unit.
    speed_per_s: float | None  # Requests finished in a second at full speed; 0 while away.
    running: Count | None  # Inside by the engine's own word, everybody's together,
    waiting: Count | None  # and waiting inside it.
    kv_share: float | None  # Of its memory that is used, 0 to 1.
    rate_wait_s: float  # Until the limits of its rate let the next request pass.
    trouble: str  # What it said when it was last busy or broken; empty after a success.


class BacklogStatus(Struct, frozen=True, kw_only=True):
    """What is leased and waits here. Of one workspace only, if a key of that workspace asks."""

    waiting: dict[str, Count]  # Requests by model.
    segments: Count  # Leased.
    danger_until: Instant | None  # Deadlines up to this one are in danger, and their batches go first.
    unfinished: Count | None  # Requests of all batches, on disk or here, a few seconds old; None for one workspace.


class Status(Struct, frozen=True, kw_only=True):
    """Everything, at one moment."""

    at: Instant
    engines: list[EngineStatus]
    backlog: BacklogStatus


def snapshot(fleet: Fleet, worker: Worker, *, now_ms: int, workspace: WorkspaceId | None = None) -> Status:
    """Everything as it is now, by the wall clock `now_ms`. `workspace`: who asks, and may know of no other (I7)."""
    return Status(
        at=rfc3339(now_ms), engines=engines(fleet, now_ms=now_ms), backlog=_backlog(fleet, worker, workspace)
    )


def engines(fleet: Fleet, *, now_ms: int) -> list[EngineStatus]:
    """Every engine, preferred ones first."""
    ranks = Counter(_route(fleet, pool).rank for pool in fleet.pools)
    found = []
    for pool in fleet.pools:
        name, rank = fleet.shown_name(pool.engine), _route(fleet, pool).rank
        found.append(_engine(pool, name, rank=rank, is_replica=ranks[rank] > 1, now_ms=now_ms))
    return found


def _route(fleet: Fleet, pool: Pool) -> Route:
    return next(route for route in fleet.router.routes if route.engine is pool.engine)


def _engine(pool: Pool, name: str, *, rank: int, is_replica: bool, now_ms: int) -> EngineStatus:
    admission, load = pool.admission, pool.admission.load
    window, door = admission.window, held_by(pool, now_ms=now_ms)
    return EngineStatus(
        name=name,
        rank=rank,
        is_replica=is_replica,
        held_by=door,
        held=_held(pool, door, now_ms=now_ms),
        is_away=pool.is_away,
        away_since=rfc3339_or_none(_away_since_ms(pool, now_ms)),
        in_flight=pool.in_flight,
        interactive=pool.interactive_in_flight,
        window=window.limit,
        window_max=window.most,
        ceiling=window.ceiling or None,
        tokens_in_flight=admission.tokens_in_flight,
        tokens_limit=None if window.tokens_limit is None else int(window.tokens_limit),
        share=admission.share,
        hours=offpeak.shown(admission.hours, now_ms),
        signal=None if admission.meter is None else admission.meter.value,
        speed_per_s=pool.speed_per_s,
        running=None if load is None else load.running,
        waiting=None if load is None else load.waiting,
        kv_share=None if load is None else load.kv_share,
        rate_wait_s=_rate_wait_ms(pool) / 1000,
        trouble=pool.trouble,
    )


def _away_since_ms(pool: Pool, now_ms: int) -> int | None:
    return now_ms - round(pool.admission.away_ms) if pool.is_away else None


def _rate_wait_ms(pool: Pool) -> float:
    return max(0.0, pool.admission.rate_free_ms - pool.admission.loop_ms())


# --- Doors ----------------------------------------------------------------------------------------------------------


def held_by(pool: Pool, *, now_ms: int) -> Door:
    """Which door of `runner.admission` lets no further request of a batch in; "nothing" if all stand open."""
    admission = pool.admission
    limit, inside = admission.window.limit, admission.in_flight
    gate_room = gates.room(admission.gate, now_ms=admission.loop_ms(), in_flight_max=limit)
    is_off_peak = admission.share < 1.0 and inside >= math.ceil(admission.share * limit)
    is_dear = not admission.is_cheap and offpeak.is_open(admission.hours, now_ms)
    doors: tuple[tuple[Door, bool], ...] = (
        ("away", admission.is_away),
        ("gate", inside >= gate_room < limit),
        ("budget", admission.is_spent),
        ("signal" if is_dear else "hours", is_off_peak),
        ("window", inside >= limit),
        ("people", not admission.has_room()),
        ("memory", admission.turned_away == "memory"),
        ("budget", admission.turned_away == "budget"),
        ("rate", _rate_wait_ms(pool) > 0),
    )
    return next((door for door, is_shut in doors if is_shut), "nothing")


def _held(pool: Pool, door: Door, *, now_ms: int) -> str:
    """The door as the end of a sentence that begins with the name of the engine."""
    admission = pool.admission
    said = "has room"
    match door:
        case "away":
            said = _with(
                f"is away since {_clock(pool, _away_since_ms(pool, now_ms) or now_ms, now_ms)}", pool.trouble
            )
        case "gate":
            said = _with(_pause(pool), pool.trouble)
        case "hours":
            meanwhile = f"; until then {admission.share:.0%} of it, for deadlines" if admission.share else ""
            said = offpeak.shown(admission.hours, now_ms) + meanwhile
        case "signal" if (meter := admission.meter) is not None and meter.value is not None:
            said = f"waits until its signal is at most {meter.signal.at_most:g}; it is {meter.value:g}"
        case "window":
            said = f"is full: {admission.in_flight:,} requests are inside"
        case "people":
            said = f"leaves room for people: {admission.interactive:,} requests of theirs are inside"
        case "budget" if (purse := admission.purse) is not None:
            said = f"waits: {purse.shown}"
        case "rate":
            said = f"waits {math.ceil(_rate_wait_ms(pool) / 1000):,} s for the limits of its rate"
        case "memory":
            fit = admission.window.tokens_limit or 0
            said = f"has its memory full: {admission.tokens_in_flight:,} of {fit:,.0f} tokens"
    return said


def _pause(pool: Pool) -> str:
    closed_ms = round(pool.admission.gate.closed_until_ms - pool.admission.loop_ms())
    if closed_ms <= 0:
        return "is tried with one request"
    return f"is asked again in {math.ceil(closed_ms / 1000):,} s"


def _with(said: str, trouble: str) -> str:
    return f"{said}: {trouble}" if trouble else said


def _clock(pool: Pool, at_ms: int, now_ms: int) -> str:
    """An instant in the time zone of the engine's hours, with its date unless that is today."""
    zone = pool.admission.hours.zone
    at, now = (datetime.fromtimestamp(ms / 1000, zone) for ms in (at_ms, now_ms))
    return f"{at:%H:%M} {zone}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M} {zone}"


# --- Backlog --------------------------------------------------------------------------------------------------------


def _backlog(fleet: Fleet, worker: Worker, workspace: WorkspaceId | None) -> BacklogStatus:
    danger_ms = fleet.backlog.danger_ms
    runs = [run for run in worker.runs if workspace in (None, run.batch.workspace)]
    waiting = Counter[str]()
    for stretch in fleet.backlog.stretches:
        if stretch.works and workspace in (None, stretch.run.batch.workspace):
            waiting[stretch.model] += len(stretch.works)
    is_own = workspace is None or any(run.batch.expires_at_ms <= (danger_ms or 0) for run in runs)
    return BacklogStatus(
        waiting=dict(waiting),
        segments=len(runs),
        danger_until=rfc3339_or_none(danger_ms if is_own else None),
        unfinished=worker.unfinished if workspace is None else None,
    )


def works_of(worker: Worker, batch: Batch) -> list[Work]:
    """The requests of a batch that are leased here and have no result yet."""
    return [work for run in worker.runs if run.batch.id == batch.id for work in run.open.values()]


def why_it_waits(
    fleet: Fleet,
    worker: Worker,
    batch: Batch,
    *,
    models: Collection[str],
    now_ms: int,
    workspace: WorkspaceId | None = None,
) -> str:
    """Why nothing of a batch in progress is inside an engine now, as a sentence. `models`: those it asks for, as far
    as known. `workspace`: who asks, and is told of no other's requests (I7)."""
    for what, said in worker.troubles.items():
        if what.endswith(batch.id) or what in ("leases", "renewal"):
            return f"{what}: {said}"
    if spent := fleet.budgets.shown(batch.workspace):
        return spent
    takers = _takers(fleet, models, batch.workspace)
    states = [state for state, pool in zip(engines(fleet, now_ms=now_ms), fleet.pools, strict=True) if pool in takers]
    if states and all(state.held_by in _CLOSED for state in states):
        rest = f"; {len(states) - _NAMED_MAX} more engines wait too" if len(states) > _NAMED_MAX else ""
        return "; ".join(f"engine {state.name} {state.held}" for state in states[:_NAMED_MAX]) + rest
    if ahead := _ahead(fleet, batch, takers, workspace):
        is_leased = any(run.batch.id == batch.id for run in worker.runs)
        least = "" if is_leased else "at least "
        are = "request of other batches is" if ahead == 1 else "requests of other batches are"
        return f"{least}{ahead:,} {are} before it"
    held = [state for state in states if state.held_by != "nothing"]
    return f"engine {held[0].name} {held[0].held}" if held else "it is about to begin"


def _ahead(fleet: Fleet, batch: Batch, takers: Collection[Pool], workspace: WorkspaceId | None) -> int:
    """What waits of older batches. Between workspaces it is not so simple, and changes with every turn."""
    return sum(
        len(stretch.works)
        for stretch in fleet.backlog.stretches
        if stretch.run.batch.id != batch.id
        and stretch.run.batch.created_at_ms <= batch.created_at_ms
        and workspace in (None, stretch.run.batch.workspace)
        and any(pool in takers for pool in fleet.pools_for(stretch.model))
    )


def _takers(fleet: Fleet, models: Iterable[str], workspace: WorkspaceId) -> list[Pool]:
    """Whose work it is: the preferred engines of each model, those that share it, and those that stand in. All
    engines if no model is known."""
    found: list[Pool] = []
    for model in models:
        routes = fleet.routes_for(model, workspace)
        pools = [fleet.pool_of(route) for route in routes]
        for route, pool in zip(routes, pools, strict=True):
            before = [other for other, one in zip(pools, routes, strict=True) if one.rank < route.rank]
            if route.is_shared or all(other.is_gone for other in before):
                found.append(pool)
    return found or list(fleet.pools)
