"""core.segment: where a batch is cut, and what becomes neighbours."""

from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight import limits
from overnight.core import segment
from overnight.core.segment import Cut
from overnight.wire.params import Parts

sizes = st.lists(st.sampled_from([1, 500, 900, 40_000, 300_000, limits.SEGMENT_BYTES_MAX, 2_000_000]), max_size=3_000)


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_every_request_is_in_one_segment_and_segments_are_within_bounds(sizes_bytes: list[int]) -> None:
    cuts = list(segment.cut(sizes_bytes))
    assert [index for cut in cuts for index in range(cut.start, cut.stop)] == list(range(len(sizes_bytes)))
    for cut in cuts:
        held = sizes_bytes[cut.start : cut.stop]
        assert 1 <= len(held) <= limits.SEGMENT_REQUESTS_MAX
        assert len(held) == 1 or sum(held) <= limits.SEGMENT_BYTES_MAX


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_a_segment_is_cut_only_where_the_next_request_does_not_fit(sizes_bytes: list[int]) -> None:
    for cut, _ in pairwise(segment.cut(sizes_bytes)):
        too_many = cut.stop - cut.start == limits.SEGMENT_REQUESTS_MAX
        too_large = sum(sizes_bytes[cut.start : cut.stop + 1]) > limits.SEGMENT_BYTES_MAX
        assert too_many or too_large


def test_nothing_is_cut_into_nothing() -> None:
    assert list(segment.cut([])) == []


def test_a_request_over_the_limit_is_a_segment_of_its_own() -> None:
    large = limits.SEGMENT_BYTES_MAX + 1
    assert list(segment.cut([10, large, 10])) == [Cut(0, 1), Cut(1, 2), Cut(2, 3)]


def parts(*, model: str = "m", tools: str = "", system: str = "", messages: str = "") -> Parts:
    return Parts(**{name: msgspec.Raw(text.encode()) for name, text in locals().items()})


def in_order(requests: list[Parts]) -> list[Parts]:
    keys = list(segment.sort_keys(requests))
    return [requests[index] for index in sorted(range(len(requests)), key=keys.__getitem__)]


@settings(max_examples=100, deadline=None)
@given(st.permutations([(system, question) for system in range(4) for question in range(5)]))
def test_requests_with_a_common_prompt_become_neighbours(order: list[tuple[int, int]]) -> None:
    """Four system prompts of 2 kB, five questions each, in any order: four runs come out."""
    requests = [
        parts(system=f"prompt {system} " * 200, messages=f"question {question}") for system, question in order
    ]
    runs = [left.system != right.system for left, right in pairwise(in_order(requests))]
    assert sum(runs) == 3


@settings(max_examples=100, deadline=None)
@given(st.permutations([(document, question) for document in range(4) for question in range(5)]))
def test_so_do_requests_whose_messages_begin_alike(order: list[tuple[int, int]]) -> None:
    requests = [parts(messages=f"document {number} " * 300 + f"question {question}") for number, question in order]
    documents = [bytes(item.messages)[:12] for item in in_order(requests)]
    assert sum(left != right for left, right in pairwise(documents)) == 3


def test_the_parts_count_in_template_order() -> None:
    requests = [
        parts(model=model, tools=tools, system=system, messages=f"{model}{tools}{system}")
        for system in "xy"
        for tools in "tu"
        for model in "mn"
    ]
    found = [bytes(item.messages).decode() for item in in_order(requests)]
    assert [text[0] for text in found] in ([*"mmmmnnnn"], [*"nnnnmmmm"])
    assert all(found[start][:2] == found[start + 1][:2] for start in range(0, 8, 2))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3_000), st.binary(max_size=3_000))
def test_a_key_depends_on_the_request_alone_not_on_its_neighbours(one: bytes, two: bytes) -> None:
    first, second = (Parts(system=msgspec.Raw(text), messages=msgspec.Raw(text[::-1])) for text in (one, two))
    alone = [next(segment.sort_keys([item])) for item in (first, second)]
    assert list(segment.sort_keys([first, second, first])) == [alone[0], alone[1], alone[0]]


def test_a_key_grows_by_four_bytes_when_a_part_doubles() -> None:
    lengths = [len(next(segment.sort_keys([parts(messages="x" * size)]))) for size in (1_000, 2_000, 4_000, 8_000)]
    assert [right - left for left, right in pairwise(lengths)] == [4, 4, 4]
