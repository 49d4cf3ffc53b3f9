"""server.receive: bodies in any pieces, within their bounds."""

import asyncio
import gzip
import json

import pytest
from http_requests import http_request
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from overnight.errors import InvalidRequest, TooLarge
from overnight.server import receive
from overnight.server.receive import Uploads
from overnight.wire import create

_GZIP = {"content-encoding": "gzip"}
_BODY = json.dumps({"requests": [{"custom_id": "a", "params": {"text": "é😀\u2028\n"}}]}, ensure_ascii=False).encode()
_MIB = 1024 * 1024


def _received(pieces: list[bytes], headers: dict[str, str] | None = None, *, bytes_max: int = _MIB) -> bytes:
    return bytes(asyncio.run(receive.body(http_request(headers, pieces=pieces), bytes_max=bytes_max)))


def _in_pieces(data: bytes, length: int) -> list[bytes]:
    return [data[start : start + length] for start in range(0, len(data), length)]


@st.composite
def _cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Bytes, and the same in pieces, empty ones among them."""
    data = draw(st.binary(max_size=300))
    borders = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return data, [data[start:stop] for start, stop in zip([0, *borders], [*borders, len(data)], strict=True)]


@given(_cut())
def test_a_body_is_its_pieces(pair: tuple[bytes, list[bytes]]) -> None:
    assert _received(pair[1]) == pair[0]


@given(_cut())
def test_a_compressed_body_is_what_its_pieces_inflate_to(pair: tuple[bytes, list[bytes]]) -> None:
    members = b"".join(gzip.compress(piece) for piece in pair[1])
    for length in (1, 7, len(members)):
        assert _received(_in_pieces(members, length), _GZIP) == pair[0]


@pytest.mark.parametrize("headers", [{}, _GZIP])
def test_a_create_body_may_be_cut_at_every_byte(headers: dict[str, str]) -> None:
    sent = gzip.compress(_BODY) if headers else _BODY
    for border in range(len(sent) + 1):
        received = _received([sent[:border], sent[border:]], headers)
        (request,) = create.read(bytearray(received))
        assert json.loads(bytes(request.params)) == {"text": "é😀\u2028\n"}
    assert _received(_in_pieces(sent, 1), headers) == _BODY


@pytest.mark.parametrize("headers", [{}, _GZIP])
def test_a_body_may_be_as_large_as_its_bound_and_no_larger(headers: dict[str, str]) -> None:
    for size in (999, 1000, 1001, 5000):
        sent = gzip.compress(b"x" * size) if headers else b"x" * size
        for length in (1, 100, len(sent)):
            pieces = _in_pieces(sent, length)
            if size <= 1000:
                assert len(_received(pieces, headers, bytes_max=1000)) == size
            else:
                with pytest.raises(TooLarge, match=r"^Request exceeds the maximum size$"):
                    _received(pieces, headers, bytes_max=1000)


def test_a_bomb_is_too_large_long_before_it_is_inflated() -> None:
    bomb = gzip.compress(bytes(200 * _MIB), 9)
    inflater = receive._Inflater()
    parts = inflater.take(bomb)
    assert [len(next(parts)) for _ in range(3)] == [receive._INFLATED_BYTES] * 3
    with pytest.raises(TooLarge):
        _received([bomb], _GZIP, bytes_max=1000)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{}",
        gzip.compress(_BODY)[:-1],
        gzip.compress(_BODY)[:-9],
        gzip.compress(_BODY)[:5],
        gzip.compress(_BODY) + b"x",
        gzip.compress(_BODY) + b"\x00",
        gzip.compress(_BODY) + gzip.compress(b"x")[:-3],
        gzip.compress(_BODY)[:-8] + b"\x00" * 8,
        gzip.compress(_BODY)[:-4] + b"\x01\x00\x00\x00",
    ],
)
def test_gzip_that_is_broken_or_not_complete_is_refused(sent: bytes) -> None:
    for length in (1, max(1, len(sent))):
        with pytest.raises(
            InvalidRequest, match=r"^content-encoding: the request body is not (valid|complete) gzip data"
        ):
            _received(_in_pieces(sent, length), _GZIP)


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_no_encoding_has_three_names(encoding: str) -> None:
    assert _received([_BODY], {"content-encoding": encoding}) == _BODY


def test_names_of_encodings_are_read_in_any_case() -> None:
    assert _received([gzip.compress(_BODY)], {"content-encoding": "GZip"}) == _BODY


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "x" * 500])
def test_other_encodings_are_refused_by_name(encoding: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _received([_BODY], {"content-encoding": encoding})
    assert str(caught.value) == f"content-encoding: {encoding[:40]!r} is not supported; send gzip or no encoding"


def test_a_client_that_goes_away_is_told_apart() -> None:
    with pytest.raises(ClientDisconnect):
        asyncio.run(receive.body(http_request(pieces=[b"{"], is_whole=False), bytes_max=_MIB))


@pytest.mark.parametrize(
    ("headers", "announced"),
    [
        ({}, 0),
        ({"content-length": "0"}, 0),
        ({"content-length": "1000"}, 1000),
        ({"content-length": "000001000"}, 1000),
        ({"transfer-encoding": "chunked"}, 1000),
        ({"content-length": "7", "content-encoding": "gzip"}, 1000),
        ({"content-length": "seven"}, 1000),
        ({"content-length": "-7"}, 1000),
        ({"content-length": "\u00b2"}, 1000),
    ],
)
def test_what_a_head_announces(headers: dict[str, str], announced: int) -> None:
    assert receive.announced_bytes(http_request(headers), bytes_max=1000) == announced


@pytest.mark.parametrize("length", ["1001", "9" * 18, "9" * 5000])
def test_a_head_may_announce_too_much(length: str) -> None:
    with pytest.raises(TooLarge):
        receive.announced_bytes(http_request({"content-length": length}), bytes_max=1000)


_BIG = 100_000


def test_uploads_beyond_the_room_wait_in_order_and_small_ones_never() -> None:
    async def scenario() -> list[str]:
        uploads, order = Uploads(3 * _BIG), list[str]()
        leave = {name: asyncio.Event() for name in "abc"}

        async def upload(name: str, size_bytes: int) -> None:
            async with uploads.place(size_bytes):
                order.append(name)
                await leave[name].wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(upload("a", 2 * _BIG))
            await asyncio.sleep(0)
            group.create_task(upload("b", 2 * _BIG))
            await asyncio.sleep(0)
            group.create_task(upload("c", _BIG))  # There is room for it, but it came after b.
            await asyncio.sleep(0)
            async with uploads.place(10):
                order.append("small")
            assert order == ["a", "small"]
            for event in leave.values():
                event.set()
        return order

    assert asyncio.run(scenario()) == ["a", "small", "b", "c"]


@given(st.lists(st.tuples(st.integers(70_000, 200_000), st.booleans()), max_size=12), st.data())
def test_room_is_never_exceeded_and_all_of_it_comes_back(wanted: list[tuple[int, bool]], data: st.DataObject) -> None:
    async def scenario() -> None:
        uploads, held = Uploads(200_000), 0

        async def upload(size_bytes: int) -> None:
            nonlocal held
            async with uploads.place(size_bytes):
                held += size_bytes
                try:
                    assert held <= 200_000
                    await asyncio.sleep(0)
                finally:
                    held -= size_bytes

        tasks = [asyncio.create_task(upload(size_bytes)) for size_bytes, _ in wanted]
        for task, (_, is_cancelled) in zip(tasks, wanted, strict=True):
            if is_cancelled:
                await asyncio.sleep(0)
                task.cancel()
        tasks.append(asyncio.create_task(upload(200_000)))
        for _ in range(10 * len(tasks)):
            await asyncio.sleep(0)
        assert all(task.done() for task in tasks), "somebody waits for room that nobody holds"
        assert all(task.cancelled() or task.exception() is None for task in tasks)

    asyncio.run(scenario())
