"""What `overnight doctor` says of one thing it looked at, and how it asks a server."""

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

Verdict: TypeAlias = Literal["ok", "warn", "fail"]

ASK_S: Final = 10.0  # For one answer; a server that needs longer is as good as away.
_ANSWER_BYTES_MAX: Final = 1024 * 1024


class Finding(Struct, frozen=True, kw_only=True):
    """One line of the examination."""

    check: str
    verdict: Verdict
    said: str
    todo: str = ""  # What to do about it; empty if nothing is wrong.


Findings: TypeAlias = Iterator[Finding]


def ok(check: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, verdict="ok", said=said)


def warn(check: str, said: str, todo: str) -> Finding:
    """It works, and may not for long, or not as expected."""
    return Finding(check=check, verdict="warn", said=said, todo=todo)


def fail(check: str, said: str, todo: str) -> Finding:
    """It does not work."""
    return Finding(check=check, verdict="fail", said=said, todo=todo)


class Answer(NamedTuple):
    """An HTTP answer, or why there is none. Header names are lower case."""

    status: int  # 0: none.
    headers: Mapping[str, str]
    body: bytes
    trouble: str = ""


def asked(url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """GET `url`, without redirects and proxies. Never raises."""
    try:
        found = urlsplit(url)
        host, port = found.hostname or "", found.port
        if found.scheme not in ("http", "https") or not host:
            return Answer(0, {}, b"", "it is no http:// or https:// address")
        kind = http.client.HTTPSConnection if found.scheme == "https" else http.client.HTTPConnection
        with closing(kind(host, port, timeout=ASK_S)) as connection:
            path = (found.path or "/") + (f"?{found.query}" if found.query else "")
            connection.request("GET", path, headers={"accept": "application/json", **(headers or {})})
            response = connection.getresponse()
            body = response.read(_ANSWER_BYTES_MAX)
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
    except ssl.SSLError as error:
        return Answer(0, {}, b"", f"TLS: {error.reason or error}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(0, {}, b"", str(getattr(error, "strerror", None) or error) or type(error).__name__)
