"""Whether an engine may be asked now: closed for a while after it said it is busy, then a single try, then open.

A burst of refusals is one event: with 64 requests in flight an overloaded engine says 429 up to 64 times about the
same moment, and only the first lengthens the pause (docs/adr/0005).
"""

from msgspec import Struct
from msgspec.structs import replace

from overnight import limits


class Gate(Struct, frozen=True, kw_only=True):
    """`bursts` counts pauses since the last success; `closed_until_ms` is loop time."""

    bursts: int = 0
    closed_until_ms: float = 0.0
    failures: int = 0  # Broken attempts since the last success.


OPEN = Gate()


def after_busy(gate: Gate, *, now_ms: float, asked_ms: int | None, jitter: float) -> Gate:
    """The gate after one Busy: 1 s, doubling to a minute, or as long as the engine asked, whichever is longer."""
    asked = min(asked_ms or 0, limits.RETRY_AFTER_MS_MAX)
    if now_ms < gate.closed_until_ms:  # The same burst.
        return replace(gate, closed_until_ms=max(gate.closed_until_ms, now_ms + asked))
    own = min(limits.RETRY_DELAY_MS << min(gate.bursts, 10), limits.RETRY_DELAY_MS_MAX)
    pause = max(own * (0.5 + jitter / 2), float(asked))
    return replace(gate, bursts=gate.bursts + 1, closed_until_ms=now_ms + pause)


def after_broken(gate: Gate, *, now_ms: float, jitter: float) -> Gate:
    """The gate after one broken attempt: a circuit breaker that opens when as many came in a row as no request of
    its own can cause, and again after each single try that fails (https://martinfowler.com/bliki/CircuitBreaker.html)."""
    failures = gate.failures + 1
    if failures < limits.BREAKER_FAILURES:
        return Gate(failures=failures)  # It is not busy.
    counted = replace(gate, failures=failures)
    if now_ms < gate.closed_until_ms:  # The same burst.
        return counted
    return after_busy(counted, now_ms=now_ms, asked_ms=None, jitter=jitter)


def room(gate: Gate, *, now_ms: float, in_flight_max: int) -> int:
    """How many requests may be inside the engine now: none, one to try it, or all."""
    if now_ms < gate.closed_until_ms:
        return 0
    return 1 if gate.bursts else in_flight_max
