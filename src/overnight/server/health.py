"""GET /health: whether this server does its work, and if not, why. GET /ready: whether to send it work.

Neither needs a key, and neither tells a secret. By /health a process is restarted, by /ready it is sent traffic: an
engine that is away is no reason to restart a server that waits for it.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import __version__
from overnight.errors import StoreError
from overnight.server import answers, context
from overnight.server.context import Context


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: ok; degraded (it accepts batches, but something holds work up); failing (it cannot accept any)."""

    status: Literal["ok", "degraded", "failing"]
    version: str = __version__
    batches_open: int = 0
    segments_open: int = 0
    requests_in_flight: int = 0
    trouble: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Whether batches are accepted and can be worked on, now or in an engine's hours; if not, `trouble` says why."""

    ready: bool
    trouble: dict[str, str] = {}


async def health(http_request: HttpRequest) -> Response:
    """200 while batches are accepted, else 503."""
    here = context.of(http_request)
    trouble = _trouble(here)
    try:
        counts = await here.store.control.counts()
    except StoreError as error:
        failing = Health(status="failing", trouble={**trouble, "store": str(error)})
        return Response(answers.encode(failing), status_code=503, media_type="application/json")
    return answers.json(
        Health(
            status="degraded" if trouble else "ok",
            batches_open=counts["batches_open"],
            segments_open=counts["segments_open"],
            requests_in_flight=sum(pool.in_flight for pool in here.fleet.pools),
            trouble=trouble,
        )
    )


async def ready(http_request: HttpRequest) -> Response:
    """200 if it is, else 503."""
    here = context.of(http_request)
    trouble = await _obstacles(here)
    found = Ready(ready=not trouble, trouble=dict(trouble))
    return Response(answers.encode(found), status_code=503 if trouble else 200, media_type="application/json")


def _trouble(here: Context) -> dict[str, str]:
    trouble = {
        "results": here.worker.recorder.trouble,
        **here.worker.troubles,
        "upkeep": here.upkeep.trouble,
        "keys": here.doors.trouble,
        "hooks": here.hooks.trouble if here.hooks else "",
        "usage": here.fleet.charges.trouble,
        **{f"engine {name}": said for name, said in here.fleet.trouble().items()},
    }
    return {what: said for what, said in trouble.items() if said}


async def _obstacles(here: Context) -> Mapping[str, str]:
    """Engines outside their hours, and those whose budget is spent, will work; only those that are away may not."""
    found = {}
    try:
        await here.store.control.counts()
    except StoreError as error:
        found["store"] = str(error)
    if here.worker.recorder.trouble:
        found["results"] = here.worker.recorder.trouble
    if all(pool.is_away for pool in here.fleet.pools):
        found["engines"] = "; ".join(
            f"{pool.engine.name} is away: {pool.trouble or 'it is not reached'}" for pool in here.fleet.pools
        )
    return found
