"""The rules of a workspace as fields of a form, and as text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from overnight.core.workspace import Rules
from overnight.errors import UsageError
from overnight.server import granting

_is_whole = re.compile(r"[0-9]{1,18}").fullmatch
_is_decimal = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?").fullmatch


class Field(NamedTuple):
    """One rule."""

    name: str  # The field of `Rules`.
    label: str
    hint: str
    is_whole: bool = True

    @property
    def is_list(self) -> bool:
        """Whether it is patterns, one a line."""
        return self.name in granting.PATTERNS


FIELDS: Final = (
    Field("requests_per_minute", "Requests a minute", "HTTP requests on the batch endpoints."),
    Field("queue_requests_max", "Requests in the queue", "Of batches that are not finished."),
    Field("batch_requests_max", "Requests in one batch", "At most."),
    Field("usd_per_day", "USD a day", "What it may spend in a day of UTC.", is_whole=False),
    Field("usd_per_month", "USD a month", "What it may spend in a month of UTC.", is_whole=False),
    Field("weight", "Weight", "Its share while other workspaces wait too; 1 if empty.", is_whole=False),
    Field("models", "Models", "Patterns of those it may ask for, one a line, such as claude-*."),
    Field(
        "engines", "Engines", "Patterns of those it may use, one a line, by their names on the page of the engines."
    ),
    Field("results_days", "Days results are kept", "From the creation of a batch."),
    Field("requests_days", "Days requests are kept", "What was asked; never longer than the results."),
)


def told(rules: Rules) -> list[tuple[str, str]]:
    """The rules that there are, by label."""
    return [(field.label, text) for field in FIELDS if (text := _text(getattr(rules, field.name), ", "))]


def typed(rules: Rules) -> dict[str, str]:
    """The rules as somebody would type them, by field; empty where there is none."""
    return {field.name: _text(getattr(rules, field.name), "\n", grouped=False) for field in FIELDS}


def read(given: Mapping[str, str]) -> tuple[Rules, dict[str, str]]:
    """The rules that were typed, without those that cannot be; and what is wrong with these, by field."""
    values, troubles = dict[str, Any](), dict[str, str]()
    for field in FIELDS:
        text = given.get(field.name, "").strip()
        if not text:
            continue
        try:
            values[field.name] = granting.checked_rule(field.name, _value(field, text))
        except UsageError as error:
            troubles[field.name] = str(error)
    return msgspec.convert(values, Rules), troubles


def _value(field: Field, text: str) -> Any:
    if field.is_list:
        return [line.strip() for line in text.splitlines() if line.strip()]
    if field.is_whole:
        if _is_whole(text) is None:
            raise UsageError("A whole number in digits, such as 5000.")
        return int(text)
    if _is_decimal(text) is None:
        raise UsageError("A number such as 20 or 12.50.")
    return float(text)


def _text(value: Sequence[str] | float | None, between: str, *, grouped: bool = True) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return (
            f"{value:,.10g}" if grouped and isinstance(value, float) else f"{value:,}" if grouped else f"{value:.17g}"
        )
    return between.join(value)
