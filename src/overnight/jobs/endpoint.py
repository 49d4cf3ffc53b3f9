"""Which server a job asks, and with which key."""

import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from overnight.errors import JobError
from overnight.jobs.jobfile import Endpoint
from overnight.jobs.secret import resolved

HOSTED = "https://api.anthropic.com"
_LOCAL = ("127.0.0.1", "localhost", "::1")


class Address(NamedTuple):
    """A server. `key` is a secret: nothing prints or stores it."""

    base_url: str
    key: str
    betas: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Address({self.base_url})"


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str = ""
    key: str = ""
    betas: list[str] = []


class _File(msgspec.Struct):
    endpoints: dict[str, Any] = {}


def address(endpoint: Endpoint, *, environment: Mapping[str, str]) -> Address:
    """The server of a job: its own words, else the endpoint it names, else the SDK's variables.

    JobError if there is no key: a server on this machine needs none.
    """
    named = _named(endpoint.use, environment) if endpoint.use else _Named()
    base_url = endpoint.base_url or named.base_url or environment.get("ANTHROPIC_BASE_URL") or HOSTED
    written = endpoint.key or named.key
    if written and not written.startswith("env:"):
        raise JobError('[endpoint] key: write key = "env:NAME"; a key in a file gets copied with it')
    key = resolved(written, environment) if written else environment.get("ANTHROPIC_API_KEY", "")
    host = _host(base_url)
    if not key and host not in _LOCAL:
        raise JobError(f"{base_url} needs a key: set ANTHROPIC_API_KEY, or [endpoint] key")
    return Address(base_url.rstrip("/").removesuffix("/v1"), key, tuple(endpoint.betas or named.betas))


def _host(base_url: str) -> str:
    """The host of a server's URL. A URL with a password in it is not even shown."""
    if "@" in base_url:
        raise JobError('[endpoint] base_url: no user and password here; write key = "env:NAME"')
    with suppress(ValueError):  # A port that is no number, half an IPv6 address.
        url = urlsplit(base_url)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url.hostname
    raise JobError(f"[endpoint] base_url: {base_url!r} should be http://HOST:PORT or https://HOST")


def endpoints_file(environment: Mapping[str, str]) -> Path:
    """Where a person keeps the servers that jobs may name."""
    config = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '~')}/.config"
    return Path(config).expanduser() / "overnight" / "endpoints.toml"


def _named(name: str, environment: Mapping[str, str]) -> _Named:
    """`[endpoints.NAME]` of the user's file; `local` is there without one."""
    path = endpoints_file(environment)
    found: dict[str, Any] = {"local": {"base_url": "http://127.0.0.1:8642"}}
    try:
        found |= msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).endpoints
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # No TOML, no UTF-8, no tables.
        raise JobError(f"cannot read {path}: {error}") from error
    if name not in found:
        raise JobError(f"[endpoint] use: {path} has no [endpoints.{name}]; it has {', '.join(sorted(found))}")
    try:
        return msgspec.convert(found[name], _Named)
    except msgspec.ValidationError as error:
        raise JobError(f"{path}: [endpoints.{name}]: {error}") from error
