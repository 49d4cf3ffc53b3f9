"""wire.batch: a MessageBatch as clients read it."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from anthropic.types.messages import DeletedMessageBatch, MessageBatch
from hypothesis import given
from hypothesis import strategies as st

from overnight.wire import batch

_INSTANTS = st.integers(min_value=0, max_value=253_402_300_799_999)  # 1970 to the end of the year 9999.
_COUNTS = batch.RequestCounts(processing=1, succeeded=2, errored=3, canceled=4, expired=5)


@given(_INSTANTS)
def test_an_instant_keeps_its_milliseconds(at_ms: int) -> None:
    text = batch.rfc3339(at_ms)
    assert text.endswith("000Z")
    assert (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == at_ms


@given(st.lists(_INSTANTS, min_size=2, max_size=5))
def test_instants_sort_as_text(instants: list[int]) -> None:
    assert [batch.rfc3339(at_ms) for at_ms in sorted(instants)] == sorted(map(batch.rfc3339, instants))


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_727_203_044_100, "2024-09-24T18:37:24.100000Z"),
        (1_709_164_800_001, "2024-02-29T00:00:00.001000Z"),
    ],
)
def test_an_instant_as_the_api_writes_it(at_ms: int, text: str) -> None:
    assert batch.rfc3339(at_ms) == text
    assert batch.rfc3339_or_none(at_ms) == text


def test_no_instant_stays_none() -> None:
    assert batch.rfc3339_or_none(None) is None


def _batch(**more: object) -> batch.MessageBatch:
    fields = {
        "id": "msgbatch_1",
        "processing_status": "ended",
        "request_counts": _COUNTS,
        "ended_at": None,
        "created_at": batch.rfc3339(1_727_203_044_100),
        "expires_at": batch.rfc3339(1_727_289_444_100),
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
    }
    return msgspec.convert({**fields, **more}, batch.MessageBatch, from_attributes=True)


def test_its_keys_come_in_the_order_of_the_hosted_api() -> None:
    keys = list(msgspec.json.decode(msgspec.json.encode(_batch())))
    assert " ".join(keys) == (
        "id type processing_status request_counts ended_at created_at expires_at archived_at "
        "cancel_initiated_at results_url"
    )


@given(st.sampled_from(["in_progress", "canceling", "ended"]), _INSTANTS)
def test_the_official_types_take_it(status: str, at_ms: int) -> None:
    written = batch.rfc3339(at_ms)
    ours = _batch(processing_status=status, ended_at=written, results_url="http://h/x")
    found = MessageBatch.model_validate_json(msgspec.json.encode(ours))
    assert found.processing_status == status
    assert found.ended_at == datetime.fromisoformat(written)
    assert found.request_counts.model_dump() == msgspec.to_builtins(_COUNTS)
    assert found.expires_at - found.created_at == timedelta(hours=24)
    assert found.archived_at is None


def test_a_deleted_batch_says_so() -> None:
    found = DeletedMessageBatch.model_validate_json(msgspec.json.encode(batch.DeletedBatch(id="msgbatch_1")))
    assert (found.id, found.type) == ("msgbatch_1", "message_batch_deleted")
