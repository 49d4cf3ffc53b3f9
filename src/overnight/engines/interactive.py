"""An outcome that is not an answer, as the error that an interactive caller gets.

Batch requests wait and try again; who waits at the other end of a connection is told at once.
"""

from math import ceil
from typing import assert_never

from overnight.core.retry import Broken, Busy, Refused
from overnight.errors import ApiError, EngineFailed, EngineTimeout, Overloaded, UpstreamRefused

_RETRY_AFTER_MS = 5_000  # When the engine names no time.


def api_error(outcome: Refused | Busy | Broken, *, name: str) -> ApiError:
    """The error to raise; `name` is the engine's."""
    match outcome:
        case Refused(status=status, type=error_type, message=message):
            return UpstreamRefused(message, status=status, error_type=error_type)
        case Busy(reason=reason, retry_after_ms=asked_ms):
            wait_ms = _RETRY_AFTER_MS if asked_ms is None else asked_ms
            text = f"The engine {name} cannot answer now: {reason}"
            return Overloaded(text, retry_after_s=ceil(wait_ms / 1000))
        case Broken(reason=reason, type="timeout_error"):
            return EngineTimeout(f"The engine {name} took too long: {reason}")
        case Broken(reason=reason):
            return EngineFailed(f"The engine {name} failed: {reason}")
        case _:
            assert_never(outcome)
