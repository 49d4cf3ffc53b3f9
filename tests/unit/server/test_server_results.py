"""server.results.accepts_gzip: Accept-Encoding as RFC 9110 12.5.3 has it."""

import pytest

from overnight.server.results import accepts_gzip


@pytest.mark.parametrize(
    ("header", "is_accepted"),
    [
        ("", False),
        ("gzip", True),
        ("gzip, deflate", True),
        ("deflate, gzip;q=0.5", True),
        ("GZIP;Q=1", True),
        ("br , gzip ; q=0.001", True),
        ("gzip;q=1.000", True),
        ("*", True),
        ("*;q=0.1, br", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip ;\tq=0.0", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("deflate, br, zstd", False),
        ("x-gzip2", False),
        ("identity;q=1, gzip;q=0, *;q=0.5", False),
        (",,gzip,,", True),
    ],
)
def test_whether_gzip_is_welcome(header: str, is_accepted: bool) -> None:
    assert accepts_gzip(header) is is_accepted
