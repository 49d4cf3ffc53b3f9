"""`overnight hooks`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from overnight.cli.beside import in_store
from overnight.cli.joboptions import printable
from overnight.cli.settings import settings_from
from overnight.core import hook as hooks_
from overnight.core.hook import EVENTS, Delivery, DeliveryStatus, EventType, Hook
from overnight.errors import UsageError
from overnight.ids import DEFAULT_WORKSPACE, WorkspaceId
from overnight.limits import DELIVERIES_LIST_MAX, LIST_LIMIT_DEFAULT
from overnight.ports.world import World
from overnight.runner.hooks import NewHook, new_hook, tried
from overnight.runner.outward import Outward
from overnight.server.config import Settings
from overnight.store.store import Store
from overnight.wire.batch import rfc3339

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def _place_options(command: F) -> F:
    options = (
        click.option("--config", "file", type=click.Path(path_type=Path), help="The TOML file of the server."),
        click.option("--data", metavar="DIR", help="Where the batches of the server live."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_workspace_option = click.option("--workspace", metavar="NAME_OR_ID", help="Default: the default one.")
_json_option = click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")


@click.group(
    context_settings={"max_content_width": 100},
    epilog="""\b
Examples:
  overnight hooks create https://hooks.example.com/batches
  overnight hooks create https://hooks.example.com/batches --event batch.ended --workspace research
  overnight hooks test hook_01…
  overnight hooks deliveries --status dead
  overnight hooks resend delivery_01…
