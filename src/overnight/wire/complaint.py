"""A msgspec complaint in the API's words: path first, 0-based indexes joined by dots.

`Object missing required field `custom_id` - at `$.requests[0]`` becomes `requests.0.custom_id: Field required`.
"""

import re

import msgspec

_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_WRONG_TYPE = re.compile(r"Expected `(?P<expected>[^`]+)`, got `(?P<got>[^`]+)`")
_PATH = re.compile(r" - at `\$(?P<path>.*)`$", re.DOTALL)
_WORDS = {
    "object": "Input should be a valid dictionary",
    "array": "Input should be a valid list",
    "str": "Input should be a valid string",
    "int": "Input should be a valid integer",
    "float": "Input should be a valid number",
    "bool": "Input should be a valid boolean",
    "str | array": "Input should be a valid string or list",
    "array | str": "Input should be a valid string or list",
}


def of_validation(error: msgspec.ValidationError) -> str:
    """`path: what is wrong`, for a body that is JSON but not of the right shape."""
    text = str(error)
    found = _PATH.search(text)
    path = _dotted(found["path"]) if found else ""
    if missing := _MISSING.match(text):
        return f"{_join(path, missing['field'])}: Field required"
    if wrong := _WRONG_TYPE.match(text):
        expected = wrong["expected"].removesuffix(" | null")
        said = _WORDS.get(expected, f"Input should be {expected}")
        return f"{path}: {said}" if path else said
    said = text[: found.start()] if found else text
    return f"{path}: {said}" if path else said


def of_syntax(error: Exception) -> str:
    """For a body that is not JSON at all."""
    if isinstance(error, UnicodeDecodeError):
        return f"The request body is not valid JSON: invalid UTF-8 ({error.reason})"
    if isinstance(error, RecursionError):
        return "The request body is not valid JSON: it is nested too deeply"
    return f"The request body is not valid JSON: {error}"


def _dotted(path: str) -> str:
    return path.replace("[...]", "").replace("[", ".").replace("]", "").lstrip(".")


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field
