"""wire.problem: errors, written as the API writes them and read in whatever dialect they come."""

import json

import pytest
from anthropic.types import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from wire_values import VALUES, written

from overnight.wire import problem


@given(st.text(), st.sampled_from(["api_error", "overloaded_error"]), st.none() | st.just("req_1"))
def test_what_is_written_is_read_again(said: str, error_type: str, request_id: str | None) -> None:
    text = problem.encode(error_type, said, request_id=request_id)
    assert b"\n" not in text
    found = ErrorResponse.model_validate_json(text)
    assert (found.error.type, found.error.message, found.request_id) == (error_type, said, request_id)
    again = problem.read(text, status=500)
    assert (again.error.type, again.request_id) == (error_type, request_id)
    assert again.error.message == (said[:2000] or "HTTP 500")


@given(st.binary(max_size=300) | written(VALUES).map(lambda pair: pair[1]), st.integers(100, 599))
def test_any_bytes_are_read_as_some_problem(body: bytes, status: int) -> None:
    found = problem.read(body, status=status)
    assert found.error.message
    assert found.error.type.endswith("_error") or found.error.type == "request_too_large"
    assert json.loads(problem.encode(found.error.type, found.error.message, request_id=found.request_id))


@pytest.mark.parametrize(
    ("body", "status", "error_type", "said"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"full"}}', 529, "overloaded_error", "full"),
        (b'{"error":{"type":"request_too_large","message":"big"}}', 413, "request_too_large", "big"),
        (
            b'{"error":{"message":"bad","type":"BadRequestError","param":null,"code":400}}',
            400,
            "invalid_request_error",
            "bad",
        ),
        (
            b'{"object":"error","message":"no such model","type":"NotFoundError"}',
            404,
            "not_found_error",
            "no such model",
        ),
        (b'{"error":"model not found"}', 404, "not_found_error", "model not found"),
        (b'{"detail":"Not Found"}', 404, "not_found_error", "HTTP 404"),
        (b"<html>Bad gateway</html>", 502, "api_error", "<html>Bad gateway</html>"),
        (b" \n ", 503, "api_error", "HTTP 503"),
        (b"", 418, "invalid_request_error", "HTTP 418"),
        (b"\xff\xfe", 500, "api_error", "\ufffd\ufffd"),
        (b'{"error":null}', 500, "api_error", '{"error":null}'),
        (b'{"error":{"type":"\\ud800"}}', 401, "authentication_error", '{"error":{"type":"\\ud800"}}'),
        (b"[" * 9000, 500, "api_error", "[" * 500),
        (b'{"message":"%b"}' % (b"x" * 9000), 500, "api_error", "x" * 2000),
    ],
)
def test_dialects(body: bytes, status: int, error_type: str, said: str) -> None:
    found = problem.read(body, status=status)
    assert (found.error.type, found.error.message) == (error_type, said)


def test_the_request_id_is_kept() -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"x"},"request_id":"req_7"}'
    assert problem.read(body, status=500).request_id == "req_7"


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_the_type_of_a_status(status: int, error_type: str) -> None:
    assert problem.type_of_status(status) == error_type