""",
)
def hooks() -> None:
    """Tell other programs what happens: a batch has ended or is about to expire, a budget is spent.

    Works on the data directory, whether a server runs or not; a running server sees a change within a second.
    """


@hooks.command()
@click.argument("url")
@click.option("--event", "events", type=click.Choice(EVENTS), multiple=True, help="May be repeated. Default: all.")
@_workspace_option
@_json_option
@_place_options
def create(
    *,
    url: str,
    events: tuple[EventType, ...],
    workspace: str | None,
    is_json: bool,
    file: Path | None,
    data: str | None,
) -> None:
    """Post events of a workspace to URL. Prints the secret that signs them, once."""
    settings, world = _settings(file, data), World()

    async def made(store: Store) -> NewHook:
        found = await new_hook(
            await _workspace(store, settings, workspace, is_new=True),
            url,
            tuple(dict.fromkeys(events)) or EVENTS,
            outward=_outward(settings, world),
            world=world,
        )
        await store.hooks.add(found.hook, found.secret)
        return found

    hook, secret = _with_store(settings, made, makes=True)
    if is_json:
        click.echo(_json({**_shown(hook), "secret": hooks_.secret_text(secret)}))
        return
    click.echo(f"{hook.id}  {', '.join(hook.events)}  of {hook.workspace}")
    click.echo(f"secret: {hooks_.secret_text(secret)}")
    click.echo("Receivers verify signatures with this secret. It is not shown again.", err=True)


@hooks.command("list")
@click.option("--workspace", metavar="NAME_OR_ID", help="Default: all.")
@_json_option
@_place_options
def list_(workspace: str | None, is_json: bool, file: Path | None, data: str | None) -> None:
    """The hooks, oldest first, without their secrets."""
    settings = _settings(file, data)

    async def listed(store: Store) -> list[Hook]:
        return await store.hooks.hooks(await _workspace(store, settings, workspace) if workspace else None)

    found = _with_store(settings, listed)
    if not found:
        click.echo("There are no hooks; `overnight hooks create URL` makes one.", err=True)
    for hook in found:
        line = f"{hook.id}  {hook.workspace}  {','.join(hook.events)}  {hook.url}"
        click.echo(_json(_shown(hook)) if is_json else printable(line))


@hooks.command()
@click.argument("hook_id", metavar="HOOK")
@_place_options
def delete(hook_id: str, file: Path | None, data: str | None) -> None:
    """Remove a hook, and what was on its way to it."""
    _with_store(_settings(file, data), lambda store: store.hooks.remove(hook_id))
    click.echo(f"{hook_id} is removed.")


@hooks.command()
@click.argument("hook_id", metavar="HOOK")
@_place_options
def test(hook_id: str, file: Path | None, data: str | None) -> None:
    """Post an event of type hook.test now, once, and print what comes back. Exit code 1 if it was not taken."""
    settings, world = _settings(file, data), World()
    hook, secret = _with_store(settings, lambda store: store.hooks.find(hook_id))
    heard = asyncio.run(tried(hook, secret, outward=_outward(settings, world), world=world))
    click.echo(f"HTTP {heard.status}" if heard.status else printable(heard.trouble))
    if heard.beginning:
        click.echo(printable(heard.beginning.decode(errors="replace")))
    sys.exit(0 if heard.is_taken else 1)


@hooks.command()
@click.option("--workspace", metavar="NAME_OR_ID", help="Default: all.")
@click.option("--hook", "hook_id", metavar="HOOK", help="Only those to one hook.")
@click.option("--status", type=click.Choice(get_args(DeliveryStatus)), help="Only those of one status.")
@click.option("--limit", type=click.IntRange(1, DELIVERIES_LIST_MAX), default=LIST_LIMIT_DEFAULT, show_default=True)
@_json_option
@_place_options
def deliveries(
    *,
    workspace: str | None,
    hook_id: str | None,
    status: DeliveryStatus | None,
    limit: int,
    is_json: bool,
    file: Path | None,
    data: str | None,
) -> None:
    """What was sent, waits to be sent again, or was given up; the newest first."""
    settings = _settings(file, data)

    async def listed(store: Store) -> list[Delivery]:
        only = await _workspace(store, settings, workspace) if workspace else None
        return await store.hooks.deliveries(workspace=only, hook_id=hook_id, status=status, limit=limit)

    found = _with_store(settings, listed)
    if not found:
        click.echo("Nothing of that kind was sent or waits; `overnight hooks test HOOK` sends something.", err=True)
    for item in found:
        click.echo(_json(_told(item)) if is_json else printable(_line(item)))


@hooks.command()
@click.argument("delivery_ids", metavar="DELIVERY…", nargs=-1, required=True)
@_place_options
def resend(delivery_ids: Sequence[str], file: Path | None, data: str | None) -> None:
    """Send deliveries again now, whatever became of them, each under its id."""
    world = World()

    async def resent(store: Store) -> None:
        for delivery_id in delivery_ids:
            await store.hooks.resend(delivery_id, now_ms=world.clock.now_ms())
            click.echo(f"{delivery_id} is due now.")

    _with_store(_settings(file, data), resent)


def _settings(file: Path | None, data: str | None) -> Settings:
    return settings_from(file, {"data": data}).settings


def _outward(settings: Settings, world: World) -> Outward:
    return Outward(world.clock, to_private=settings.hooks_to_private_addresses)


def _with_store(settings: Settings, do: Callable[[Store], Awaitable[T]], *, makes: bool = False) -> T:
    return in_store(Path(settings.data), lambda store, world: do(store), makes=makes)


async def _workspace(store: Store, settings: Settings, asked: str | None, *, is_new: bool = False) -> WorkspaceId:
    """A workspace by its name or id; UsageError if there is none, or if something new is to be in an archived one."""
    if asked is None:
        return DEFAULT_WORKSPACE
    access = await store.access.access()
    for item in access.workspaces if access else ():
        if asked in (item.id, item.name):
            if is_new and item.archived_at_ms is not None:
                raise UsageError(f"the workspace {asked} is archived: nothing happens in it any more")
            return item.id
    if asked in {key.workspace for key in settings.keys}:
        return WorkspaceId(asked)
    raise UsageError(f"there is no workspace {asked[:80]!r}; `overnight workspaces list` lists them")


def _line(item: Delivery) -> str:
    parts = [item.id, rfc3339(item.created_at_ms), item.event, item.hook_id, item.status]
    if item.status == "pending":
        parts.append(f"due {rfc3339(item.due_at_ms)}")
    parts.append(f"{item.attempts} attempts")
    return "  ".join([*parts, item.trouble] if item.trouble else parts)


def _shown(hook: Hook) -> dict[str, Any]:
    return {
        "id": hook.id,
        "workspace_id": hook.workspace,
        "url": hook.url,
        "events": hook.events,
        "created_at": rfc3339(hook.created_at_ms),
    }


def _told(item: Delivery) -> dict[str, Any]:
    return {
        "id": item.id,
        "hook_id": item.hook_id,
        "workspace_id": item.workspace,
        "event": item.event,
        "status": item.status,
        "attempts": item.attempts,
        "created_at": rfc3339(item.created_at_ms),
        "due_at": rfc3339(item.due_at_ms) if item.status == "pending" else None,
        "ended_at": None if item.ended_at_ms is None else rfc3339(item.ended_at_ms),
        "trouble": item.trouble,
        "body": msgspec.Raw(item.body),
    }


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
