"""jobs.pack: lines in, the same lines out."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.jobs.pack import packed, unpacked


@given(st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line), max_size=20))
def test_lines_come_back_as_they_were(lines: list[bytes]) -> None:
    assert unpacked(packed(lines)) == lines


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="none"),
        pytest.param([b""], id="an empty one"),
        pytest.param([b"", b""], id="two empty ones"),
        pytest.param([b"a\rb", "Größe\u2028".encode()], id="other line ends are text"),
        pytest.param([b"x" * 5_000_000], id="a long one"),
    ],
)
def test_odd_lines_come_back_too(lines: list[bytes]) -> None:
    assert unpacked(packed(iter(lines))) == lines


def test_what_is_packed_any_gzip_reads() -> None:
    assert gzip.decompress(packed([b'{"a":1}', b"{}"])) == b'{"a":1}\n{}\n'
