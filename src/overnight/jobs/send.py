"""Sending batches so that none is paid twice: the intent is on disk before the server can know of it.

What follows an answer is the table "Crash rules" of docs/explanation/jobs.md.
"""

import hashlib
from typing import Any

from sqlalchemy import Row

from overnight import limits
from overnight.errors import NotSpent, ServerTrouble
from overnight.jobs import adopt, batches, split
from overnight.jobs.adopt import Adopt, Again, Intent, Several, Wait
from overnight.jobs.retry import is_billing
from overnight.jobs.server import Busy, Failure, Listed, NotReached, Refused, ShownBatch, Unknown
from overnight.jobs.work import Work

_KEY_LENGTH = 40
_OF_THE_ACCOUNT = (401, 403, 404)  # A key, a permission, a URL: no fault of any row.


def send(work: Work, batch_job: int) -> list[int]:
    """Bring one batch to the server, whatever was begun before. The halves, if it was too large.

    Returns when it is submitted, rejected or replaced. NotSpent where the account has no credit, ServerTrouble where
    the server cannot be asked: the batch stays as it is, and the same call goes on later.
    """
    failed = 0
    while True:
        with work.begin() as connection:
            batch = batches.row_of(connection, batch_job)
        if batch.status == "submitting" and (found := _settled(work, batch, is_told=failed > 0)) is not None:
            _submitted(work, batch, found)
            return []
        body = _intended(work, batch)
        outcome = work.server.create(body, idempotency_key=_key(batch))
        work.reach("job.posted")
        match outcome:
            case ShownBatch():
                _submitted(work, batch, outcome)
                return []
            case Busy():
                _back_to_planned(work, batch_job)
                work.tell("busy", batch.run_id, seconds=outcome.seconds, reason=outcome.reason)
                work.wait(outcome.seconds)
            case Refused():
                return _refused(work, batch, outcome)
            case NotReached() | Unknown():
                if isinstance(outcome, NotReached):
                    _back_to_planned(work, batch_job)
                failed += 1
                if failed == limits.JOB_CREATE_ATTEMPTS_MAX:
                    raise ServerTrouble(f"{work.server.address.base_url}: {outcome.reason}")
                work.tell("attempt_failed", batch.run_id, attempt=failed, error=outcome.reason)
                work.wait(2.0 ** (failed - 1))


def _intended(work: Work, batch: Row[Any]) -> bytes:
    with work.begin() as connection:
        body = split.body(batches.requests_of(connection, batch))
        batches.change(
            connection,
            batch.id,
            status="submitting",
            intent_at=batch.intent_at or work.instant,
            idempotency_key=_key(batch),
            body_sha256=hashlib.sha256(body).hexdigest(),
            bytes=len(body),
        )
    work.reach("job.intended")
    return body


def _key(batch: Row[Any]) -> str:
    name = f"{batch.run_id}/{batch.chunk}/{batch.attempt}"
    return f"overnight-{hashlib.sha256(name.encode()).hexdigest()[:_KEY_LENGTH]}"


def _back_to_planned(work: Work, batch_job: int) -> None:
    with work.begin() as connection:
        batches.change(connection, batch_job, status="planned", intent_at=None)


def _submitted(work: Work, batch: Row[Any], shown: ShownBatch) -> None:
    with work.begin() as connection:
        batches.change(
            connection,
            batch.id,
            status="submitted",
            batch_id=shown.id,
            expires_at=shown.expires_at,
            processing=shown.count("processing"),
        )
        sent = batches.set_state(connection, batch.id, "submitted", of=("planned",))
    work.reach("job.submitted")
    name = "batch" if batch.attempt == 1 else "retrying"
    work.tell(name, batch.run_id, id=shown.id, requests=sent, attempt=batch.attempt)


def _refused(work: Work, batch: Row[Any], refused: Refused) -> list[int]:
    said = f"{work.server.address.base_url} refuses: {refused.message}"
    if is_billing(refused.error_type, refused.message):
        _back_to_planned(work, batch.id)
        raise NotSpent(f"{said} Nothing of this batch was paid; run the job again when the account has credit")
    if refused.status in _OF_THE_ACCOUNT:
        _back_to_planned(work, batch.id)
        raise ServerTrouble(said)
    with work.begin() as connection:
        if refused.status == 413:
            return batches.halve(connection, batch, work.instant)
        batches.change(connection, batch.id, status="rejected", error=refused.message)
        values = {"error_type": refused.error_type or "invalid_request_error", "error": refused.message}
        batches.set_state(connection, batch.id, "errored", of=("planned",), **values)
    return []


def _settled(work: Work, batch: Row[Any], *, is_told: bool) -> ShownBatch | None:
    """What became of a create that was begun: its batch, or None if creating it (again) makes only one of it."""
    policy = work.job.settings.batch.on_unknown
    if policy == "stop" and not work.adopted:
        raise ServerTrouble(
            f"nobody knows whether batch {batch.chunk} of {batch.run_id} was made, and [batch] on_unknown is stop; "
            "look at the batches of the server, then run again with --adopt BATCH or another on_unknown"
        )
    if work.adopted:
        shown = _asked(work, work.server.retrieve(work.adopted))
        assert isinstance(shown, ShownBatch)
        return shown
    while True:
        listed = _asked(work, work.server.list())
        assert isinstance(listed, Listed)
        if listed.is_ours or policy == "resubmit":
            return None  # Ours knows the key of the first try, and gives its batch.
        match _choice(work, batch, listed):
            case Adopt(found):
                return found
            case Again():
                _back_to_planned(work, batch.id)
                return None
            case Wait(seconds):
                if not is_told:
                    text = "looking for a batch whose creation was not confirmed; a list may lag two minutes"
                    work.tell("note", batch.run_id, text=text)
                    is_told = True
                work.wait(seconds)
            case Several(ids):
                raise ServerTrouble(
                    f"any of {', '.join(ids)} may be batch {batch.chunk} of {batch.run_id}, whose creation was not "
                    "confirmed; look at them, then run again with --adopt BATCH"
                )


def _choice(work: Work, batch: Row[Any], listed: Listed) -> adopt.Choice:
    ahead_ms = 0 if listed.clock_ms is None else listed.clock_ms - work.now_ms
    intent = Intent(adopt.instant_ms(batch.intent_at) + ahead_ms, len(_positions(work, batch)))
    with work.begin() as connection:
        known = batches.known_ids(connection)
    found, page = list(listed.page.data), listed.page
    while page.has_more and page.data and adopt.created_ms(page.data[-1]) >= intent.at_ms:
        further = _asked(work, work.server.list(after_id=page.last_id or page.data[-1].id))
        assert isinstance(further, Listed)
        page = further.page
        found += page.data
    return adopt.choose(intent, found, known=known, now_ms=work.now_ms + ahead_ms)


def _positions(work: Work, batch: Row[Any]) -> list[int]:
    with work.begin() as connection:
        return [item.position for item in batches.items_of(connection, batch.id) if item.state == "planned"]


def _asked(work: Work, outcome: ShownBatch | Listed | Failure) -> ShownBatch | Listed:
    """An answer of a server that must be had to go on; waits where it is busy. ServerTrouble where there is none."""
    match outcome:
        case ShownBatch() | Listed():
            return outcome
        case Refused():
            raise ServerTrouble(f"{work.server.address.base_url} refuses: {outcome.message}")
        case _:
            raise ServerTrouble(f"{work.server.address.base_url}: {outcome.reason}")
