"""The operations of `testing.hosted`: what each answers, and what it leaves behind."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import msgspec

from overnight import ids, limits
from overnight.errors import ApiError, InvalidRequest, NoResults, NotAuthenticated, NotFound, TooLarge
from overnight.testing import hostedrows
from overnight.testing.hostedbatch import Batch, Row, unanswered
from overnight.testing.hostedfaults import Faults, Operation, Refused, refusal
from overnight.testing.hostedrows import Outcome, Params, Script, Usage
from overnight.testing.hostedwire import Head, Reply
from overnight.wire import complaint, create, problem, result
from overnight.wire.batch import BatchPage, DeletedBatch, MessageBatch

KEY = "sk-ant-hosted-double"
_SHAPES: dict[tuple[str, str | None], Operation] = {
    ("POST", None): "create",
    ("GET", None): "list",
    ("GET", ""): "retrieve",
    ("DELETE", ""): "delete",
    ("GET", "/results"): "results",
    ("POST", "/cancel"): "cancel",
}
_STATUSES = {problem.type_of_status(status): status for status in (400, 401, 402, 403, 404, 413, 429, 500, 504, 529)}
_read_path = re.compile(r"/v1/messages/batches(?:/(?P<id>[^/]+)(?P<rest>|/results|/cancel))?").fullmatch


class Create(NamedTuple):
    """A create that made a batch. Names of headers are in lower case."""

    custom_ids: list[str]
    params: list[Params]
    headers: Mapping[str, str]


@dataclass
class Told:
    """What the test wants of it (the methods of `HostedApi` say what each means)."""

    end_after: int = 1
    is_held: bool = False
    is_live: bool = False
    done: int = 0
    word: str | None = None
    list_lag: int = 0
    usage: Usage | None = None
    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    extra: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)


class HostedService:
    """Answers calls. Hold `changed` to read or write anything here; it is notified after each call."""

    def __init__(self, script: Script, *, seed: int, now_ms: Callable[[], int]) -> None:
        self.told = Told()
        self.changed = threading.Condition()
        self.calls: list[tuple[str, str]] = []
        self.creates: list[Create] = []
        self.realtime: list[Params] = []
        self.batches: dict[str, Batch] = {}  # Oldest first.
        self.url = ""
        self._script, self._now_ms = script, now_ms
        self._random = Random(seed)  # noqa: S311  A replay, not a secret.

    def is_dropped(self, head: Head) -> bool:
        """Notes the call. A create may be told to hang up before its body was read."""
        with self.changed:
            self.calls.append((head.method, head.path))
            faults = self.told.faults
            if operation(head.method, head.path)[0] != "create" or not faults.next_is("create", "dropped"):
                return False
            faults.take("create")
            self.changed.notify_all()
            return True

    def answer(self, head: Head, body: bytes | None) -> Reply | None:
        """One call, from its credentials to its fault."""
        with self.changed:
            request_id = f"req_01{self._drawn()}"
            try:
                reply = self._answered(head, body)
            except TooLarge as error:
                return _too_large(error)
            except ApiError as error:
                refused = problem.encode(error.type, str(error), request_id=request_id)
                reply = Reply(error.status, refused, error.headers())
            finally:
                self.changed.notify_all()
            return reply and reply._replace(headers={**reply.headers, "request-id": request_id})

    def shown(self, batch: Batch, *, word: str | None = None) -> MessageBatch:
        """What a look at it shows now."""
        return batch.shown(self.url, now_ms=self._now_ms(), is_live=self.told.is_live, word=word)

    def _answered(self, head: Head, body: bytes | None) -> Reply | None:
        _check_headers(head)
        asked, batch_id = operation(head.method, head.path)
        if asked is None:
            raise NotFound(f"Not found: {head.method} {head.path}")
        if body is None or (asked == "realtime" and len(body) > limits.MESSAGE_BODY_BYTES_MAX):
            raise TooLarge("Request exceeds the maximum size")
        fault = self.told.faults.take(asked)
        if fault is None:
            return self._done(asked, batch_id, head, body)
        if fault.what == "cut":
            return self._done(asked, batch_id, head, body)._replace(cut_after=fault.after_bytes)
        if asked == "create" and fault.what in ("lost", "500"):
            self._done(asked, batch_id, head, body)
        if fault.what in ("lost", "dropped"):
            return None
        raise refusal(fault, batch_id)

    def _done(self, asked: Operation, batch_id: str, head: Head, body: bytes) -> Reply:
        if asked == "create":
            return self._create(head, body)
        if asked == "list":
            return self._list(head.query)
        if asked == "realtime":
            return self._message(head, body)
        batch = self.batches.get(batch_id)
        if batch is None:
            raise NotFound(f"Message Batch {batch_id} not found.")
        of_one_batch: dict[Operation, Callable[[Batch], Reply]] = {
            "retrieve": self._retrieve,
            "results": self._results,
            "cancel": self._cancel,
            "delete": self._delete,
        }
        return of_one_batch[asked](batch)

    # --- Operations ---------------------------------------------------------------------------------------------

    def _create(self, head: Head, body: bytes) -> Reply:
        _check_is_json(head)
        requests = [(found.custom_id, _object(bytes(found.params))) for found in create.read(body)]
        now_ms = self._now_ms()
        batch = Batch(
            id=ids.batch_id(now_ms, self._random.randbytes(ids.BATCH_ID_ENTROPY_BYTES)),
            created_at_ms=now_ms,
            version=head.headers["anthropic-version"],
            requests=requests,
            hidden_lists=self.told.list_lag,
        )
        self.batches[batch.id] = batch
        self.creates.append(Create([name for name, _ in requests], [params for _, params in requests], head.headers))
        return _ok(self.shown(batch))

    def _retrieve(self, batch: Batch) -> Reply:
        seen = self._look(batch)
        return _ok(seen, {} if seen.ended_at else {"retry-after": str(limits.POLL_AFTER_S)})

    def _list(self, query: Mapping[str, str]) -> Reply:
        newest_first = [batch for batch in reversed(self.batches.values()) if not batch.hidden_lists]
        for batch in self.batches.values():
            batch.hidden_lists = max(0, batch.hidden_lists - 1)
        chosen, has_more = _page(newest_first, query)
        data = [self._look(batch) for batch in chosen]
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return _ok(BatchPage(data=data, has_more=has_more, first_id=first_id, last_id=last_id))

    def _results(self, batch: Batch) -> Reply:
        self._settle(batch)
        if batch.ended_at_ms is None or batch.archived_at_ms(self._now_ms()) is not None:
            raise NoResults(f"Message Batch {batch.id} has no available results.")
        return Reply(200, batch.results, {"content-type": "application/x-jsonl"})

    def _cancel(self, batch: Batch) -> Reply:
        self._settle(batch)
        if batch.status == "in_progress":
            batch.cancel_initiated_at_ms, batch.looks = self._now_ms(), 0
        return _ok(self.shown(batch))

    def _delete(self, batch: Batch) -> Reply:
        self._settle(batch)
        if batch.ended_at_ms is None:
            raise InvalidRequest("In progress batches cannot be deleted. Consider canceling the batch instead.")
        del self.batches[batch.id]
        return _ok(DeletedBatch(id=batch.id))

    def _message(self, head: Head, body: bytes) -> Reply:
        _check_is_json(head)
        params = _object(body)
        why = hostedrows.refusal_of(params, version=head.headers["anthropic-version"], is_batched=False)
        if why is not None or params.get("stream"):
            raise InvalidRequest(why or "stream: this double answers whole Messages only")
        self.realtime.append(params)
        outcome = self._script("", params)
        if outcome.error is not None:
            error_type = outcome.error.type
            raise Refused(outcome.error.message, status=_STATUSES.get(error_type, 500), error_type=error_type)
        if outcome.kind != "succeeded":
            raise ValueError(f"the script says {outcome.kind} of a request in real time")
        return Reply(200, self._message_json(outcome, params, tier="standard"))

    # --- Batches ------------------------------------------------------------------------------------------------

    def _look(self, batch: Batch) -> MessageBatch:
        word = None
        if batch.ended_at_ms is None and self.told.word is not None:
            word, self.told.word = self.told.word, None
        else:
            self._settle(batch)
        batch.looks += 1
        return self.shown(batch, word=word)

    def _settle(self, batch: Batch) -> None:
        """Bring it to where it should be by now."""
        if batch.ended_at_ms is not None:
            return
        self._run(batch, self.told.done)
        if self._now_ms() >= batch.expires_at_ms:
            batch.give_up_rest("expired")
        elif batch.cancel_initiated_at_ms is not None:
            if not batch.looks:
                return
            batch.give_up_rest("canceled")
        elif self.told.is_held or batch.looks < self.told.end_after:
            return
        self._run(batch, len(batch.requests))
        batch.ended_at_ms = self._now_ms()
        batch.results = self._results_of(batch.rows)

    def _run(self, batch: Batch, count: int) -> None:
        """See to it that the first `count` requests are done."""
        for custom_id, params in batch.requests[len(batch.rows) : count]:
            batch.rows.append(self._row(custom_id, params, version=batch.version))

    def _row(self, custom_id: str, params: Params, *, version: str) -> Row:
        why = hostedrows.refusal_of(params, version=version, is_batched=True)
        if why is not None:
            refused = problem.encode("invalid_request_error", why, request_id=None)
            return Row(custom_id, "errored", result.errored(custom_id, refused))
        outcome = self._script(custom_id, params)
        if outcome.error is not None:
            request_id = f"workerreq_{self._drawn()}"
            failure = problem.encode(outcome.error.type, outcome.error.message, request_id=request_id)
            return Row(custom_id, "errored", result.errored(custom_id, failure))
        if outcome.kind == "succeeded":
            answer = self._message_json(outcome, params, tier="batch")
            return Row(custom_id, "succeeded", result.succeeded(custom_id, answer))
        return unanswered(custom_id, outcome.kind)

    def _results_of(self, rows: list[Row]) -> bytes:
        told, names = self.told, {row.custom_id for row in rows}
        lines = [row.line for row in rows if row.custom_id not in told.lost]
        lines += [row.line for row in rows if row.custom_id in told.doubled]
        lines += [unanswered(custom_id, "expired").line for custom_id in told.extra]
        told.lost -= names
        told.doubled -= names
        told.extra.clear()
        in_order = list(lines)
        self._random.shuffle(lines)
        if lines == in_order:
            lines.reverse()  # So that a client which relies on the order fails with two rows too.
        return b"".join(lines)

    def _message_json(self, outcome: Outcome, params: Params, *, tier: str) -> bytes:
        message_id = f"msg_01{self._drawn()}"
        return hostedrows.message_json(outcome, params, message_id=message_id, usage=self.told.usage, tier=tier)

    def _drawn(self) -> str:
        return ids.drawn(self._random.randbytes(ids.ID_ENTROPY_BYTES))


def operation(method: str, path: str) -> tuple[Operation | None, str]:
    """What a request asks for, and of which batch ("" if of none); None if there is nothing like it."""
    if (method, path) == ("POST", "/v1/messages"):
        return "realtime", ""
    found = _read_path(path)
    if found is None:
        return None, ""
    return _SHAPES.get((method, found["rest"])), found["id"] or ""


def _check_headers(head: Head) -> None:
    bearer = head.headers.get("authorization", "").removeprefix("Bearer ")
    if KEY not in (head.headers.get("x-api-key"), bearer):
        raise NotAuthenticated("API key is invalid.")
    version = head.headers.get("anthropic-version")
    if version is None:
        raise InvalidRequest("anthropic-version: header is required")
    if version not in hostedrows.VERSIONS:
        raise InvalidRequest(f'anthropic-version: "{version}" is not a valid version')


def _check_is_json(head: Head) -> None:
    if head.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InvalidRequest("content-type: application/json is required")


def _page(newest_first: list[Batch], query: Mapping[str, str]) -> tuple[list[Batch], bool]:
    """The batches that are asked for, and whether there are more in that direction."""
    limit = _limit(query.get("limit", str(limits.LIST_LIMIT_DEFAULT)))
    cursors = {name: query[name] for name in ("after_id", "before_id") if name in query}
    if len(cursors) == 2:
        raise InvalidRequest("after_id, before_id: only one of them can be given")
    if not cursors:
        return newest_first[:limit], len(newest_first) > limit
    ((name, cursor),) = cursors.items()
    places = [place for place, batch in enumerate(newest_first) if batch.id == cursor]
    if not places:
        raise InvalidRequest(f"{name}: no such batch: {cursor}")
    rest = newest_first[places[0] + 1 :] if name == "after_id" else newest_first[: places[0]]
    return rest[:limit] if name == "after_id" else rest[-limit:], len(rest) > limit


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= limits.LIST_LIMIT_MAX:
        raise InvalidRequest(f"limit: Input should be an integer from 1 to {limits.LIST_LIMIT_MAX}")
    return int(text)


def _object(body: bytes) -> Params:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(complaint.of_syntax(error)) from error


def _ok(found: msgspec.Struct, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(200, msgspec.json.encode(found), headers or {})


def _too_large(error: TooLarge) -> Reply:
    """As the proxy before the hosted API has it: without the envelope's type, without a request id."""
    return Reply(413, msgspec.json.encode({"error": {"type": error.type, "message": str(error)}}))
