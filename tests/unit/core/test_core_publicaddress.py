"""core.publicaddress: what is public, and above all what is not."""

import pytest

from overnight.core.publicaddress import is_public


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("8.8.8.8", id="somewhere"),
        pytest.param("172.15.255.255", id="before 172.16/12"),
        pytest.param("172.32.0.0", id="behind 172.16/12"),
        pytest.param("100.63.255.255", id="before 100.64/10"),
        pytest.param("100.128.0.0", id="behind 100.64/10"),
        pytest.param("2606:4700::1111", id="IPv6"),
        pytest.param("::ffff:8.8.8.8", id="mapped"),
        pytest.param("64:ff9b::8.8.8.8", id="behind NAT64"),
    ],
)
def test_what_everybody_can_reach_is_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.255.255.254", id="the other end of loopback"),
        pytest.param("10.1.2.3", id="private 10/8"),
        pytest.param("172.16.0.1", id="private 172.16/12"),
        pytest.param("192.168.0.1", id="private 192.168/16"),
        pytest.param("169.254.169.254", id="metadata"),
        pytest.param("168.63.129.16", id="metadata of Azure"),
        pytest.param("100.100.100.200", id="metadata of Alibaba, carrier-grade NAT"),
        pytest.param("0.0.0.0", id="unspecified"),
        pytest.param("0.1.2.3", id="this network"),
        pytest.param("192.0.2.1", id="documentation"),
        pytest.param("198.18.0.1", id="benchmarks"),
        pytest.param("192.88.99.1", id="6to4 relays"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("::1", id="loopback, IPv6"),
        pytest.param("::", id="unspecified, IPv6"),
        pytest.param("::ffff:127.0.0.1", id="mapped loopback"),
        pytest.param("::ffff:a9fe:a9fe", id="mapped metadata"),
        pytest.param("::127.0.0.1", id="compatible loopback"),
        pytest.param("64:ff9b::7f00:1", id="loopback behind NAT64"),
        pytest.param("64:ff9b::10.0.0.1", id="private behind NAT64"),
        pytest.param("64:ff9b:1::1", id="NAT64 of a network"),
        pytest.param("2002:7f00:1::", id="6to4"),
        pytest.param("2001:0:1::", id="Teredo"),
        pytest.param("2001:db8::1", id="documentation, IPv6"),
        pytest.param("3fff::1", id="documentation of RFC 9637"),
        pytest.param("fc00::1", id="unique local"),
        pytest.param("fd00:ec2::254", id="metadata of AWS, IPv6"),
        pytest.param("fe80::1", id="link-local"),
        pytest.param("fe80::1%eth0", id="link-local with a zone"),
        pytest.param("2606:4700::1111%eth0", id="a public one with a zone"),
        pytest.param("fec0::1", id="site-local"),
        pytest.param("ff02::1", id="multicast, IPv6"),
        pytest.param("100::1", id="discard"),
        pytest.param("5f00::1", id="segment routing"),
        pytest.param("", id="nothing"),
        pytest.param("localhost", id="a name"),
        pytest.param("127.1", id="a short number"),
        pytest.param("0177.0.0.1", id="octal"),
        pytest.param("2130706433", id="one number"),
        pytest.param("8.8.8.8 ", id="a blank"),
    ],
)
def test_everything_else_is_not(text: str) -> None:
    assert not is_public(text)
