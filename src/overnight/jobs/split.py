"""Cutting requests into batches: by number, and by the exact bytes of the body that is sent."""

from collections.abc import Iterable, Iterator
from io import BytesIO

HEAD, TAIL = b'{"requests":[', b"]}"
_COMMA = 1


def body(requests: Iterable[bytes]) -> bytes:
    """The body of a create, from requests that are encoded: no space anywhere that is not the caller's."""
    found, comma = BytesIO(), b""  # Not joined: a join holds every request and the body, at most 512 MB, at once.
    found.write(HEAD)
    for one in requests:
        found.write(comma)
        found.write(one)
        comma = b","
    found.write(TAIL)
    return found.getvalue()


def request(custom_id: str, params: bytes) -> bytes:
    """One request of it. A `custom_id` needs no escaping: its pattern allows no quote."""
    return b'{"custom_id":"%b","params":%b}' % (custom_id.encode(), params)


def fits_alone(size: int, *, max_bytes: int) -> bool:
    """Whether a request of `size` bytes can be sent at all, in a batch of its own."""
    return len(HEAD) + size + len(TAIL) <= max_bytes


class Cutter:
    """Greedy: a batch takes requests in their order until one more would be too many, or too large."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0

    def begins_new(self, size: int) -> bool:
        """Take a request of `size` bytes; whether it begins the next batch. It must fit alone."""
        with_it = self._bytes + _COMMA + size
        begins = self._requests in (0, self._max_requests) or with_it > self._max_bytes
        if begins:
            self._requests, with_it = 0, len(HEAD) + size + len(TAIL)
        self._requests += 1
        self._bytes = with_it
        return begins


def cut(sizes: Iterable[int], *, max_requests: int, max_bytes: int) -> Iterator[int]:
    """For each request the number of its batch, from 0."""
    cutter, number = Cutter(max_requests=max_requests, max_bytes=max_bytes), -1
    for size in sizes:
        number += cutter.begins_new(size)
        yield number
