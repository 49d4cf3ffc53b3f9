"""A day of batches over one engine that does a unit of work a second, by the pure functions of `core.schedule`.

No pools: a chunk of work is taken, and when it is done the next. So a day costs a second, and what is measured is the
order alone (docs/explanation/scheduling.md).
"""

from collections.abc import Callable, Iterable, Sequence
from random import Random
from statistics import median

from msgspec import Struct

from overnight.core import schedule
from overnight.core.batch import Batch
from overnight.core.schedule import Candidate, Demand, Turns
from overnight.ids import BatchId, WorkspaceId

DAY_S = 86_400
CHUNK = 20  # Units.
_NOWHERE_MS = 1  # Time begins here: a batch that was created at 0 would be no batch.


class Piece(Struct, frozen=True, kw_only=True):
    """A batch of so many units. `kind`: whale, small or urgent."""

    kind: str
    workspace: str
    units: int
    at_s: int
    due_s: int


class Day(Struct, kw_only=True):
    """What came of it. `waits_s` are from creation to end, of small batches; `late` counts units by kind."""

    waits_s: list[float]
    missed: dict[str, int]  # Batches that were not done in time, by kind.
    in_time: int = 0  # Units.
    idle_s: int = 0  # While something waited.

    @property
    def wait_min(self) -> float:
        """Median of small batches, minutes."""
        return median(self.waits_s) / 60


class _Open:
    def __init__(self, piece: Piece, age: int) -> None:
        self.piece, self.age, self.left = piece, age, piece.units
        batch = Batch(
            id=BatchId(f"msgbatch_{age:010d}"),
            workspace=WorkspaceId(piece.workspace),
            api_version="",
            betas="",
            requests=piece.units,
            segments_open=1,
            created_at_ms=piece.at_s * 1000,
            expires_at_ms=piece.due_s * 1000,
        )
        self.candidate = Candidate(batch=batch, age=age)


class State:
    """What a policy may look at."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.served: dict[WorkspaceId, float] = {}
        self.now_s = 0


Policy = Callable[[State], _Open]


def fifo(state: State) -> _Open:
    """The oldest."""
    return min(state.open, key=lambda item: item.age)


def edf(state: State) -> _Open:
    """The earliest deadline."""
    return min(state.open, key=lambda item: (item.piece.due_s, item.age))


def fair(state: State) -> _Open:
    """The workspace that was served least."""
    return _turn(state, None)


def ours(state: State) -> _Open:
    """The same, unless a deadline is in danger."""
    return _turn(state, _danger_ms(state.open, state.now_s))


def round_robin(state: State) -> _Open:
    """The batch that was served least: all advance together."""
    return min(state.open, key=lambda item: (item.piece.units - item.left, item.age))


def oracle(state: State) -> _Open:
    """The batch that needs least, if all others can then still be done in time; else the earliest deadline."""
    for item in sorted(state.open, key=lambda item: item.left):
        rest = sorted((other for other in state.open if other is not item), key=lambda other: other.piece.due_s)
        at_s = state.now_s + min(CHUNK, item.left)
        for other in rest:
            at_s += other.left
            if at_s > other.piece.due_s:
                break
        else:
            return item
    return edf(state)


def _danger_ms(items: Iterable[_Open], now_s: int) -> int | None:
    demands = [Demand(item.piece.due_s * 1000, item.left) for item in items]
    return schedule.danger_until_ms(demands, per_s=1.0, now_ms=now_s * 1000)


def _turn(state: State, danger_ms: int | None) -> _Open:
    candidates = {item.candidate.batch.id: item for item in state.open}
    turns = Turns(
        [item.candidate for item in state.open],
        served=state.served,
        danger_ms=danger_ms,
        now_ms=state.now_s * 1000,
    )
    chosen = turns.next()
    assert chosen is not None, "something is open"
    return candidates[chosen.batch.id]


def live(pieces: Sequence[Piece], policy: Policy) -> Day:
    """Work until nothing is left, or all is too late."""
    coming = sorted(pieces, key=lambda piece: piece.at_s, reverse=True)
    state, day, age = State(), Day(waits_s=[], missed={}), 0
    while coming or state.open:
        if not state.open:
            state.now_s = max(state.now_s, coming[-1].at_s)
        while coming and coming[-1].at_s <= state.now_s:
            age += 1
            state.open.append(_Open(coming.pop(), age))
            _welcome(state, state.open[-1])
        for item in [item for item in state.open if item.piece.due_s <= state.now_s]:
            state.open.remove(item)
            day.missed[item.piece.kind] = day.missed.get(item.piece.kind, 0) + 1
        if state.open:
            _work(state, day, policy(state))
    return day


def _welcome(state: State, item: _Open) -> None:
    """As `runner.backlog` does."""
    workspace = WorkspaceId(item.piece.workspace)
    others = {WorkspaceId(other.piece.workspace) for other in state.open if other is not item}
    if workspace not in others:
        floor = min((state.served[other] for other in others), default=0.0)
        state.served[workspace] = max(state.served.get(workspace, 0.0), floor)


def _work(state: State, day: Day, item: _Open) -> None:
    units = min(CHUNK, item.left)
    item.left -= units
    state.now_s += units
    state.served[item.candidate.batch.workspace] += units
    if state.now_s <= item.piece.due_s:
        day.in_time += units
    if item.left:
        return
    state.open.remove(item)
    if state.now_s > item.piece.due_s:
        day.missed[item.piece.kind] = day.missed.get(item.piece.kind, 0) + 1
    elif item.piece.kind == "small":
        day.waits_s.append(state.now_s - item.piece.at_s)


# --- Days -----------------------------------------------------------------------------------------------------------


def mixed(*, load: float, seed: int) -> list[Piece]:
    """Three whales for the whole day, 19 small workspaces with 12 batches each, 20 urgent windows of two hours."""
    dice = Random(seed)  # noqa: S311  A replay, not a secret.
    small = [
        _small(f"small {team}", dice.randrange(20, 61), dice.randrange(DAY_S - 7_200))
        for team in range(19)
        for _ in range(12)
    ]
    urgent = [_urgent(number, 400, dice.randrange(DAY_S - 7_200)) for number in range(20)]
    rest = load * DAY_S - sum(piece.units for piece in small + urgent)
    return small + urgent + _whales(3, rest)


def crowded(*, load: float, seed: int) -> list[Piece]:
    """Ten whales, and four urgent windows that need 35 % of the engine: more than their fair share."""
    dice = Random(seed)  # noqa: S311  A replay, not a secret.
    small = [
        _small(f"small {team}", dice.randrange(20, 61), dice.randrange(DAY_S - 7_200))
        for team in range(19)
        for _ in range(12)
    ]
    urgent = [_urgent(number, 2_500, 3_600 + number * 18_000) for number in range(4)]
    rest = load * DAY_S - sum(piece.units for piece in small + urgent)
    return small + urgent + _whales(10, rest)


def _small(workspace: str, units: int, at_s: int) -> Piece:
    return Piece(kind="small", workspace=workspace, units=units, at_s=at_s, due_s=at_s + DAY_S)


def _urgent(number: int, units: int, at_s: int) -> Piece:
    return Piece(kind="urgent", workspace="urgent", units=units, at_s=at_s, due_s=at_s + 7_200)


def _whales(number: int, units: float) -> list[Piece]:
    return [
        Piece(kind="whale", workspace=f"whale {place}", units=int(units / number), at_s=place, due_s=DAY_S + place)
        for place in range(number)
    ]
