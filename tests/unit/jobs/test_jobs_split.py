"""jobs.split: batches by number and by exact bytes. The oracle is the JSON of a whole body."""

import json
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.jobs import split

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
params = st.dictionaries(texts, texts | st.integers(-(2**63), 2**63) | st.booleans() | st.none(), max_size=2)
requests = st.lists(st.tuples(st.sampled_from(["a", "INV-001", "x" * 64]), params), max_size=4)


def whole(pairs: list[tuple[str, dict[str, Any]]]) -> bytes:
    """What json makes of a body at its shortest, which is also what the SDK sends."""
    value = {"requests": [{"custom_id": custom_id, "params": value} for custom_id, value in pairs]}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def encoded(pairs: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    return [split.request(custom_id, msgspec.json.encode(value)) for custom_id, value in pairs]


@given(requests)
def test_a_body_has_the_value_of_the_whole_as_json(pairs: list[tuple[str, dict[str, Any]]]) -> None:
    assert json.loads(split.body(encoded(pairs))) == json.loads(whole(pairs))


def test_a_body_is_to_the_byte_what_json_makes_of_the_whole() -> None:
    pairs = [
        ("INV-001", {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Größe „é“ 😀"}]}),
        ("a", {"temperature": 0.5, "system": 'a "quote", a \\ and\na line', "stop_sequences": []}),
        ("b", {}),
    ]
    assert split.body(encoded(pairs)) == whole(pairs)


def test_a_body_of_nothing_is_json() -> None:
    assert json.loads(split.body([])) == {"requests": []}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 7), st.integers(0, 200))
def test_batches_keep_both_bounds_and_take_what_fits(sizes: list[int], most: int, room: int) -> None:
    parts = [b"x" * size for size in sizes]
    max_bytes = len(split.body([max(parts)])) + room
    numbers = list(split.cut(sizes, max_requests=most, max_bytes=max_bytes))
    batches = [
        [part for part, _ in group] for _, group in groupby(zip(parts, numbers, strict=True), key=itemgetter(1))
    ]
    assert [part for batch in batches for part in batch] == parts, "every request once, in its order"
    assert sorted(set(numbers)) == list(range(len(batches)))
    for batch in batches:
        assert len(batch) <= most
        assert len(split.body(batch)) <= max_bytes
    for batch, following in pairwise(batches):
        assert len(batch) == most or len(split.body([*batch, following[0]])) > max_bytes, "greedy"


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [
        pytest.param(15 + 10 + 1 + 10, [0, 0], id="two fit to the byte"),
        pytest.param(15 + 10 + 1 + 10 - 1, [0, 1], id="a byte less, and each goes alone"),
    ],
)
def test_the_frame_and_the_comma_are_counted(max_bytes: int, expected: list[int]) -> None:
    assert len(split.body([b"x" * 10, b"y" * 10])) == 15 + 10 + 1 + 10
    assert list(split.cut([10, 10], max_requests=9, max_bytes=max_bytes)) == expected


@pytest.mark.parametrize(
    ("requests_in", "most", "sizes"),
    [
        pytest.param(25_000, 10_000, [10_000, 10_000, 5_000], id="25,000 by 10,000"),
        pytest.param(10_000, 10_000, [10_000], id="exactly full"),
        pytest.param(10_001, 10_000, [10_000, 1], id="one more"),
        pytest.param(3, 1, [1, 1, 1], id="one each"),
        pytest.param(0, 10, [], id="nothing"),
    ],
)
def test_a_batch_takes_no_more_than_its_number(requests_in: int, most: int, sizes: list[int]) -> None:
    numbers = split.cut([100] * requests_in, max_requests=most, max_bytes=10**9)
    assert [len(list(group)) for _, group in groupby(numbers)] == sizes


def test_a_request_fits_alone_when_its_body_has_room() -> None:
    part = split.request("a", b"{}")
    room = len(split.body([part]))
    assert split.fits_alone(len(part), max_bytes=room)
    assert not split.fits_alone(len(part), max_bytes=room - 1)
