"""`overnight keys`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from overnight import ids, limits
from overnight.cli.beside import (
    data_option,
    everybody,
    in_store,
    json_option,
    show_json,
    show_table,
    shown_at,
    workspace_named,
)
from overnight.core.workspace import Access, Key, Role, Workspace
from overnight.errors import UsageError
from overnight.jobs.deadline import seconds_of
from overnight.ports.world import World
from overnight.server import granting
from overnight.server.granting import Granted
from overnight.store.store import Store
from overnight.wire.batch import rfc3339_or_none

_HERE = "http://127.0.0.1:8642"


class _Made(NamedTuple):
    """A new key, as nobody will see it again."""

    granted: Granted
    workspace: Workspace
    is_first: bool = False
    until_ms: int | None = None  # Up to when the key opens whose place it takes.


@click.group(
    epilog="""\b
Examples:
  overnight keys create                                   of the default workspace
  overnight keys create --workspace research --expires 90d
  export ANTHROPIC_API_KEY=$(overnight keys create --quiet)
  overnight keys list
  overnight keys rotate apikey_01… --overlap 24h
  overnight keys revoke apikey_01…
"""
)
def keys() -> None:
    """Who may come in. A key opens one workspace, and is shown once: only its digest is kept.

    These commands change a data directory. A server that uses it follows within 2 seconds.
    """


@keys.command(
    epilog="""\b
Examples:
  overnight keys create --workspace research --name airflow --expires 2027-06-30
  overnight keys create --admin --name console
"""
)
@click.option(
    "--workspace", default=ids.DEFAULT_WORKSPACE, metavar="NAME", help="By name or id; else the default one."
)
@click.option("--name", default="", help="What it is for; shown in the list.")
@click.option("--admin", "is_admin", is_flag=True, help="It may also see usage, cost and rules of all workspaces.")
@click.option("--expires", metavar="90d|DATE", help="When it stops opening: in so long, or at an instant of UTC.")
@click.option("--quiet", is_flag=True, help="Print the key and nothing else.")
@json_option
@data_option
def create(
    *, root: Path, workspace: str, name: str, is_admin: bool, expires: str | None, quiet: bool, is_json: bool
) -> None:
    """Make a key and print it, once.

    With the first key, everybody has to show one.
    """
    role: Role = "admin" if is_admin else "workspace"

    async def work(store: Store, world: World) -> _Made:
        access, now_ms = await everybody(store), world.clock.now_ms()
        owner = workspace_named(access, workspace)
        expires_ms = None if expires is None else _instant_ms(expires, now_ms)
        granting.checked_name(name)
        granted = granting.new_key(owner.id, role, world, name=name, now_ms=now_ms, expires_at_ms=expires_ms)
        await store.access.add_key(granted.key)
        return _Made(granted, owner, is_first=not access.keys)

    _tell(in_store(root, work, makes=True), quiet=quiet, is_json=is_json)


@keys.command(name="list")
@json_option
@data_option
def list_(root: Path, is_json: bool) -> None:
    """All keys, newest first; never the keys themselves."""

    async def work(store: Store, world: World) -> tuple[Access, int]:
        return await everybody(store), world.clock.now_ms()

    access, now_ms = in_store(root, work)
    if is_json:
        show_json([_as_json(key, _workspace_of(access, key), now_ms) for key in access.keys])
        return
    if not access.keys:
        click.echo(
            "There are no keys: everybody on this machine is let in. `overnight keys create` makes one.", err=True
        )
        return
    show_table(
        ["id", "key", "name", "workspace", "role", "created", "expires", "state"],
        [
            (
                *(key.id, key.hint, key.name, _workspace_of(access, key).name, key.role),
                *(shown_at(key.created_at_ms), shown_at(key.expires_at_ms) or "never"),
                granting.key_state(key, _workspace_of(access, key), now_ms=now_ms),
            )
            for key in access.keys
        ],
    )


@keys.command()
@click.argument("key_id", metavar="ID")
@data_option
def revoke(root: Path, key_id: str) -> None:
    """End a key for good. What is running for it goes on."""

    async def work(store: Store, world: World) -> Key:
        return await store.access.revoke_key(key_id, now_ms=world.clock.now_ms())

    key = in_store(root, work)
    click.echo(f"Key {key.id} ({key.hint}) is revoked.")


@keys.command(
    epilog="""\b
