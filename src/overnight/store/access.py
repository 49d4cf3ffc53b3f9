"""Who may come in: workspaces, keys, and secrets of our own.

A command may write here while a server runs on the same directory: every change raises the revision, and the server
reads again what has changed. Each method is one transaction, durable when a writing one returns.
`testing.accesscases` is what every implementation must pass.
"""

from typing import Protocol

from overnight.core.workspace import Access, Key, Rules, Workspace
from overnight.ids import WorkspaceId


class AccessStore(Protocol):
    """Durable workspaces and keys."""

    async def access(self, *, known: int = 0) -> Access | None:
        """Everything, newest first behind the default workspace; None if it is still at revision `known`."""
        ...

    async def add_workspace(self, workspace: Workspace) -> None:
        """Add one. UsageError if its name, or its id, is taken."""
        ...

    async def set_rules(self, workspace: WorkspaceId, rules: Rules) -> None:
        """Replace the rules of one, also of the default workspace. UsageError if there is none."""
        ...

    async def archive_workspace(self, workspace: WorkspaceId, *, now_ms: int) -> None:
        """Close one for good; twice is once. UsageError if there is none, or it is the default workspace."""
        ...

    async def add_key(self, key: Key) -> None:
        """Add a key. UsageError if there is no such workspace, or it is archived."""
        ...

    async def revoke_key(self, key_id: str, *, now_ms: int) -> Key:
        """The key, revoked; twice is once. UsageError if there is none."""
        ...

    async def replace_key(self, key_id: str, by: Key, *, until_ms: int) -> None:
        """Add a key in the place of another, which opens until then at the latest. UsageError if there is none, or it
        opened nothing any more when the new one was made."""
        ...

    async def secret(self, name: str, proposed: bytes) -> bytes:
        """The secret of that name; the first that is proposed is kept. For signatures, never shown."""
        ...
