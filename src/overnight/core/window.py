"""How many requests are in flight: as many as keep the engine full, found while it works, and hardly more.

Too few waste the engine; too many wait inside it, where nothing can be re-ordered, cancelled or overtaken. The right
number differs a hundredfold between engines, so none is assumed. Latency says nothing: in a continuous batch it must
grow with the batch while throughput still rises. So there are two ways to steer (docs/explanation/scheduling.md):

- by the queue, where the engine tells it: double until requests wait, then let a tenth as many wait as run;
- by goodput, where it does not: a larger window must bring more tokens a second, a smaller one no fewer.

After a change the requests from before it have to leave first; what completes meanwhile says nothing and is skipped.
A refusal cuts the window by a quarter, once per burst, and the refused height is remembered. Memory is a limit of its
own, in tokens: what is in flight over what the engine says is used tells how much it holds.
"""

from math import ceil, hypot, sqrt

from msgspec import Struct
from msgspec.structs import replace

START = 32  # Requests. An engine of a few slots has few too many, a GPU is full after five doublings.
WAITING_SHARE = 0.1  # Of those that run: the next ones are there when a step has room.
GROWTH = 1.1  # While nobody waits, but somebody once did.
CUT = 0.75  # What a refusal leaves (AIMD as in NVIDIA NeMo Data Designer, whose ceiling memory is the one below).
BURST_MS = 2_000  # Refusals this close are one event.
CEILING_SLACK = 1.1  # How far above a refused height the window goes, and how much higher each minute after.
CEILING_MS = 60_000
KV_SHARE = 0.9  # Of the engine's memory. Above 95 % it throws requests out, which then begin again.
KV_TELLS = 0.6  # Below this share of it memory is no limit yet, and the rest cannot be extrapolated.
KV_REGAIN = 1.005  # Each period, of the tokens, where an engine tells only that requests were thrown out.
RAMP = 2.0  # First step of a probe; a step that fails is followed by its root.
STEP = 1.25  # Smallest step of a probe: what it brings must stand out of the noise.
GAIN = 0.075  # What a larger window must bring: ln 1.03 / ln 1.5, 3 % more for half as much again.
GAIN_RAMPING = 0.15  # The same while doubling, when measurements are short.
SURE = 1.5  # Deviations by which a measurement is clear before its time.
WORK_DEVIATION = 0.5  # Of what one request takes, as a share of the mean: lengths of answers are about exponential.
LONGEST = 4  # Turns of the window that a measurement takes at most.
RESTS = 2  # Turns of the window at the best so far after a probe that failed: both are measured again.
HOLDS = 10  # Turns of the window at rest between probes.
ENOUGH = 32  # Completions, the least that are a measurement.


class Period(Struct, frozen=True, kw_only=True, gc=False):
    """What was seen since the last period, half a second to a second long; the last five are the engine's `Load`."""

    ms: float
    completed: int  # Requests.
    tokens: int  # Of those: uncached input and output.
    in_flight: int  # Requests of ours inside the engine now, interactive ones included: the window is for all.
    tokens_in_flight: int = 0  # Of those, as `core.tokens` estimates them.
    is_saturated: bool  # The window held requests back all the time.
    running: int = 0
    waiting: int | None = None  # None: the engine does not tell.
    kv_share: float | None = None
    preemptions: int | None = None


