"""Batch work beside people on one engine: their first token comes first, the rest of the engine is ours.

A flag of priority does not protect them: what was admitted runs, and each of its prompts stands in every step in
which somebody waits. So what counts is how many batch requests are inside and not yet prefilled, `bound` of them at
most while people are around (docs/explanation/scheduling.md), and none starts while somebody has no first
token: at the same throughput that takes a fifth off the longest waits. The bound is found by the time to first token:
a little more with each that comes in time, a cut with one that is late, so that few are. Nobody there for two
seconds: no bound at all.
"""

from math import exp2, inf

from msgspec import Struct
from msgspec.structs import replace

IDLE_MS = 2_000  # Nobody for this long: the engine is ours.
BOUND_LEAST, BOUND_MOST = (
    1.0,
    10.0,
)  # Requests. At 10 people wait twice as long as alone and batch work hardly more than without people.
BOUND_BEGUN = 4.0
RAISE, CUT = 0.02, 0.95  # At rest one in ten first tokens is late at a bound of 4, one in twenty at 8.
PATIENCE = 1.4  # Times the floor, if the operator names no target.
BLOCK = 16  # First tokens whose median is one measurement of the floor.
FLOOR_DRIFT = 1.02  # By which the floor rises with each block that is above it: engines change.
HEADROOM = 0.1  # Of the most people at once lately: who comes next finds a slot before one falls free.
RESERVE_SHARE = 0.5  # Of the window, at most, is kept free for who may come.
RESERVE_DECAY_MS = 30_000  # Time in which the peak of people at once is forgotten by half.


class Beside(Struct, frozen=True, kw_only=True, gc=False):
    """People and batch work on one engine."""

    target_ms: float | None = None  # Of the operator, for the time to first token; None: `patience` times the floor.
    patience: float = PATIENCE
    bound: float = BOUND_BEGUN
    cut_at_ms: float = -inf  # When it was last made smaller.
    floor_ms: float = 0.0  # Lowest recent median of the time to first token; 0: not measured yet.
    block: tuple[float, ...] = ()
    people: int = 0  # Interactive requests inside.
    unserved: int = 0  # Of those, without a first token.
    peak: float = 0.0  # The most at once, slowly forgotten.
    at_ms: float = 0.0  # When somebody last came, got a first token or left; the peak is of then.


NOBODY = Beside()


def after_arrival(beside: Beside, *, shows_first_token: bool = True, now_ms: float) -> Beside:
    """Somebody's request goes into the engine. `shows_first_token`: it is streamed, or the engine tells."""
    people = beside.people + 1
    peak = max(float(people), _peak(beside, now_ms))
    return replace(beside, people=people, unserved=beside.unserved + shows_first_token, peak=peak, at_ms=now_ms)


def after_first_token(beside: Beside, *, ttft_ms: float, now_ms: float) -> Beside:
    """Somebody who waited reads now. A cut comes at most once per target: one long step is one event."""
    floor_ms, block = _floor(beside, ttft_ms)
    beside = replace(
        beside,
        unserved=max(0, beside.unserved - 1),
        peak=_peak(beside, now_ms),
        at_ms=now_ms,
        floor_ms=floor_ms,
        block=block,
    )
    target_ms = beside.target_ms or beside.patience * floor_ms
    if not target_ms:
        return beside
    if ttft_ms <= target_ms:
        return replace(beside, bound=min(BOUND_MOST, beside.bound + RAISE))
    if now_ms < beside.cut_at_ms + target_ms:
        return beside
    return replace(beside, bound=max(BOUND_LEAST, beside.bound * CUT), cut_at_ms=now_ms)


def after_end(beside: Beside, *, is_unserved: bool = False, now_ms: float) -> Beside:
    """Somebody's request left the engine. `is_unserved`: broken or given up before the first token it would show."""
    return replace(
        beside,
        people=max(0, beside.people - 1),
        unserved=max(0, beside.unserved - is_unserved),
        peak=_peak(beside, now_ms),
        at_ms=now_ms,
    )


def is_idle(beside: Beside, *, now_ms: float) -> bool:
    """Whether nobody was there for two seconds."""
    return beside is NOBODY or (beside.people == 0 and now_ms >= beside.at_ms + IDLE_MS)


def room(beside: Beside, *, now_ms: float, window: int, in_flight: int, unprefilled: int, waiting: int = 0) -> int:
    """How many batch requests may start now. `waiting`: interactive requests that are not inside the engine yet.

    The window is for everybody: people take of it what they use, and keep free what they have lately used.
    """
    if is_idle(beside, now_ms=now_ms):
        return max(0, window - in_flight)
    if waiting or beside.unserved:
        return 0
    free = window - in_flight - reserved(beside, window=window, now_ms=now_ms)
    return max(0, min(free, int(beside.bound) - unprefilled))


def reserved(beside: Beside, *, window: int, now_ms: float) -> int:
    """How much of the window is people's: who is there, and room for those who may come in the time of a step."""
    return beside.people + min(1 + int(HEADROOM * _peak(beside, now_ms)), int(window * RESERVE_SHARE))


def _peak(beside: Beside, now_ms: float) -> float:
    return max(float(beside.people), beside.peak * exp2((beside.at_ms - now_ms) / RESERVE_DECAY_MS))


def _floor(beside: Beside, ttft_ms: float) -> tuple[float, tuple[float, ...]]:
    block = (*beside.block, ttft_ms)
    if len(block) < BLOCK:
        return beside.floor_ms, block
    median = sorted(block)[BLOCK // 2]
    risen = beside.floor_ms * FLOOR_DRIFT
    return (median if not beside.floor_ms or median < risen else risen), ()


# --- engines that do not tell the first token -----------------------------------------------------------------------

FORGETS = 0.98  # What an answer still weighs when the next one comes: about the last fifty count.
PACE_ANSWERS = 8  # Fewer say nothing.


class Pace(Struct, frozen=True, kw_only=True, gc=False):
    """latency = prefill + per token * output, as weighted sums of a regression over recent answers."""

    n: float = 0.0
    x: float = 0.0  # Output tokens,
    y: float = 0.0  # milliseconds,
    xx: float = 0.0
    xy: float = 0.0


def after_answer(pace: Pace, *, latency_ms: float, output_tokens: int) -> Pace:
    """What one more answer of a batch request says of the engine's pace."""
    return Pace(
        n=pace.n * FORGETS + 1.0,
        x=pace.x * FORGETS + output_tokens,
        y=pace.y * FORGETS + latency_ms,
        xx=pace.xx * FORGETS + output_tokens * output_tokens,
        xy=pace.xy * FORGETS + latency_ms * output_tokens,
    )


def prefill_ms(pace: Pace) -> float:
    """How long after its start a request is likely prefilled: one that is younger counts as not prefilled.

    Answers of one length cannot tell prefill from decoding; then, and before there are a few, all of the latency
    counts: too careful rather than too bold.
    """
    if pace.n < PACE_ANSWERS * 0.9:
        return float("inf")
    spread = pace.n * pace.xx - pace.x * pace.x
    mean = pace.y / pace.n
    if spread <= 1e-6 * pace.n * pace.xx:
        return mean
    per_token = max(0.0, (pace.n * pace.xy - pace.x * pace.y) / spread)
    return min(mean, max(0.0, (pace.y - per_token * pace.x) / pace.n))
