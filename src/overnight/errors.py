"""Every error we raise on purpose.

OvernightError
├── ApiError                the caller's fault, or a limit: one HTTP status, one error type
│   ├── InvalidRequest      400 invalid_request_error
│   │   └── SpendLimit      … since a budget of the workspace is spent
│   ├── NotAuthenticated    401 authentication_error
│   ├── PermissionDenied    403 permission_error
│   ├── NotFound            404 not_found_error
│   ├── NoResults           404 not_found_error, `x-should-retry: false`
│   ├── BodyTimeout         408 invalid_request_error
│   ├── Conflict            409 conflict_error, `x-should-retry: false`
│   ├── TooLarge            413 request_too_large
│   ├── RateLimited         429 rate_limit_error, `retry-after`
│   ├── EngineFailed        500 api_error (or 504 timeout_error)
│   └── Overloaded          529 overloaded_error, `retry-after`
├── UsageError              the operator's fault: a setting or flag that cannot work; refuse to start
│   └── JobError            … in a job file, a row of its source or a template of it
├── NotSpent                a job stopped before it would have spent: budget, size, a first row that fails
├── JobHeld                 another process works on this job
├── ServerTrouble           a job's server refuses, or cannot be reached, for longer than we try
└── StoreError              the world broke: disk full, damaged or foreign data directory
    ├── DirectoryInUse      a second server on one data directory
    ├── DirectoryTooNew     written by a newer version
    ├── DiskFull            nothing was acknowledged; retry when there is room
    ├── ObjectMissing       a control row names an object that is gone
    └── LeaseLost           a newer epoch owns the segment: drop the work, somebody else has it

Status and type pairs follow https://platform.claude.com/docs/en/api/errors.
"""

from typing import ClassVar


class OvernightError(Exception):
    """Base of all errors below; never raised itself."""


class ApiError(OvernightError):
    """An answer other than 200. `str(error)` is the `error.message` a caller reads."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str] = ""  # What `error.details` calls it, where the API has a word of its own.

    def headers(self) -> dict[str, str]:
        """Extra response headers of this answer."""
        return {}


class InvalidRequest(ApiError):
    """The request is wrong. Messages name the path as the API writes it: `requests.0.custom_id: …`."""


class SpendLimit(InvalidRequest):
    """A budget of the caller's workspace is spent. For a limit that the customer set, the API has a 400."""

    code = "enforced_spend_limit_reached"


class NotAuthenticated(ApiError):
    """No key, or one we do not know."""

    status, type = 401, "authentication_error"


class PermissionDenied(ApiError):
    """The key is good, and may not do this."""

    status, type = 403, "permission_error"


class NotFound(ApiError):
    """No such thing in the caller's workspace."""

    status, type = 404, "not_found_error"


class NoResults(NotFound):
    """The batch exists and has no results to download (yet, or any more)."""

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class MethodNotAllowed(ApiError):
    """The path exists, this method on it does not."""

    status, type = 405, "invalid_request_error"


class BodyTimeout(ApiError):
    """The request body stopped arriving."""

    status = 408


class Conflict(ApiError):
    """The same `Idempotency-Key` came with another body."""

    status, type = 409, "conflict_error"

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}  # SDKs retry a 409 unless told otherwise.


class TooLarge(ApiError):
    """The body is over the limit of this endpoint."""

    status, type = 413, "request_too_large"


class RateLimited(ApiError):
    """Too many requests per minute; `retry_after_s` is when the next one is welcome."""

    status, type = 429, "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_s)}


class Overloaded(RateLimited):
    """The engine or this server has no room at the moment."""

    status, type = 529, "overloaded_error"


class EngineFailed(ApiError):
    """The engine broke while it answered an interactive request."""

    status, type = 500, "api_error"


class EngineTimeout(EngineFailed):
    """The engine did not answer in time."""

    status, type = 504, "timeout_error"


class UpstreamRefused(ApiError):
    """The engine refused the request: its status and type are passed on."""

    def __init__(self, message: str, *, status: int, error_type: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]
        self.type = error_type  # type: ignore[misc]


class UsageError(OvernightError):
    """A setting that cannot work. The message says which, where it came from, and what to do."""


class JobError(UsageError):
    """A job that cannot work as it is written, or a row that it cannot be applied to. Nothing was sent for it."""


class NotSpent(OvernightError):
    """A job stopped before it spent anything more: its budget, its sizes, or a first row that fails."""


class JobHeld(OvernightError):
    """Another process works on this job, or took it over while this one stood still."""


class ServerTrouble(OvernightError):
    """A job's server refuses or cannot be reached. What was written down is safe: run the job again."""


class StoreError(OvernightError):
    """The data directory or the database cannot do what was asked."""


class DirectoryInUse(StoreError):
    """Another process holds the lock of this data directory."""


class DirectoryTooNew(StoreError):
    """The data directory was written by a newer version; nothing was touched."""


class DiskFull(StoreError):
    """No room left. What was acknowledged before is safe, this operation left nothing."""


class ObjectMissing(StoreError):
    """An object that a control row names does not exist."""


class LeaseLost(StoreError):
    """The epoch of this lease is not the newest one (invariant I4)."""
