"""Posts to URLs that somebody else has chosen, so that they lead nowhere but where that somebody could go alone.

Names are resolved here, every address that comes back must be public, and the connection goes to one of those: what
the name means a moment later does not matter (DNS rebinding). No redirect is followed, no proxy of the environment is
asked, and TLS certificates are verified (OWASP, "Server-Side Request Forgery Prevention").
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from overnight import limits
from overnight.core.hook import Heard
from overnight.core.publicaddress import is_public
from overnight.engines.replies import retry_after_ms
from overnight.engines.transport import Reply
from overnight.errors import UsageError
from overnight.ports.clock import Clock

_BEGINNING_BYTES = 200
_is_plain = re.compile(r"[\x21-\x5b\x5d-\x7e\u0080-\U0010ffff]+").fullmatch  # No blanks, controls or backslashes.
_is_name = re.compile(r"[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\.?").fullmatch
_is_number = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*").fullmatch  # As the URL standard of WHATWG tells addresses.


class Resolver(Protocol):
    """Where the addresses of a name come from."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """All addresses of `host`, as numbers. OSError if there are none."""
        ...


class SystemResolver:
    """The resolver of this machine."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(item[4][0]) for item in found))


class Target(NamedTuple):
    """Where to connect to."""

    url: URL
    addresses: Sequence[str]


class Outward:
    """Posts to URLs of others. On one event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        to_private: bool,
        resolver: Resolver | None = None,
        timeout_s: float = limits.HOOK_TIMEOUT_S,
    ) -> None:
        """`to_private`: addresses that are not public are welcome too. `timeout_s`: of one post, from the look-up of
        the name to the end of the answer."""
        self._clock, self._to_private, self._timeout_s = clock, to_private, timeout_s
        self._resolver = resolver or SystemResolver()

    async def target(self, url: str) -> Target:
        """What a URL means now. UsageError, which repeats nothing but the host, if it may not be asked."""
        parsed = _parsed(url)
        host = parsed.raw_host or ""
        try:
            async with asyncio.timeout(self._timeout_s):
                found = await self._resolver.addresses(host, parsed.port or 0)
        except (OSError, UnicodeError) as error:  # A label of more than 63 characters is the latter.
            raise UsageError(
                f"the address of {host} is not found: {getattr(error, 'strerror', None) or error}"
            ) from None
        private = [address for address in found if not is_public(address)]
        if private and not self._to_private:
            raise UsageError(
                f"{host} leads to {private[0]}, which is not a public address; "
                "if that is wanted, set hooks_to_private_addresses"
            )
        if not found:
            raise UsageError(f"the address of {host} is not found")
        return Target(parsed, found)

    async def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> Heard:
        """Post once, and say what came back; raises nothing of the network."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._posted(await self.target(url), body, headers)
        except TimeoutError:
            return Heard(trouble=f"no answer within {self._timeout_s:g} s")
        except UsageError as error:
            return Heard(trouble=str(error))
        except aiohttp.ClientConnectorCertificateError:
            return Heard(trouble="its TLS certificate is not valid")
        except aiohttp.ClientConnectorError as error:
            return Heard(trouble=f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: what is no HTTP at all.
            return Heard(trouble=f"the connection broke: {type(error).__name__}")

    async def _posted(self, target: Target, body: bytes, headers: Mapping[str, str]) -> Heard:
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target.addresses), use_dns_cache=False, force_close=True, limit=1
        )
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            ) as session,
            session.post(target.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            found = {name.lower(): value for name, value in response.headers.items()}
            reply = Reply(status=response.status, headers=found, body=b"")
            return Heard(
                status=response.status,
                retry_after_ms=retry_after_ms(reply, clock=self._clock),
                beginning=await _drained(response, self._timeout_s),
            )


class _Pinned(AbstractResolver):
    """Answers with addresses that were checked, whatever it is asked."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


async def _drained(response: aiohttp.ClientResponse, timeout_s: float) -> bytes:
    """Read the body up to the bound, so that the other side may end well; its beginning. Its status is known, so
    nothing that happens here changes what it means."""
    beginning, size = b"", 0
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(timeout_s / 2):
            while size < limits.HOOK_ANSWER_BYTES_MAX and (piece := await response.content.readany()):
                size += len(piece)
                beginning = (beginning + piece)[:_BEGINNING_BYTES]
    return beginning


def _parsed(text: str) -> URL:
    """A URL that can be asked; UsageError for all others, which does not repeat it: there may be a password in it."""
    if len(text) > limits.HOOK_URL_CHARACTERS_MAX:
        raise UsageError(f"the URL is longer than {limits.HOOK_URL_CHARACTERS_MAX:,} characters")
    try:
        url = URL(text) if _is_plain(text) else None
    except ValueError:  # Its message repeats the URL.
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.raw_host:
        raise UsageError("that is no URL that can be asked: it has to be https://HOST/PATH, or http://")
    if url.raw_user is not None or url.raw_password is not None:
        raise UsageError("the URL has a user or password in it; what comes from us is known by its signature")
    _check_host(url.raw_host)
    if not url.port:
        raise UsageError(f"{url.raw_host}: there is no port 0")
    return url.with_fragment(None)


def _check_host(host: str) -> None:
    """UsageError for a host that programs read differently: `127.1`, `0x7f.1`, `2130706433`, `[fe80::1%eth0]`."""
    is_address = True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        is_address = False
    if is_address and "%" not in host:
        return
    last = host.rstrip(".").rpartition(".")[2]
    if not _is_name(host) or _is_number(last):
        raise UsageError(f"{host[:80]!r} is neither a name nor an address as it is usually written")
