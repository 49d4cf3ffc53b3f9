"""What `testing.hosted` can be told to do wrong, and the answers that say so."""

from collections import deque
from typing import Literal, NamedTuple, TypeAlias

from overnight.errors import ApiError, TooLarge
from overnight.wire import problem

Operation: TypeAlias = Literal["create", "retrieve", "list", "results", "cancel", "delete", "realtime"]

_EVERYWHERE = frozenset({"busy", "overloaded", "500", "dropped"})
_FAULTS: dict[Operation, frozenset[str]] = {
    "create": _EVERYWHERE | {"lost", "500-nothing", "413", "billing"},
    "retrieve": _EVERYWHERE | {"404"},
    "list": _EVERYWHERE,
    "results": _EVERYWHERE | {"404", "cut"},
    "cancel": _EVERYWHERE | {"404"},
    "realtime": _EVERYWHERE | {"billing"},
    "delete": frozenset(),
}
_BILLING = (
    "Your credit balance is too low to access the Anthropic API. "
    "Please go to Plans & Billing to upgrade or purchase credits."
)
_SAID = {
    "busy": (429, "This request would exceed the rate limit of your organization. Please try again later."),
    "overloaded": (529, "Overloaded"),
    "500": (500, "Internal server error"),
    "500-nothing": (500, "Internal server error"),
    "404": (404, "Message Batch {batch_id} not found."),
    "billing": (400, _BILLING),
}


class Fault(NamedTuple):
    """One thing to do wrong."""

    what: str
    retry_after_s: int | None = None
    after_bytes: int = 0


class Faults:
    """What is still to go wrong, by operation, in the order it was asked for."""

    def __init__(self) -> None:
        self._queues: dict[Operation, deque[Fault]] = {operation: deque() for operation in _FAULTS}

    def add(self, operation: Operation, fault: Fault, *, times: int) -> None:
        """ValueError if this operation has no such fault."""
        if fault.what not in _FAULTS[operation]:
            raise ValueError(f"{operation} has no fault {fault.what!r}, only {sorted(_FAULTS[operation])}")
        self._queues[operation].extend([fault] * times)

    def next_is(self, operation: Operation, what: str) -> bool:
        """Whether the next fault of this operation is of that name; it stays the next."""
        queue = self._queues[operation]
        return bool(queue) and queue[0].what == what

    def take(self, operation: Operation) -> Fault | None:
        """The next fault of this operation."""
        queue = self._queues[operation]
        return queue.popleft() if queue else None


class Refused(ApiError):
    """An error answer of whatever status and type."""

    def __init__(self, message: str, *, status: int, error_type: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]
        self.type = error_type  # type: ignore[misc]
        self._retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        return {} if self._retry_after_s is None else {"retry-after": str(self._retry_after_s)}


def refusal(fault: Fault, batch_id: str) -> ApiError:
    """The error answer that a fault of this name stands for, to a call about this batch ("" if about none)."""
    if fault.what == "413":
        return TooLarge("Request exceeds the maximum size")
    status, said = _SAID[fault.what]
    error_type = problem.type_of_status(status)
    return Refused(
        said.format(batch_id=batch_id), status=status, error_type=error_type, retry_after_s=fault.retry_after_s
    )
