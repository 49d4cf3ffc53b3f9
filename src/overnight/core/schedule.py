"""Which batch is worked on next: pure functions over what is waiting.

Order of rules: what only needs closing (canceled, expired) goes first, for it costs no engine time; then, while a
deadline is in danger, the batch with the earliest one; then the workspace that was served least, so that one team's
whale does not hold up another's ten requests; then the oldest batch. Inside a batch segments go in prefix order.

Fairness after the Virtual Token Counter (arXiv 2401.00588): service is counted in tokens and divided by weight. The
guard looks at latest starts: it is asleep while all that is due by each deadline fits into nine tenths of the time.
The same rules are used twice: when segments are leased (`Turns`), and when an engine takes its next requests
(`runner.backlog`).
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from overnight.core.batch import Batch, kind_of_unfinished
from overnight.core.tokens import Tokens
from overnight.ids import WorkspaceId

URGENT_MS = 3_600_000  # While no speed is known, the last hour before expires_at is taken as danger.
GUARD_SHARE = 0.9  # Of what an engine can do before a deadline: beyond it the deadline is in danger.
GUARD_MS = (
    60_000  # Before it: what is inside then is still to be answered, and danger is not looked for all the time.
)
OUTPUT_WEIGHT = 2  # An output token counts as two of input, as in the paper.


class Candidate(Struct, frozen=True, kw_only=True):
    """A batch with segments that nobody holds. `age` grows with creation: smaller is older."""

    batch: Batch
    age: int


class Demand(NamedTuple):
    """So many requests want an answer before a deadline."""

    deadline_ms: int
    requests: int


def danger_until_ms(demands: Iterable[Demand], *, per_s: float | None, now_ms: int) -> int | None:
    """The last deadline that is in danger: batches due by it go first, in order of deadline. None: there is none.

    `per_s` is how many requests are finished in a second at full speed; None if that is not known yet.
    """
    ahead = sorted(item for item in demands if item.deadline_ms > now_ms)
    if per_s is None:
        return max((item.deadline_ms for item in ahead if item.deadline_ms - now_ms <= URGENT_MS), default=None)
    requests, danger_ms = 0, None
    for item in ahead:
        requests += item.requests
        if requests >= GUARD_SHARE * per_s * (item.deadline_ms - GUARD_MS - now_ms) / 1000:
            danger_ms = item.deadline_ms
    return danger_ms


def left_over(demands: Iterable[Demand], *, others_per_s: float, now_ms: int) -> list[Demand]:
    """What of `demands` others that finish so many requests a second cannot do before its deadline."""
    requests, left, found = 0, 0, list[Demand]()
    for item in sorted(demands):
        requests += item.requests
        done_by_others = int(others_per_s * max(0, item.deadline_ms - now_ms) / 1000)
        if requests - done_by_others > left:
            found.append(Demand(item.deadline_ms, requests - done_by_others - left))
            left = requests - done_by_others
    return found


def cost(tokens: Tokens) -> float:
    """What a request of these tokens counts in the fairness between workspaces."""
    return tokens.input + OUTPUT_WEIGHT * tokens.output


def lifted(served: Mapping[WorkspaceId, float], active: Iterable[WorkspaceId]) -> dict[WorkspaceId, float]:
    """`served` with newcomers raised to the least of the active ones: nobody saves up service by staying away."""
    present = list(active)
    floor = min((served[workspace] for workspace in present if workspace in served), default=0.0)
    return {**served, **{workspace: max(served.get(workspace, floor), floor) for workspace in present}}


class Turns:
    """Whose turn it is to have a segment leased, one after another. `served` is work per workspace by weight."""

    def __init__(
        self,
        candidates: Iterable[Candidate],
        *,
        served: Mapping[WorkspaceId, float],
        danger_ms: int | None,
        now_ms: int,
    ) -> None:
        self._closing = deque[Candidate]()
        self._endangered = deque[Candidate]()
        self._others = defaultdict[WorkspaceId, deque[Candidate]](deque)
        for item in sorted(candidates, key=lambda item: item.age):
            if kind_of_unfinished(item.batch, now_ms=now_ms) is not None:
                self._closing.append(item)
            elif danger_ms is not None and item.batch.expires_at_ms <= danger_ms:
                self._endangered.append(item)
            else:
                self._others[item.batch.workspace].append(item)
        self._endangered = deque(sorted(self._endangered, key=lambda item: (item.batch.expires_at_ms, item.age)))
        self._known = frozenset(served)
        self._served = lifted(served, self._others)

    def closing(self) -> Candidate | None:
        """The next batch that only needs closing."""
        return self._closing[0] if self._closing else None

    def next(self, *, besides: frozenset[WorkspaceId] = frozenset()) -> Candidate | None:
        """The next batch that wants an engine, of no workspace in `besides`; the same until it is told of."""
        for item in self._endangered:
            if item.batch.workspace not in besides:
                return item
        waiting = [workspace for workspace in self._others if workspace not in besides]
        if not waiting:
            return None
        return self._others[min(waiting, key=self._rank)][0]

    def _rank(self, workspace: WorkspaceId) -> tuple[float, bool, int]:
        """Among equals a newcomer is first: it has nothing inside yet, the others have."""
        return self._served[workspace], workspace in self._known, self._others[workspace][0].age

    def served(self, candidate: Candidate, work: float) -> None:
        """One of its segments is leased, which is so much work for its workspace."""
        workspace = candidate.batch.workspace
        self._served[workspace] = self._served.get(workspace, 0.0) + work

    def is_out(self, candidate: Candidate) -> None:
        """It has no free segment left."""
        for waiting in (self._closing, self._endangered):
            if candidate in waiting:
                waiting.remove(candidate)
        own = self._others.get(candidate.batch.workspace)
        if own and candidate in own:
            own.remove(candidate)
            if not own:
                del self._others[candidate.batch.workspace]
