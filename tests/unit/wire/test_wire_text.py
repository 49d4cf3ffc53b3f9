"""wire.text: JSON as bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_values import VALUES, written

from overnight.wire import text


@given(written(VALUES))
def test_one_line_says_the_same(pair: tuple[Any, bytes]) -> None:
    value, many = pair
    line = text.on_one_line(many)
    assert json.loads(line) == value
    assert b"\n" not in line
    assert b"\r" not in line
    if b"\n" not in many and b"\r" not in many:
        assert line is many


@given(st.text(), st.sampled_from([0, 64 * 1024 - 2, 128 * 1024 - 1]))
def test_text_is_utf8_wherever_the_pieces_end(found: str, before: int) -> None:
    text.check_utf8(b"x" * before + found.encode())


@given(
    st.sampled_from([b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"]),
    st.sampled_from([0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1]),
    st.sampled_from([b"", b"x", b'"}']),
)
def test_what_is_not_utf8_is_found_wherever_the_pieces_end(wrong: bytes, before: int, after: bytes) -> None:
    for data in (b"x" * before + wrong + after, bytearray(b"x" * before + wrong + after)):
        with pytest.raises(UnicodeDecodeError):
            text.check_utf8(data)
