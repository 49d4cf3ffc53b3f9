"""wire.complaint: msgspec's complaints in the API's words."""

from typing import Literal

import msgspec
import pytest
from hypothesis import given
from wire_values import VALUES, written

from overnight.wire import complaint


class _Leaf(msgspec.Struct):
    name: str
    kind: Literal["a", "b"] = "a"
    size: int = 0
    share: float = 0.0
    is_on: bool = False
    either: str | list[int] = ""
    loose: dict[str, int] = {}


class _Tree(msgspec.Struct):
    leaves: list[_Leaf]
    root: _Leaf | None = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "Input should be a valid dictionary"),
        ("{}", "leaves: Field required"),
        ('{"leaves":{}}', "leaves: Input should be a valid list"),
        ('{"leaves":[{}]}', "leaves.0.name: Field required"),
        ('{"leaves":[{"name":"x"},3]}', "leaves.1: Input should be a valid dictionary"),
        ('{"leaves":[{"name":3}]}', "leaves.0.name: Input should be a valid string"),
        ('{"leaves":[{"name":"x","size":"1"}]}', "leaves.0.size: Input should be a valid integer"),
        ('{"leaves":[{"name":"x","share":"1"}]}', "leaves.0.share: Input should be a valid number"),
        ('{"leaves":[{"name":"x","is_on":1}]}', "leaves.0.is_on: Input should be a valid boolean"),
        ('{"leaves":[{"name":"x","either":1}]}', "leaves.0.either: Input should be a valid string or list"),
        ('{"leaves":[{"name":"x","either":[1,"2"]}]}', "leaves.0.either.1: Input should be a valid integer"),
        ('{"leaves":[{"name":"x","kind":"c"}]}', "leaves.0.kind: Invalid enum value 'c'"),
        ('{"leaves":[],"root":{}}', "root.name: Field required"),
        ('{"leaves":[],"root":{"name":"x","loose":{"k":"v"}}}', "root.loose: Input should be a valid integer"),
    ],
)
def test_the_path_comes_first(text: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=_Tree)
    assert complaint.of_validation(caught.value) == said


@given(written(VALUES))
def test_every_complaint_is_one_of_words_without_our_library(pair: tuple[object, bytes]) -> None:
    try:
        msgspec.json.decode(b'{"leaves":[%b]}' % pair[1], type=_Tree)
    except msgspec.ValidationError as error:
        said = complaint.of_validation(error)
        assert said.startswith("leaves.0")
        assert "`" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (msgspec.DecodeError("JSON is malformed"), "The request body is not valid JSON: JSON is malformed"),
        (RecursionError(), "The request body is not valid JSON: it is nested too deeply"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "The request body is not valid JSON: invalid UTF-8 (invalid start byte)",
        ),
    ],
)
def test_what_is_no_json_is_called_so(error: Exception, said: str) -> None:
    assert complaint.of_syntax(error) == said
