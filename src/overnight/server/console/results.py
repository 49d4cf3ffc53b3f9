"""Pages about single requests: the list with its filters and searches, one request beside its answer, the whole of a
long text, downloads, and asking again what failed."""

from typing import Final, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight import ids, limits
from overnight.core.batch import Batch
from overnight.errors import InvalidRequest, NotFound, ObjectMissing
from overnight.server import again, batches, context, exports
from overnight.server import rows as reading
from overnight.server.console import pages, parts, session
from overnight.server.rows import BEGINNING, UNFINISHED, Found, Hit, Place, Row, Rows, Sought
from overnight.wire.create import is_custom_id

TYPES: Final = ("succeeded", "errored", "canceled", "expired", UNFINISHED)
_FAILURES: Final[tuple[again.Failure, ...]] = ("errored", "expired", "canceled")
_KEY_FIELD: Final = "key"


class Line(NamedTuple):
    """One line of the list."""

    custom_id: str
    query: str
    type: str
    reason: str  # Why it stopped, or the type of its error.
    input_tokens: int | None
    output_tokens: int | None
    excerpt: str


async def results(http_request: HttpRequest) -> Response:
    """GET /console/batches/{id}/results: a page of rows."""
    batch, rows = await _opened(http_request)
    sought, start = _sought(http_request), _place(http_request)
    try:
        found = await reading.search(rows, sought, start=start or BEGINNING, hits_max=limits.ROWS_PAGE)
    except ObjectMissing as error:
        raise batches.not_found(batch.id) from error
    causes = await context.of(http_request).store.usage.causes(batch.id)
    return await pages.rendered(
        http_request,
        "results.html",
        batch=batch,
        counts=batch.tally,
        sought=sought,
        types=TYPES,
        error_types=sorted({parts.excerpt(cause.type) for cause in causes}),
        lines=[_line(hit, sought) for hit in found.hits],
        is_beginning=start in (None, BEGINNING),
        is_filtered=any(sought),
        next_query=_next_query(found, sought),
        is_cut=found.is_cut,
        looked_at=_ordinal(rows, found.next) - 1 if found.next else batch.requests,
        beginning_query=urlencode(_given(sought)),
    )


def _line(hit: Hit, sought: Sought) -> Line:
    row, answer = hit
    query = urlencode({"at": str(row.place), **_given(sought)})
    if answer is None:
        return Line(row.custom_id, query, UNFINISHED, "", None, None, "")
    return Line(
        row.custom_id,
        query,
        answer.type,
        parts.excerpt(answer.stop_reason or answer.error_type),
        answer.input_tokens,
        answer.output_tokens,
        parts.excerpt(answer.text or answer.error_message),
    )


def _next_query(found: Found, sought: Sought) -> str:
    return "" if found.next is None else urlencode({"at": str(found.next), **_given(sought)})


def _given(sought: Sought) -> dict[str, str]:
    return {name: value for name, value in sought._asdict().items() if value}


def _sought(http_request: HttpRequest) -> Sought:
    query = http_request.query_params
    given = {name: query.get(name, "").strip() for name in Sought._fields}
    if any(len(value) > limits.SEARCH_TEXT_CHARACTERS_MAX for value in given.values()):
        raise InvalidRequest(f"What is searched for has at most {limits.SEARCH_TEXT_CHARACTERS_MAX} characters.")
    if given["type"] not in ("", *TYPES):
        raise InvalidRequest(f"type: Input should be one of {', '.join(TYPES)}")
    return Sought(**given)


def _place(http_request: HttpRequest) -> Place | None:
    text = http_request.query_params.get("at", "")
    place = Place.parse(text)
    if text and place is None:
        raise InvalidRequest("at: Input should be a place such as 3.17")
    return place


def _ordinal(rows: Rows, place: Place) -> int:
    """The number of a row in its batch, from 1."""
    before = sum(segment.requests for segment in rows.segments if segment.position < place.segment)
    return before + place.number + 1


async def _opened(http_request: HttpRequest) -> tuple[Batch, Rows]:
    """The batch of the path and its rows; NotFound if the workspace has none."""
    here, batch_id = context.of(http_request), batches.batch_id_of(http_request)
    batch = await here.store.control.batch(session.caller_of(http_request).workspace, batch_id)
    rows = await reading.open_rows(batch_id, store=here.store, world=here.world)
    if batch is None or rows is None:
        raise batches.not_found(batch_id)
    return batch, rows


# --- One row --------------------------------------------------------------------------------------------------------


