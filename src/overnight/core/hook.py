"""Hooks: what is told to whom, how it is signed, and what follows from the answer.

Bodies, headers, signatures and the schedule of retries are those of Standard Webhooks
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).

A delivery is pending until somebody takes it (2xx: delivered), says that it is gone (410: dead), or has failed at
the first attempt and at all retries (dead).
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from overnight import limits
from overnight.core import batch as life
from overnight.core import usage as usages
from overnight.core.batch import Batch
from overnight.core.purse import day_of
from overnight.core.usage import Sums
from overnight.ids import ID_ENTROPY_BYTES, WorkspaceId, named
from overnight.wire.batch import rfc3339

EventType: TypeAlias = Literal["batch.ended", "batch.expiring", "budget.reached"]
DeliveryStatus: TypeAlias = Literal["pending", "delivered", "dead"]
Which: TypeAlias = Literal["day", "month"]

EVENTS: Final[Sequence[EventType]] = get_args(EventType)
TEST_EVENT: Final = "hook.test"
RETRY_MS: Final = (  # Waits after the 1st, 2nd, … failed attempt, as the specification recommends; 75 hours in all.
    *(5_000, 300_000, 1_800_000, 7_200_000, 18_000_000),
    *(36_000_000, 50_400_000, 72_000_000, 86_400_000),
)
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  What secrets begin with is none.
_GONE: Final = 410
_JITTER: Final = 0.1  # Of each wait, either way: what failed together comes back apart.
_LENGTH_OF_MONTH: Final = len("2026-11")


class Hook(Struct, frozen=True, kw_only=True):
    """Somebody who wants to be told. Its secret is kept beside it, and is not here: nothing that shows a hook can
    show that."""

    id: str
    workspace: WorkspaceId
    url: str
    events: tuple[EventType, ...]
    created_at_ms: int


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened in a workspace, once."""

    type: EventType
    workspace: WorkspaceId
    what: str  # Its name among all events, for ever: two of one name are the same.
    data: Mapping[str, Any]


class Delivery(Struct, frozen=True, kw_only=True):
    """One event on its way to one hook. `id` is the webhook-id: the same at every attempt."""

    id: str
    hook_id: str
    workspace: WorkspaceId
    event: EventType
    body: bytes
    status: DeliveryStatus = "pending"
    attempts: int = 0
    created_at_ms: int
    due_at_ms: int
    ended_at_ms: int | None = None
    trouble: str = ""  # What went wrong at the last attempt; empty if nothing did.


