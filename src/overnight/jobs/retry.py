"""What happens to a row after an attempt: done for good, or asked again, and how. Pure."""

from typing import Literal, NamedTuple, TypeAlias

from overnight.jobs.row import State

TRANSIENT = frozenset({"rate_limit_error", "overloaded_error", "api_error", "timeout_error"})
BILLING = frozenset({"billing_error"})
_BILLING_WORDS = "credit balance is too low"  # The hosted API says so in an invalid_request_error.

Next: TypeAlias = Literal["final", "again", "more_room", "explained", "paused"]


class Attempt(NamedTuple):
    """How a row stands after its latest attempt. `attempts` counts all of them, this one too."""

    state: State
    attempts: int
    error_type: str = ""
    error: str = ""
    has_more_room: bool = False  # max_tokens was doubled before.
    is_explained: bool = False  # A validation error was appended before.


def after(attempt: Attempt, *, attempts_max: int) -> Next:
    """`again`: the same request in a new batch; `more_room`: with max_tokens doubled; `explained`: with what was
    wrong about the answer; `paused`: it can be sent when the account has credit; `final`: never again by itself.

    What a live client would try again is tried again (https://platform.claude.com/docs/en/api/errors).
    """
    if attempt.state == "errored" and is_billing(attempt.error_type, attempt.error):
        return "paused"
    found: Next = "final"
    if attempt.attempts < attempts_max:
        match attempt.state:
            case "expired" | "missing":
                found = "again"
            case "errored" if attempt.error_type in TRANSIENT:
                found = "again"
            case "truncated" if not attempt.has_more_room:
                found = "more_room"
            case "invalid" if not attempt.is_explained:
                found = "explained"
    return found


def is_billing(error_type: str, error: str) -> bool:
    """Whether a refusal is about money: the request is fine, and will be when the account has credit."""
    return error_type in BILLING or _BILLING_WORDS in error.lower()


def is_failed_for_good(attempt: Attempt) -> bool:
    """Whether later nights leave the row alone until its request changes: asking again would be paid again.

    Bad luck is no reason to leave a row alone: the next night may have more.
    """
    if attempt.state == "errored":
        return attempt.error_type not in TRANSIENT and not is_billing(attempt.error_type, attempt.error)
    return attempt.state in ("invalid", "refused", "truncated")
