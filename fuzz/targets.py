"""What must hold for any bytes. Each function takes bytes and raises if a claim is broken: fuzzers call nothing else.

The claims compare our code with a second, slower way to the same answer wherever there is one.
"""

import json
import re
import zlib
from collections.abc import Callable

import reply_target
from choices import Choices, strictly

from overnight.core import segment
from overnight.engines import conversation
from overnight.errors import InvalidRequest, TooLarge
from overnight.server import receive
from overnight.store import checkpoint, segments, splice
from overnight.wire import create, message, params, problem, result, text


def create_body(data: bytes) -> None:
    """Any bytes as a create body: refused, or read into requests that can be stored and read again."""
    try:
        requests = create.read(data)
    except InvalidRequest:
        requests = []
    _check_stored(requests)
    try:
        wanted = _envelope(data)
        found = [(one.custom_id, strictly(one.params)) for one in requests]
    except RecursionError:
        return  # Deeper than the other parser goes.
    assert found == (wanted or []) or (wanted and not found and _is_stricter_here(data)), (found, wanted)


def written_body(data: bytes) -> None:
    """A valid body in any layout is read as what was written."""
    choices = Choices(data)
    choices.choose_layout()
    wanted = {f"id-{index}": choices.any_object() for index in range(choices.number(6) + 1)}
    items = [
        choices.object({"custom_id": choices.quoted(custom_id), "params": written})
        for custom_id, written in wanted.items()
    ]
    body = choices.spaced(choices.object({"requests": choices.array(items)})).encode()
    requests = create.read(bytearray(body))
    _check_stored(requests)
    assert [one.custom_id for one in requests] == list(wanted)
    assert [strictly(one.params) for one in requests] == [strictly(one.encode()) for one in wanted.values()]


def _check_stored(requests: list[create.Request]) -> None:
    assert not any(re.search(rb"[\r\n]", one.params) for one in requests), "more than one line"
    ordered = segments.sorted_by_prefix(requests)
    assert {id(one) for one in ordered} == {id(one) for one in requests}
    cuts = [(cut.start, cut.stop) for cut in segments.cuts(ordered)]
    assert [place for cut in cuts for place in range(*cut)] == list(range(len(requests)))
    found = []
    for start, stop in cuts:
        packed = segments.pack(ordered[start:stop])
        assert zlib.decompress(packed.member, wbits=31).count(b"\n") == packed.requests == stop - start
        found += segments.unpack(packed.member, raw_bytes=packed.raw_bytes)
    assert _as_bytes(found) == _as_bytes(ordered)


def _as_bytes(requests: list[create.Request]) -> list[tuple[str, bytes]]:
    return [(one.custom_id, bytes(one.params)) for one in requests]


def _envelope(data: bytes) -> list[tuple[str, object]] | None:
    """What `create.read` should find, by the rules of the envelope over another parser; None: a 400."""
    try:
        body = strictly(data)
    except ValueError:
        return None
    items = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(items, list) or not 1 <= len(items) <= 100_000:
        return None
    found = []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("params"), dict):
            return None
        custom_id = item.get("custom_id")
        if type(custom_id) is not str or not re.fullmatch("[a-zA-Z0-9_-]{1,64}", custom_id):
            return None
        found.append((custom_id, item["params"]))
    return found if len({custom_id for custom_id, _ in found}) == len(found) else None


def _is_stricter_here(data: bytes) -> bool:
    """The known ways in which we refuse what Python's json takes.

    Half a surrogate pair as an escape, which is no text; and a repeated key whose earlier value is of a wrong type
    (Python sees only the last one).
    """
    seen = {"repeated": False}

    def pairs(found: list[tuple[str, object]]) -> object:
        seen["repeated"] |= len(dict(found)) < len(found)
        return found

    everything = json.dumps(json.loads(data, object_pairs_hook=pairs), ensure_ascii=False)
    return seen["repeated"] or re.search("[\ud800-\udfff]", everything) is not None


def params_of_a_request(data: bytes) -> None:
    """Any UTF-8 (callers check that) as `params`: refused in words, or a model; never another exception."""
    try:
        text.check_utf8(data)
    except UnicodeDecodeError:
        return
    read = (params.read_batched, params.read_interactive, params.read_countable, conversation.read)
    accepted = set()
    for reader in read:
        try:
            reader(data)
        except InvalidRequest as error:
            assert str(error), "a refusal without a word"  # noqa: PT017  This is no test of pytest's.
            continue
        accepted.add(reader)
    if params.read_batched in accepted:
        assert {params.read_interactive, params.read_countable} <= accepted
    if accepted:
        strictly(data)
    try:
        params.read_batched(data, is_strict=True)
    except InvalidRequest:
        return
    assert params.read_batched in accepted
    list(segment.sort_keys([params.decode_parts(data)]))


def message_of_an_engine(data: bytes) -> None:
    """Any bytes as the answer of an engine: refused, or the same Message with another service tier, on one line."""
    try:
        written, _ = message.as_batch(data)
    except message.NotAMessage:
        return
    _check_message(data, written)


