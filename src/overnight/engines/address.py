"""Where an engine listens: an operator's `base_url`, taken apart and checked once."""

import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from overnight.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")  # A name, or an IPv6 address.
_PATH = re.compile(r"(/[!-~]*)?")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and the path in front of every path that is asked of it."""

    scheme: Literal["http", "https"]
    host: str  # Without the brackets of an IPv6 address.
    port: int
    authority: str  # What the `host` header says: brackets as needed, the port unless it is the usual one.
    base_path: str  # Empty, or begins with a slash and does not end with one.

    @property
    def url(self) -> str:
        """The address as one URL without a slash at its end; safe to log, it holds no credentials."""
        return f"{self.scheme}://{self.authority}{self.base_path}"


def address(base_url: str) -> Address:
    """The parts of `base_url`. Raises UsageError, which never repeats a password that stands in the URL."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError("The address of an engine is not a URL: check its host and port.") from error
    if "@" in parts.netloc:
        raise UsageError("The address of an engine holds a user name or password: give a key instead.")
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host) or not _PATH.fullmatch(parts.path):
        raise UsageError(f"{base_url!r} is not an address of an engine: expected http(s)://host[:port][/path].")
    if parts.query or parts.fragment:
        raise UsageError(f"{base_url!r}: the address of an engine has no ? and no #.")
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    name = f"[{host}]" if ":" in host else host
    usual = port is None or port == _PORTS[scheme]
    return Address(
        scheme=scheme,
        host=host,
        port=_PORTS[scheme] if port is None else port,
        authority=name if usual else f"{name}:{port}",
        base_path=parts.path.rstrip("/"),
    )
