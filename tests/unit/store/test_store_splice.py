"""store.splice, store.segments, store.checkpoint: bytes that are joined, cut off, or damaged."""

import gzip
import zlib
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overnight.errors import StoreError
from overnight.store import checkpoint, segments, splice
from overnight.wire.create import Request

contents = st.lists(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), max_size=8)
LINES = [[b'{"custom_id":"a%d"}\n' % number for number in range(count)] for count in (3, 1, 5)]
LOG = b"".join(checkpoint.encode(checkpoint.frame(lines)) for lines in LINES)
ENDS = [sum(len(checkpoint.encode(checkpoint.frame(lines))) for lines in LINES[:count]) for count in range(4)]


@settings(max_examples=200, deadline=None)
@given(contents)
@example([])
@example([b"", b"", b""])
def test_joined_pieces_inflate_to_the_concatenation_as_one_member(raws: list[bytes]) -> None:
    member = splice.member(splice.compress(raw) for raw in raws)
    inflater = zlib.decompressobj(31)
    assert inflater.decompress(member) == b"".join(raws)
    assert (inflater.eof, inflater.unused_data) == (True, b""), "a second member would be lost by many clients"
    assert gzip.decompress(member) == b"".join(raws)


@settings(max_examples=100, deadline=None)
@given(st.lists(contents, min_size=1, max_size=4))
def test_members_are_spliced_again_without_their_content(groups: list[list[bytes]]) -> None:
    """As results are: pieces make an object per segment, objects make one download."""
    members = [splice.member(map(splice.compress, raws)) for raws in groups]
    sums = [(splice.crc_of(member), len(gzip.decompress(member))) for member in members]
    crc, raw_bytes = splice.combined_crc(sums)
    body = b"".join((splice.HEADER, *map(splice.deflate_of, members), splice.trailer(crc=crc, raw_bytes=raw_bytes)))
    assert gzip.decompress(body) == b"".join(raw for raws in groups for raw in raws)


@settings(max_examples=100, deadline=None)
@given(contents)
def test_a_member_is_inflated_with_its_length_and_checksum(raws: list[bytes]) -> None:
    member, whole = splice.member(map(splice.compress, raws)), b"".join(raws)
    deflate, crc = splice.deflate_of(member), splice.crc_of(member)
    assert splice.decompress(deflate, raw_bytes=len(whole), crc=crc) == whole
    for wrong in (len(whole) + 1, len(whole) - 1):
        with pytest.raises(splice.Damaged):
            splice.decompress(deflate, raw_bytes=max(wrong, 0) + (not whole), crc=crc)
    with pytest.raises(splice.Damaged):
        splice.decompress(deflate, raw_bytes=len(whole), crc=crc ^ 1)


def _flipped(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            yield bytes(damaged)


def test_a_damaged_piece_is_never_taken_for_a_good_one() -> None:
    """Not even if only what follows its content is damaged: the next piece would be spoilt."""
    piece = splice.compress(b"hello world\n" * 20)
    for deflate in _flipped(piece.deflate):
        try:
            splice.decompress(deflate, raw_bytes=piece.raw_bytes, crc=piece.crc)
        except splice.Damaged:
            continue
        joined = splice.deflate_of(splice.member([splice.Piece(deflate, 0, 0), splice.compress(b"next")]))
        assert splice.decompress(joined, raw_bytes=piece.raw_bytes + 4) == b"hello world\n" * 20 + b"next"


# --- segments -----------------------------------------------------------------------------------------------------


def _requests(*params: bytes) -> list[Request]:
    return [Request(f"id-{index}", msgspec.Raw(raw)) for index, raw in enumerate(params)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=3), min_size=1))
def test_a_segment_comes_back_as_it_was_packed(params: list[dict[str, object]]) -> None:
    requests = _requests(*map(msgspec.json.encode, params))
    packed = segments.pack(requests)
    assert (packed.requests, packed.raw_bytes) == (len(params), len(gzip.decompress(packed.member)))
    found = segments.unpack(packed.member, raw_bytes=packed.raw_bytes)
    assert [(item.custom_id, bytes(item.params)) for item in found] == [
        (item.custom_id, bytes(item.params)) for item in requests
    ]


def test_a_damaged_segment_is_a_store_error_and_never_other_requests() -> None:
    requests = _requests(b'{"model":"a"}', b'{"model":"b"}')
    packed = segments.pack(requests)
    for damaged in [*_flipped(packed.member), *(packed.member[:size] for size in range(len(packed.member)))]:
        try:
            found = segments.unpack(damaged, raw_bytes=packed.raw_bytes)
        except StoreError:
            continue
        assert [bytes(item.params) for item in found] == [b'{"model":"a"}', b'{"model":"b"}']


def test_sorting_keeps_the_clients_order_of_equal_prompts() -> None:
    requests = _requests(*[b'{"model":"m","messages":[%d]}' % (number % 2) for number in range(10)])
    order = [int(item.custom_id[3:]) for item in segments.sorted_by_prefix(requests)]
    assert order in ([0, 2, 4, 6, 8, 1, 3, 5, 7, 9], [1, 3, 5, 7, 9, 0, 2, 4, 6, 8])


# --- checkpoint logs ------------------------------------------------------------------------------------------------


def test_a_log_is_readable_by_anybody() -> None:
    assert gzip.decompress(LOG) == b"".join(line for lines in LINES for line in lines)


def test_a_torn_log_yields_every_whole_frame_and_no_more() -> None:
    for size in range(len(LOG) + 1):
        whole = max(count for count in range(4) if ENDS[count] <= size)
        found = list(checkpoint.decode(LOG[:size]))
        assert [raw for _, raw in found] == [b"".join(lines) for lines in LINES[:whole]], size


def test_a_damaged_log_yields_a_prefix_of_what_was_written() -> None:
    good = [checkpoint.frame(lines) for lines in LINES]
    for number, log in enumerate(_flipped(LOG)):
        found = [frame for frame, _ in checkpoint.decode(log)]
        before = max(count for count in range(4) if ENDS[count] <= number // 8)
        assert found[:before] == good[:before], number
        assert [frame.lines for frame in found] == [frame.lines for frame in good[: len(found)]], number
        joined = splice.member(frame.piece for frame in found)
        assert gzip.decompress(joined) == b"".join(line for lines in LINES[: len(found)] for line in lines), number


def test_a_log_that_is_no_log_yields_nothing() -> None:
    for log in (b"", b"nonsense", gzip.compress(b"x\n"), splice.member([splice.compress(b"x\n")])):
        assert list(checkpoint.decode(log)) == []
