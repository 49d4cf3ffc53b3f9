"""What a page of another site could make a browser do to a server that needs no key, and what is refused for that.

Two ways lead from a page to a server on its reader's machine: requests that need no leave of ours (Fetch standard,
"no-cors"), and a name of the page's own site that leads to this machine (DNS rebinding), so that the browser takes us
for that site. With keys neither does anything: no browser sends a key by itself, but for the console's cookie, which
is bound to this site (`console.guard`).
"""

from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest

from overnight.errors import PermissionDenied
from overnight.server import urls
from overnight.server.config import Settings, is_loopback

_ELSEWHERE = ("cross-site", "same-site")  # Of Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/).


def check(http_request: HttpRequest, settings: Settings) -> None:
    """PermissionDenied for what other sites may have sent."""
    if "host" in http_request.headers:  # Browsers always send it.
        check_name(http_request, settings)
    is_elsewhere = http_request.headers.get("sec-fetch-site", "") in _ELSEWHERE
    if is_elsewhere or not is_own_origin(http_request, settings):
        raise PermissionDenied(
            "This server has no keys, so it takes nothing from pages of other sites. "
            "If that is wanted, make a key with `overnight keys create` and send it."
        )


def check_name(http_request: HttpRequest, settings: Settings) -> None:
    """PermissionDenied if we were called by a name that is neither one of this machine nor that of `public_url`."""
    known = {settings.host.lower(), (urlsplit(settings.public_url).hostname or "").lower()} - {""}
    called = [http_request.headers.get("host", ""), *http_request.headers.getlist("x-forwarded-host")]
    for host in called:
        name = _name_of(host)
        if not is_loopback(name) and name not in known:
            raise PermissionDenied(
                "This server has no keys, so it answers only to names of this machine. "
                "Reach it as http://127.0.0.1 or http://localhost with its port; "
                "or set public_url to the address that you use, or make a key with `overnight keys create`."
            )


def is_own_origin(http_request: HttpRequest, settings: Settings) -> bool:
    """Whether a page of ours sent this, as far as the browser says."""
    origin = http_request.headers.get("origin")
    if origin is None:
        return True
    own = urlsplit(urls.base_url(http_request, settings))
    called = http_request.headers.get("host", "")
    return origin in (f"{own.scheme}://{own.netloc}", f"{http_request.scope['scheme']}://{called}")


def _name_of(host: str) -> str:
    """The name in a Host header; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
