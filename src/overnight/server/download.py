"""What downloads of results share: how sealed results are read, and how lines are sent."""

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from overnight import limits
from overnight.core.lease import SegmentRef
from overnight.errors import NotFound, ObjectMissing
from overnight.server.context import Context
from overnight.store import splice
from overnight.store.control import SealedResults

log = logging.getLogger("overnight.server")
MEDIA_TYPE: Final = "application/x-jsonl"
_CHUNK_BYTES = 256 * 1024  # A chunk a line costs 25 times the CPU of this.


class Download(StreamingResponse):
    """Streams lines. An answer that cannot go on is cut off: the client sees that it is not whole."""

    media_type = MEDIA_TYPE

    async def stream_response(self, send: Send) -> None:
        """As starlette's, but a reader that takes nothing for too long is disconnected, and so is one whose batch is
        deleted meanwhile."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(limits.DOWNLOAD_STALL_S):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            log.info("a reader of results took nothing for %d s and is disconnected", limits.DOWNLOAD_STALL_S)
        except (NotFound, ObjectMissing) as error:
            log.info("a reader of results is disconnected: %s", error)


def chunks(content: bytes) -> Iterator[bytes]:
    """The content in pieces that are worth a message each."""
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]


async def deflate_of(here: Context, segment: SegmentRef, item: SealedResults, wanted: range | None = None) -> bytes:
    """The compressed results of a segment, ready for splicing, or these bytes of them: no others are read from disk.
    ObjectMissing if they were deleted meanwhile."""
    held = item.length - splice.OVERHEAD_BYTES
    first, last = (0, held) if wanted is None else (wanted.start, wanted.stop)
    offset, length = len(splice.HEADER) + first, last - first
    if item.key is not None:
        return await here.store.objects.get(item.key, offset=offset, length=length)
    _, inline = await here.store.control.inline(segment.batch_id, segment.index)
    if inline is None:
        raise ObjectMissing(f"the results of segment {segment.index} of {segment.batch_id} are gone")
    return inline[offset : offset + length]


async def lines_of(here: Context, segment: SegmentRef, item: SealedResults) -> bytes:
    """The results of a segment, inflated. As `deflate_of`."""
    content = await deflate_of(here, segment, item)
    return await here.world.offload.run(partial(splice.decompress, content, raw_bytes=item.raw_bytes, crc=item.crc))
