"""New workspaces and keys, and their rules: what commands and the console grant alike.

Nothing here is written down: callers give what comes back to `store.access`.
"""

from math import isfinite
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from overnight import ids, limits
from overnight.core.workspace import Key, Role, Rules, Workspace
from overnight.errors import UsageError
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.server.access import digest_of

KeyState: TypeAlias = Literal["open", "expired", "revoked", "archived"]
PATTERNS: Final = ("models", "engines")  # Rules that are lists of patterns.
_LIFETIME_DAYS_MAX: Final = limits.KEY_LIFETIME_MS_MAX // limits.DAY_MS


class Granted(NamedTuple):
    """A new key, as nobody will see it again: `text` is kept nowhere."""

    text: str
    key: Key


def new_key(
    owner: WorkspaceId,
    role: Role,
    world: World,
    *,
    name: str,
    now_ms: int,
    expires_at_ms: int | None,
    key_id: str = "",
) -> Granted:
    """A key that opens a workspace from now on. `key_id`: the id that was drawn for it (`key_id_drawn`)."""
    text = ids.api_key(role, world.entropy.bytes(ids.KEY_ENTROPY_BYTES))
    key = Key(
        id=key_id or key_id_drawn(world),
        sha256=digest_of(text),
        hint=ids.key_hint(text),
        name=name,
        workspace=owner,
        role=role,
        created_at_ms=now_ms,
        expires_at_ms=expires_at_ms,
    )
    return Granted(text, key)


def key_id_drawn(world: World) -> str:
    """A new id of a key."""
    return ids.named("apikey", world.entropy.bytes(ids.ID_ENTROPY_BYTES))


def successor(old: Key, world: World, *, now_ms: int, key_id: str = "") -> Granted:
    """A key in the place of another: of its name, workspace and role, and if that had an end, of as long a life."""
    ends_ms = None if old.expires_at_ms is None else now_ms + old.expires_at_ms - old.created_at_ms
    return new_key(old.workspace, old.role, world, name=old.name, now_ms=now_ms, expires_at_ms=ends_ms, key_id=key_id)


def key_state(key: Key, owner: Workspace, *, now_ms: int) -> KeyState:
    """Whether a key opens, and if not, why."""
    if key.revoked_at_ms is not None:
        return "revoked"
    if not key.opens(now_ms=now_ms):
        return "expired"
    return "open" if owner.archived_at_ms is None else "archived"


def new_workspace(name: str, rules: Rules, world: World, *, given_id: str | None = None) -> Workspace:
    """A workspace. `given_id`: of one that `[[keys]]` of the settings name. UsageError as `check_workspace`."""
    check_workspace(name, given_id)
    drawn = ids.workspace_id(world.entropy.bytes(ids.ID_ENTROPY_BYTES))
    return Workspace(
        id=drawn if given_id is None else WorkspaceId(given_id),
        name=name,
        rules=rules,
        created_at_ms=world.clock.now_ms(),
    )


def check_workspace(name: str, given_id: str | None) -> None:
    """UsageError for a name, or an id, that cannot be one of a workspace."""
    if not checked_name(name) or name.startswith("wrkspc_"):
        raise UsageError(f"{name[:100]!r} is no name for a workspace; choose one that does not look like an id")
    if given_id is not None and not ids.is_workspace_id(given_id):
        raise UsageError(f"{given_id[:100]!r} is no id of a workspace, such as wrkspc_01research")


def checked_name(text: str) -> str:
    """A name that people can read; UsageError if it is none."""
    if text.strip() != text or not text.isprintable() or len(text) > limits.NAME_CHARACTERS_MAX:
        raise UsageError(
            f"{text[:100]!r} is no name: up to {limits.NAME_CHARACTERS_MAX} characters, no blanks around them"
        )
    return text


def checked_end(at_ms: int, *, now_ms: int) -> int:
    """When a key ends; UsageError if that is over, or too far away to be meant."""
    if at_ms <= now_ms:
        raise UsageError("that is over; the key would open nothing")
    if at_ms - now_ms > limits.KEY_LIFETIME_MS_MAX:
        raise UsageError(f"a key that ends lives {_LIFETIME_DAYS_MAX:,} days at most; leave it out for no end")
    return at_ms


def checked_rule(name: str, value: Any) -> Any:
    """The value of a rule; UsageError if it cannot be."""
    if name in PATTERNS:
        if not all(value):
            raise UsageError("an empty pattern matches nothing")
        return value
    if not isfinite(value):  # Not a number is neither too small nor too large.
        raise UsageError(f"{value} is no number")
    try:
        msgspec.convert({name: value}, Rules)
    except msgspec.ValidationError as error:
        raise UsageError(str(error).partition(" - at ")[0]) from error
    return value