class Heard(Struct, frozen=True, kw_only=True):
    """What came back. `status` is None if no answer did; `trouble` says why."""

    status: int | None = None
    trouble: str = ""
    retry_after_ms: int | None = None
    beginning: bytes = b""  # Of the body, for whoever tries a hook out.

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has it now."""
        return self.status is not None and 200 <= self.status < 300


# --- Events ---------------------------------------------------------------------------------------------------------


def batch_ended(batch: Batch, totals: Sums) -> Event:
    """A batch has ended: it as the API shows it, and what it took."""
    return Event(
        type="batch.ended",
        workspace=batch.workspace,
        what=f"batch.ended {batch.id}",
        data={**_message_batch(batch), "overnight": {"workspace_id": batch.workspace, **_took(totals)}},
    )


def batch_expiring(batch: Batch) -> Event:
    """A batch is not finished, and has `limits.HOOK_EXPIRING_MS` left at the most."""
    return Event(
        type="batch.expiring",
        workspace=batch.workspace,
        what=f"batch.expiring {batch.id}",
        data={**_message_batch(batch), "overnight": {"workspace_id": batch.workspace}},
    )


def budget_reached(workspace: WorkspaceId, which: Which, *, limit_usd: float, spent_usd: float, now_ms: int) -> Event:
    """A workspace has spent its budget of this day or month, UTC. One event in each."""
    day = day_of(now_ms)
    period = day if which == "day" else day[:_LENGTH_OF_MONTH]
    return Event(
        type="budget.reached",
        workspace=workspace,
        what=f"budget.reached {workspace} {period}",
        data={
            "workspace_id": workspace,
            "which": which,
            "period": period,
            "limit_usd": limit_usd,
            "spent_usd": spent_usd,
        },
    )


def _message_batch(batch: Batch) -> dict[str, Any]:
    """The MessageBatch without `results_url`: whoever sends it knows what clients call us, or nobody does."""
    shown = msgspec.to_builtins(life.shown(batch, tally=batch.tally, results_url=None))
    assert isinstance(shown, dict)
    del shown["results_url"]
    return shown


def _took(totals: Sums) -> dict[str, Any]:
    return {
        "usage": {
            "input_tokens": totals.input_tokens,
            "cache_creation_input_tokens": totals.cache_write_5m_tokens + totals.cache_write_1h_tokens,
            "cache_read_input_tokens": totals.cache_read_tokens,
            "output_tokens": totals.output_tokens,
        },
        "cost_usd": float(usages.usd(totals.usd_nano)),
        "unpriced_requests": totals.unpriced,
    }


# --- What is sent ---------------------------------------------------------------------------------------------------


def body_of(event_type: str, data: Mapping[str, Any], *, now_ms: int) -> bytes:
    """The body of an event, as JSON."""
    return msgspec.json.encode({"type": event_type, "timestamp": rfc3339(now_ms), "data": data})


def delivery(event: Event, hook: Hook, *, now_ms: int) -> Delivery:
    """The event on its way to a hook, due at once. Its id follows from both: written twice it is written once."""
    digest = sha256(f"{event.what} {hook.id}".encode()).digest()
    return Delivery(
        id=named("delivery", digest[:ID_ENTROPY_BYTES]),
        hook_id=hook.id,
        workspace=event.workspace,
        event=event.type,
        body=body_of(event.type, event.data, now_ms=now_ms),
        created_at_ms=now_ms,
        due_at_ms=now_ms,
    )


def body_to_send(item: Delivery, *, public_url: str) -> bytes:
    """Its body; with `results_url`, if clients are known to reach us by `public_url` and it is about results."""
    if not public_url or item.event != "batch.ended":
        return item.body
    whole = msgspec.json.decode(item.body)
    batch = whole["data"]
    batch["results_url"] = f"{public_url.rstrip('/')}/v1/messages/batches/{batch['id']}/results"
    return msgspec.json.encode(whole)


def headers(webhook_id: str, body: bytes, secret: bytes, *, now_ms: int) -> dict[str, str]:
    """The headers of an attempt: receivers refuse one whose time is not theirs, so each attempt has its own."""
    timestamp = now_ms // 1000
    signed = hmac.digest(secret, f"{webhook_id}.{timestamp}.".encode() + body, sha256)
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{b64encode(signed).decode()}",
    }


def secret_text(secret: bytes) -> str:
    """A secret as libraries for receivers take it."""
    return SECRET_PREFIX + b64encode(secret).decode()


# --- What follows ---------------------------------------------------------------------------------------------------


def after(item: Delivery, heard: Heard, *, dice: float, now_ms: int) -> Delivery:
    """The delivery after an attempt. `dice` in [0, 1). A redirect is a failure like any other: nobody checked where
    it leads."""
    attempts = item.attempts + 1
    if heard.is_taken:
        return replace(item, status="delivered", attempts=attempts, ended_at_ms=now_ms, trouble="")
    trouble = heard.trouble or f"HTTP {heard.status}"
    if heard.status == _GONE or attempts > len(RETRY_MS):
        return replace(item, status="dead", attempts=attempts, ended_at_ms=now_ms, trouble=trouble)
    wait_ms = RETRY_MS[attempts - 1] * (1 + _JITTER * (2 * dice - 1))
    asked_ms = min(heard.retry_after_ms or 0, limits.RETRY_AFTER_MS_MAX)
    return replace(item, attempts=attempts, due_at_ms=now_ms + max(round(wait_ms), asked_ms), trouble=trouble)


def sent_again(item: Delivery, *, now_ms: int) -> Delivery:
    """Due now, with all its attempts before it; whoever got it before knows it by its id."""
    return replace(item, status="pending", attempts=0, due_at_ms=now_ms, ended_at_ms=None)
