"""GET /v1/models and /v1/models/{id}: what the engines serve now.

Source: https://platform.claude.com/docs/en/api/models/list.
"""

import asyncio
from typing import Literal

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.engines.engine import Model
from overnight.errors import NotFound
from overnight.ids import WorkspaceId
from overnight.server import answers, context

_CREATED_AT = "2026-01-01T00:00:00Z"  # Engines do not say; the field is required by clients' types.


class Supported(msgspec.Struct, frozen=True):
    """Whether a model can do something."""

    supported: bool = True


class Capabilities(msgspec.Struct, frozen=True):
    """What every model can do here."""

    batch: Supported = Supported()


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One model as the API writes it."""

    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: str = _CREATED_AT
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: Capabilities = Capabilities()


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """All models; there is never a second page."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


async def page(http_request: HttpRequest) -> Response:
    """GET /v1/models: all that the caller may ask for, on one page; cursors that point past the end get an empty
    one."""
    found = await _served(http_request, context.workspace_of(http_request))
    ids = [model.id for model in found]
    after = http_request.query_params.get("after_id")
    before = http_request.query_params.get("before_id")
    if after in ids:
        found = found[ids.index(after) + 1 :]
    elif before in ids:
        found = found[: ids.index(before)]
    return answers.json(
        ModelPage(
            data=found,
            has_more=False,
            first_id=found[0].id if found else None,
            last_id=found[-1].id if found else None,
        )
    )


async def retrieve(http_request: HttpRequest) -> Response:
    """GET /v1/models/{id}; a name that an engine answers without listing it, such as an alias, exists too."""
    workspace, name = context.workspace_of(http_request), http_request.path_params["model_id"]
    for model in await _served(http_request, workspace):
        if model.id == name:
            return answers.json(model)
    fleet = context.of(http_request).fleet
    if not fleet.knows(name, workspace) or not fleet.rules_of(workspace).allows_model(name):
        raise NotFound(f"model: {name[:200]}")
    return answers.json(ModelInfo(id=name, display_name=name))


async def _served(http_request: HttpRequest, workspace: WorkspaceId) -> list[ModelInfo]:
    fleet = context.of(http_request).fleet
    rules = fleet.rules_of(workspace)
    engines = [pool.engine for pool in fleet.pools if rules.allows_engine(fleet.shown_name(pool.engine))]
    found = await asyncio.gather(*(engine.models() for engine in engines))
    return [_info(model) for models in found for model in models if rules.allows_model(model.id)]


def _info(model: Model) -> ModelInfo:
    return ModelInfo(
        id=model.id,
        display_name=model.display_name,
        max_input_tokens=model.max_input_tokens,
        max_tokens=model.max_tokens,
    )
