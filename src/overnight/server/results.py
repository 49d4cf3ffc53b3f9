"""GET /v1/messages/batches/{id}/results: JSON Lines, spliced from stored pieces into ONE gzip member, or inflated.

Compressed answers cost no compression at all (benchmarks/results.py: the CPU of sendfile). The length is known before
the first byte, so an answer that breaks off is noticed by the client, never taken for complete; the rest of it can be
asked for by its range of bytes (RFC 9110 14), and what lies before that range is not read again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from hashlib import sha256

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from overnight.core.lease import SegmentRef
from overnight.errors import InvalidRequest, NoResults
from overnight.ids import BatchId
from overnight.server import batches, context, download, ranges, sofar
from overnight.server.context import Context
from overnight.store import splice
from overnight.store.control import SealedResults
from overnight.wire import problem

_Read = Callable[[range], Awaitable[bytes]]


async def results(http_request: HttpRequest) -> Response:
    """The results of an ended batch, or the part of them that is asked for; NoResults (404, do not retry) before that
    and after 29 days. With `so_far=true`, what there is by now (`server.sofar`)."""
    workspace, here = context.admit(http_request).workspace, context.of(http_request)
    batch_id, is_gzip = (
        batches.batch_id_of(http_request),
        accepts_gzip(http_request.headers.get("accept-encoding", "")),
    )
    if _is_so_far(http_request):
        return await sofar.results_so_far(http_request, workspace, batch_id, is_gzip=is_gzip)
    batch = await here.store.control.batch(workspace, batch_id)
    if batch is None:
        raise batches.not_found(batch_id)
    sealed = await here.store.control.results(batch_id) if batch.status == "ended" else []
    if not sealed:  # Not ended, archived, or deleted a moment ago.
        raise NoResults(f"Message Batch {batch_id} has no available results.")
    return _answer(http_request, Representation(here, batch_id, sealed, is_gzip=is_gzip))


def _is_so_far(http_request: HttpRequest) -> bool:
    value = http_request.query_params.get("so_far", "false")
    if value not in ("true", "false"):
        raise InvalidRequest("so_far: Input should be true or false")
    return value == "true"


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110 12.5.3)."""
    weights: dict[str, str] = {}
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        weights[coding.strip()] = "".join(parameters.split()).removeprefix("q=") or "1"
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != ""


def _answer(http_request: HttpRequest, whole: "Representation") -> Response:
    headers = {"etag": whole.etag, "vary": "accept-encoding", "accept-ranges": "bytes"}
    if ranges.is_known(http_request.headers, etag=whole.etag):
        return Response(status_code=304, headers=headers)
    if whole.is_gzip:
        headers["content-encoding"] = "gzip"
    if http_request.method == "HEAD":
        return Response(headers={**headers, "content-length": str(whole.length)}, media_type=download.MEDIA_TYPE)
    part = ranges.part_of(http_request.headers, etag=whole.etag, length=whole.length)
    if part is None:
        headers["content-length"] = str(whole.length)
        return download.Download(whole.read(range(whole.length)), headers=headers)
    if not part:
        return _no_such_part(http_request, whole)
    headers |= {
        "content-length": str(len(part)),
        "content-range": f"bytes {part.start}-{part.stop - 1}/{whole.length}",
    }
    return download.Download(whole.read(part), status_code=206, headers=headers)


def _no_such_part(http_request: HttpRequest, whole: "Representation") -> Response:
    said = f"Range: the results have {whole.length} bytes"
    body = problem.encode("invalid_request_error", said, request_id=http_request.state.request_id)
    headers = {"content-range": f"bytes */{whole.length}", "etag": whole.etag, "vary": "accept-encoding"}
    return Response(body, status_code=416, media_type="application/json", headers=headers)


class Representation:
    """The results of an ended batch as a run of bytes: as lines, or as one gzip member. Holds no bytes."""

    def __init__(self, here: Context, batch_id: BatchId, sealed: Sequence[SealedResults], *, is_gzip: bool) -> None:
        """Sealed results never change, so neither do these bytes."""
        self.is_gzip = is_gzip
        self._here, self._batch_id, self._sealed = here, batch_id, sealed
        self.length = sum(length for length, _ in self._pieces())

    @property
    def etag(self) -> str:
        """A strong validator: equal for equal bytes only (RFC 9110 8.8.1)."""
        digest = sha256(f"{self._batch_id} {'gzip' if self.is_gzip else 'identity'}".encode())
        for item in self._sealed:
            digest.update(f" {item.crc} {item.raw_bytes} {item.length}".encode())
        return f'"{digest.hexdigest()[:32]}"'

    async def read(self, part: range) -> AsyncIterator[bytes]:
        """These bytes. One segment is in memory at a time, and only those are read that hold some of them."""
        begins = 0
        for length, read in self._pieces():
            wanted = range(max(part.start - begins, 0), min(part.stop - begins, length))
            begins += length
            if wanted:
                for chunk in download.chunks(await read(wanted)):
                    yield chunk

    def _pieces(self) -> Iterator[tuple[int, _Read]]:
        """All pieces in order: how long each is, and how to read bytes of it."""
        if not self.is_gzip:
            for index, item in enumerate(self._sealed):
                yield item.raw_bytes, partial(self._lines, SegmentRef(self._batch_id, index), item)
            return
        yield len(splice.HEADER), partial(_slice, splice.HEADER)
        for index, item in enumerate(self._sealed):
            ref = SegmentRef(self._batch_id, index)
            yield item.length - splice.OVERHEAD_BYTES, partial(download.deflate_of, self._here, ref, item)
        crc, raw_bytes = splice.combined_crc((item.crc, item.raw_bytes) for item in self._sealed)
        yield splice.TAIL_BYTES, partial(_slice, splice.trailer(crc=crc, raw_bytes=raw_bytes))

    async def _lines(self, segment: SegmentRef, item: SealedResults, wanted: range) -> bytes:
        return (await download.lines_of(self._here, segment, item))[wanted.start : wanted.stop]


async def _slice(content: bytes, wanted: range) -> bytes:
    return content[wanted.start : wanted.stop]
