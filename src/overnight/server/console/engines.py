"""GET /console/engines: what each engine does, what holds it, and what waits."""

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.server import context, status
from overnight.server.console import pages, session

_DOORS = {
    "away": "away",
    "gate": "pausing after trouble",
    "hours": "closed by its hours",
    "signal": "waiting for its signal",
    "window": "full",
    "people": "leaving room for people",
    "rate": "waiting for its rate limits",
    "memory": "memory full",
    "budget": "budget spent",
    "nothing": "has room",
}


async def engines(http_request: HttpRequest) -> Response:
    """All engines, and of the backlog what the caller's workspace has in it (I7)."""
    found = status.snapshot(context.of(http_request), session.caller_of(http_request).workspace)
    waiting = sorted(found.backlog.waiting.items(), key=lambda item: (-item[1], item[0]))
    return await pages.rendered(http_request, "engines.html", found=found, waiting=waiting, doors=_DOORS)
