"""GET /v1/messages/batches/{id}/results: JSON Lines, spliced from stored pieces into ONE gzip member, or inflated.

Compressed answers cost no compression at all (benchmarks/results.py: the CPU of sendfile). The length is known before
the first byte, so an answer that breaks off is noticed by the client, never taken for complete.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Send

from overnight import limits
from overnight.errors import NoResults
from overnight.server import batches, context
from overnight.server.context import Context
from overnight.store import splice
from overnight.store.control import SealedResults

log = logging.getLogger("overnight.server")
_CHUNK_BYTES = 256 * 1024  # A chunk a line costs 25 times the CPU of this.


async def results(http_request: HttpRequest) -> Response:
    """The results of an ended batch; NoResults (404, do not retry) before that and after 29 days."""
    workspace, here = context.admit(http_request).workspace, context.of(http_request)
    batch_id = batches.batch_id_of(http_request)
    batch = await here.store.control.batch(workspace, batch_id)
    if batch is None:
        raise batches.not_found(batch_id)
    if batch.status != "ended" or batch.archived_at_ms is not None:
        raise NoResults(f"Message Batch {batch_id} has no available results.")
    sealed = await here.store.control.results(batch_id)
    inline = await here.store.control.inline_results(batch_id)
    return ResultsResponse(
        here, sealed, inline, is_gzip=accepts_gzip(http_request.headers.get("accept-encoding", ""))
    )


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110 12.5.3)."""
    weights: dict[str, str] = {}
    for item in header.lower().split(","):
        coding, _, parameters = item.partition(";")
        weights[coding.strip()] = "".join(parameters.split()).removeprefix("q=") or "1"
    weight = weights.get("gzip", weights.get("*", "0"))
    return weight.strip("0.") != ""


class ResultsResponse(StreamingResponse):
    """Streams stored results in chunks; holds one segment at a time, and no lock."""

    media_type = "application/x-jsonl"

    def __init__(
        self, here: Context, sealed: Sequence[SealedResults], inline: Mapping[int, bytes], *, is_gzip: bool
    ) -> None:
        self._here, self._sealed, self._inline, self._is_gzip = here, sealed, inline, is_gzip
        headers = {"content-length": str(self._length()), "vary": "accept-encoding"}
        super().__init__(self._chunks(), headers={**headers, "content-encoding": "gzip"} if is_gzip else headers)

    async def stream_response(self, send: Send) -> None:
        """As starlette's, but a reader that takes nothing for too long is disconnected."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(limits.DOWNLOAD_STALL_S):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            log.info("a reader of results took nothing for %d s and is disconnected", limits.DOWNLOAD_STALL_S)

    def _length(self) -> int:
        if not self._is_gzip:
            return sum(item.raw_bytes for item in self._sealed)
        return splice.OVERHEAD_BYTES + sum(item.length - splice.OVERHEAD_BYTES for item in self._sealed)

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._is_gzip:
            yield splice.HEADER
        for index, item in enumerate(self._sealed):
            content = splice.deflate_of(await self._member(index, item))
            if not self._is_gzip:
                inflate = partial(splice.decompress, content, raw_bytes=item.raw_bytes, crc=item.crc)
                content = await self._here.world.offload.run(inflate)
            for start in range(0, len(content), _CHUNK_BYTES):
                yield content[start : start + _CHUNK_BYTES]
        if self._is_gzip:
            crc, raw_bytes = splice.combined_crc((item.crc, item.raw_bytes) for item in self._sealed)
            yield splice.trailer(crc=crc, raw_bytes=raw_bytes)

    async def _member(self, index: int, item: SealedResults) -> bytes:
        if item.key is None:
            return self._inline[index]
        return await self._here.store.objects.get(item.key)
