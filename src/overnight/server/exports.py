"""GET /v1/overnight/batches/{id}/export: results as JSON Lines, CSV or Parquet, with the requests if wanted. An
extension of the API.

A row is one request. Everything is made segment by segment and one segment is in memory at a time.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from overnight.core.batch import Batch
from overnight.errors import InvalidRequest, NoResults
from overnight.ids import BatchId, WorkspaceId
from overnight.server import batches, context, results
from overnight.server import rows as reading
from overnight.server.context import Context
from overnight.server.download import Download, chunks
from overnight.server.parquet import ParquetFile
from overnight.server.rows import Row, Rows
from overnight.store.layout import DataDirectory

COLUMNS: Final = {
    "custom_id": "VARCHAR",
    "type": "VARCHAR",
    "text": "VARCHAR",
    "stop_reason": "VARCHAR",
    "model": "VARCHAR",
    "input_tokens": "BIGINT",
    "output_tokens": "BIGINT",
    "cache_read": "BIGINT",
    "cache_write": "BIGINT",
    "error_type": "VARCHAR",
    "error_message": "VARCHAR",
    "message": "VARCHAR",
}
PARAMS: Final = {"params": "VARCHAR"}
# Cells that begin with these are formulas to a spreadsheet, or become one when it trims them
# (https://owasp.org/www-community/attacks/CSV_Injection); the last four are their full-width forms.
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_BOM = "\ufeff"
_READ_BYTES = 256 * 1024
_encode = msgspec.json.Encoder().encode


class Wish(NamedTuple):
    """What a download is to be."""

    format: str
    with_request: bool
    with_bom: bool


async def export(http_request: HttpRequest) -> Response:
    """200 with the file, of an ended batch; else as `results.results`."""
    workspace = context.admit(http_request).workspace
    return await exported(http_request, workspace, batches.batch_id_of(http_request))


async def exported(http_request: HttpRequest, workspace: WorkspaceId, batch_id: BatchId) -> Response:
    """The file that the query asks for. NotFound if the workspace has no such batch, NoResults if it has not ended or
    its results (or requests, if they are wanted) are no longer kept, InvalidRequest if the query is wrong, and what
    `ParquetFiles.make` raises."""
    wish, here = _wish(http_request), context.of(http_request)
    batch = await here.store.control.batch(workspace, batch_id)
    if batch is None:
        raise batches.not_found(batch_id)
    rows = await reading.open_rows(batch_id, store=here.store, world=here.world)
    if batch.status != "ended" or rows is None or not rows.segments:
        raise NoResults(f"Message Batch {batch_id} has no available results.")
    if wish.with_request and not await rows.has_requests():
        raise NoResults(f"The requests of Message Batch {batch_id} are no longer kept.")
    headers = {
        "content-disposition": f'attachment; filename="{batch_id}.{wish.format}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "cache-control": "no-store",
    }
    if wish.format == "parquet":
        return await _parquet(here, rows, wish, headers)
    if wish.format == "csv":
        kind = "text/csv; charset=utf-8; header=present"
        return Download(_chunks(rows, wish, _as_csv, _head(wish)), headers={**headers, "content-type": kind})
    if wish.with_request:
        return Download(_chunks(rows, wish, _as_jsonl), headers=headers)
    return await _as_stored(http_request, batch, headers)


def _wish(http_request: HttpRequest) -> Wish:
    query = http_request.query_params
    form, extra, bom = query.get("format", "jsonl"), query.get("with", ""), query.get("bom", "false")
    if form not in ("jsonl", "csv", "parquet"):
        raise InvalidRequest("format: Input should be 'jsonl', 'csv' or 'parquet'")
    if extra not in ("", "request"):
        raise InvalidRequest("with: Input should be 'request'")
    if bom not in ("true", "false"):
        raise InvalidRequest("bom: Input should be true or false")
    return Wish(form, with_request=extra == "request", with_bom=bom == "true" and form == "csv")


async def _as_stored(http_request: HttpRequest, batch: Batch, headers: dict[str, str]) -> Response:
    """The very bytes of the API's results."""
    here = context.of(http_request)
    is_gzip = results.accepts_gzip(http_request.headers.get("accept-encoding", ""))
    sealed = await here.store.control.results(batch.id)
    whole = results.Representation(here, batch.id, sealed, is_gzip=is_gzip)
    headers |= {"content-length": str(whole.length), "vary": "accept-encoding"}
    if is_gzip:
        headers["content-encoding"] = "gzip"
    return Download(whole.read(range(whole.length)), headers=headers)