def written_message(data: bytes) -> None:
    """A Message in any layout, full of things that look like its usage."""
    choices = Choices(data)
    choices.choose_layout()
    usage = choices.object(
        {"input_tokens": "1", **{f"x{number}": choices.json() for number in range(choices.number(3))}}
        | ({"service_tier": choices.one_of(('"standard"', '"batch"', "null"))} if choices.number(2) else {})
    )
    fields = {"type": '"message"', "role": '"assistant"', "usage": usage}
    lures = [usage, choices.quoted(usage), "{}", choices.json()][: choices.number(5)]
    fields["content"] = choices.array([choices.object({"input": lure}) for lure in lures])
    fields |= {f"y{number}": choices.json() for number in range(choices.number(3))}
    keys = sorted(fields, key=lambda key: (choices.number(7), key))
    body = choices.spaced(choices.object({key: fields[key] for key in keys})).encode()
    _check_message(body, message.as_batch(body)[0])


def _check_message(data: bytes, written: bytes) -> None:
    wanted = strictly(data)
    wanted["usage"]["service_tier"] = "batch"
    assert strictly(written) == wanted
    assert not re.search(rb"[\r\n]", written), "more than one line"
    (line,) = result.read_lines(result.succeeded("a", written))
    assert (line.custom_id, line.result.type) == ("a", "succeeded")


def compressed_body(data: bytes) -> None:
    """Any bytes as a gzip body, in any pieces: what zlib says, or a refusal."""
    choices = Choices(data)
    kind, limit = choices.number(4), choices.number(256) * 8 + 1
    stored = choices.rest()
    if kind == 1:
        stored = zlib.compress(stored, wbits=31)
    elif kind == 2:
        stored = b"".join(zlib.compress(part, wbits=31) for part in (stored[:9], stored[9:], b""))
    elif kind == 3:
        stored = bytes(byte ^ (place == 30) for place, byte in enumerate(zlib.compress(stored * 9, wbits=31)))
    wanted = _gunzipped(stored, limit)
    for pieces in ([stored], [stored[place : place + 1] for place in range(len(stored))], choices.cut(stored)):
        found = _inflated(pieces, limit)
        # Data that is both too large and broken may be called either.
        assert found == wanted or {type(found), type(wanted)} == {str}, (pieces, limit)


def _inflated(pieces: list[bytes], limit: int) -> bytes | str:
    inflater, held = receive._Inflater(), bytearray()
    try:
        for piece in pieces:
            receive._append(held, piece, inflater, bytes_max=limit)
            assert len(held) <= limit, "beyond its bound"
    except TooLarge:
        return "too large"
    except InvalidRequest:
        return "refused"
    return bytes(held) if inflater.is_complete else "refused"


def _gunzipped(stored: bytes, limit: int) -> bytes | str:
    held = b""
    while True:
        if stored.startswith(b"\x1f\x8b\x08"):  # ISA-L does not mind the flags that RFC 1952 reserves.
            stored = stored[:3] + bytes(flag & 0x1F for flag in stored[3:4]) + stored[4:]
        member = zlib.decompressobj(wbits=31)
        try:
            held += member.decompress(stored, limit - len(held) + 1)
        except zlib.error:
            return "refused"
        if len(held) > limit:
            return "too large"
        if not member.eof:
            return "refused"
        if not member.unused_data:
            return held
        stored = member.unused_data


def checkpoint_log(data: bytes) -> None:
    """Any bytes as a checkpoint log: frames that are whole, none of them made up."""
    for frame, raw in checkpoint.decode(data):
        assert frame.lines == raw.count(b"\n")
        assert splice.decompress(frame.piece.deflate, raw_bytes=len(raw), crc=frame.piece.crc) == raw


def damaged_log(data: bytes) -> None:
    """A log that was cut, grew or changed in one place: the frames before that place, and no others."""
    choices = Choices(data)
    written = [
        checkpoint.encode(checkpoint.frame([b"%d-%d\n" % (number, line) for line in range(choices.number(4) + 1)]))
        for number in range(choices.number(4) + 1)
    ]
    log = b"".join(written)
    place = (choices.number(256) * 256 + choices.number(256)) % len(log)
    new, flipped = choices.number(256), log[place] ^ (1 << choices.number(8))
    tails = (bytes([flipped]) + log[place + 1 :], bytes([new]) + log[place + 1 :], bytes([new]) + log[place:], b"")
    changed = log[:place] + tails[choices.number(len(tails))]
    before = list(checkpoint.decode(log))
    assert len(before) == len(written)
    after = list(checkpoint.decode(changed))
    assert [raw for _, raw in after] == [raw for _, raw in before[: len(after)]]
    joined = splice.member(frame.piece for frame, _ in after)
    assert zlib.decompress(joined, wbits=31) == b"".join(raw for _, raw in after), "damage that hides what follows"
    whole = sum(1 for number in range(len(written)) if len(b"".join(written[: number + 1])) <= place)
    assert len(after) >= whole


def answer_of_a_server(data: bytes) -> None:
    """Any bytes from an engine's socket, in any pieces: one reply or one error, whatever the pieces."""
    reply_target.check(data)


def error_of_a_server(data: bytes) -> None:
    """Any body and any `retry-after` of an error answer are understood somehow."""
    choices = Choices(data)
    status = choices.number(256) + 200 + choices.number(2) * 200
    body = choices.rest()
    found = problem.read(body, status=status)
    again = problem.read(problem.encode(found.error.type, found.error.message, request_id="req_1"), status=status)
    assert (again.error.message, again.request_id) == (found.error.message or f"HTTP {status}", "req_1")
    reply_target.check_outcome(status, body)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        create_body,
        written_body,
        params_of_a_request,
        message_of_an_engine,
        written_message,
        compressed_body,
        checkpoint_log,
        damaged_log,
        answer_of_a_server,
        error_of_a_server,
    )
}
