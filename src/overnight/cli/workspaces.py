"""`overnight workspaces`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

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
from overnight.cli.joboptions import printable
from overnight.core import budget
from overnight.core.usage import usd
from overnight.core.workspace import Access, Rules, Workspace
from overnight.errors import UsageError
from overnight.ids import WorkspaceId
from overnight.ports.world import World
from overnight.server import granting
from overnight.store.store import Store
from overnight.wire.batch import rfc3339_or_none

F = TypeVar("F", bound=Callable[..., Any])


class _Option(NamedTuple):
    """One rule as an option."""

    flag: str
    rule: str  # The field of `Rules`.
    metavar: str
    kind: type
    help: str


_OPTIONS: Final = (
    _Option("requests-per-minute", "requests_per_minute", "N", int, "HTTP requests on the batch endpoints."),
    _Option("queue-requests-max", "queue_requests_max", "N", int, "Requests of batches that are not finished."),
    _Option("batch-requests-max", "batch_requests_max", "N", int, "Requests of one batch."),
    _Option("usd-per-day", "usd_per_day", "USD", float, "What it may spend in a day of UTC."),
    _Option("usd-per-month", "usd_per_month", "USD", float, "What it may spend in a month of UTC."),
    _Option("weight", "weight", "X", float, "In the fairness between workspaces; 1 if there is none."),
    _Option("model", "models", "PATTERN", str, "Models it may ask for, such as 'claude-*'. May be repeated."),
    _Option("engine", "engines", "PATTERN", str, "Engines it may use, as `overnight engines` names them. Repeats."),
    _Option("results-days", "results_days", "N", int, "How long results are kept, from the creation of a batch."),
    _Option("requests-days", "requests_days", "N", int, "How long what was asked is kept, counted alike."),
)
_LISTS: Final = granting.PATTERNS


def _rule_options(command: F) -> F:
    """An option for each rule, and a hidden `--no-…` that takes it away."""
    for item in reversed(_OPTIONS):
        removes = click.option(f"--no-{item.flag}", f"no_{item.rule}", is_flag=True, hidden=True)
        sets = click.option(
            f"--{item.flag}",
            item.rule,
            metavar=item.metavar,
            type=item.kind,
            multiple=item.rule in _LISTS,
            help=item.help,
        )
        command = sets(removes(command))
    return command


def _changed(rules: Rules, given: Mapping[str, Any]) -> Rules:
    """The rules after the options of a command. UsageError names the option that cannot be."""
    values = msgspec.to_builtins(rules)
    for item in _OPTIONS:
        told, is_removed = given[item.rule], given[f"no_{item.rule}"]
        if told in (None, ()):
            if is_removed:
                values.pop(item.rule, None)
            continue
        if is_removed:
            raise UsageError(f"--{item.flag} and --no-{item.flag} contradict each other")
        values[item.rule] = list(told) if item.rule in _LISTS else told
        _check(item, told)
    return msgspec.convert(values, Rules)


def _check(item: _Option, told: Any) -> None:
    try:
        granting.checked_rule(item.rule, told)
    except UsageError as error:
        hint = f"; --no-{item.flag} allows everything" if item.rule in _LISTS else ""
        raise UsageError(f"--{item.flag}: {error}{hint}") from error


@click.group(
    epilog="""\b
Examples:
  overnight workspaces create research --usd-per-day 20
  overnight keys create --workspace research
  overnight workspaces set research --queue-requests-max 50000 --model 'claude-haiku-*'
  overnight workspaces set research --no-usd-per-day
  overnight workspaces list
"""
)
def workspaces() -> None:
    """Teams that share a server: what each may do, and what it has spent.

    These commands change a data directory. A server that uses it follows within 2 seconds.
    """


@workspaces.command(name="list")
@json_option
@data_option
def list_(root: Path, is_json: bool) -> None:
    """All workspaces, with the rules of each."""
    access, spent = in_store(root, _everything)
    if is_json:
        show_json([_as_json(item, access, spent) for item in access.workspaces])
        return
    rows = [
        (
            item.id,
            item.name,
            "archived" if item.archived_at_ms is not None else "open",
            str(_keys_of(access, item.id)),
            f"{usd(spent.day.get(item.id, 0)):.2f}",
            f"{usd(spent.month.get(item.id, 0)):.2f}",
            ", ".join(f"{name} {value}" for name, value in _told(item.rules)) or "none",
        )
        for item in access.workspaces
    ]
    show_table(["id", "name", "state", "keys", "USD today", "USD this month", "rules"], rows)


@workspaces.command(
    epilog="""\b
Examples:
  overnight workspaces create research
  overnight workspaces create nightly --weight 0.5 --usd-per-month 300
