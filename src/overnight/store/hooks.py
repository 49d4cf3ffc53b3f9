"""Hooks and what is on its way to them: an outbox in the database.

Events of batches are written in the transaction that makes them so (`control.Control.seal`); others by `announce`.
A command may write here while a server sends: each method is one transaction, durable when a writing one returns.
One process sends. What it has sent and not noted before it died is sent again.
`testing.hookcases` is what every implementation must pass.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from overnight.core.hook import Delivery, DeliveryStatus, Event, Hook
from overnight.ids import WorkspaceId


class Due(NamedTuple):
    """A delivery whose time has come, and what an attempt needs. Never shown: it holds the secret."""

    delivery: Delivery
    hook: Hook
    secret: bytes


class HookStore(Protocol):
    """Durable hooks and deliveries."""

    async def add(self, hook: Hook, secret: bytes) -> None:
        """Add one. UsageError if its workspace has `limits.HOOKS_MAX` already."""
        ...

    async def hooks(self, workspace: WorkspaceId | None = None) -> list[Hook]:
        """Those of one workspace, or all, oldest first."""
        ...

    async def find(self, hook_id: str) -> tuple[Hook, bytes]:
        """A hook and its secret. UsageError if there is none."""
        ...

    async def remove(self, hook_id: str) -> None:
        """Remove a hook, and what was on its way to it. UsageError if there is none."""
        ...

    async def announce(self, event: Event, *, now_ms: int) -> bool:
        """Write the deliveries of an event to every hook of its workspace that wants it. False if it was announced
        before."""
        ...

    async def announce_expiring(self, *, now_ms: int) -> int:
        """Announce batches in progress that have `limits.HOOK_EXPIRING_MS` left or less, each once, where a hook
        wants it. How many there were."""
        ...

    async def due(
        self, *, now_ms: int, limit: int, besides: Collection[str] = (), besides_hooks: Collection[str] = ()
    ) -> list[Due]:
        """Pending deliveries whose time has come, the longest due first, without these and those of these hooks."""
        ...

    async def note(self, delivery: Delivery) -> None:
        """Write down what became of an attempt; nothing if its hook was removed meanwhile."""
        ...

    async def deliveries(
        self,
        *,
        workspace: WorkspaceId | None = None,
        hook_id: str | None = None,
        status: DeliveryStatus | None = None,
        limit: int,
    ) -> list[Delivery]:
        """The newest first, of at most `limits.DELIVERIES_LIST_MAX`."""
        ...

    async def resend(self, delivery_id: str, *, workspace: WorkspaceId | None = None, now_ms: int) -> Delivery:
        """The delivery, due now whatever became of it, under its id. UsageError if there is none, or none in this
        workspace."""
        ...

    async def counts(self) -> Mapping[DeliveryStatus, int]:
        """How many deliveries there are of each status."""
        ...

    async def forget(self, *, now_ms: int) -> int:
        """Remove deliveries that ended `limits.DELIVERIES_LIFETIME_MS` ago, and the memory of events that is as old
        as `limits.TOLD_LIFETIME_MS`. How many deliveries went."""
        ...
