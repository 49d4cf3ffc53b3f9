"""What happens after an attempt: one pure function of the outcome, the attempt, and the time left.

Two kinds of failure differ in what they say about the request. `Busy` says nothing: the engine had no room, or
is not there at all, so the request waits as long as the batch lives (`core.gate` decides how long). `Broken` may
be the request's own doing (it crashes the server, it never ends), so it counts, and after `limits.ATTEMPTS_MAX` it
is an errored row.

Backoff is exponential with equal jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
The retry budget keeps a broken engine from being hit by more retries than work (SRE book, chapter 21).
"""

from typing import Literal, TypeAlias, assert_never

import msgspec
from msgspec.structs import replace

from overnight import limits


class Answered(msgspec.Struct, frozen=True, gc=False):
    """A complete Message."""

    message: bytes  # JSON, one line.


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The request itself is at fault, trying again would not help: an errored row."""

    status: int
    type: str  # An API error type, as https://platform.claude.com/docs/en/api/errors lists them.
    message: str
    request_id: str | None = None  # The upstream's, if it gave one.


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """No room or nobody there (429, 503, 529, connection refused): try later, as often as it takes."""

    reason: str  # For operators to read.
    status: int = 529
    retry_after_ms: int | None = None
    is_away: bool = False  # Nobody was reached: to be looked for before it is asked again.


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt failed in a way that the request may have caused (5xx, lost connection, timeout, nonsense)."""

    reason: str
    type: Literal["api_error", "timeout_error"] = "api_error"
    is_lost: bool = False  # The connection broke while the engine worked on it: perhaps the engine died of it.


Outcome: TypeAlias = Answered | Refused | Busy | Broken


class Record(msgspec.Struct, frozen=True):
    """The outcome is final: write its result line."""

    outcome: Answered | Refused


class Again(msgspec.Struct, frozen=True):
    """Try once more after `delay_ms`."""

    delay_ms: int


class Alone(msgspec.Struct, frozen=True):
    """Try once more, with no other request of a batch inside the engine: it may be what kills it."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How many retries an engine may be asked for now: a share of its first attempts, never below a floor."""

    retries_left: float = limits.RETRY_BUDGET_FLOOR


def after_first_attempt(budget: Budget) -> Budget:
    """The budget after one more first attempt: each earns a fifth of a retry, up to a hundredfold floor."""
    ceiling = 100 * limits.RETRY_BUDGET_FLOOR
    if budget.retries_left == ceiling:
        return budget  # Most of the time.
    return replace(budget, retries_left=min(ceiling, budget.retries_left + limits.RETRY_BUDGET_SHARE))


def after_retry(budget: Budget) -> Budget:
    """The budget after one retry was started."""
    return replace(budget, retries_left=max(0.0, budget.retries_left - 1.0))


def decide(
    outcome: Answered | Refused | Broken,
    *,
    attempt: int,
    budget: Budget,
    jitter: float,
    deaths: int = 0,
    was_alone: bool = False,
    was_in_doubt: bool = False,
) -> Record | Again | Alone:
    """What to do after attempt number `attempt` (from 1); `jitter` is a dice roll in [0, 1).

    `deaths` is how often an engine was lost with this request inside, this time included; `was_alone` whether it was
    the only one then. A request that was there twice is suspect: it runs alone, and a third loss is its own doing,
    unless the engine `was_in_doubt`: it had answered nothing since it last failed, and may be losing all it gets.
    A `Busy` engine is not decided here but by `core.gate`: it pauses the engine, not the request.
    """
    match outcome:
        case Answered() | Refused():
            return Record(outcome)
        case Broken(is_lost=True) if (
            was_alone and deaths > limits.DEATHS_MAX and (not was_in_doubt or attempt >= limits.ATTEMPTS_MAX)
        ):
            text = f"the engine was lost all {deaths} times it worked on this request, the last time on nothing else"
            return Record(Refused(status=500, type="api_error", message=text))
        case Broken(is_lost=True) if deaths >= limits.DEATHS_MAX:
            return Alone()
        case Broken(reason=reason, type=error_type):
            if attempt < limits.ATTEMPTS_MAX:
                return Again(_delay_ms(attempt, budget=budget, jitter=jitter))
            status = 504 if error_type == "timeout_error" else 500
            return Record(Refused(status=status, type=error_type, message=f"{reason} ({attempt} attempts)"))
        case _:
            assert_never(outcome)


def _delay_ms(attempt: int, *, budget: Budget, jitter: float) -> int:
    longest = min(limits.RETRY_DELAY_MS << min(attempt - 1, 10), limits.RETRY_DELAY_MS_MAX)
    if budget.retries_left < 1.0:  # Not fewer tries, but later ones: nothing is given up for the engine's sake.
        longest = limits.RETRY_DELAY_MS_MAX
    return longest // 2 + int(jitter * (longest / 2))
