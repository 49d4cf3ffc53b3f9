"""What every page goes through before it is made, and what becomes of its errors.

In order: without keys, the name this server was called by (a page of another site could call us under its own name,
DNS rebinding); the session; the key behind it; and of a form that is posted its token and where it comes from (OWASP
"Cross-Site Request Forgery Prevention": token and Fetch Metadata, each alone would do).
"""

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.errors import ApiError, InvalidRequest, NotAuthenticated, PermissionDenied, StoreError
from overnight.server import browsers, context, receive, urls
from overnight.server.console import pages, session
from overnight.server.console.session import Visit
from overnight.server.context import Context

log = logging.getLogger("overnight.server")
Page: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]

_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_SAFE: Final = ("GET", "HEAD")


def guarded(page: Page, *, needs_login: bool = True) -> Page:
    """The page behind the guard. It always answers with HTML."""

    async def answer(http_request: HttpRequest) -> Response:
        here, sessions = context.of(http_request), session.sessions_of(http_request)
        visitor = session.begun("", now_ms=here.world.clock.now_ms(), entropy=here.world.entropy)
        http_request.state.visit = visit = Visit(session=visitor, is_new=False, caller=None)
        try:
            await sessions.load(here)
            response = await _let_in(http_request, here, visit, page, needs_login=needs_login)
        except ApiError as error:
            response = await pages.refused(http_request, error)
        except StoreError as error:
            log.error("%s: %s", http_request.state.request_id, error)
            response = await pages.failed(http_request, 500, "The server cannot use its disk at the moment.")
        except ClientDisconnect:
            raise  # While its form was read: nobody is there to see a page.
        except Exception:  # A page is never answered with JSON, and our mistake is in the log.
            log.exception("%s: a page of the console failed", http_request.state.request_id)
            response = await pages.failed(
                http_request, 500, "That is a mistake of ours; the log of the server has it."
            )
        if visit.is_new:
            session.put_cookie(response, http_request, here)
        return response

    return answer


async def _let_in(
    http_request: HttpRequest, here: Context, visit: Visit, page: Page, *, needs_login: bool
) -> Response:
    if not here.doors.needs_key:
        browsers.check_name(http_request, here.settings)
    if _comes_from_elsewhere(http_request):
        return await pages.rendered(http_request, "again.html", path=_path_of(http_request))
    now_ms = here.world.clock.now_ms()
    cookie = http_request.cookies.get(session.COOKIE, "")
    found = session.sessions_of(http_request).read(cookie, here.doors, now_ms=now_ms)
    if found is None:
        visit.is_new = True
    else:
        visit.session = found
    visit.caller = here.doors.caller_with(visit.session.key_id, now_ms=now_ms)
    if visit.caller is None and needs_login:
        if http_request.method in _SAFE:
            return pages.redirect(http_request, f"/console/login?next={quote(_path_of(http_request), safe='')}")
        raise NotAuthenticated("Your session is over, and nothing was changed. Log in, then do it again.")
    if http_request.method not in _SAFE:
        visit.form = await _form(http_request)
        _check_form(http_request, here, visit)
    return await page(http_request)


def _path_of(http_request: HttpRequest) -> str:
    """As it was asked for. Not from `http_request.url`, which reads the Host header, and that may be anything."""
    path, query = quote(http_request.scope["path"]), http_request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


# --- Names ----------------------------------------------------------------------------------------------------------


def _comes_from_elsewhere(http_request: HttpRequest) -> bool:
    """Whether another site's link led here: our cookie was not sent then (SameSite), and is not to be replaced."""
    is_link = http_request.method in _SAFE and http_request.headers.get("sec-fetch-site") == "cross-site"
    return is_link and session.COOKIE not in http_request.cookies


def address_of(http_request: HttpRequest, here: Context) -> str:
    """Whose machine asks: the last address that no proxy of ours added."""
    client = http_request.scope.get("client")
    address = client[0] if client else ""
    told = [item.strip() for item in http_request.headers.get("x-forwarded-for", "").split(",")]
    while told and urls.is_trusted(address, here.settings.trusted_proxies):
        try:
            address = str(ipaddress.ip_address(told.pop()))
        except ValueError:
            break
    return address


# --- Forms ----------------------------------------------------------------------------------------------------------


async def _form(http_request: HttpRequest) -> ImmutableMultiDict[str, str]:
    kind = http_request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM_TYPE:
        raise InvalidRequest(f"A form of the console is sent as {_FORM_TYPE}.")
    body = await receive.body(http_request, bytes_max=limits.CONSOLE_FORM_BYTES_MAX)
    try:
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=limits.CONSOLE_FORM_FIELDS_MAX, errors="replace"
        )
    except ValueError as error:  # Not UTF-8, or too many fields.
        raise InvalidRequest("The form cannot be read.") from error
    return ImmutableMultiDict(fields)


def _check_form(http_request: HttpRequest, here: Context, visit: Visit) -> None:
    shown = visit.form.get(session.TOKEN_FIELD, "")
    token = session.sessions_of(http_request).token(visit.session)
    is_from_here = http_request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    is_ours = hmac.compare_digest(shown.encode(), token.encode())
    if not (is_from_here and browsers.is_own_origin(http_request, here.settings) and is_ours):
        raise PermissionDenied(
            "This form did not come from a page of your session, and nothing was changed. "
            "Go back, load the page again, and repeat what you did."
        )
