"""Values of databases, files and frames as JSON has them, so that a row can be kept, compared and rendered."""

import base64
import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from overnight.errors import JobError
from overnight.jobs.row import Key, Row


def row_of(columns: Mapping[str, Any], key: str, *, where: str) -> Row:
    """A row, with its values made plain. JobError where the column `key` is missing, empty or no text or integer."""
    plain_columns = {name: plain(value, name, where=where) for name, value in columns.items()}
    if key not in plain_columns:
        raise JobError(f"{where} there is no key column {key!r}; the columns are {', '.join(plain_columns)}")
    return Row(_key(plain_columns[key], key, where), plain_columns)


def plain(value: Any, column: str, *, where: str) -> Any:
    """`value` for JSON: dates in ISO 8601, whole decimals as int and others as float, bytes in base64.

    What is no finite number is None. JobError for what has no plain form.
    """
    match value:
        case Mapping():
            return {str(name): plain(item, column, where=where) for name, item in value.items()}
        case list() | tuple():
            return [plain(item, column, where=where) for item in value]
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case _ if hasattr(value, "tolist"):  # A scalar or an array of numpy, as pandas keeps them in object columns.
            return plain(value.tolist(), column, where=where)
        case _:
            return _scalar(value, column, where)


def _scalar(value: Any, column: str, where: str) -> Any:
    match value:
        case None | bool() | int():
            return value
        case str():
            if not _is_unicode(value):
                raise JobError(f"{where} column {column!r} holds half a character, which UTF-8 has no form for")
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _of_decimal(value)
        case date() | time():  # A datetime is a date.
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            kind = type(value).__name__
            raise JobError(f"{where} column {column!r} holds a {kind}, which JSON has no form for: cast it to text")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_decimal(value: Decimal) -> int | float | None:
    if not value.is_finite():
        return None
    return int(value) if value == value.to_integral_value() else float(value)


def _key(value: Any, column: str, where: str) -> Key:
    if isinstance(value, float) and value.is_integer():  # Frames keep integers so where a value is missing.
        return int(value)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return value
    found = "is empty" if value is None or value == "" else f"holds {value!r}"
    raise JobError(f"{where} the key column {column!r} {found} in a row: a key is a text or an integer")
