"""Bodies that come compressed: what is inside, a bounded piece at a time."""

import zlib
from collections.abc import Iterator, Mapping

from overnight.engines.transport import BadReply

_PIECE_BYTES = 256 * 1024


def is_gzip(headers: Mapping[str, str]) -> bool:
    """Whether the body is gzip, rather than plain. Raises BadReply for codings that nobody asked for."""
    coding = headers.get("content-encoding", "identity").lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise BadReply(f"the answer has content-encoding {coding[:50]!r}, which was not asked for")
    return coding != "identity"


def check_transfer(headers: Mapping[str, str]) -> None:
    """Raises BadReply if the transfer itself is coded in another way than by chunks."""
    coding = headers.get("transfer-encoding", "chunked")
    if coding.lower() != "chunked":
        raise BadReply(f"the answer has the transfer-encoding {coding[:50]!r}")


class Gunzip:
    """The bytes inside gzip, one member or several.

    zlib, not ISA-L: engines on a local network seldom compress, and zlib tells its errors apart.
    """

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(wbits=31)
        self._is_between_members = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` holds, in pieces of at most 256 KiB. Raises BadReply if it is not gzip."""
        while data:
            if self._is_between_members:
                self._decoder = zlib.decompressobj(wbits=31)
            try:
                piece = self._decoder.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise BadReply(f"the answer is not the gzip it claims to be: {error}") from error
            self._is_between_members = self._decoder.eof
            data = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        """Raises BadReply if the end of the last member has not been seen."""
        if not self._decoder.eof:
            raise BadReply("the gzip of the answer ends early")


def gunzipped(body: bytes, *, bytes_max: int) -> bytes:
    """The whole of what `body` holds. Raises BadReply if that is more than `bytes_max`, holding not much more."""
    decoder, pieces, size = Gunzip(), list[bytes](), 0
    for piece in decoder.feed(body):
        pieces.append(piece)
        size += len(piece)
        if size > bytes_max:
            raise BadReply(f"the answer is larger than {bytes_max} bytes")
    decoder.finish()
    return b"".join(pieces)
