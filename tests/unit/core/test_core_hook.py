"""core.hook: bodies, signatures as the library of Standard Webhooks reads them, retries, and what an answer means."""

import json
import time
from base64 import b64decode

import pytest
from anthropic.types.messages import MessageBatch
from msgspec.structs import replace
from standardwebhooks import Webhook, WebhookVerificationError

from overnight import limits
from overnight.core import hook as hooks
from overnight.core.batch import Batch, Tally
from overnight.core.hook import Delivery, Event, Heard, Hook
from overnight.core.usage import NOTHING, Sums
from overnight.ids import BatchId, WorkspaceId

NOW = 1_780_000_000_000
OURS = WorkspaceId("wrkspc_ours")
SECRET = bytes(range(limits.HOOK_SECRET_BYTES))
BATCH = Batch(
    id=BatchId("msgbatch_01abc"),
    workspace=OURS,
    api_version="2023-06-01",
    betas="",
    requests=5,
    segments_open=0,
    created_at_ms=NOW - 60_000,
    expires_at_ms=NOW - 60_000 + limits.BATCH_LIFETIME_MS,
    status="ended",
    tally=Tally(succeeded=3, errored=2),
    ended_at_ms=NOW,
)
HOOK = Hook(id="hook_01a", workspace=OURS, url="https://example.com/", events=("batch.ended",), created_at_ms=NOW)


def ended(totals: Sums = NOTHING) -> Event:
    return hooks.batch_ended(BATCH, totals)


def pending(attempts: int = 0) -> Delivery:
    return replace(hooks.delivery(ended(), HOOK, now_ms=NOW), attempts=attempts)


