"""The ASGI app: every path we answer, in one table. Runs under any ASGI server."""

from typing import cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from overnight.server import (
    again,
    answers,
    batches,
    exports,
    health,
    messages,
    metrics,
    models,
    openapi,
    ratelimits,
    results,
    status,
    traffic,
    usagereport,
    usages,
)
from overnight.server.console import routes as console
from overnight.server.console.session import Sessions
from overnight.server.context import Context

ROUTES = (
    ("POST", "/v1/messages/batches", batches.create),
    ("GET", "/v1/messages/batches", batches.page),
    ("GET", "/v1/messages/batches/{batch_id}", batches.retrieve),
    ("DELETE", "/v1/messages/batches/{batch_id}", batches.delete),
    ("POST", "/v1/messages/batches/{batch_id}/cancel", batches.cancel),
    ("GET", "/v1/messages/batches/{batch_id}/results", results.results),
    ("POST", "/v1/messages", messages.create),
    ("POST", "/v1/messages/count_tokens", messages.count_tokens),
    ("GET", "/v1/models", models.page),
    ("GET", "/v1/models/{model_id:path}", models.retrieve),
    ("GET", "/v1/organizations/rate_limits", ratelimits.page),
    ("GET", "/v1/organizations/usage_report/messages", usagereport.messages),
    ("GET", "/v1/organizations/cost_report", usagereport.costs),
    ("GET", "/v1/overnight/status", status.status),
    ("GET", "/v1/overnight/usage", usages.table),
    ("GET", "/v1/overnight/batches/{batch_id}/usage", usages.of_batch),
    ("POST", "/v1/overnight/batches/{batch_id}/retry", again.retry),
    ("GET", "/v1/overnight/batches/{batch_id}/export", exports.export),
    ("GET", "/health", health.health),
    ("GET", "/ready", health.ready),
    ("GET", "/metrics", metrics.metrics),
    ("GET", "/openapi.json", openapi.document),
)


def app(here: Context) -> Starlette:
    """The app over this context; the context must outlive it."""
    by_path: dict[str, list[Route]] = {}
    for method, path, endpoint in ROUTES:
        by_path.setdefault(path, []).append(Route(path, endpoint, methods=[method]))
    found = Starlette(
        routes=[*(_one(routes) for routes in by_path.values()), *console.mounted()],
        middleware=[
            Middleware(answers.RequestIds, entropy=here.world.entropy),
            Middleware(traffic.Traffic, counts=here.traffic, settings=here.settings, tracer=here.world.tracer),
        ],
        exception_handlers={kind: cast(ExceptionHandler, answer) for kind, answer in answers.HANDLERS.items()},
    )
    found.router.redirect_slashes = False  # SDKs drop credentials, or keep them, on redirects: never redirect.
    found.state.context = here
    found.state.sessions = Sessions()
    return found


def _one(routes: list[Route]) -> Route:
    """One route for all methods of a path, so that a wrong method is told all right ones."""
    if len(routes) == 1:
        return routes[0]
    endpoints = {method: route.endpoint for route in routes for method in route.methods or ()}

    async def by_method(http_request: HttpRequest) -> Response:
        answer = await endpoints[http_request.method](http_request)
        assert isinstance(answer, Response)
        return answer

    return Route(routes[0].path, by_method, methods=sorted(endpoints))