Examples:
  overnight keys rotate apikey_01… --overlap 7d
  overnight keys rotate apikey_01… --overlap 0s           the old one is lost: it ends now
"""
)
@click.argument("key_id", metavar="ID")
@click.option("--overlap", default="24h", show_default=True, metavar="24h", help="How long the old key still opens.")
@click.option("--quiet", is_flag=True, help="Print the key and nothing else.")
@json_option
@data_option
def rotate(root: Path, key_id: str, overlap: str, quiet: bool, is_json: bool) -> None:
    """Make a new key in the place of another, and print it, once.

    It has the name, workspace and role of the old one, and if that had an end, as long a life.
    """

    async def work(store: Store, world: World) -> _Made:
        access, now_ms = await everybody(store), world.clock.now_ms()
        old = next((key for key in access.keys if key.id == key_id), None)
        if old is None:
            raise UsageError(f"there is no key {key_id[:80]!r}; `overnight keys list` lists them")
        granted = granting.successor(old, world, now_ms=now_ms)
        until_ms = now_ms + _length_ms(overlap)
        await store.access.replace_key(old.id, granted.key, until_ms=until_ms)
        until_ms = min(until_ms, old.expires_at_ms or until_ms)
        return _Made(granted, _workspace_of(access, old), until_ms=until_ms)

    _tell(in_store(root, work), quiet=quiet, is_json=is_json)


def _instant_ms(text: str, now_ms: int) -> int:
    """When a key ends that was given "90d", or a date or instant of ISO 8601; of UTC unless it says otherwise."""
    if "-" not in text:
        found_ms = now_ms + _length_ms(text)
    else:
        try:
            at = datetime.fromisoformat(text)
        except ValueError as error:
            raise UsageError(f"--expires: {text[:100]!r} is neither a length of time nor a date") from error
        found_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    try:
        return granting.checked_end(found_ms, now_ms=now_ms)
    except UsageError as error:
        raise UsageError(f"--expires: {error}") from error


_DAYS_MAX = limits.KEY_LIFETIME_MS_MAX // limits.DAY_MS


def _length_ms(text: str) -> int:
    seconds = seconds_of(text)
    if seconds * 1000 > limits.KEY_LIFETIME_MS_MAX:
        raise UsageError(f"{text[:100]!r} is longer than {_DAYS_MAX:,} days")
    return int(seconds * 1000)


def _workspace_of(access: Access, key: Key) -> Workspace:
    return next(item for item in access.workspaces if item.id == key.workspace)


def _as_json(key: Key, owner: Workspace, now_ms: int) -> dict[str, Any]:
    return {
        "id": key.id,
        "hint": key.hint,
        "name": key.name,
        "workspace": {"id": owner.id, "name": owner.name},
        "role": key.role,
        "created_at": rfc3339_or_none(key.created_at_ms),
        "expires_at": rfc3339_or_none(key.expires_at_ms),
        "revoked_at": rfc3339_or_none(key.revoked_at_ms),
        "state": granting.key_state(key, owner, now_ms=now_ms),
    }


def _tell(made: _Made, *, quiet: bool, is_json: bool) -> None:
    text, key = made.granted
    if is_json:
        show_json({**_as_json(key, made.workspace, key.created_at_ms), "key": text})
        return
    if quiet:
        click.echo(text)
        return
    ends = f"opens until {shown_at(key.expires_at_ms)}" if key.expires_at_ms is not None else "does not expire"
    click.echo(f"Key {key.id} of workspace {made.workspace.name} {ends}. It is shown only now:\n")
    click.echo(f"  export ANTHROPIC_API_KEY={text}\n  export ANTHROPIC_BASE_URL={_HERE}\n")
    if made.until_ms is not None:
        click.echo(f"The old key opens until {shown_at(made.until_ms)}.")
    if made.is_first:
        click.echo("From now on everybody has to show a key.")
