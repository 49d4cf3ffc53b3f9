"""Every HTTP request seen from outside: counted, timed, told to the log, and traced if that is on.

A pure ASGI middleware: bodies pass through untouched and unread. Paths are told by the template of their route, so
that neither metrics nor logs grow with what clients think up; a query string is never told.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overnight.ports import logs
from overnight.ports.tracer import Span, Tracer
from overnight.server import urls
from overnight.server.config import Settings

log = logging.getLogger("overnight.http")

BUCKETS_S: Final = (0.01, 0.1, 1.0, 10.0, 100.0)  # A create takes some ms, a download or an answer up to minutes.
UNKNOWN: Final = "other"  # Paths that lead nowhere, and methods nobody has heard of.
GONE: Final = 499  # The client went away before an answer began, as nginx has it.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})  # Asked every few seconds by machines: told at debug.


class Way(NamedTuple):
    """What requests are counted by."""

    route: str
    method: str
    status: str  # "2xx" to "5xx".


@dataclass
class Timing:
    """The requests of one way."""

    count: int = 0
    sum_s: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_S))  # Each without those before it.


class Counts:
    """All requests since the start; on one event loop."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._timings: dict[Way, Timing] = {}

    @property
    def timings(self) -> Mapping[Way, Timing]:
        """By way; those that were never gone are not there."""
        return self._timings

    def note(self, way: Way, took_s: float) -> None:
        """One more."""
        timing = self._timings.setdefault(way, Timing())
        timing.count += 1
        timing.sum_s += took_s
        for number, bound in enumerate(BUCKETS_S):
            if took_s <= bound:
                timing.buckets[number] += 1
                break


class Traffic:
    """The middleware. Stands inside of `answers.RequestIds`."""

    def __init__(self, app: ASGIApp, *, counts: Counts, settings: Settings, tracer: Tracer) -> None:
        self._app, self._counts, self._settings, self._tracer = app, counts, settings, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = asyncio.get_running_loop().time()
        status, sent_bytes = 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        span = self._begin(scope) if self._tracer.is_on else None
        self._counts.in_flight += 1
        try:
            with logs.about(request=scope["state"]["request_id"]):
                await self._app(scope, receive, counted)
        except Exception:
            status = status or 500  # It is answered outside of us.
            raise
        finally:
            self._counts.in_flight -= 1
            took_s = asyncio.get_running_loop().time() - began_s
            self._end(scope, status or GONE, took_s, sent_bytes, span)

    def _begin(self, scope: Scope) -> Span:
        parent = Headers(scope=scope).get("traceparent", "")
        method = _method(scope)
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        span = self._tracer.begin(method, kind="server", parent=parent, attributes=attributes)
        scope["state"]["traceparent"] = span.traceparent
        return span

    def _end(self, scope: Scope, status: int, took_s: float, sent_bytes: int, span: Span | None) -> None:
        route, method = _route(scope), _method(scope)
        self._counts.note(Way(route, method, f"{status // 100}xx"), took_s)
        state = scope["state"]
        logs.tell(
            log,
            logging.DEBUG if route in _PROBES and status < 500 else logging.INFO,
            f"{method} {route}",
            status=status,
            took_s=round(took_s, 3),
            bytes=sent_bytes,
            request=state["request_id"],
            workspace=state.get("workspace"),
            batch=scope.get("path_params", {}).get("batch_id") if status < 400 else None,
            client=client_of(scope, self._settings),
        )
        if span is not None:
            span.note(
                {
                    "http.route": route,
                    "http.response.status_code": status,
                    "overnight.request.id": state["request_id"],
                },
                name=f"{method} {route}",
            )
            span.end(trouble=str(status) if status >= 500 else "")


def _route(scope: Scope) -> str:
    route: Route | None = scope.get("route")  # The app has no mounts.
    return UNKNOWN if route is None else route.path.replace(":path}", "}")


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else UNKNOWN


def client_of(scope: Scope, settings: Settings) -> str | None:
    """The address of who asks. Behind a trusted proxy it is the last one that the proxy has written down."""
    peer: str | None = scope["client"][0] if scope.get("client") else None
    if peer is None or not urls.is_trusted(peer, settings.trusted_proxies):
        return peer
    told = Headers(scope=scope).get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(told))
    except ValueError:
        return peer
