"""Where a client reaches us: the beginning of `results_url`, which both SDKs fetch exactly as we wrote it.

In order: the operator's public URL; the forwarded headers of a trusted proxy; the Host the client called.
A wrong host here means clients that hang, an untrusted one clients that send their key elsewhere
(docs/how-to/reverse-proxy.md).
"""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, urlsplit

from starlette.requests import Request as HttpRequest

from overnight.server.config import Settings

_is_host = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?").fullmatch
_is_prefix = re.compile(r"(/[0-9A-Za-z._~-]+)*/?").fullmatch


def base_url(http_request: HttpRequest, settings: Settings) -> str:
    """The URL of this server as the caller of this request sees it, without a slash at its end."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    headers, scope = http_request.headers, http_request.scope
    scheme, host, prefix = scope["scheme"], headers.get("host", ""), scope.get("root_path", "")
    client = scope.get("client")
    if client is not None and is_trusted(client[0], settings.trusted_proxies):
        scheme = _first(headers.get("x-forwarded-proto")) or scheme
        host = _first(headers.get("x-forwarded-host")) or host
        prefix = _first(headers.get("x-forwarded-prefix")) or prefix
    if scheme not in ("http", "https") or _is_host(host) is None:
        scheme, host = "http", settings.listen
    return f"{scheme}://{host}{quote(prefix.rstrip('/')) if _is_prefix(prefix) else ''}"


def prefix(http_request: HttpRequest, settings: Settings) -> str:
    """The path of that URL, such as /overnight behind a proxy that serves more than us; else empty."""
    return urlsplit(base_url(http_request, settings)).path


def is_trusted(address: str, networks: Sequence[str]) -> bool:
    """Whether forwarded headers from this address count."""
    return _is_in(address, tuple(networks))


@lru_cache(maxsize=1024)  # Reading addresses takes 20 µs; the same few clients and proxies come again and again.
def _is_in(address: str, networks: tuple[str, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in ipaddress.ip_network(network) for network in networks)


def _first(header: str | None) -> str:
    return (header or "").split(",")[0].strip()
