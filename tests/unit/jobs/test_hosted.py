"""testing.hosted: what the double of the hosted API does, seen by the official SDK and by plain HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from overnight import limits
from overnight.testing.hosted import HostedApi, Outcome, canceled, expired, failed, message, text

PARAMS: dict[str, Any] = {
    "model": "claude-opus-5",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "one two three"}],
}
BATCHES = "/v1/messages/batches"
VERSION = {"anthropic-version": "2023-06-01"}


@pytest.fixture
def hosted() -> Iterator[HostedApi]:
    with HostedApi() as found:
        yield found


@pytest.fixture
def sdk(hosted: HostedApi) -> Iterator[anthropic.Anthropic]:
    with sdk_of(hosted) as client:
        yield client


@pytest.fixture
def http(hosted: HostedApi) -> Iterator[httpx2.Client]:
    headers = {"x-api-key": hosted.key, **VERSION}
    with httpx2.Client(base_url=hosted.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def sdk_of(hosted: HostedApi) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=hosted.url, api_key=hosted.key, max_retries=0)


def asked(*custom_ids: str, **extra: Any) -> list[Any]:
    return [{"custom_id": custom_id, "params": {**PARAMS, **extra}} for custom_id in custom_ids]


def made(sdk: anthropic.Anthropic, *custom_ids: str) -> str:
    return sdk.messages.batches.create(requests=asked(*(custom_ids or ("a",)))).id


def status(sdk: anthropic.Anthropic, batch_id: str) -> str:
    return sdk.messages.batches.retrieve(batch_id).processing_status


def rows(hosted: HostedApi, sdk: anthropic.Anthropic, *custom_ids: str, **extra: Any) -> dict[str, Any]:
    """The results, by custom_id, of a batch of these."""
    hosted.end_after_looks(0)
    batch = sdk.messages.batches.create(requests=asked(*custom_ids, **extra))
    return {row.custom_id: row.result for row in sdk.messages.batches.results(batch.id)}


def error_of(answer: httpx2.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["message"]


# --- The wire -----------------------------------------------------------------------------------------------------


def test_counters_stand_still_until_the_end(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.progress(2)
    batch_id = made(sdk, "a", "b", "c")
    running, ended = sdk.messages.batches.retrieve(batch_id), sdk.messages.batches.retrieve(batch_id)
    assert (running.processing_status, running.request_counts.processing) == ("in_progress", 3)
    assert (running.ended_at, running.results_url) == (None, None)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 3)
    assert ended.ended_at is not None
    assert ended.results_url == f"{hosted.url}{BATCHES}/{batch_id}/results"
    assert (ended.expires_at - ended.created_at).total_seconds() * 1000 == limits.BATCH_LIFETIME_MS


def test_live_counts_show_what_is_done(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.live_counts(True)
    hosted.progress(2)
    counts = sdk.messages.batches.retrieve(made(sdk, "a", "b", "c")).request_counts
    assert (counts.processing, counts.succeeded) == (1, 2)


def test_the_same_create_twice_makes_two_batches_whatever_its_idempotency_key(
    hosted: HostedApi, http: httpx2.Client
) -> None:
    answers = [
        http.post(BATCHES, json={"requests": asked("a")}, headers={"idempotency-key": "one"}) for _ in range(2)
    ]
    assert len({answer.json()["id"] for answer in answers}) == 2
    assert len(hosted.batches) == 2


@pytest.mark.parametrize("count", [2, 3, 50])
def test_results_come_in_another_order_than_requests(hosted: HostedApi, sdk: anthropic.Anthropic, count: int) -> None:
    sent = [f"r{number}" for number in range(count)]
    found = list(rows(hosted, sdk, *sent))
    assert found != sent
    assert sorted(found) == sorted(sent)


def test_results_before_the_end_are_not_found_and_not_to_be_retried(
    hosted: HostedApi, sdk: anthropic.Anthropic, http: httpx2.Client
) -> None:
    batch_id = made(sdk)
    answer = http.get(f"{BATCHES}/{batch_id}/results")
    assert error_of(answer) == (404, "not_found_error", f"Message Batch {batch_id} has no available results.")
    assert answer.headers["x-should-retry"] == "false"


def test_only_a_running_batch_says_when_to_look_again(sdk: anthropic.Anthropic, http: httpx2.Client) -> None:
    batch_id = made(sdk)
    first, second = (http.get(f"{BATCHES}/{batch_id}") for _ in range(2))
    assert (first.headers.get("retry-after"), second.headers.get("retry-after")) == ("10", None)
    assert first.json()["created_at"].endswith("+00:00")
    assert "content-length" not in first.headers


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        pytest.param(VERSION, (401, "authentication_error"), id="no key"),
        pytest.param({**VERSION, "x-api-key": "sk-other"}, (401, "authentication_error"), id="another key"),
        pytest.param({"x-api-key": HostedApi.key}, (400, "invalid_request_error"), id="no version"),
        pytest.param(
            {"x-api-key": HostedApi.key, "anthropic-version": "2020-01-01"},
            (400, "invalid_request_error"),
            id="unknown version",
        ),
        pytest.param({**VERSION, "x-api-key": HostedApi.key}, None, id="key of old SDKs"),
        pytest.param({**VERSION, "authorization": f"Bearer {HostedApi.key}"}, None, id="key of new SDKs"),
    ],
)
def test_a_key_and_a_version_are_required(
    hosted: HostedApi, headers: dict[str, str], found: tuple[int, str] | None
) -> None:
    answer = httpx2.get(hosted.url + BATCHES, headers=headers, trust_env=False)
    assert (answer.status_code == 200) if found is None else (error_of(answer)[:2] == found)
    assert answer.headers["request-id"].startswith("req_")
    assert answer.json().get("request_id", answer.headers["request-id"]) == answer.headers["request-id"]


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "requests: List should have at least 1 item after validation, not 0"),
        (asked("a", "a"), "requests: custom_id's must be unique within a batch. Duplicate custom_id found: a"),
        (asked("a b"), "requests.0.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"),
        (asked("a" * 65), "requests.0.custom_id: String should have at most 64 characters"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        (
            [{"custom_id": str(number), "params": {}} for number in range(limits.BATCH_REQUESTS_MAX + 1)],
            "requests: List should have at most 100000 items after validation, not 100001",
        ),
    ],
    ids=["none", "twice", "space", "long", "no params", "too many"],
)
def test_a_wrong_envelope_is_refused_and_not_stored(
    hosted: HostedApi, http: httpx2.Client, requests: list[Any], said: str
) -> None:
    answer = http.post(BATCHES, json={"requests": requests})
    assert error_of(answer) == (400, "invalid_request_error", said)
    assert (hosted.batches, hosted.creates) == ([], [])


def test_a_body_that_does_not_say_it_is_json_is_refused(hosted: HostedApi, http: httpx2.Client) -> None:
    for path in (BATCHES, "/v1/messages"):
        answer = http.post(path, content=json.dumps({"requests": asked("a")}))
        assert error_of(answer)[:2] == (400, "invalid_request_error"), path
    assert hosted.batches == []


def test_a_body_in_chunks_is_taken(hosted: HostedApi, http: httpx2.Client) -> None:
    pieces = [b'{"requests":', json.dumps(asked("a")).encode(), b"}"]
    answer = http.post(BATCHES, content=iter(pieces), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert hosted.creates[0].custom_ids == ["a"]


@pytest.mark.parametrize(
    ("path", "most"), [(BATCHES, limits.BATCH_BODY_BYTES_MAX), ("/v1/messages", limits.MESSAGE_BODY_BYTES_MAX)]
)
def test_a_body_over_the_limit_is_too_large_in_the_words_of_the_proxy(
    http: httpx2.Client, path: str, most: int
) -> None:
    piece = bytes(limits.MIB)
    pieces = [*[piece] * (most // len(piece)), b"x"]
    answer = http.post(path, content=iter(pieces), headers={"content-type": "application/json"})
    expected = {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}
    assert (answer.status_code, answer.json()) == (413, expected)
    assert "request-id" not in answer.headers


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"stream": True}, '"stream=True" is not supported in the Message Batches API'),
        ({"max_tokens": 0}, "max_tokens: must be greater than or equal to 1"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"betas": ["x"]}, "betas: Extra inputs are not permitted"),
        ({"temperature": 0.5}, "temperature: Extra inputs are not permitted"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_params_become_an_errored_row(
    hosted: HostedApi, sdk: anthropic.Anthropic, extra: dict[str, Any], said: str
) -> None:
    row = rows(hosted, sdk, "a", **extra)["a"]
    assert (row.type, row.error.error.type, row.error.error.message) == ("errored", "invalid_request_error", said)
    assert row.error.request_id is None
    assert hosted.batches[0].request_counts.errored == 1


def test_sampling_parameters_are_legal_in_the_old_version(hosted: HostedApi, http: httpx2.Client) -> None:
    hosted.end_after_looks(0)
    batch_id = http.post(BATCHES, json={"requests": asked("a", temperature=0.5)}).json()["id"]
    assert http.get(f"{BATCHES}/{batch_id}/results").json()["result"]["type"] == "succeeded"


# --- Lists --------------------------------------------------------------------------------------------------------


def test_lists_are_newest_first_and_page_in_both_directions(sdk: anthropic.Anthropic) -> None:
    newest_first = [made(sdk) for _ in range(5)][::-1]
    batches = sdk.messages.batches
    assert [batch.id for batch in batches.list(limit=2)] == newest_first
    older = batches.list(limit=2, after_id=newest_first[1])
    newer = batches.list(limit=2, before_id=newest_first[3])
    last = batches.list(limit=2, after_id=newest_first[2])
    assert ([batch.id for batch in older.data], older.has_more) == (newest_first[2:4], True)
    assert ([batch.id for batch in newer.data], newer.has_more) == (newest_first[1:3], True)
    assert ([batch.id for batch in last.data], last.has_more) == (newest_first[3:], False)
    assert (older.first_id, older.last_id) == (newest_first[2], newest_first[3])


def test_a_list_of_nothing_has_no_ids(sdk: anthropic.Anthropic) -> None:
    page = sdk.messages.batches.list()
    assert (page.data, page.has_more, page.first_id, page.last_id) == ([], False, None, None)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after_id=no", "before_id=a&after_id=b"])
def test_a_list_that_cannot_be_is_refused(http: httpx2.Client, query: str) -> None:
    assert error_of(http.get(f"{BATCHES}?{query}"))[:2] == (400, "invalid_request_error")
    assert http.get(f"{BATCHES}?limit={limits.LIST_LIMIT_MAX}").status_code == 200


def test_lists_lag_behind_what_was_made(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    old = made(sdk)
    hosted.list_lag(2)
    new = made(sdk)
    seen = [[batch.id for batch in sdk.messages.batches.list().data] for _ in range(3)]
    assert seen == [[old], [old], [new, old]]


# --- When batches end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_batch_ends_after_it_was_seen_so_often(hosted: HostedApi, sdk: anthropic.Anthropic, looks: int) -> None:
    hosted.end_after_looks(looks)
    batch_id = made(sdk)
    seen = [status(sdk, batch_id) for _ in range(looks + 1)]
    assert seen == ["in_progress"] * looks + ["ended"]


def test_a_list_is_a_look(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    batch_id = made(sdk)
    assert sdk.messages.batches.list().data[0].processing_status == "in_progress"
    assert status(sdk, batch_id) == "ended"
    assert hosted.looks == 2


def test_a_held_batch_ends_when_it_is_released(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.hold()
    batch_id = made(sdk)
    assert {status(sdk, batch_id) for _ in range(5)} == {"in_progress"}
    hosted.release()
    assert status(sdk, batch_id) == "ended"


def test_a_cancel_keeps_what_is_done_even_of_a_held_batch(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.hold()
    hosted.progress(1)
    batch_id = made(sdk, "a", "b", "c")
    answer = sdk.messages.batches.cancel(batch_id)
    assert (answer.processing_status, answer.request_counts.processing) == ("canceling", 3)
    assert answer.cancel_initiated_at is not None
    assert [status(sdk, batch_id) for _ in range(2)] == ["canceling", "ended"]
    kinds = {row.custom_id: row.result.type for row in sdk.messages.batches.results(batch_id)}
    assert kinds == {"a": "succeeded", "b": "canceled", "c": "canceled"}


def test_a_cancel_after_the_end_changes_nothing(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.end_after_looks(0)
    batch_id = made(sdk)
    answer = sdk.messages.batches.cancel(batch_id)
    assert (answer.processing_status, answer.cancel_initiated_at) == ("ended", None)


def test_only_an_ended_batch_can_be_deleted_and_then_it_is_gone(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    batch_id = made(sdk)
    with pytest.raises(anthropic.BadRequestError, match="In progress batches cannot be deleted"):
        sdk.messages.batches.delete(batch_id)
    status(sdk, batch_id)
    assert sdk.messages.batches.delete(batch_id).type == "message_batch_deleted"
    for gone in (sdk.messages.batches.retrieve, sdk.messages.batches.cancel, sdk.messages.batches.delete):
        with pytest.raises(anthropic.NotFoundError, match=f"Message Batch {batch_id} not found."):
            gone(batch_id)
    assert hosted.batches == []


def test_after_a_day_what_is_not_done_expires_and_after_29_results_are_gone() -> None:
    clock = [1_780_000_000_000]
    with HostedApi(now_ms=lambda: clock[0]) as hosted, sdk_of(hosted) as sdk:
        hosted.hold()
        hosted.progress(1)
        batch_id = made(sdk, "a", "b")
        clock[0] += limits.BATCH_LIFETIME_MS - 1
        assert status(sdk, batch_id) == "in_progress"
        clock[0] += 1
        counts = sdk.messages.batches.retrieve(batch_id).request_counts
        assert (counts.succeeded, counts.expired) == (1, 1)
        clock[0] += limits.RESULTS_LIFETIME_MS
        assert sdk.messages.batches.retrieve(batch_id).archived_at is not None
        with pytest.raises(anthropic.NotFoundError, match="has no available results"):
            sdk.messages.batches.results(batch_id)


def test_a_status_nobody_knows_is_said_once(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.end_after_looks(0)
    hosted.say_status("finalizing")
    batch_id = made(sdk)
    assert [status(sdk, batch_id) for _ in range(2)] == ["finalizing", "ended"]


# --- The script ---------------------------------------------------------------------------------------------------

OUTCOMES = {
    "said": text("two words"),
    "refused": text("", stop_reason="refusal"),
    "cut": text("half", stop_reason="max_tokens"),
    "blocks": message([{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "b"}]),
    "broke": failed("overloaded_error", "Overloaded"),
    "late": expired(),
    "stopped": canceled(),
}


def scripted(custom_id: str, params: dict[str, Any]) -> Outcome:
    return OUTCOMES[custom_id or params["messages"][0]["content"]]


def test_rows_are_what_the_script_says() -> None:
    with HostedApi(scripted) as hosted, sdk_of(hosted) as sdk:
        found = rows(hosted, sdk, *OUTCOMES)
        counts = hosted.batches[0].request_counts
    assert found["said"].message.content[0].text == "two words"
    assert (found["refused"].message.content, found["refused"].message.stop_reason) == ([], "refusal")
    assert found["cut"].message.stop_reason == "max_tokens"
    assert [block.type for block in found["blocks"].message.content] == ["thinking", "text"]
    assert found["broke"].error.error.type == "overloaded_error"
    assert found["broke"].error.request_id.startswith("workerreq_")
    assert (found["late"].type, found["stopped"].type) == ("expired", "canceled")
    assert (counts.succeeded, counts.errored, counts.expired, counts.canceled) == (4, 1, 1, 1)


def test_tokens_are_words_unless_told(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    counted = rows(hosted, sdk, "a")["a"].message.usage
    hosted.usage(1000, 200)
    told = rows(hosted, sdk, "a")["a"].message.usage
    assert (counted.input_tokens, counted.output_tokens, counted.service_tier) == (3, 1, "batch")
    assert (told.input_tokens, told.output_tokens) == (1000, 200)


def test_an_alias_is_answered_by_the_model_it_stands_for(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    assert rows(hosted, sdk, "a", model="claude-haiku-4-5")["a"].message.model == "claude-haiku-4-5-20251001"


def test_messages_are_answered_in_real_time() -> None:
    with HostedApi(scripted) as hosted, sdk_of(hosted) as sdk:
        params = {**PARAMS, "messages": [{"role": "user", "content": "said"}]}
        found = sdk.messages.create(**params)
        assert (found.content[0].text, found.usage.service_tier) == ("two words", "standard")
        assert hosted.realtime == [params]
        with pytest.raises(anthropic.OverloadedError):
            sdk.messages.create(**{**PARAMS, "messages": [{"role": "user", "content": "broke"}]})
        with pytest.raises(anthropic.BadRequestError, match="at least one message is required"):
            sdk.messages.create(**{**PARAMS, "messages": []})


@pytest.mark.parametrize(
    ("outcome", "found"), [("no such outcome", KeyError), ("late", ValueError)], ids=["broken", "no answer"]
)
def test_a_mistake_of_the_script_reaches_the_test(outcome: str, found: type[Exception]) -> None:
    def use() -> None:
        with HostedApi(scripted) as hosted, sdk_of(hosted) as sdk, pytest.raises(anthropic.APIConnectionError):
            sdk.messages.create(**{**PARAMS, "messages": [{"role": "user", "content": outcome}]})

    with pytest.raises(found):
        use()


# --- Results that are wrong ---------------------------------------------------------------------------------------


def test_rows_are_lost_doubled_and_added_once(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.lose_rows(["a"])
    hosted.duplicate_rows(["b"])
    hosted.extra_rows(["stranger"])
    hosted.end_after_looks(0)
    first, second = (made(sdk, "a", "b", "c") for _ in range(2))
    for _ in range(2):
        found = sorted(row.custom_id for row in sdk.messages.batches.results(first))
        assert found == ["b", "b", "c", "stranger"]
    assert hosted.batches[0].request_counts.succeeded == 3
    assert sorted(row.custom_id for row in sdk.messages.batches.results(second)) == ["a", "b", "c"]


def test_a_row_is_lost_by_the_batch_that_has_it(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.lose_rows(["b"])
    assert set(rows(hosted, sdk, "a")) == {"a"}
    assert set(rows(hosted, sdk, "b")) == set()


@pytest.mark.parametrize("after_bytes", [0, 300, 1_000_000], ids=["first byte", "a row", "behind the last byte"])
def test_a_download_is_cut_where_it_is_told_and_can_be_repeated(
    hosted: HostedApi, sdk: anthropic.Anthropic, http: httpx2.Client, after_bytes: int
) -> None:
    hosted.end_after_looks(0)
    path, came = f"{BATCHES}/{made(sdk, 'a', 'b')}/results", bytearray()

    def download() -> None:
        with http.stream("GET", path) as answer:
            for piece in answer.iter_raw():
                came.extend(piece)

    hosted.next_results("cut", after_bytes)
    with pytest.raises(httpx2.RemoteProtocolError):
        download()
    whole = http.get(path).content
    assert came == whole[:after_bytes]
    assert [json.loads(line)["result"]["type"] for line in whole.splitlines()] == ["succeeded"] * 2


# --- Faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "found", "stored", "said"),
    [
        ("lost", anthropic.APIConnectionError, 1, "Connection error"),
        ("dropped", anthropic.APIConnectionError, 0, "Connection error"),
        ("busy", anthropic.RateLimitError, 0, "rate_limit_error"),
        ("overloaded", anthropic.OverloadedError, 0, "overloaded_error"),
        ("500", anthropic.InternalServerError, 1, "api_error"),
        ("500-nothing", anthropic.InternalServerError, 0, "api_error"),
        ("413", anthropic.ContentTooLargeError, 0, "request_too_large"),
        ("billing", anthropic.BadRequestError, 0, "Your credit balance is too low to access the Anthropic API"),
    ],
)
def test_a_create_goes_wrong_once_and_leaves_what_it_should(
    hosted: HostedApi, sdk: anthropic.Anthropic, what: str, found: type[anthropic.APIError], *, stored: int, said: str
) -> None:
    hosted.next_create(what)
    with pytest.raises(found, match=said):
        made(sdk, "a")
    assert (len(hosted.batches), len(hosted.creates)) == (stored, stored)
    made(sdk, "b")
    assert hosted.creates[-1].custom_ids == ["b"]
    assert hosted.calls == [("POST", BATCHES)] * 2


def test_a_large_body_is_dropped_before_all_of_it_was_read(hosted: HostedApi, http: httpx2.Client) -> None:
    hosted.next_create("dropped")
    sent = []

    def pieces() -> Iterator[bytes]:
        for number in range(200):
            sent.append(number)
            yield bytes(limits.MIB)

    with pytest.raises(httpx2.TransportError):
        http.post(BATCHES, content=pieces(), headers={"content-type": "application/json"})
    assert len(sent) < 200


def test_a_busy_answer_says_when_to_come_back_if_it_is_told_to(hosted: HostedApi, http: httpx2.Client) -> None:
    hosted.next_create("busy", 7)
    hosted.next_create("busy")
    said = [http.post(BATCHES, json={"requests": asked("a")}).headers.get("retry-after") for _ in range(2)]
    assert said == ["7", None]


ERRORS: dict[str, type[anthropic.APIError]] = {
    "busy": anthropic.RateLimitError,
    "overloaded": anthropic.OverloadedError,
    "500": anthropic.InternalServerError,
    "dropped": anthropic.APIConnectionError,
    "404": anthropic.NotFoundError,
    "billing": anthropic.BadRequestError,
}
ASKS: dict[str, Callable[[anthropic.Anthropic, str], object]] = {
    "retrieve": lambda sdk, batch_id: sdk.messages.batches.retrieve(batch_id),
    "list": lambda sdk, batch_id: sdk.messages.batches.list(),
    "cancel": lambda sdk, batch_id: sdk.messages.batches.cancel(batch_id),
    "results": lambda sdk, batch_id: list(sdk.messages.batches.results(batch_id)),
    "realtime": lambda sdk, batch_id: sdk.messages.create(**PARAMS),
}
IMPOSSIBLE = {("list", "404"), ("realtime", "404")} | {(name, "billing") for name in ASKS if name != "realtime"}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name in ASKS for what in ERRORS if (name, what) not in IMPOSSIBLE]
)
def test_every_call_goes_wrong_as_often_as_it_is_told(
    hosted: HostedApi, sdk: anthropic.Anthropic, name: str, what: str
) -> None:
    hosted.hold()
    batch_id = made(sdk)
    if name == "results":
        hosted.release()
        status(sdk, batch_id)
    getattr(hosted, f"next_{name}")(what, times=2)
    for _ in range(2):
        with pytest.raises(ERRORS[what]):
            ASKS[name](sdk, batch_id)
    assert (hosted.batches[0].cancel_initiated_at, hosted.realtime) == (None, [])
    ASKS[name](sdk, batch_id)


@pytest.mark.parametrize(("name", "what"), sorted(IMPOSSIBLE))
def test_a_fault_that_a_call_cannot_have_is_a_mistake_of_the_test(hosted: HostedApi, name: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no fault '{what}'"):
        getattr(hosted, f"next_{name}")(what)


# --- What happened ------------------------------------------------------------------------------------------------


def test_creates_are_kept_as_they_came(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    made(sdk, "a", "b")
    custom_ids, params, headers = hosted.creates[0]
    assert (custom_ids, params) == (["a", "b"], [PARAMS, PARAMS])
    assert headers["authorization"] == f"Bearer {hosted.key}"


def test_calls_are_counted_whatever_they_got(hosted: HostedApi, http: httpx2.Client) -> None:
    http.get(f"{BATCHES}/msgbatch_none?beta=true")
    http.get("/v1/nothing")
    http.put(BATCHES)
    assert hosted.calls == [("GET", f"{BATCHES}/msgbatch_none"), ("GET", "/v1/nothing")]
    assert hosted.looks == 1


def test_a_test_can_wait_for_what_a_client_does(hosted: HostedApi, sdk: anthropic.Anthropic) -> None:
    hosted.hold()
    batch_id = made(sdk)

    def look_until_ended() -> None:
        while status(sdk, batch_id) != "ended":
            pass

    looking = threading.Thread(target=look_until_ended)
    looking.start()
    hosted.wait_until(lambda: hosted.looks >= 3)
    hosted.release()
    looking.join()
    assert hosted.batches[0].processing_status == "ended"


def test_leaving_breaks_connections_that_are_still_open() -> None:
    before = threading.active_count()
    with HostedApi() as hosted, sdk_of(hosted) as sdk:
        made(sdk)
        assert threading.active_count() > before
        hosted.__exit__(None, None, None)
        assert threading.active_count() == before
        with pytest.raises(anthropic.APIConnectionError):
            made(sdk)