class Window(Struct, frozen=True, kw_only=True):
    """Admit a request if fewer than `limit` are in flight, with fewer than `tokens_limit` tokens."""

    limit: int
    most: int  # What the operator, or the engine, allows.
    tokens_limit: float | None = None  # None: nothing is known of the engine's memory.
    is_fixed: bool = False
    ceiling: int = 0  # The height that was refused; 0: none.
    cut_at_ms: float = 0.0
    preemptions: int = 0  # As last told,
    has_looked: bool = False  # if ever: the first figure is of the time before us.
    to_skip: int = 0  # Completions of requests from before the last change.
    queue: float | None = None  # Requests that wait inside the engine, averaged.
    ms: float = 0.0  # The measurement that goes on.
    completed: int = 0
    tokens: int = 0
    base: int = 0  # By goodput: the height that is best so far,
    base_completed: int = 0  # how many requests its measurement has seen,
    base_rate: float = 0.0  # and tokens a millisecond there.
    is_ramping: bool = True  # Nothing was ever full.
    step: float = RAMP  # The factor between `base` and the next height that is tried.
    is_upward: bool = True
    holds: int = 0  # Measurements at `base` until then.


def begun(*, most: int, fixed: bool = False) -> Window:
    """The window of an engine nothing is known of. `fixed`: it has slots, and `most` is how many."""
    limit = most if fixed else min(START, most)
    return Window(limit=limit, most=most, is_fixed=fixed, to_skip=limit)


def after_period(window: Window, seen: Period, *, now_ms: float) -> Window:
    """The window after one more period of work. It never grows unless it was what held requests back."""
    window = _by_memory(window, seen)
    if window.is_fixed:
        return window
    skipped = min(window.to_skip, seen.completed)
    window = replace(window, to_skip=window.to_skip - skipped)
    if not seen.is_saturated:  # What it has room for may come all at once, and waits then as after a change.
        to_skip = max(window.to_skip, window.limit - seen.in_flight)
        window = replace(window, to_skip=to_skip, ms=0.0, completed=0, tokens=0)
    if seen.waiting is not None:
        return _by_queue(window, seen, seen.waiting, now_ms)
    if skipped or not seen.is_saturated:
        return window
    window = replace(
        window,
        ms=window.ms + seen.ms,
        completed=window.completed + seen.completed,
        tokens=window.tokens + seen.tokens,
    )
    return _by_goodput(window, now_ms)


def after_refusal(window: Window, *, now_ms: float) -> Window:
    """The window after the engine had no room (429, 503, 529): a quarter less, once per burst."""
    if window.is_fixed or (window.cut_at_ms and now_ms < window.cut_at_ms + BURST_MS):
        return window
    limit = int(window.limit * CUT)
    window = replace(
        window, ceiling=window.limit, cut_at_ms=now_ms, base=0, is_ramping=False, step=STEP, is_upward=True
    )
    return _moved(window, limit, now_ms)


def _moved(window: Window, limit: int, now_ms: float) -> Window:
    most = window.most
    if window.ceiling:
        minutes = (now_ms - window.cut_at_ms) / CEILING_MS
        most = min(most, int(window.ceiling * CEILING_SLACK ** min(1 + minutes, 100)))
    limit = max(1, min(limit, most))
    return replace(window, limit=limit, to_skip=max(limit, window.limit), queue=None, ms=0.0, completed=0, tokens=0)


# --- by the queue ---------------------------------------------------------------------------------------------------


def _by_queue(window: Window, seen: Period, waiting: int, now_ms: float) -> Window:
    """Double until somebody waits, and not because we have just doubled; from then on a little up, or the excess
    down. What waits between two steps is not yet a queue, so several periods count together."""
    if seen.running + waiting < seen.in_flight / 2:
        return window  # The engine has not counted yet what came.
    wanted = max(1.0, WAITING_SHARE * seen.running)
    if window.is_ramping and waiting < wanted / 2:
        return _moved(window, ceil(window.limit * RAMP), now_ms) if seen.is_saturated else window
    if window.to_skip:
        return window
    queue = waiting if window.queue is None else window.queue + (waiting - window.queue) / 4
    excess = int(queue - wanted)
    if excess > wanted / 2:
        limit = max(1, min(window.limit, seen.in_flight) - excess)
        return _moved(replace(window, is_ramping=False), limit, now_ms)
    if queue < wanted / 2 and seen.is_saturated and not window.is_ramping:
        return _moved(window, ceil(window.limit * GROWTH), now_ms)
    return replace(window, queue=queue)


