"""Pages below /console/keys/workspaces: new workspaces, their rules, their end. For admins."""

from collections.abc import Mapping

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.workspace import DEFAULT, NO_RULES, Workspace
from overnight.errors import InvalidRequest, UsageError
from overnight.ids import WorkspaceId
from overnight.server import context, granting
from overnight.server.console import pages, rules, session
from overnight.server.console.keys import admin_of, workspace_of
from overnight.server.context import Context


async def ask_new(http_request: HttpRequest) -> Response:
    """The form of a new workspace."""
    admin_of(http_request)
    return await _form(http_request, None, {"name": "", **rules.typed(NO_RULES)}, {})


async def create(http_request: HttpRequest) -> Response:
    """Make a workspace; durable before the answer. The form again, with 400, if a field cannot be."""
    admin_of(http_request)
    return await _save(http_request, None)


async def ask_edit(http_request: HttpRequest) -> Response:
    """The rules of a workspace as a form."""
    _, found = _named(http_request)
    name = "" if _is_unnamed(found) else found.name
    return await _form(http_request, found, {"name": name, **rules.typed(found.rules)}, {})


async def edit(http_request: HttpRequest) -> Response:
    """Replace the rules of a workspace; durable before the answer, and they count at once. The form again, with 400,
    if a field cannot be."""
    _, found = _named(http_request)
    return await _save(http_request, found)


async def _save(http_request: HttpRequest, found: Workspace | None) -> Response:
    here, form = context.of(http_request), session.visit_of(http_request).form
    given = {name: form.get(name, "").strip() for name in ("name", *(field.name for field in rules.FIELDS))}
    wanted, troubles = rules.read(given)
    try:
        if found is not None and not _is_unnamed(found):
            if not troubles:
                await here.store.access.set_rules(found.id, wanted)
        else:
            made = granting.new_workspace(given["name"], wanted, here.world, given_id=found.id if found else None)
            if not troubles:
                await here.store.access.add_workspace(made)
    except UsageError as error:
        troubles["name"] = str(error)
    if troubles:
        return await _form(http_request, found, given, troubles)
    await here.doors.refresh(here.store.access)
    return pages.redirect(http_request, "/console/keys")


def _is_unnamed(workspace: Workspace) -> bool:
    """Whether only keys of the settings name it: the store does not know it yet."""
    return workspace.name == workspace.id


async def ask_archive(http_request: HttpRequest) -> Response:
    """What ends with a workspace, and the button."""
    here, found = _archivable(http_request)
    now_ms = here.world.clock.now_ms()
    keys = sum(key.workspace == found.id and key.opens(now_ms=now_ms) for key in here.doors.keys)
    is_own = found.id == session.caller_of(http_request).workspace
    return await pages.rendered(http_request, "workspacearchive.html", workspace=found, keys=keys, is_own=is_own)


async def archive(http_request: HttpRequest) -> Response:
    """Close a workspace for good; durable before the answer. InvalidRequest if the box was not ticked."""
    here, found = _archivable(http_request)
    if session.visit_of(http_request).form.get("confirm") != "yes":
        raise InvalidRequest("Nothing was archived: tick the box to say that you mean it.")
    await here.store.access.archive_workspace(found.id, now_ms=here.world.clock.now_ms())
    await here.doors.refresh(here.store.access)
    return pages.redirect(http_request, "/console/keys")


async def _form(
    http_request: HttpRequest, found: Workspace | None, given: Mapping[str, str], troubles: Mapping[str, str]
) -> Response:
    return await pages.rendered(
        http_request,
        "workspace.html",
        status=400 if troubles else 200,
        workspace=found,
        needs_name=found is None or _is_unnamed(found),
        given=given,
        troubles=troubles,
        fields=rules.FIELDS,
    )


def _named(http_request: HttpRequest) -> tuple[Context, Workspace]:
    """The workspace that the path names; PermissionDenied for all but admins, NotFound if there is none."""
    here = admin_of(http_request)
    return here, workspace_of(here, WorkspaceId(http_request.path_params["workspace_id"]))


def _archivable(http_request: HttpRequest) -> tuple[Context, Workspace]:
    here, found = _named(http_request)
    if found.id == DEFAULT.id:
        raise InvalidRequest("The default workspace cannot be archived; revoke its keys instead.")
    if _is_unnamed(found):
        raise InvalidRequest("Only keys of the settings name this workspace; end those, or give it a name first.")
    return here, found
