"""What is leased and waits for an engine, and whose turn it is when one has room.

Requests are taken late: an engine gets a request when it has room for it, never a queue. What waits is kept in
stretches, neighbours in prompt order, and each stretch belongs to the engine that took from it last, so that the
prefix which its requests share is computed once (docs/adr/0010). An engine that has nothing left takes over the
back half of somebody's longest stretch: both halves stay neighbours.

The order is that of `core.schedule`: what is due in danger, then the workspace that was served least, then the
oldest.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from overnight.core import schedule, tokens
from overnight.core.tokens import Estimator, Tokens
from overnight.engines.engine import Engine
from overnight.ids import WorkspaceId
from overnight.runner.segmentrun import SegmentRun, Work

_MODELS_MAX = 1_000  # Whose answers are remembered for estimates.


class Taker(Protocol):
    """Who takes requests: the pool of one engine, or a hand-off."""

    @property
    def engine(self) -> Engine:
        """For which engine."""
        ...

    @property
    def limit(self) -> int:
        """How many requests it has inside at once."""
        ...

    @property
    def turn(self) -> int:
        """How many requests it takes before somebody else's turn is considered: neighbours share their prefix, so it
        is not one; nor is it many, for what one workspace gets ahead of another is a turn."""
        ...

    @property
    def is_by_deadline(self) -> bool:
        """Whether the earliest deadline is all that matters to it now."""
        ...


class Stretch:
    """Requests of one segment for one model, in the order in which they are best asked."""

    __slots__ = ("model", "order", "run", "taker", "works")

    def __init__(self, run: SegmentRun, model: str, works: Iterable[Work], taker: Taker | None = None) -> None:
        self.run = run
        self.model = model
        self.works = deque(works)
        self.taker = taker
        self.order = (run.leased.age, run.lease.segment.index)  # Smaller is older.

    @property
    def deadline_ms(self) -> int:
        """When its batch expires."""
        return self.run.batch.expires_at_ms


class _Turn:
    __slots__ = ("left", "stretch")

    def __init__(self, stretch: Stretch, left: int) -> None:
        self.stretch = stretch
        self.left = left


class Backlog:
    """One per process, shared by all pools. `may_take` says whether a taker is allowed a stretch now, `is_stopped`
    whether nobody is allowed anything of a workspace."""

    def __init__(
        self,
        may_take: Callable[[Taker, Stretch], bool] = lambda taker, stretch: True,
        *,
        weights: Mapping[WorkspaceId, float] | None = None,
        is_stopped: Callable[[WorkspaceId], bool] = lambda workspace: False,
    ) -> None:
        self.served: dict[WorkspaceId, float] = {}  # Work per workspace, by weight; see `core.schedule.cost`.
        self.danger_ms: int | None = None  # What is due by then comes first.
        self.on_low: Callable[[], None] = lambda: None
        self.weights = dict(weights or {})
        self._may_take, self._is_stopped = may_take, is_stopped
        self._on_ready: list[Callable[[], None]] = []
        self._floor = (
            0.0  # What the least served of those that wait has got: nobody saves up service by staying away.
        )
        self._stretches: list[Stretch] = []
        self._turns: dict[Taker, _Turn] = {}
        self._estimators: dict[str, Estimator] = {}

    def weigh(self, weights: Mapping[WorkspaceId, float]) -> None:
        """Weights of workspaces from now on; 1 for others."""
        self.weights = dict(weights)

    def reopen(self, workspaces: Iterable[WorkspaceId]) -> None:
        """Workspaces that were stopped may start again. They have saved up nothing meanwhile."""
        for workspace in workspaces:
            self.served[workspace] = max(self.served.get(workspace, 0.0), self._floor)
        self._tell()

    def add(self, works: Iterable[Work]) -> None:
        """Requests of one segment, in the order in which they are best asked."""
        waited = self.workspaces()
        self._stretches += [Stretch(*key, group) for key, group in groupby(works, key=attrgetter("run", "model"))]
        for workspace in self.workspaces() - waited:
            self.served[workspace] = max(self.served.get(workspace, 0.0), self._floor)
        self._tell()

    def put_back(self, works: Iterable[Work]) -> None:
        """Requests that were taken and have no outcome: in front of what they were taken from."""
        for work in works:
            if not work.is_open:
                continue
            same = [item for item in self._stretches if item.works and _is_of(item, work)]
            if same:
                _insert(work, min(same, key=lambda item: _distance(work, item)).works)
            else:
                self._stretches.append(Stretch(work.run, work.model, [work]))
        self._tell()

    def put_last(self, work: Work) -> None:
        """A request whose attempt broke: behind the others of its stretch, so that an engine which breaks everything
        is tried with another one each time, and no request uses up its attempts on it."""
        if not work.is_open:
            return
        for stretch in reversed(self._stretches):
            if _is_of(stretch, work):
                stretch.works.append(work)
                break
        else:
            self._stretches.append(Stretch(work.run, work.model, [work]))
        self._tell()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Whom to tell when there is something to take; pools are woken by whoever adds it."""
        self._on_ready.append(callback)

    def _tell(self) -> None:
        for callback in self._on_ready:
            callback()

    def forget(self, run: SegmentRun) -> None:
        """Nothing of this run waits any more."""
        self._stretches = [stretch for stretch in self._stretches if stretch.run is not run]

    def release(self, taker: Taker) -> None:
        """A taker is away: what it would have taken next is anybody's."""
        self._turns.pop(taker, None)
        for stretch in self._stretches:
            if stretch.taker is taker:
                stretch.taker = None

    def clear(self) -> None:
        """Nothing waits any more."""
        self._stretches.clear()

    def workspaces(self) -> frozenset[WorkspaceId]:
        """Those that have something waiting, and may start it."""
        waiting = {stretch.run.batch.workspace for stretch in self._stretches if stretch.works}
        return frozenset(workspace for workspace in waiting if not self._is_stopped(workspace))

    @property
    def stretches(self) -> Sequence[Stretch]:
        """What waits, in no order. Some may be empty."""
        return self._stretches

    def waiting(self) -> dict[str, int]:
        """How many requests wait, by model; without those that nobody may start."""
        found: dict[str, int] = {}
        for stretch in self._stretches:
            if not self._is_stopped(stretch.run.batch.workspace):
                found[stretch.model] = found.get(stretch.model, 0) + len(stretch.works)
        return found

    # --- Taking -----------------------------------------------------------------------------------------------------

    def take(self, taker: Taker) -> Work | None:
        """The next request for `taker`, charged to its workspace as estimated; None if there is none for it."""
        while True:
            turn = self._turns.get(taker)
            if turn is None or not self._goes_on(taker, turn):
                turn = self._next_turn(taker)
                if turn is None:
                    return None
            turn.left -= 1
            work = turn.stretch.works.popleft()
            if not turn.stretch.works:
                self.on_low()
            if work.is_open:
                self._charge(work)
                return work

    def _goes_on(self, taker: Taker, turn: _Turn) -> bool:
        stretch = turn.stretch
        is_stopped = self._is_stopped(stretch.run.batch.workspace)
        return turn.left > 0 and bool(stretch.works) and stretch.taker is taker and not is_stopped

    def take_many(self, taker: Taker, *, requests_max: int, bytes_max: int) -> list[Work]:
        """As many requests as fit, neighbours as far as possible. One that is larger than all comes alone."""
        taken: list[Work] = []
        left_bytes = bytes_max
        while len(taken) < requests_max and (work := self.take(taker)) is not None:
            if taken and work.size_bytes > left_bytes:
                self._uncharge(work)
                self.put_back([work])
                break
            left_bytes -= work.size_bytes
            taken.append(work)
        return taken

    def settle(self, work: Work, took: Tokens | None) -> None:
        """A request has its outcome: what it took replaces what was estimated. None: it was not worked on."""
        if took is None:
            self._uncharge(work)
            return
        self._add_work(work, schedule.cost(took) - schedule.cost(work.tokens))
        if work.model in self._estimators or len(self._estimators) < _MODELS_MAX:
            self._estimators[work.model] = tokens.learnt(
                self._estimators.get(work.model, tokens.FRESH),
                size_bytes=work.size_bytes,
                max_tokens=work.max_tokens,
                took=took,
            )

    def estimated(self, model: str, *, size_bytes: int, max_tokens: int) -> Tokens:
        """What a request will likely take."""
        estimator = self._estimators.get(model, tokens.FRESH)
        return tokens.estimated(estimator, size_bytes=size_bytes, max_tokens=max_tokens)

    def _charge(self, work: Work) -> None:
        estimator = self._estimators.get(work.model, tokens.FRESH)
        work.tokens = tokens.estimated(estimator, size_bytes=work.size_bytes, max_tokens=work.max_tokens)
        self._add_work(work, schedule.cost(work.tokens))

    def _uncharge(self, work: Work) -> None:
        self._add_work(work, -schedule.cost(work.tokens))
        work.tokens = Tokens(0, 0)

    def _add_work(self, work: Work, cost: float) -> None:
        workspace = work.run.batch.workspace
        self.served[workspace] = self.served.get(workspace, 0.0) + cost / self.weights.get(workspace, 1.0)

    def _next_turn(self, taker: Taker) -> _Turn | None:
        self._stretches = [stretch for stretch in self._stretches if stretch.works]
        least = min((self.served.get(workspace, 0.0) for workspace in self.workspaces()), default=self._floor)
        self._floor = max(self._floor, least)
        allowed = [stretch for stretch in self._stretches if self._may_take(taker, stretch)]
        inside = sum(other.limit for other in {*self._turns, taker})
        if sum(len(stretch.works) for stretch in allowed) <= inside:
            self.on_low()
        if not allowed:
            self._turns.pop(taker, None)
            return None
        stretch = self._near(taker, self._first(taker, allowed))
        turn = self._turns[taker] = _Turn(stretch, taker.turn)
        return turn

    def _first(self, taker: Taker, allowed: list[Stretch]) -> list[Stretch]:
        """The stretches among which prompt order may decide."""
        if self.danger_ms is not None or taker.is_by_deadline:
            earliest = min(stretch.deadline_ms for stretch in allowed)
            if taker.is_by_deadline or earliest <= (self.danger_ms or 0):
                return [stretch for stretch in allowed if stretch.deadline_ms == earliest]
        workspaces = {stretch.run.batch.workspace for stretch in allowed}
        if len(workspaces) == 1:
            return allowed
        least = min(workspaces, key=lambda workspace: (self.served.get(workspace, 0.0), workspace))  # A seed replays.
        return [stretch for stretch in allowed if stretch.run.batch.workspace == least]

    def _near(self, taker: Taker, first: list[Stretch]) -> Stretch:
        """The stretch that continues what `taker` did, else the oldest that is nobody's, else half of the longest."""
        own = [stretch for stretch in first if stretch.taker is taker]
        free = [stretch for stretch in first if stretch.taker is None]
        if own or free:
            stretch = min(own or free, key=attrgetter("order"))
            stretch.taker = taker
            return stretch
        longest = max(first, key=lambda stretch: len(stretch.works))
        stretch = Stretch(longest.run, longest.model, reversed(list(_back_half(longest))), taker)
        self._stretches.append(stretch)
        return stretch


def _back_half(stretch: Stretch) -> Iterator[Work]:
    for _ in range((len(stretch.works) + 1) // 2):
        yield stretch.works.pop()


def _is_of(stretch: Stretch, work: Work) -> bool:
    return stretch.run is work.run and stretch.model == work.model


def _distance(work: Work, stretch: Stretch) -> int:
    return max(0, stretch.works[0].ordinal - work.ordinal, work.ordinal - stretch.works[-1].ordinal)


def _insert(work: Work, works: deque[Work]) -> None:
    place = 0
    while place < len(works) and works[place].ordinal < work.ordinal:
        place += 1
    works.insert(place, work)
