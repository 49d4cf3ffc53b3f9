"""The part of the document about usage and costs."""

from collections.abc import Callable

from overnight.server.openapischemas import Json, ref


def paths(*, answer: Callable[[str, str], Json], errors: Callable[..., Json]) -> dict[str, Json]:
    """The operations by path. `answer` and `errors` describe an answer by its schema and errors by their statuses."""
    version = ref("version", "parameters")
    report = {
        "operationId": "usage_report",
        "summary": "Report tokens by time and group",
        "description": "An admin's key sees all workspaces, any other its own.",
        "parameters": [version, *_REPORT, _WIDTH, *_FILTERS],
        "responses": {"200": answer("UsageReport", "A page, oldest first."), **errors("400", "401", "500")},
    }
    costs = {
        "operationId": "cost_report",
        "summary": "Report costs by day and group",
        "description": "Amounts are cents. An admin's key sees all workspaces, any other its own.",
        "parameters": [version, *_REPORT],
        "responses": {"200": answer("CostReport", "A page, oldest first."), **errors("400", "401", "500")},
    }
    table = {
        "operationId": "usage",
        "summary": "Sum up what was used and saved",
        "description": "An extension. An admin's key sees all workspaces, any other its own; batches are its own.",
        "parameters": [_text("since"), _text("until"), _BY],
        "responses": {"200": answer("UsageTable", "The table."), **errors("400", "401", "500")},
    }
    of_batch = {
        "operationId": "batch_usage",
        "summary": "Sum up what a batch used, as far as its segments are sealed",
        "description": "An extension.",
        "parameters": [{"name": "batch_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {"200": answer("BatchUsage", "What it took."), **errors("401", "404", "500")},
    }
    return {
        "/v1/organizations/usage_report/messages": {"get": report},
        "/v1/organizations/cost_report": {"get": costs},
        "/v1/overnight/usage": {"get": table},
        "/v1/overnight/batches/{batch_id}/usage": {"get": of_batch},
    }


def _query(name: str, schema: Json, **more: object) -> Json:
    return {"name": name, "in": "query", "schema": schema, **more}


def _text(name: str, **more: object) -> Json:
    return _query(name, {"type": "string"}, **more)


def _several(name: str) -> Json:
    return _query(name, {"type": "array", "items": {"type": "string"}})


_REPORT: list[Json] = [
    _query("starting_at", {"type": "string", "format": "date-time"}, required=True),
    _query("ending_at", {"type": "string", "format": "date-time"}),
    _several("group_by[]"),
    _query("limit", {"type": "integer", "minimum": 1}),
    _text("page", description="`next_page` of the answer before."),
]
_WIDTH = _query("bucket_width", {"enum": ["1m", "1h", "1d"], "default": "1d"})
_BY = _query("by", {"enum": ["day", "workspace", "model", "engine", "key", "batch"], "default": "day"})
_FILTERS = [_several(name) for name in ("models[]", "service_tiers[]", "workspace_ids[]", "api_key_ids[]")]
