"""server.urls: what `results_url` begins with; a wrong host sends a client, and its key, elsewhere."""

import pytest
from http_requests import http_request
from hypothesis import given
from hypothesis import strategies as st

from overnight.server import urls
from overnight.server.config import Settings

_SETTINGS = Settings(listen="127.0.0.1:8642", trusted_proxies=["10.0.0.0/8", "::1/128"])
_PROXY, _STRANGER = ("10.1.2.3", 5), ("192.0.2.1", 5)
_FORWARDED = {
    "host": "inside:8642",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "batch.example.com",
    "x-forwarded-prefix": "/llm",
}


@pytest.mark.parametrize(
    ("headers", "scope", "url"),
    [
        ({"host": "localhost:8642"}, {}, "http://localhost:8642"),
        ({"host": "localhost"}, {"scheme": "https"}, "https://localhost"),
        ({"host": "[::1]:8642"}, {}, "http://[::1]:8642"),
        ({"host": "h"}, {"root_path": "/api/"}, "http://h/api"),
        (_FORWARDED, {"client": _PROXY}, "https://batch.example.com/llm"),
        (_FORWARDED, {"client": ("::1", 5)}, "https://batch.example.com/llm"),
        (_FORWARDED, {"client": _STRANGER}, "http://inside:8642"),
        (_FORWARDED, {"client": None}, "http://inside:8642"),
        (
            {**_FORWARDED, "x-forwarded-host": "first.example, second"},
            {"client": _PROXY},
            "https://first.example/llm",
        ),
        ({"host": "h", "x-forwarded-proto": "https"}, {"client": _PROXY}, "https://h"),
        ({}, {}, "http://127.0.0.1:8642"),
        ({"host": "a b"}, {}, "http://127.0.0.1:8642"),
        ({"host": "evil/path"}, {}, "http://127.0.0.1:8642"),
        ({"host": "user@evil"}, {}, "http://127.0.0.1:8642"),
        ({"host": "h:port"}, {}, "http://127.0.0.1:8642"),
        ({"host": "h{x}"}, {}, "http://127.0.0.1:8642"),
        ({**_FORWARDED, "x-forwarded-proto": "javascript"}, {"client": _PROXY}, "http://127.0.0.1:8642/llm"),
        ({**_FORWARDED, "x-forwarded-prefix": "/{a}"}, {"client": _PROXY}, "https://batch.example.com"),
        ({**_FORWARDED, "x-forwarded-prefix": "//evil"}, {"client": _PROXY}, "https://batch.example.com"),
    ],
)
def test_where_a_client_reaches_us(headers: dict[str, str], scope: dict[str, object], url: str) -> None:
    assert urls.base_url(http_request(headers, **scope), _SETTINGS) == url


def test_the_public_url_of_the_operator_comes_first() -> None:
    settings = Settings(public_url="https://public.example/x/")
    assert urls.base_url(http_request(_FORWARDED, client=_PROXY), settings) == "https://public.example/x"


_HEADER = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=20)


@given(_HEADER, _HEADER, _HEADER, _HEADER)
def test_no_header_makes_a_url_that_clients_stumble_over(host: str, proto: str, forwarded: str, prefix: str) -> None:
    headers = {"host": host, "x-forwarded-proto": proto, "x-forwarded-host": forwarded, "x-forwarded-prefix": prefix}
    url = urls.base_url(http_request(headers, client=_PROXY), _SETTINGS)
    scheme, _, rest = url.partition("://")
    assert scheme in ("http", "https")
    assert rest.isascii()
    assert rest
    assert not set(rest) & set(' {}?#@\\"<>%')
    assert "//" not in rest


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [("10.0.0.1", True), ("11.0.0.1", False), ("::1", True), ("::2", False), ("", False), ("unix", False)],
)
def test_whose_headers_count(address: str, is_trusted: bool) -> None:
    assert urls.is_trusted(address, _SETTINGS.trusted_proxies) is is_trusted
