"""What goes through a job: a row of the source, and what became of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

Key: TypeAlias = str | int
State: TypeAlias = Literal[
    "planned",  # Not sent yet.
    "submitted",  # In a batch that a server has.
    "succeeded",  # There is an answer.
    "invalid",  # An answer that is not what [output] asks for.
    "refused",  # The model declined.
    "truncated",  # max_tokens came before the end.
    "errored",  # The server refused it, or failed at it.
    "expired",  # Its batch had no time for it.
    "canceled",  # Its batch was cancelled before it was asked.
    "missing",  # The batch ended and said nothing about it.
    "held",  # Not sent: the budget was spent.
]
FAILED: frozenset[State] = frozenset(
    {"invalid", "refused", "truncated", "errored", "expired", "canceled", "missing", "held"}
)


class Row(NamedTuple):
    """One row of a source. `request`: a whole {"custom_id", "params"} where the source holds such."""

    key: Key
    columns: dict[str, Any]
    request: dict[str, Any] | None = None


class Answer(NamedTuple):
    """What became of a row: `fields` are empty, and `error` says why, where `state` is not succeeded.

    `fields` has `value` for a text or a choice, the fields of the answer for a schema, and the derived columns.
    """

    key: Key
    columns: Mapping[str, Any]
    state: State
    fields: Mapping[str, Any]
    error: str = ""
    custom_id: str = ""

    @property
    def names(self) -> dict[str, Any]:
        """Everything that templates and expressions may name; an answer hides a column of the same name."""
        own = {"key": self.key, "custom_id": self.custom_id, "state": self.state, "error": self.error}
        return {**self.columns, **self.fields, **own}
