"""GET and POST /console/login, POST /console/logout: a key becomes a session, and the session goes."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import limits
from overnight.core import ratelimit
from overnight.errors import RateLimited
from overnight.server import context
from overnight.server.console import guard, pages, session
from overnight.server.context import Context

_ADDRESSES_MAX = 10_000


async def ask(http_request: HttpRequest) -> Response:
    """The form. Who needs no login, or has one, is sent on."""
    if session.visit_of(http_request).caller is not None:
        return pages.redirect(http_request, _next(http_request.query_params.get("next", "")))
    return await _form(http_request, _next(http_request.query_params.get("next", "")), said="")


async def login(http_request: HttpRequest) -> Response:
    """Begin a session and go on; the form again, with 401, if the key opens nothing. RateLimited by address."""
    here, visit = context.of(http_request), session.visit_of(http_request)
    now_ms = here.world.clock.now_ms()
    _count(session.sessions_of(http_request), guard.address_of(http_request, here), now_ms=now_ms)
    caller = here.doors.caller_of(visit.form.get("key", "").strip(), now_ms=now_ms)
    path = _next(visit.form.get("next", ""))
    if caller is None:
        return await _form(http_request, path, said="This key opens nothing here.", status=401)
    _begin(http_request, here, caller.key_id)
    return pages.redirect(http_request, path)


async def logout(http_request: HttpRequest) -> Response:
    """Forget the session in this browser."""
    _begin(http_request, context.of(http_request), "")
    return pages.redirect(http_request, "/console/login")


def _begin(http_request: HttpRequest, here: Context, key_id: str) -> None:
    """A session of its own, also after a visit without a login: nobody can have prepared it."""
    visit = session.visit_of(http_request)
    visit.session = session.begun(key_id, now_ms=here.world.clock.now_ms(), entropy=here.world.entropy)
    visit.is_new = True


async def _form(http_request: HttpRequest, path: str, *, said: str, status: int = 200) -> Response:
    return await pages.rendered(http_request, "login.html", status=status, next=path, said=said)


def _next(path: str) -> str:
    return path if pages.is_ours(path) else "/console/batches"


def _count(sessions: session.Sessions, address: str, *, now_ms: int) -> None:
    per_minute = limits.CONSOLE_LOGINS_PER_MINUTE
    if len(sessions.logins) >= _ADDRESSES_MAX:
        sessions.logins.clear()
    bucket = sessions.logins.get(address) or ratelimit.full(per_minute, now_ms=now_ms)
    verdict = ratelimit.take(bucket, per_minute=per_minute, now_ms=now_ms)
    sessions.logins[address] = verdict.bucket
    if not verdict.is_allowed:
        raise RateLimited(
            f"Too many attempts to log in from {address}; try again in {verdict.retry_after_s} s.",
            retry_after_s=verdict.retry_after_s,
        )
