"""The MessageBatch object, its page and its deletion, as the API writes them.

Source: https://platform.claude.com/docs/en/api/messages/batches/retrieve, …/list, …/delete; key order after
recorded exchanges of the hosted API.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, TypeAlias

import msgspec

Instant: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Status: TypeAlias = Literal["in_progress", "canceling", "ended"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Five counters whose sum is always the number of requests (invariant I2)."""

    processing: Count
    succeeded: Count
    errored: Count
    canceled: Count
    expired: Count


class MessageBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch as a client sees it."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Status
    request_counts: RequestCounts
    ended_at: Instant | None
    created_at: Instant
    expires_at: Instant
    archived_at: Instant | None
    cancel_initiated_at: Instant | None
    results_url: str | None


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list, newest first; `has_more` speaks of the direction asked for."""

    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DeletedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What DELETE answers."""

    id: str
    type: Literal["message_batch_deleted"] = "message_batch_deleted"


def rfc3339(at_ms: int) -> str:
    """An instant in ms since the Unix epoch as RFC 3339 in UTC: `2026-11-21T18:37:24.100000Z`."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_or_none(at_ms: int | None) -> str | None:
    """As `rfc3339`; null stays null."""
    return None if at_ms is None else rfc3339(at_ms)