# --- Signatures -----------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_example_of_the_specification() -> None:
    secret = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = hooks.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret, now_ms=1_614_265_330_999)
    assert found["webhook-timestamp"] == "1614265330"
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_library_of_receivers_verifies_what_we_sign_and_nothing_else() -> None:
    body = pending().body
    headers = hooks.headers("delivery_01a", body, SECRET, now_ms=round(time.time() * 1000))
    receiver = Webhook(hooks.secret_text(SECRET))
    assert receiver.verify(body, headers)["data"]["id"] == BATCH.id
    for changed_body, changed in (
        (body + b" ", headers),
        (body, {**headers, "webhook-id": "delivery_01b"}),
        (body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            receiver.verify(changed_body, changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(hooks.secret_text(bytes(32))).verify(body, headers)


def test_the_secret_is_as_long_as_the_specification_wants() -> None:
    assert 24 <= len(b64decode(hooks.secret_text(SECRET).removeprefix("whsec_"))) <= 64


# --- Bodies ---------------------------------------------------------------------------------------------------------


def test_the_end_of_a_batch_is_the_batch_as_the_sdk_reads_it() -> None:
    whole = json.loads(hooks.body_to_send(pending(), public_url="https://batches.example.com/"))
    assert (whole["type"], whole["timestamp"]) == ("batch.ended", "2026-05-28T20:26:40.000000Z")
    batch = MessageBatch.model_validate(whole["data"])
    assert (batch.id, batch.processing_status, batch.request_counts.errored) == (BATCH.id, "ended", 2)
    assert batch.results_url == f"https://batches.example.com/v1/messages/batches/{BATCH.id}/results"


def test_without_a_public_url_there_is_none_of_results() -> None:
    assert "results_url" not in json.loads(hooks.body_to_send(pending(), public_url=""))["data"]


def test_only_the_end_of_a_batch_speaks_of_results() -> None:
    event = hooks.batch_expiring(replace(BATCH, status="in_progress", ended_at_ms=None))
    body = hooks.body_to_send(hooks.delivery(event, HOOK, now_ms=NOW), public_url="https://batches.example.com")
    assert "results_url" not in json.loads(body)["data"]


def test_what_a_batch_took_is_beside_it() -> None:
    totals = Sums(input_tokens=1, cache_read_tokens=2, cache_write_5m_tokens=3, output_tokens=4, unpriced=1)
    assert ended(replace(totals, usd_nano=1_250_000_000)).data["overnight"] == {
        "workspace_id": OURS,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 2,
            "output_tokens": 4,
        },
        "cost_usd": 1.25,
        "unpriced_requests": 1,
    }


@pytest.mark.parametrize(
    ("which", "period", "next_ms"),
    [
        pytest.param("day", "2026-05-28", limits.DAY_MS, id="day"),
        pytest.param("month", "2026-05", 4 * limits.DAY_MS, id="month"),
    ],
)
def test_a_budget_is_reached_once_in_its_time(which: hooks.Which, period: str, next_ms: int) -> None:
    def reached(at_ms: int) -> Event:
        return hooks.budget_reached(OURS, which, limit_usd=5.0, spent_usd=5.01, now_ms=at_ms)

    assert reached(NOW).data == {
        "workspace_id": OURS,
        "which": which,
        "period": period,
        "limit_usd": 5.0,
        "spent_usd": 5.01,
    }
    assert reached(NOW).what == reached(NOW + 1).what
    assert reached(NOW).what != reached(NOW + next_ms).what


def test_a_day_and_its_month_are_two_events() -> None:
    found = [
        hooks.budget_reached(OURS, which, limit_usd=5.0, spent_usd=6.0, now_ms=NOW).what for which in ("day", "month")
    ]
    assert len(set(found)) == 2


def test_each_hook_has_an_id_of_its_own_for_an_event_and_the_same_each_time() -> None:
    other = replace(HOOK, id="hook_01b")
    found = [hooks.delivery(ended(), hook, now_ms=at_ms).id for hook in (HOOK, other) for at_ms in (NOW, NOW + 1)]
    assert found[0] == found[1] != found[2] == found[3]


# --- What follows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundred_and_something_is_delivered(status: int) -> None:
    found = hooks.after(replace(pending(3), trouble="HTTP 500"), Heard(status=status), dice=0.5, now_ms=NOW)
    assert (found.status, found.attempts, found.ended_at_ms, found.trouble) == ("delivered", 4, NOW, "")


@pytest.mark.parametrize(
    "heard",
    [
        *(pytest.param(Heard(status=status), id=str(status)) for status in (301, 302, 307, 400, 404, 429, 500, 503)),
        pytest.param(Heard(trouble="cannot connect"), id="no answer"),
    ],
)
def test_everything_else_is_tried_again(heard: Heard) -> None:
    found = hooks.after(pending(), heard, dice=0.5, now_ms=NOW)
    assert (found.status, found.due_at_ms - NOW) == ("pending", 5_000)
    assert found.trouble == (heard.trouble or f"HTTP {heard.status}")


def test_gone_is_given_up_at_once() -> None:
    found = hooks.after(pending(), Heard(status=410), dice=0.5, now_ms=NOW)
    assert (found.status, found.ended_at_ms, found.trouble) == ("dead", NOW, "HTTP 410")


def test_the_waits_are_those_of_the_specification_and_then_it_is_dead() -> None:
    item, waits = pending(), list[float]()
    while item.status == "pending":
        before = item
        item = hooks.after(item, Heard(status=500), dice=0.5, now_ms=NOW)
        waits.append((item.due_at_ms - NOW) / 1000)
    assert before.attempts == 9
    assert (item.attempts, item.ended_at_ms) == (10, NOW)
    hours = [wait / 3600 for wait in waits[3:-1]]
    assert (waits[:3], hours) == ([5, 300, 1800], [2, 5, 10, 14, 20, 24])


@pytest.mark.parametrize(("dice", "wait_ms"), [(0.0, 4_500), (0.5, 5_000), (0.999999, 5_500)])
def test_the_dice_spread_a_wait(dice: float, wait_ms: int) -> None:
    assert hooks.after(pending(), Heard(status=500), dice=dice, now_ms=NOW).due_at_ms - NOW == wait_ms


@pytest.mark.parametrize(
    ("asked_ms", "wait_ms"),
    [
        pytest.param(60_000, 60_000, id="later"),
        pytest.param(1_000, 5_000, id="sooner than we would"),
        pytest.param(10**12, limits.RETRY_AFTER_MS_MAX, id="never"),
    ],
)
def test_a_receiver_may_ask_for_more_time_within_bounds(asked_ms: int, wait_ms: int) -> None:
    found = hooks.after(pending(), Heard(status=429, retry_after_ms=asked_ms), dice=0.5, now_ms=NOW)
    assert found.due_at_ms - NOW == wait_ms


def test_what_is_sent_again_has_its_id_and_all_attempts_before_it() -> None:
    dead = hooks.after(pending(9), Heard(status=500), dice=0.5, now_ms=NOW)
    again = hooks.sent_again(dead, now_ms=NOW + 1)
    assert (again.id, again.body, again.status, again.attempts) == (dead.id, dead.body, "pending", 0)
    assert (again.due_at_ms, again.ended_at_ms) == (NOW + 1, None)