# --- by goodput -----------------------------------------------------------------------------------------------------


def _by_goodput(window: Window, now_ms: float) -> Window:
    """Judge the measurement as soon as it is clear, or long enough; in doubt the larger window is kept."""
    least = max(ENOUGH, window.limit // 2) if window.is_ramping else max(2 * ENOUGH, window.limit)
    if window.completed < least:
        return window
    rate = (window.tokens + window.completed) / window.ms  # An engine that tells no tokens: requests.
    if not window.base:
        return _probed(_based(window, rate), now_ms)
    if window.limit == window.base:
        return window if window.completed < window.holds * least else _probed(_based(window, rate), now_ms)
    wanted = (window.limit / window.base) ** (GAIN_RAMPING if window.is_ramping else GAIN)
    doubt = SURE * hypot(_noise(window.limit, window.completed), _noise(window.base, window.base_completed))
    gain = rate / window.base_rate
    if window.completed < LONGEST * least and wanted - doubt < gain < wanted + doubt:
        return window
    if gain < wanted + (0.0 if window.is_upward else doubt / 2):
        return _failed(window, now_ms)
    return _probed(replace(_based(window, rate), step=min(RAMP, window.step**2)), now_ms)


def _noise(limit: int, completed: int) -> float:
    """Deviation of a rate, as a share of it: at both ends a part of what is inside falls on either side, which is
    about the root of the window however long one looks; and requests take more work or less."""
    return hypot(sqrt(limit) / completed, WORK_DEVIATION / sqrt(completed))


def _based(window: Window, rate: float) -> Window:
    return replace(window, base=window.limit, base_rate=rate, base_completed=window.completed)


def _failed(window: Window, now_ms: float) -> Window:
    """Back to the best so far; then half as far, and where that is no measurable step any more, the other way."""
    if window.is_ramping and window.base <= START:  # It was full from the beginning.
        window = replace(window, is_ramping=False, is_upward=False, holds=1)
        return _moved(window, window.base, now_ms)
    step, is_upward, holds = sqrt(window.step), window.is_upward, RESTS
    if step < STEP:
        step, is_upward, holds = STEP, not is_upward, RESTS if is_upward else HOLDS
    window = replace(window, is_ramping=False, step=step, is_upward=is_upward, holds=holds)
    return _moved(window, window.base, now_ms)


def _probed(window: Window, now_ms: float) -> Window:
    limit = ceil(window.base * window.step) if window.is_upward else int(window.base / window.step)
    moved = _moved(window, limit, now_ms)
    if moved.limit == window.base:  # There is no room that way.
        return replace(moved, is_ramping=False, step=STEP, is_upward=not window.is_upward, holds=HOLDS)
    return moved


# --- by memory ------------------------------------------------------------------------------------------------------


def _by_memory(window: Window, seen: Period) -> Window:
    """How many tokens fit, from what is used now. Requests that were thrown out: a quarter fewer than there are, and
    nothing more until those have gone."""
    limit, inside = window.tokens_limit, seen.tokens_in_flight
    thrown_out = 0 if seen.preemptions is None else seen.preemptions - window.preemptions
    if thrown_out > 0 and window.has_looked and inside:
        limit = CUT * inside if limit is None or inside <= limit else limit
    elif seen.kv_share is not None and seen.kv_share < KV_TELLS:
        limit = None
    elif seen.kv_share is not None and seen.running and inside:
        fits = inside * seen.running / (seen.running + (seen.waiting or 0)) * KV_SHARE / seen.kv_share
        limit = fits if limit is None else limit + (fits - limit) / 8
    elif limit is not None and seen.kv_share is None:
        limit *= KV_REGAIN
    preemptions = window.preemptions if seen.preemptions is None else seen.preemptions
    return replace(window, tokens_limit=limit, preemptions=preemptions, has_looked=seen.preemptions is not None)