async def row(http_request: HttpRequest) -> Response:
    """GET /console/batches/{id}/results/{custom_id}: the request beside its answer."""
    batch, rows = await _opened(http_request)
    found, number = await _found(http_request, batch, rows)
    item, answer = found[number], found[number].answer()
    asked = None if item.params is None else parts.shown(parts.of_request(bytes(item.params)))
    answered = None if answer is None else parts.shown(parts.of_answer(answer))
    before, after = await _neighbours(rows, found, number)
    sought = _given(_sought(http_request))
    return await pages.rendered(
        http_request,
        "row.html",
        batch=batch,
        custom_id=item.custom_id,
        type=item.type,
        asked=asked,
        answer=answer,
        answered=answered,
        ordinal=_ordinal(rows, item.place),
        here_query=urlencode({"at": str(item.place)}),
        list_query=urlencode(sought),
        before=before and (before.custom_id, urlencode({"at": str(before.place), **sought})),
        after=after and (after.custom_id, urlencode({"at": str(after.place), **sought})),
    )


async def _found(http_request: HttpRequest, batch: Batch, rows: Rows) -> tuple[list[Row], int]:
    custom_id = http_request.path_params["custom_id"]
    if not is_custom_id(custom_id):
        raise NotFound("No request can have such a custom_id.")
    try:
        found = await reading.find(rows, custom_id, hint=_place(http_request))
    except ObjectMissing as error:
        raise batches.not_found(batch.id) from error
    if found is None:
        raise NotFound(f"{batch.id} has no request {custom_id}, or its requests are no longer kept.")
    return found


async def _neighbours(rows: Rows, found: list[Row], number: int) -> tuple[Row | None, Row | None]:
    before = found[number - 1] if number else None
    after = found[number + 1] if number + 1 < len(found) else None
    positions = [segment.position for segment in rows.segments]
    index = positions.index(found[number].place.segment)
    if before is None and index:
        before = (await rows.read(rows.segments[index - 1]))[-1]
    if after is None and index + 1 < len(positions):
        after = (await rows.read(rows.segments[index + 1]))[0]
    return before, after


async def whole(http_request: HttpRequest) -> Response:
    """GET …/results/{custom_id}/whole: a text that was cut, as a file. `side` is request or answer, `part` a number;
    without it, all of the side as it is stored."""
    batch, rows = await _opened(http_request)
    found, number = await _found(http_request, batch, rows)
    side, part = http_request.query_params.get("side", ""), http_request.query_params.get("part")
    if side not in ("request", "answer"):
        raise InvalidRequest("side: Input should be 'request' or 'answer'")
    text = _whole(found[number], side, part)
    headers = {
        "content-disposition": f'attachment; filename="{found[number].custom_id}-{side}.txt"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "cache-control": "no-store",
    }
    return Response(text.encode(), media_type="text/plain; charset=utf-8", headers=headers)


def _whole(item: Row, side: str, part: str | None) -> str:
    raw = item.params if side == "request" else item.line
    if raw is None:
        raise NotFound("There is no such text.")
    if part is None:
        return bytes(raw).decode()
    answer = None if side == "request" else item.answer()
    found = parts.of_request(bytes(raw)) if answer is None else parts.of_answer(answer)
    if not (part.isascii() and part.isdigit() and len(part) < 9 and int(part) < len(found)):
        raise NotFound("There is no such text.")
    return found[int(part)].text


# --- Downloads and what failed --------------------------------------------------------------------------------------


async def download(http_request: HttpRequest) -> Response:
    """GET /console/batches/{id}/download, with the query of `exports.exported`."""
    workspace = session.caller_of(http_request).workspace
    return await exports.exported(http_request, workspace, batches.batch_id_of(http_request))


async def ask_retry(http_request: HttpRequest) -> Response:
    """GET /console/batches/{id}/retry: which of what failed is to be asked again."""
    batch, _ = await _opened(http_request)
    here = context.of(http_request)
    return await pages.rendered(
        http_request,
        "retry.html",
        batch=batch,
        choices=[(name, getattr(batch.tally, name), name in again.DEFAULT_TYPES) for name in _FAILURES],
        key=ids.named("retry", here.world.entropy.bytes(ids.ID_ENTROPY_BYTES)),
    )


async def retry(http_request: HttpRequest) -> Response:
    """POST /console/batches/{id}/retry, then the page of the new batch. A form that is sent twice makes one batch."""
    form = session.visit_of(http_request).form
    chosen = [name for name in _FAILURES if name in form.getlist("types")]
    if not chosen:
        raise InvalidRequest("Choose at least one kind of result that is to be asked again.")
    key = form.get(_KEY_FIELD, "")[: limits.IDEMPOTENCY_KEY_LENGTH_MAX] or None
    created = await again.again(
        http_request,
        session.caller_of(http_request),
        types=chosen,
        idempotency_key=key,
    )
    return pages.redirect(http_request, f"/console/batches/{created.batch.id}")
