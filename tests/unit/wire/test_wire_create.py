"""wire.create.read: what a create body says, and in which words it is refused.

Arbitrary bytes against a second parser are in tests/fuzz.
"""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_values import OBJECTS, written

from overnight.errors import InvalidRequest
from overnight.wire import create

_IDS = st.from_regex(r"\A[a-zA-Z0-9_-]{1,64}\Z")
_ENTRIES = st.fixed_dictionaries({"custom_id": _IDS, "params": OBJECTS}, optional={"extra": OBJECTS})
_BODIES = st.fixed_dictionaries(
    {"requests": st.lists(_ENTRIES, min_size=1, max_size=4, unique_by=lambda entry: entry["custom_id"])},
    optional={"extra": OBJECTS},
)


def _refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        create.read(body)
    return str(caught.value)


def _body(*requests: object) -> bytes:
    return json.dumps({"requests": requests}).encode()


def _with_params(params: bytes) -> bytes:
    return b'{"requests":[{"custom_id":"a","params":%b}]}' % params


@given(written(_BODIES), st.sampled_from([b"", b" ", b"\n", b"\r\n\t "]))
def test_it_reads_what_was_written(pair: tuple[Any, bytes], space: bytes) -> None:
    value, text = pair
    requests = create.read(space + text + space)
    assert [one.custom_id for one in requests] == [entry["custom_id"] for entry in value["requests"]]
    assert [json.loads(bytes(one.params)) for one in requests] == [entry["params"] for entry in value["requests"]]
    assert not any(re.search(rb"[\r\n]", bytes(one.params)) for one in requests)


def test_params_without_newlines_keep_their_bytes() -> None:
    params = '{ "é" : [1.0, 1E+5,\t-0, 123456789012345678901234567890, "\\u00e9\\/\\ud83d\\ude00"] }'.encode()
    (request,) = create.read(_with_params(params))
    assert bytes(request.params) == params


def test_numbers_and_escapes_keep_their_spelling_when_newlines_go() -> None:
    (request,) = create.read(_with_params(b'{"a":\n[1.0,\r1E+5, -0,1e999, "\\u000a\\/\\ud83d\\ude00"]}'))
    assert bytes(request.params) == b'{"a":[1.0,1E+5,-0,1e999,"\\u000a\\/\\ud83d\\ude00"]}'


@given(written(_BODIES), st.sampled_from([b"x", b"\x00", b"{}", b",", b"]", b"\xff", b"\xc2\xa0", b"\x0c"]))
def test_anything_but_space_behind_the_body_is_refused(pair: tuple[Any, bytes], surplus: bytes) -> None:
    assert _refusal(pair[1] + surplus).startswith("The request body is not valid JSON: ")


@given(written(_BODIES), st.data())
def test_a_body_that_is_cut_anywhere_is_refused(pair: tuple[Any, bytes], data: st.DataObject) -> None:
    text = pair[1].rstrip()
    kept = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    assert _refusal(text[:kept]).startswith("The request body is not valid JSON: ")


@given(st.lists(_IDS, min_size=2, max_size=8, unique=True), st.data())
def test_a_complaint_names_the_request_it_is_about(custom_ids: list[str], data: st.DataObject) -> None:
    entries = [{"custom_id": custom_id, "params": {}} for custom_id in custom_ids]
    index = data.draw(st.integers(min_value=0, max_value=len(entries) - 1))
    for broken, said in (
        ({"params": {}}, "custom_id: Field required"),
        ({"custom_id": "x"}, "params: Field required"),
        ({"custom_id": 3, "params": {}}, "custom_id: Input should be a valid string"),
        ({"custom_id": "", "params": {}}, "custom_id: String should have at least 1 character"),
        ({"custom_id": "a b", "params": {}}, "custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"),
        ({"custom_id": "x" * 65, "params": {}}, "custom_id: String should have at most 64 characters"),
        ({"custom_id": "!" + custom_ids[0][:30], "params": []}, "custom_id: String should match"),
    ):
        body = _body(*entries[:index], broken, *entries[index + 1 :])
        assert _refusal(body).startswith(f"requests.{index}.{said}")


