"""GET /health: whether this server does its work, and if not, why. Needs no key and tells no secret."""

from typing import Literal

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import __version__
from overnight.errors import StoreError
from overnight.server import answers, context


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: ok; degraded (it accepts batches, but something holds work up); failing (it cannot accept any)."""

    status: Literal["ok", "degraded", "failing"]
    version: str = __version__
    batches_open: int = 0
    segments_open: int = 0
    requests_in_flight: int = 0
    trouble: dict[str, str] = {}


async def health(http_request: HttpRequest) -> Response:
    """200 while batches are accepted, else 503."""
    here = context.of(http_request)
    trouble = {
        "results": here.worker.recorder.trouble,
        **here.worker.troubles,
        "upkeep": here.upkeep.trouble,
        **{f"engine {name}": said for name, said in here.fleet.trouble().items()},
    }
    trouble = {what: said for what, said in trouble.items() if said}
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
