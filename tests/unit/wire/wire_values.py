"""Values for tests of the wire: JSON of every kind, written in every layout."""

import json
from typing import Any

from hypothesis import strategies as st

_TEXT = st.text(max_size=12)  # Hypothesis leaves out lone surrogates, which are no text.
_NUMBERS = (
    st.integers() | st.integers(min_value=2**63, max_value=10**40) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(_TEXT, VALUES, max_size=5)
_WRITERS = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.none() | st.integers(min_value=0, max_value=3) | st.sampled_from(["\t", "\r", "\r\n"]),
        "separators": st.sampled_from([None, (",", ":"), (" ,\n", "\r:\t")]),
    }
)


@st.composite
def written(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> tuple[Any, bytes]:
    """A value and its JSON text in UTF-8, laid out in one of many ways."""
    value = draw(values)
    return value, json.dumps(value, **draw(_WRITERS)).encode()
