"""Whether an address is one of the public internet: what may be asked on behalf of somebody who only names a URL.

A server can reach what its callers cannot: itself, its neighbours, the metadata of its cloud (OWASP, "Server-Side
Request Forgery Prevention"). So an address counts as public only if the IANA registries for special purposes say so.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

_WELL_KNOWN_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052; its last 32 bits are an IPv4 address.
_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # The host of an Azure machine: a public number with a private service behind it.
            "192.88.99.0/24",  # Relays of 6to4, given up by RFC 7526.
            "2001::/23",  # Protocol assignments, Teredo (RFC 4380) among them: where it leads is not in the number.
            "2002::/16",  # 6to4, RFC 3056: leads to an IPv4 address by way of a relay.
            "3fff::/20",  # Documentation, RFC 9637.
            "5f00::/16",  # Segment routing, RFC 9602.
        ),
    )
)


def is_public(ip_text: str) -> bool:
    """Whether `ip_text`, an address as `ipaddress` reads it, is public; False for everything else.

    An IPv4 address inside an IPv6 one (mapped, or behind NAT64) counts as what it leads to.
    """
    try:
        address = ipaddress.ip_address(ip_text)
    except ValueError:
        return False
    return _is_public(address)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False  # It means something on this machine only.
        inner = address.ipv4_mapped or _behind_nat64(address)
        if inner is not None:
            return _is_public(inner)
        if address.is_site_local:
            return False
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not is_special


def _behind_nat64(address: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(address) & 0xFFFF_FFFF) if address in _WELL_KNOWN_NAT64 else None
