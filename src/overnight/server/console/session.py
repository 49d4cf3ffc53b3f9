"""Who is at the console: a signed cookie that names the key somebody logged in with, and nothing more.

Nothing of a session is kept here. Its signature also covers the digest of its key, so a session ends with the key it
was begun with: when that is revoked, runs out, or another key takes its place in the settings.
"""

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import ids, limits
from overnight.core import ratelimit
from overnight.ids import drawn
from overnight.ports.entropy import Entropy
from overnight.server import urls
from overnight.server.access import Caller, Doors
from overnight.server.context import Context

COOKIE: Final = "overnight-console"
TOKEN_FIELD: Final = "token"  # noqa: S105  The name of a field.
_SECRET_BYTES = 32
_COOKIE_CHARACTERS_MAX = 300  # A key id, an instant, a nonce and a signature are 140.


class Session(NamedTuple):
    """One login, or one visit without."""

    key_id: str  # Empty: nobody has logged in, or nobody needs to.
    expires_at_ms: int
    nonce: str


@dataclass(kw_only=True)
class Visit:
    """One request of a page: who asks, and what they sent. Pages get it from `visit_of`."""

    session: Session
    is_new: bool  # The session is not in the browser yet: its cookie goes with the answer.
    caller: Caller | None  # None on pages that need no login.
    form: ImmutableMultiDict[str, str] = field(default_factory=ImmutableMultiDict)  # Of a POST.


@dataclass
class Sessions:
    """One per app."""

    secret: bytes = b""  # Read from the store at the first request.
    logins: dict[str, ratelimit.Bucket] = field(default_factory=dict)  # By address.

    async def load(self, here: Context) -> None:
        """Have the secret. StoreError if it cannot be read."""
        if not self.secret:
            self.secret = await here.store.access.secret("console", here.world.entropy.bytes(_SECRET_BYTES))

    def read(self, cookie: str, doors: Doors, *, now_ms: int) -> Session | None:
        """The session of a cookie; None if we did not write it, it is over, or its key is another now."""
        parts = cookie.split(".")
        if len(cookie) > _COOKIE_CHARACTERS_MAX or len(parts) != 4 or not cookie.isascii():
            return None
        key_id, expires, nonce, signature = parts
        if not expires.isdigit():
            return None
        found = Session(key_id, int(expires), nonce)
        is_ours = hmac.compare_digest(signature, self._signature(found, doors))
        return found if is_ours and now_ms < found.expires_at_ms else None

    def written(self, session: Session, doors: Doors) -> str:
        """The session as the value of a cookie."""
        return f"{session.key_id}.{session.expires_at_ms}.{session.nonce}.{self._signature(session, doors)}"

    def token(self, session: Session) -> str:
        """What every form of this session carries: others cannot know it (OWASP, CSRF: HMAC based token)."""
        return self._mac(f"form.{session.nonce}")

    def _signature(self, session: Session, doors: Doors) -> str:
        digest = next((key.sha256 for key in doors.keys if key.id == session.key_id), "")
        return self._mac(f"session.{session.key_id}.{session.expires_at_ms}.{session.nonce}.{digest}")

    def _mac(self, text: str) -> str:
        assert self.secret, "loaded before use"
        return hmac.new(self.secret, text.encode(), sha256).hexdigest()


def begun(key_id: str, *, now_ms: int, entropy: Entropy) -> Session:
    """A new session of a key; with an empty id, of a visitor."""
    nonce = drawn(entropy.bytes(ids.ID_ENTROPY_BYTES))
    return Session(key_id, now_ms + limits.CONSOLE_SESSION_MS, nonce)


def sessions_of(http_request: HttpRequest) -> Sessions:
    """Those of the app that got this request."""
    found = http_request.app.state.sessions
    assert isinstance(found, Sessions)
    return found


def visit_of(http_request: HttpRequest) -> Visit:
    """What the guard has found out about this request."""
    found = http_request.state.visit
    assert isinstance(found, Visit)
    return found


def caller_of(http_request: HttpRequest) -> Caller:
    """Who asks, on a page that needs a login."""
    caller = visit_of(http_request).caller
    assert caller is not None, "the guard let nobody else in"
    return caller


def put_cookie(response: Response, http_request: HttpRequest, here: Context) -> None:
    """Send the session of this visit with the answer."""
    session = visit_of(http_request).session
    response.set_cookie(
        COOKIE,
        sessions_of(http_request).written(session, here.doors),
        max_age=limits.CONSOLE_SESSION_MS // 1000,
        path=f"{urls.prefix(http_request, here.settings)}/console",
        secure=urls.base_url(http_request, here.settings).startswith("https://"),
        httponly=True,
        samesite="strict",
    )
