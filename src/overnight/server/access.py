"""Who may come in, and what their workspace may do: the keys of the settings and those of the store, in memory.

Commands change the store while the server runs, so it is looked at every `REFRESH_S`: that is how late a key that
was revoked still opens, and how late a rule is noticed.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from overnight.core.workspace import DEFAULT, NO_RULES, Access, Key, Rules, Workspace
from overnight.errors import StoreError
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.server.config import Settings
from overnight.store.access import AccessStore

REFRESH_S: Final = 2.0
_OF_SETTINGS: Final = "settings-"  # What the ids of their keys begin with.


class Caller(NamedTuple):
    """Who asks. Without any key everybody is an admin of the default workspace."""

    workspace: WorkspaceId
    key_id: str  # Empty if no key was needed.
    is_admin: bool


ANYBODY: Final = Caller(DEFAULT_WORKSPACE, "", is_admin=True)


class Doors:
    """One per process. `refresh` before use; `run` keeps it up to date."""

    def __init__(self, settings: Settings) -> None:
        self.on_rules: list[Callable[[], None]] = []  # Told when rules may have changed.
        self.trouble = ""  # Why changes are not seen at the moment; empty if they are. For health.
        self._of_settings = _keys_of(settings)
        self._settings_rules = Rules(requests_per_minute=settings.requests_per_minute)
        self._weights = {WorkspaceId(name): weight for name, weight in settings.weights.items()}
        self._revision = 0
        self._keys: dict[str, Key] = dict(self._of_settings)
        self._workspaces: dict[WorkspaceId, Workspace] = {DEFAULT.id: DEFAULT}
        self._rules: dict[WorkspaceId, Rules] = {}  # As they count, of those that have any.

    @property
    def needs_key(self) -> bool:
        """Whether callers must show a key. One that was revoked or is over closes too: nothing opens by itself."""
        return bool(self._keys)

    @property
    def workspaces(self) -> Sequence[Workspace]:
        """All that have a row or a key, the default one first."""
        return tuple(self._workspaces.values())

    @property
    def keys(self) -> Sequence[Key]:
        """All keys: those of the settings, then those of the store, newest first."""
        return tuple(self._keys.values())

    @property
    def weights(self) -> Mapping[WorkspaceId, float]:
        """Weights of workspaces in the fairness between them; 1 for others."""
        told = {item.id: item.rules.weight for item in self._workspaces.values() if item.rules.weight is not None}
        return {**self._weights, **told}

    def caller_of(self, shown: str, *, now_ms: int) -> Caller | None:
        """Whose key this is; None if it opens nothing. What is looked up is a digest of what was shown, so that the
        time it takes tells nothing about the keys."""
        if not self.needs_key:
            return ANYBODY
        key = self._keys.get(digest_of(shown))
        return None if key is None else self._caller(key, now_ms)

    def caller_with(self, key_id: str, *, now_ms: int) -> Caller | None:
        """Who a session belongs to that was begun with a key; None once that key opens nothing."""
        if not self.needs_key:
            return ANYBODY
        key = next((key for key in self._keys.values() if key.id == key_id), None)
        return None if key is None else self._caller(key, now_ms)

    def rules_of(self, workspace: WorkspaceId) -> Rules:
        """What a workspace may do: its own rules, before those of the settings."""
        return self._rules.get(workspace, self._settings_rules)

    def name_of(self, workspace: WorkspaceId) -> str:
        """What people call a workspace."""
        found = self._workspaces.get(workspace)
        return found.name if found else workspace

    async def refresh(self, store: AccessStore) -> None:
        """Read what has changed. StoreError if the store cannot be read."""
        found = await store.access(known=self._revision)
        if found is not None:
            self._take(found)

    async def run(self, store: AccessStore) -> None:
        """Keep up to date until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_S)
            self.trouble = ""
            try:
                await self.refresh(store)
            except StoreError as error:
                self.trouble = str(error)

    def _take(self, access: Access) -> None:
        self._revision = access.revision
        self._keys = {**self._of_settings, **{key.sha256: key for key in access.keys}}
        named = {key.workspace: Workspace(id=key.workspace, name=key.workspace) for key in self._keys.values()}
        self._workspaces = {DEFAULT.id: DEFAULT, **named, **{item.id: item for item in access.workspaces}}
        common = _given(self._settings_rules)
        self._rules = {
            item.id: Rules(**{**common, **_given(item.rules)})
            for item in self._workspaces.values()
            if item.rules != NO_RULES
        }
        for tell in self.on_rules:
            tell()

    def _caller(self, key: Key, now_ms: int) -> Caller | None:
        workspace = self._workspaces.get(key.workspace)
        is_archived = workspace is not None and workspace.archived_at_ms is not None
        if is_archived or not key.opens(now_ms=now_ms):
            return None
        return Caller(key.workspace, key.id, key.role == "admin")


def digest_of(key: str) -> str:
    """What is kept of a key. One that was drawn has 480 bits: no dictionary holds it, and no slow hash is needed."""
    return sha256(key.encode()).hexdigest()


def organization_id(secret: bytes) -> str:
    """What an installation is called in the header `anthropic-organization-id`: a UUID, as at the hosted API. It is
    the same as long as the data directory is, and tells nothing about the secret."""
    return str(UUID(bytes=sha256(b"organization\0" + secret).digest()[:16], version=4))


def is_of_settings(key: Key) -> bool:
    """Whether a key came with the settings, so that only they can end it."""
    return key.id.startswith(_OF_SETTINGS)


def _keys_of(settings: Settings) -> dict[str, Key]:
    """The keys of the settings, by digest: `api_key` is the operator's own, so it is an admin's."""
    found = [
        Key(
            id=f"{_OF_SETTINGS}{number}",
            sha256=key.sha256,
            hint="...",
            name="of the settings",
            workspace=WorkspaceId(key.workspace),
            role=key.role,
        )
        for number, key in enumerate(settings.keys, start=1)
    ]
    if settings.api_key:
        found.append(
            Key(
                id=f"{_OF_SETTINGS}0",
                sha256=digest_of(settings.api_key),
                hint="...",
                name="api_key of the settings",
                workspace=DEFAULT_WORKSPACE,
                role="admin",
            )
        )
    return {key.sha256: key for key in found}


def _given(rules: Rules) -> dict[str, Any]:
    return {name: value for name in rules.__struct_fields__ if (value := getattr(rules, name)) not in (None, ())}
