"""Parts of an answer and answers that a client has already, as headers ask for them (RFC 9110 13.1 and 14). Pure."""

import re
from collections.abc import Mapping

# More digits than this are beyond every answer, and are ignored as any header that makes no sense (RFC 9110 14.2).
_one_part = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE).fullmatch


def is_known(headers: Mapping[str, str], *, etag: str) -> bool:
    """Whether If-None-Match says that the client has this representation: then 304 is the answer."""
    tags = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]


def part_of(headers: Mapping[str, str], *, etag: str, length: int) -> range | None:
    """The bytes that are asked for, as far as there are so many; None: all of them, for several parts at once, parts
    of another representation (If-Range) and what makes no sense are answered with the whole, as RFC 9110 14.2 allows.

    An empty range: there is no such byte, and 416 is the answer.
    """
    found = _one_part(headers.get("range", ""))
    if found is None or headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if first:
        if last and int(last) < int(first):
            return None
        return range(int(first), min(int(last) + 1 if last else length, length))
    return range(max(length - int(last), 0), length) if last else None
