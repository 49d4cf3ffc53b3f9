"""How a page of the console is made: a template, the values it needs, and headers that bind the browser.

A page is a function in `routes.CONSOLE_ROUTES`:

    async def hooks(http_request: HttpRequest) -> Response:
        workspace = session.caller_of(http_request).workspace
        return await pages.rendered(http_request, "hooks.html", hooks=await hooks_of(workspace))

Its template extends base.html and fills the blocks `title` and `content`. Every form of it that posts has
`{{ ui.token() }}` inside, and the function finds its fields in `session.visit_of(http_request).form`.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from overnight.errors import ApiError
from overnight.server import context, urls
from overnight.server.console import assets, session, shown

if TYPE_CHECKING:
    from jinja2 import Environment

_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # With no-referrer browsers send `Origin: null` from our own forms (Fetch 3.2).
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_TITLES: Final = {
    400: "That did not work",
    401: "Please log in again",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    413: "Too large",
    429: "Too many attempts",
}


@cache
def _templates() -> "Environment":
    """Our templates. Jinja takes a tenth of a second to import, which a server that nobody looks at does not pay."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  See above.

    found = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= shown.FILTERS
    return found


async def rendered(http_request: HttpRequest, template: str, *, status: int = 200, **values: object) -> Response:
    """A page from one of our templates."""
    here, visit = context.of(http_request), session.visit_of(http_request)
    root = urls.prefix(http_request, here.settings)
    key_name = next((key.name for key in here.doors.keys if key.id == visit.session.key_id), "")
    text = (
        _templates()
        .get_template(template)
        .render(
            root=root,
            static=lambda name: f"{root}/console/static/{assets.URL_NAMES[name]}",
            form_token=session.sessions_of(http_request).token(visit.session),
            area=[*http_request.scope["path"].split("/"), "", ""][2],
            caller=visit.caller,
            key_name=key_name,
            workspace_name=here.doors.name_of(visit.caller.workspace) if visit.caller else "",
            needs_key=here.doors.needs_key,
            now_ms=here.world.clock.now_ms(),
            **values,
        )
    )
    return Response(text, status_code=status, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


async def failed(
    http_request: HttpRequest, status: int, said: str, *, headers: dict[str, str] | None = None
) -> Response:
    """The page that says what went wrong."""
    title = _TITLES.get(status, "Something broke" if status >= 500 else "That did not work")
    answer = await rendered(
        http_request,
        "failed.html",
        status=status,
        failure=status,
        heading=title,
        said=said,
        request_id=http_request.state.request_id,
    )
    answer.headers.update(headers or {})
    return answer


async def refused(http_request: HttpRequest, error: ApiError) -> Response:
    """The page of an ApiError."""
    return await failed(http_request, error.status, str(error), headers=error.headers())


def redirect(http_request: HttpRequest, path: str) -> Response:
    """Go on at a path of ours, such as /console/batches, with GET."""
    root = urls.prefix(http_request, context.of(http_request).settings)
    return RedirectResponse(root + path, status_code=303, headers=_PAGE_HEADERS)


def is_ours(path: str) -> bool:
    """Whether somebody may be sent to this path: it lies below /console/ and is nothing but a path and a query."""
    found = urlsplit(path)
    is_plain = all("!" <= sign <= "~" and sign != "\\" for sign in path)
    climbs = any(unquote(part) in (".", "..") for part in found.path.split("/"))
    return is_plain and not climbs and not found.scheme and not found.netloc and path.startswith("/console/")
