"""GET /console/keys and the pages below it: who may come in.

An admin's key sees and changes all keys and workspaces. Any other sees those of its own workspace, and its rules.
A new key is in the answer to the form that made it, and in no other page: the form brings the id of the key along,
so that sending it twice makes one key and shows it once.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast, get_args

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.workspace import Key, Role, Workspace
from overnight.errors import InvalidRequest, NotFound, PermissionDenied, UsageError
from overnight.ids import WorkspaceId
from overnight.limits import DAY_MS
from overnight.server import access, context, granting, urls
from overnight.server.console import pages, rules, session, standing
from overnight.server.context import Context
from overnight.server.granting import Granted, KeyState

OVERLAPS: Final[Mapping[str, tuple[str, int]]] = {
    "0": ("not at all: it leaked", 0),
    "1h": ("one hour", 3_600_000),
    "24h": ("24 hours", DAY_MS),
    "7d": ("7 days", 7 * DAY_MS),
}
_is_new_id = re.compile(r"apikey_01[1-9A-HJ-NP-Za-km-z]{22}").fullmatch


class Line(NamedTuple):
    """One key of the list."""

    key: Key
    workspace: Workspace
    state: KeyState
    is_of_settings: bool
    is_own: bool  # Somebody looks at the page with it.


class Owner(NamedTuple):
    """One workspace of the list."""

    workspace: Workspace
    rules: Sequence[tuple[str, str]]
    keys: int  # That open something.


async def keys(http_request: HttpRequest) -> Response:
    """What the caller may see of workspaces, rules and keys."""
    here, caller = context.of(http_request), session.caller_of(http_request)
    lines = [_line(here, http_request, key) for key in here.doors.keys]
    if not caller.is_admin:
        lines = [line for line in lines if line.workspace.id == caller.workspace]
    seen = here.doors.workspaces if caller.is_admin else [workspace_of(here, caller.workspace)]
    return await pages.rendered(
        http_request,
        "keys.html",
        is_admin=caller.is_admin,
        lines=lines,
        owners=[_owner(item, lines) for item in seen],
        own=workspace_of(here, caller.workspace),
        own_rules=rules.told(here.doors.rules_of(caller.workspace)),
        levels=await standing.levels(here, caller.workspace),
        budgets=await standing.budgets(here, [caller.workspace]),
    )


def admin_of(http_request: HttpRequest) -> Context:
    """The context, for pages of admins. PermissionDenied for others, whatever they ask for: which keys and workspaces
    there are, the answer does not tell (I7)."""
    if not session.caller_of(http_request).is_admin:
        raise PermissionDenied("Only an admin's key may change workspaces and keys.")
    return context.of(http_request)


def workspace_of(here: Context, workspace: WorkspaceId) -> Workspace:
    """A workspace by its id; NotFound if there is none."""
    found = next((item for item in here.doors.workspaces if item.id == workspace), None)
    if found is None:
        raise NotFound("There is no such workspace.")
    return found


def _line(here: Context, http_request: HttpRequest, key: Key) -> Line:
    owner = workspace_of(here, key.workspace)
    state = granting.key_state(key, owner, now_ms=here.world.clock.now_ms())
    is_own = key.id == session.caller_of(http_request).key_id
    return Line(key, owner, state, access.is_of_settings(key), is_own)


def _owner(workspace: Workspace, lines: Sequence[Line]) -> Owner:
    opening = sum(line.workspace.id == workspace.id and line.state == "open" for line in lines)
    return Owner(workspace, rules.told(workspace.rules), opening)


# --- A new key ------------------------------------------------------------------------------------------------------


async def ask_new(http_request: HttpRequest) -> Response:
    """The form of a new key; `workspace` in the query chooses one."""
    here = admin_of(http_request)
    chosen = http_request.query_params.get("workspace", session.caller_of(http_request).workspace)
    role = "workspace" if here.doors.needs_key else "admin"  # Who makes the first key should not lock themselves out.
    given = {"workspace": chosen, "role": role, "name": "", "ends": "", "id": granting.key_id_drawn(here.world)}
    return await _new_form(http_request, here, given, {})


async def create(http_request: HttpRequest) -> Response:
    """Make a key and show it; durable before the answer. The form again, with 400, if a field cannot be."""
    here, form = admin_of(http_request), session.visit_of(http_request).form
    given = {name: form.get(name, "").strip() for name in ("workspace", "role", "name", "ends", "id")}
    _check_unmade(here, given["id"])
    now_ms, is_first = here.world.clock.now_ms(), not here.doors.needs_key
    troubles: dict[str, str] = {}
    if given["workspace"] not in {item.id for item in _open_workspaces(here)}:
        troubles["workspace"] = "There is no such workspace, or it is archived."
    if given["role"] not in get_args(Role):
        troubles["role"] = "There is no such choice; take one of the list."
    ends_ms = None
    try:
        granting.checked_name(given["name"])
    except UsageError as error:
        troubles["name"] = str(error)
    try:
        ends_ms = _end(given["ends"], now_ms=now_ms)
    except UsageError as error:
        troubles["ends"] = str(error)
    if troubles:
        return await _new_form(http_request, here, given, troubles)
    made = granting.new_key(
        WorkspaceId(given["workspace"]),
        cast(Role, given["role"]),
        here.world,
        name=given["name"],
        now_ms=now_ms,
        expires_at_ms=ends_ms,
        key_id=given["id"],
    )
    await here.store.access.add_key(made.key)
    return await _shown_once(http_request, here, made, is_first=is_first)


async def _new_form(
    http_request: HttpRequest, here: Context, given: Mapping[str, str], troubles: Mapping[str, str]
) -> Response:
    return await pages.rendered(
        http_request,
        "keynew.html",
        status=400 if troubles else 200,
        given=given,
        troubles=troubles,
        choices=[(item.id, item.name) for item in _open_workspaces(here)],
        is_first=not here.doors.needs_key,
    )


def _open_workspaces(here: Context) -> list[Workspace]:
    return [item for item in here.doors.workspaces if item.archived_at_ms is None]


def _end(day: str, *, now_ms: int) -> int | None:
    """The end of a day of UTC; None for no day. UsageError if it cannot be the last one."""
    if not day:
        return None
    try:
        began = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise UsageError("A day is written as 2026-11-25.") from error
    return granting.checked_end(int(began.timestamp()) * 1000 + DAY_MS, now_ms=now_ms)


def _check_unmade(here: Context, key_id: str) -> None:
    """InvalidRequest unless a key of this id can be made now: once for each form that we sent."""
    if any(key.id == key_id for key in here.doors.keys):
        raise InvalidRequest(
            "This form was sent before, and made a key then. A key is shown once: if you do not have it, make "
            "another and revoke that one."
        )
    if _is_new_id(key_id) is None:
        raise InvalidRequest("The form is not whole; load it again.")


async def _shown_once(
    http_request: HttpRequest, here: Context, made: Granted, *, is_first: bool = False, until_ms: int | None = None
) -> Response:
    await here.doors.refresh(here.store.access)
    return await pages.rendered(
        http_request,
        "keymade.html",
        text=made.text,
        key=made.key,
        owner=workspace_of(here, made.key.workspace),
        is_first=is_first,
        until_ms=until_ms,
        base_url=urls.base_url(http_request, here.settings),
    )


# --- A key that is there --------------------------------------------------------------------------------------------


async def ask_revoke(http_request: HttpRequest) -> Response:
    """What ends with a key, and the button."""
    here, line = _changeable(http_request)
    others = [key for key in here.doors.keys if key.role == "admin" and key.id != line.key.id]
    now_ms = here.world.clock.now_ms()
    is_last = line.key.role == "admin" and not any(key.opens(now_ms=now_ms) for key in others)
    return await pages.rendered(http_request, "keyrevoke.html", line=line, is_last=is_last)


async def revoke(http_request: HttpRequest) -> Response:
    """End a key for good; durable before the answer. Twice is once."""
    here, line = _changeable(http_request)
    await here.store.access.revoke_key(line.key.id, now_ms=here.world.clock.now_ms())
    await here.doors.refresh(here.store.access)
    return pages.redirect(http_request, "/console/keys")


async def ask_rotate(http_request: HttpRequest) -> Response:
    """How long both keys open, and the button."""
    here, line = _changeable(http_request)
    return await pages.rendered(
        http_request, "keyrotate.html", line=line, overlaps=_overlaps(), id=granting.key_id_drawn(here.world)
    )


async def rotate(http_request: HttpRequest) -> Response:
    """Make a key in the place of another and show it; durable before the answer."""
    here, line = _changeable(http_request)
    form = session.visit_of(http_request).form
    _check_unmade(here, form.get("id", ""))
    if form.get("overlap") not in OVERLAPS:
        raise InvalidRequest("Choose how long the old key still opens.")
    now_ms = here.world.clock.now_ms()
    made = granting.successor(line.key, here.world, now_ms=now_ms, key_id=form["id"])
    until_ms = now_ms + OVERLAPS[form["overlap"]][1]
    try:
        await here.store.access.replace_key(line.key.id, made.key, until_ms=until_ms)
    except UsageError as error:
        raise InvalidRequest("This key opens nothing any more, so nothing can take its place; make a new one.") from (
            error
        )
    return await _shown_once(http_request, here, made, until_ms=min(until_ms, line.key.expires_at_ms or until_ms))


def _overlaps() -> list[tuple[str, str]]:
    return [(value, label) for value, (label, _) in OVERLAPS.items()]


def _changeable(http_request: HttpRequest) -> tuple[Context, Line]:
    """The key that the path names. PermissionDenied for all but admins; NotFound if there is none; InvalidRequest if
    it is of the settings."""
    here = admin_of(http_request)
    key_id = http_request.path_params["key_id"]
    key = next((key for key in here.doors.keys if key.id == key_id), None)
    if key is None:
        raise NotFound("There is no such key.")
    if access.is_of_settings(key):
        raise InvalidRequest("This key is of the settings of the server: it ends with a restart without it.")
    return here, _line(here, http_request, key)