_Format = Callable[[list[Row], Wish], bytes]


async def _chunks(rows: Rows, wish: Wish, made: _Format, head: bytes = b"") -> AsyncIterator[bytes]:
    yield head
    async for content in _made(rows, wish, made):
        for chunk in chunks(content):
            yield chunk


async def _made(rows: Rows, wish: Wish, made: _Format) -> AsyncIterator[bytes]:
    """Whole rows, a segment at a time."""
    for segment in rows.segments:
        found = await rows.read(segment, with_requests=wish.with_request)
        yield await rows.world.offload.run(partial(made, found, wish))


def _as_jsonl(found: list[Row], wish: Wish) -> bytes:
    """The lines of the API with `params` as one more key."""
    parts: list[bytes | msgspec.Raw] = []
    for row in found:
        assert row.line is not None, "the batch has ended"
        parts += (row.line[:-1], b',"params":', row.params or b"null", b"}\n")
    return b"".join(parts)


# --- Values ---------------------------------------------------------------------------------------------------------

Value = str | int | None


def columns_of(wish: Wish) -> dict[str, str]:
    """The columns of a table, in order, with their SQL types."""
    return COLUMNS | PARAMS if wish.with_request else dict(COLUMNS)


def _values(row: Row, wish: Wish) -> list[Value]:
    """In the order of the columns. What there is not is None."""
    answer = row.answer()
    assert answer is not None, "the batch has ended"
    return [
        *(answer.custom_id, answer.type),
        answer.text if answer.type == "succeeded" else None,
        *(answer.stop_reason or None, answer.model or None),
        *(answer.input_tokens, answer.output_tokens, answer.cache_read, answer.cache_write),
        *(answer.error_type or None, answer.error_message or None),
        answer.message.decode() or None,
        *([None if row.params is None else bytes(row.params).decode()] if wish.with_request else []),
    ]


# --- CSV (RFC 4180) -------------------------------------------------------------------------------------------------


def _head(wish: Wish) -> bytes:
    return ((_BOM if wish.with_bom else "") + _written([list(columns_of(wish))])).encode()


def _as_csv(found: list[Row], wish: Wish) -> bytes:
    return _written([[_cell(value) for value in _values(row, wish)] for row in found]).encode()


def _written(table: list[list[str]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(table)
    return text.getvalue()


def _cell(value: Value) -> str:
    """A cell that a spreadsheet shows and does not run: an apostrophe before what would be a formula."""
    if isinstance(value, str):
        return "'" + value if value.startswith(FORMULA) else value
    return "" if value is None else str(value)


# --- Parquet --------------------------------------------------------------------------------------------------------


async def _parquet(here: Context, rows: Rows, wish: Wish, headers: dict[str, str]) -> Response:
    file = await here.parquet_files.make(
        columns_of(wish),
        _made(rows, wish, _as_objects),
        directory=DataDirectory(Path(here.settings.data)).exports,
        offload=here.world.offload,
    )
    return _ParquetResponse(here, file, headers)


def _as_objects(found: list[Row], wish: Wish) -> bytes:
    names = list(columns_of(wish))
    return b"".join(_encode(dict(zip(names, _values(row, wish), strict=True))) + b"\n" for row in found)


class _ParquetResponse(Download):
    media_type = "application/vnd.apache.parquet"

    def __init__(self, here: Context, file: ParquetFile, headers: dict[str, str]) -> None:
        self._here, self._file = here, file
        super().__init__(self._pieces(), headers={**headers, "content-length": str(file.length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._here.world.offload.run(lambda: self._file.content.read(_READ_BYTES)):
            yield piece
