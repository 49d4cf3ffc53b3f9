"""Workspaces and keys: what is kept apart, who may come in, and what each workspace may do.

Words and prefixes are those of the hosted API (https://platform.claude.com/docs/en/manage-claude/workspaces).
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.limits import BATCH_REQUESTS_MAX, BUDGET_USD_MAX, DAY_MS, RESULTS_LIFETIME_MS

Role: TypeAlias = Literal["workspace", "admin"]

Days: TypeAlias = Annotated[int, Meta(ge=0, le=RESULTS_LIFETIME_MS // DAY_MS)]
Positive: TypeAlias = Annotated[int, Meta(ge=1)]
Usd: TypeAlias = Annotated[float, Meta(gt=0, le=BUDGET_USD_MAX)]
Weight: TypeAlias = Annotated[float, Meta(gt=0, le=1_000)]


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one workspace may do. None, or an empty list: no rule of its own."""

    requests_per_minute: Positive | None = None  # HTTP requests on the batch endpoints.
    queue_requests_max: Positive | None = None  # Requests of batches that are not finished.
    batch_requests_max: Annotated[int, Meta(ge=1, le=BATCH_REQUESTS_MAX)] | None = None  # Of one batch.
    usd_per_day: Usd | None = None  # A day of UTC, batches and interactive requests together.
    usd_per_month: Usd | None = None  # A month of UTC.
    weight: Weight | None = None  # In the fairness between workspaces; 1 if there is none.
    models: Sequence[str] = ()  # Patterns of the models it may ask for.
    engines: Sequence[str] = ()  # Patterns of the engines it may use, by name as `overnight engines` shows it.
    results_days: Days | None = None  # How long they are kept, from the creation of a batch; not before its end.
    requests_days: Days | None = None  # The same of what was asked; never longer than the results.

    def allows_model(self, model: str) -> bool:
        """Whether requests may name this model."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def allows_engine(self, name: str) -> bool:
        """Whether requests may be asked of this engine."""
        return not self.engines or any(fnmatchcase(name, pattern) for pattern in self.engines)


NO_RULES = Rules()


class Workspace(Struct, frozen=True, kw_only=True):
    """One workspace. Archived: its keys open nothing, what it has stays until it is old enough."""

    id: WorkspaceId
    name: str
    rules: Rules = NO_RULES
    created_at_ms: int = 0
    archived_at_ms: int | None = None


DEFAULT = Workspace(id=DEFAULT_WORKSPACE, name="default")  # It is always there, with or without a row.


class Key(Struct, frozen=True, kw_only=True):
    """One API key, as it is kept: never the key itself. An admin key sees usage and rules of all workspaces; batches
    it sees as any key of its workspace does."""

    id: str
    sha256: str  # Hex digest of the key: enough for a key that was drawn, with over 400 bits.
    hint: str  # Its beginning and its last characters, for people.
    name: str
    workspace: WorkspaceId
    role: Role = "workspace"
    created_at_ms: int = 0
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None

    def opens(self, *, now_ms: int) -> bool:
        """Whether it is a key at that time."""
        is_over = self.expires_at_ms is not None and now_ms >= self.expires_at_ms
        return self.revoked_at_ms is None and not is_over


class Access(Struct, frozen=True, kw_only=True):
    """Everybody who may come in, at one revision; a change makes a new one."""

    revision: int
    workspaces: Sequence[Workspace]
    keys: Sequence[Key]