"""
)
@click.argument("name")
@click.option(
    "--id", "given_id", metavar="ID", help="Of a workspace that [[keys]] of the settings name; else a new one."
)
@_rule_options
@json_option
@data_option
def create(*, root: Path, name: str, given_id: str | None, is_json: bool, **given: Any) -> None:
    """Make a workspace. What it has is seen only with keys of its own.

    A workspace without rules may do everything.
    """
    rules = _changed(Rules(), given)
    granting.check_workspace(name, given_id)

    async def work(store: Store, world: World) -> Workspace:
        new = granting.new_workspace(name, rules, world, given_id=given_id)
        await store.access.add_workspace(new)
        return new

    made = in_store(root, work, makes=True)
    if is_json:
        show_json({"id": made.id, "name": made.name, "rules": made.rules})
    else:
        click.echo(f"Workspace {made.name} is {made.id}. Its first key:  overnight keys create --workspace {made.id}")


@workspaces.command()
@click.argument("workspace")
@json_option
@data_option
def show(root: Path, workspace: str, is_json: bool) -> None:
    """One workspace, by its name or id: its rules, and what it has spent."""
    access, spent = in_store(root, _everything)
    found = workspace_named(access, workspace)
    if is_json:
        show_json(_as_json(found, access, spent))
    else:
        _show(found, access, spent)


@workspaces.command(
    name="set",
    epilog="""\b
Examples:
  overnight workspaces set default --requests-per-minute 600
  overnight workspaces set research --model 'claude-haiku-*' --model 'qwen*'
  overnight workspaces set research --no-usd-per-day --no-model
""",
)
@click.argument("workspace")
@_rule_options
@json_option
@data_option
def set_(root: Path, workspace: str, is_json: bool, **given: Any) -> None:
    """Change rules of a workspace; the others stay.

    `--no-` in front of an option takes its rule away, such as --no-usd-per-day. Patterns replace those that were
    there.
    """
    if all(value is None or value is False or value == () for value in given.values()):
        raise UsageError("nothing to set; `overnight workspaces set --help` names what can be")

    async def work(store: Store, world: World) -> tuple[WorkspaceId, Access, "_Spent"]:
        found = workspace_named(await everybody(store), workspace)
        await store.access.set_rules(found.id, _changed(found.rules, given))
        return found.id, *await _everything(store, world)

    workspace_id, access, spent = in_store(root, work)
    changed = workspace_named(access, workspace_id)
    if is_json:
        show_json(_as_json(changed, access, spent))
    else:
        _show(changed, access, spent)


@workspaces.command()
@click.argument("workspace")
@data_option
def archive(root: Path, workspace: str) -> None:
    """Close a workspace for good: its keys open nothing. Batches it has still end, and age as others do."""

    async def work(store: Store, world: World) -> Workspace:
        found = workspace_named(await everybody(store), workspace)
        await store.access.archive_workspace(found.id, now_ms=world.clock.now_ms())
        return found

    found = in_store(root, work)
    click.echo(f"Workspace {printable(found.name)} ({found.id}) is archived.")


class _Spent(NamedTuple):
    """Nano USD by workspace."""

    day: Mapping[WorkspaceId, int]
    month: Mapping[WorkspaceId, int]


async def _everything(store: Store, world: World) -> tuple[Access, _Spent]:
    now_ms = world.clock.now_ms()
    return await everybody(store), _Spent(
        day=await store.usage.spent(since_ms=budget.day_began_ms(now_ms)),
        month=await store.usage.spent(since_ms=budget.month_began_ms(now_ms)),
    )


def _keys_of(access: Access, workspace: WorkspaceId) -> int:
    """How many keys it has that are not revoked."""
    return sum(key.workspace == workspace and key.revoked_at_ms is None for key in access.keys)


def _told(rules: Rules) -> Sequence[tuple[str, str]]:
    """The rules that are there, by the names of their options."""
    found = msgspec.to_builtins(rules)
    return [(item.flag, _plain(found[item.rule])) for item in _OPTIONS if item.rule in found]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(value)
    return f"{value:,.10g}" if isinstance(value, float) else f"{value:,}"


def _show(found: Workspace, access: Access, spent: _Spent) -> None:
    rows = [
        ("id", found.id),
        ("name", found.name),
        ("state", f"archived {shown_at(found.archived_at_ms)}" if found.archived_at_ms is not None else "open"),
        ("keys", str(_keys_of(access, found.id))),
        ("spent today", f"{usd(spent.day.get(found.id, 0)):.2f} USD"),
        ("spent this month", f"{usd(spent.month.get(found.id, 0)):.2f} USD"),
        *(_told(found.rules) or [("rules", "none: it may do everything")]),
    ]
    for name, value in rows:
        click.echo(printable(f"{name + ':':<21} {value}"))


def _as_json(found: Workspace, access: Access, spent: _Spent) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "created_at": rfc3339_or_none(found.created_at_ms or None),
        "archived_at": rfc3339_or_none(found.archived_at_ms),
        "keys": _keys_of(access, found.id),
        "spent_today_usd": float(usd(spent.day.get(found.id, 0))),
        "spent_this_month_usd": float(usd(spent.month.get(found.id, 0))),
        "rules": found.rules,
    }
