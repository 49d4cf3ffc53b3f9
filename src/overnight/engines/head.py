"""What stands before a body: checked, so that no value can add a header, end the head or frame the body anew."""

import re
from functools import lru_cache

_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5, without CR, LF and NUL.
_OURS = frozenset({"connection", "content-length", "host", "transfer-encoding"})


def checked_path(path: str) -> str:
    """`path`. Raises ValueError if it cannot stand in a request line."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} cannot stand in a request line")
    return path


def is_header_value(value: str) -> bool:
    """Whether `value` may be sent as it is."""
    return _VALUE.fullmatch(value) is not None


@lru_cache(maxsize=256)  # Engines send the same few headers with every request.
def header_lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """`headers` as they are sent. Raises ValueError, which does not repeat the value, for what cannot be."""
    for name, value in headers:
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"{name!r} cannot be the name of a header here")
        if not is_header_value(value):
            raise ValueError(f"the value of the header {name} holds characters that cannot stand in one")
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
