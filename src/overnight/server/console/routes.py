"""Every page of the console, in one table. A new page is one line here and one template."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from overnight.errors import MethodNotAllowed, NotFound
from overnight.server.console import (
    actions,
    assets,
    batch,
    batches,
    engines,
    hooks,
    keys,
    login,
    pages,
    results,
    usage,
    workspaces,
)
from overnight.server.console.guard import Page, guarded

Line: TypeAlias = tuple[str, str, Page]

# Pages for whoever is logged in, on their own workspace.
CONSOLE_ROUTES: Final[Sequence[Line]] = (
    ("GET", "/console/batches", batches.batches),
    ("GET", "/console/batches/{batch_id}", batch.batch),
    ("GET", "/console/batches/{batch_id}/cancel", actions.ask_cancel),
    ("POST", "/console/batches/{batch_id}/cancel", actions.cancel),
    ("GET", "/console/batches/{batch_id}/delete", actions.ask_delete),
    ("POST", "/console/batches/{batch_id}/delete", actions.delete),
    ("GET", "/console/batches/{batch_id}/results", results.results),
    ("GET", "/console/batches/{batch_id}/results/{custom_id}", results.row),
    ("GET", "/console/batches/{batch_id}/results/{custom_id}/whole", results.whole),
    ("GET", "/console/batches/{batch_id}/download", results.download),
    ("GET", "/console/batches/{batch_id}/retry", results.ask_retry),
    ("POST", "/console/batches/{batch_id}/retry", results.retry),
    ("GET", "/console/engines", engines.engines),
    ("GET", "/console/usage", usage.usage),
    ("GET", "/console/usage.csv", usage.download),
    ("GET", "/console/keys", keys.keys),
    ("GET", "/console/keys/new", keys.ask_new),
    ("POST", "/console/keys/new", keys.create),
    ("GET", "/console/keys/{key_id}/revoke", keys.ask_revoke),
    ("POST", "/console/keys/{key_id}/revoke", keys.revoke),
    ("GET", "/console/keys/{key_id}/rotate", keys.ask_rotate),
    ("POST", "/console/keys/{key_id}/rotate", keys.rotate),
    ("GET", "/console/keys/workspaces/new", workspaces.ask_new),
    ("POST", "/console/keys/workspaces/new", workspaces.create),
    ("GET", "/console/keys/workspaces/{workspace_id}/edit", workspaces.ask_edit),
    ("POST", "/console/keys/workspaces/{workspace_id}/edit", workspaces.edit),
    ("GET", "/console/keys/workspaces/{workspace_id}/archive", workspaces.ask_archive),
    ("POST", "/console/keys/workspaces/{workspace_id}/archive", workspaces.archive),
    ("GET", "/console/hooks", hooks.hooks),
    ("GET", "/console/hooks/new", hooks.ask_new),
    ("POST", "/console/hooks/new", hooks.create),
    ("GET", "/console/hooks/{hook_id}/delete", hooks.ask_delete),
    ("POST", "/console/hooks/{hook_id}/delete", hooks.delete),
    ("POST", "/console/hooks/{hook_id}/test", hooks.test),
    ("POST", "/console/hooks/deliveries/{delivery_id}/resend", hooks.resend),
    ("POST", "/console/logout", login.logout),
)

# Pages for everybody who reaches this server.
OPEN_ROUTES: Final[Sequence[Line]] = (
    ("GET", "/console/static/{name}", assets.asset),
    ("GET", "/console/login", login.ask),
    ("POST", "/console/login", login.login),
)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def mounted() -> list[Route]:
    """All of them as routes, and an HTML answer for every other path below /console."""
    found = [
        *_routes(OPEN_ROUTES, needs_login=False),
        *_routes((*CONSOLE_ROUTES, ("GET", "/console", _home), ("GET", "/console/", _home)), needs_login=True),
    ]
    return [*found, Route("/console/{rest:path}", guarded(_nothing), methods=_METHODS)]


def _routes(lines: Sequence[Line], *, needs_login: bool) -> list[Route]:
    by_path: dict[str, dict[str, Page]] = {}
    for method, path, page in lines:
        by_path.setdefault(path, {})[method] = page
    return [
        Route(path, guarded(_by_method(found), needs_login=needs_login), methods=_METHODS)
        for path, found in by_path.items()
    ]


def _by_method(found: dict[str, Page]) -> Page:
    async def answer(http_request: HttpRequest) -> Response:
        method = "GET" if http_request.method == "HEAD" else http_request.method
        if method not in found:
            raise MethodNotAllowed(f"{http_request.method} does nothing here.")
        return await found[method](http_request)

    return answer


async def _home(http_request: HttpRequest) -> Response:
    return pages.redirect(http_request, "/console/batches")


async def _nothing(http_request: HttpRequest) -> Response:
    raise NotFound("There is no such page.")