# What the hosted API says, word for word where it was captured.
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (_body(), "requests: List should have at least 1 item after validation, not 0"),
        (
            _body(*({"custom_id": custom_id, "params": {}} for custom_id in ("dup", "b", "dup"))),
            "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
        ),
        (_body({"params": {}}), "requests.0.custom_id: Field required"),
        (
            _body({"custom_id": "x" * 65, "params": {}}),
            "requests.0.custom_id: String should have at most 64 characters",
        ),
        (
            _body({"custom_id": "a.b", "params": {}}),
            "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
        ),
        (_body({"custom_id": "a"}), "requests.0.params: Field required"),
        (b"{}", "requests: Field required"),
        (_body({"custom_id": "", "params": {}}), "requests.0.custom_id: String should have at least 1 character"),
        (b'{"requests":null}', "requests: Input should be a valid list"),
        (b'{"requests":{}}', "requests: Input should be a valid list"),
        (b"[]", "Input should be a valid dictionary"),
        (b"null", "Input should be a valid dictionary"),
        (_body(7), "requests.0: Input should be a valid dictionary"),
        (_body({"custom_id": None, "params": {}}), "requests.0.custom_id: Input should be a valid string"),
        *(
            (_body({"custom_id": "a", "params": params}), "requests.0.params: Input should be a valid dictionary")
            for params in ([], "x", 1, None, True)
        ),
        (b"", "The request body is not valid JSON: Input data was truncated"),
        (b"{", "The request body is not valid JSON: Input data was truncated"),
        (b"hello", "The request body is not valid JSON: JSON is malformed: invalid character (byte 0)"),
        (b"\xef\xbb\xbf{}", "The request body is not valid JSON: JSON is malformed: invalid character (byte 0)"),
        (_with_params(b'{"a":"\xff"}'), "The request body is not valid JSON: invalid UTF-8 (invalid start byte)"),
        (
            _with_params(b'{"a":"\xed\xa0\x80"}'),
            "The request body is not valid JSON: invalid UTF-8 (invalid continuation byte)",
        ),
        (_with_params(b'{"a":' * 5000), "The request body is not valid JSON: it is nested too deeply"),
    ],
)
def test_the_words_of_a_refusal(body: bytes, said: str) -> None:
    assert _refusal(body) == said


def test_the_number_of_requests_is_bounded() -> None:
    entries = [b'{"custom_id":"%d","params":{}}' % number for number in range(100_001)]
    said = "requests: List should have at most 100000 items after validation, not 100001"
    assert _refusal(b'{"requests":[%b]}' % b",".join(entries)) == said
    assert len(create.read(b'{"requests":[%b]}' % b",".join(entries[1:]))) == 100_000


# Where JSON texts are open to taste, this is ours.
@pytest.mark.parametrize(
    ("params", "is_taken"),
    [
        (b'{"a":1,"a":2}', True),  # A repeated key below the envelope is the engine's to judge.
        (b'{"a":1e999}', True),  # So is a number that no float holds,
        (b'{"a":' + b"9" * 5000 + b"}", True),  # or that Python's json refuses to read.
        (b'{"a":"\xc2\x85\xe2\x80\xa8\x7f"}', True),  # Other line ends, and DEL, are text.
        (b'{"a":"\\ud83d\\ude00"}', True),
        (b'{"a":"\\ud800"}', False),  # Half a pair cannot be written as UTF-8 by whoever reads it.
        (b'{"\\udc00":1}', False),
        (b'{"a":NaN}', False),
        (b'{"a":-Infinity}', False),
        (b'{"a":"\t"}', False),
        (b'{"a":"\n"}', False),
        (b'{"a":\x0b1}', False),
        (b'{"a":01}', False),
        (b'{"a":1.}', False),
        (b'{"a":1,}', False),
        (b"{'a':1}", False),
        (b'{"a":1}//', False),
    ],
)
def test_what_counts_as_json(params: bytes, is_taken: bool) -> None:
    if is_taken:
        (request,) = create.read(_with_params(params))
        assert bytes(request.params) == params
    else:
        assert _refusal(_with_params(params)).startswith("The request body is not valid JSON: ")


def test_of_a_repeated_key_of_the_envelope_the_last_one_counts() -> None:
    (request,) = create.read(b'{"requests":[],"requests":[{"custom_id":"a","custom_id":"b","params":1,"params":{}}]}')
    assert (request.custom_id, bytes(request.params)) == ("b", b"{}")


def test_a_wrong_type_is_refused_even_if_the_key_is_repeated() -> None:
    assert _refusal(b'{"requests":7,"requests":[{"custom_id":"a","params":{}}]}').startswith("requests: ")


def test_a_custom_id_may_be_spelled_with_escapes() -> None:
    (request,) = create.read(b'{"\\u0072equests":[{"custom_id":"\\u0061","params":{}}]}')
    assert request.custom_id == "a"
