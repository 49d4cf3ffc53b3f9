"""Traces on the wire: a real receiver of OTLP over HTTP, a client with a trace of its own, and an engine."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from overnight.errors import UsageError
from overnight.ports.tracer import NO_SPAN, NoTracer
from overnight.server.traces import tracer_from
from overnight.testing.processes import running_server
from overnight.testing.wireclient import BATCHES, WireClient, params, request

_MARKER = "zzz-prompt-of-a-person-zzz"
_TRACE, _SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class _Handler(BaseHTTPRequestHandler):
    """Takes traces, and answers Messages as an engine does."""

    received: ClassVar[list[bytes]]
    heard: ClassVar[list[str]]  # The traceparents of calls for a Message.

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            self.received.append(body)
            self._answer(200, b"")
            return
        self.heard.append(self.headers.get("traceparent", ""))
        if "refuse" in body.decode():
            self._answer(400, json.dumps({"type": "error", "error": {"type": "x", "message": _MARKER}}).encode())
            return
        self._answer(200, json.dumps(_message()).encode())

    def do_GET(self) -> None:
        self._answer(404, b"{}")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _message() -> Any:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": _MARKER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
    }


@contextmanager
def _listening() -> Iterator[tuple[str, type[_Handler]]]:
    class Own(_Handler):
        received: ClassVar[list[bytes]] = []
        heard: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", Own
        finally:
            server.shutdown()
            thread.join()


class _Seen:
    """One span, in words."""

    def __init__(self, span: Any) -> None:
        self.name = span.name
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.is_error = span.status.code == 2
        self.kind = span.kind
        self.attributes = {
            item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes
        }

    @property
    def traceparent(self) -> str:
        """Without its flags."""
        return f"00-{self.trace}-{self.id}"


def _spans(received: list[bytes]) -> list[_Seen]:
    found = []
    for body in received:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            assert names["service.name"] == "overnight"
            found += [_Seen(span) for scope in resource.scope_spans for span in scope.spans]
    return found


def _work(url: str) -> str:
    with closing(WireClient(url)) as client:
        headers = {"traceparent": f"00-{_TRACE}-{_SPAN}-01"}
        batch = client.create([request("a", _MARKER), request("b", f"{_MARKER} refuse")], headers=headers)
        while client.retrieve(batch["id"])["processing_status"] != "ended":
            pass
        assert client.call("POST", "/v1/messages", params(_MARKER), headers=headers).status == 200
        assert client.call("GET", "/nothing", headers={"traceparent": "nonsense"}).status == 404
        return str(batch["id"])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[_Seen], list[str], str, bytes]]:
    """All spans of a server that worked on one batch and for one person, what the engine heard, and the batch."""
    with _listening() as (url, handler):
        environment = {_ENDPOINT: url}
        folder = tmp_path_factory.mktemp("traces")
        with running_server(folder / "data", "--engine", url, environment=environment) as server:
            batch_id = _work(server.url)
            assert server.stop() == 0  # What was not sent yet is sent on the way out.
        yield _spans(handler.received), handler.heard, batch_id, b"".join(handler.received)


def _one(spans: list[_Seen], name: str, key: str = "", value: object = None) -> _Seen:
    """The one span of this name, and with this attribute."""
    (span,) = [span for span in spans if span.name == name and (not key or span.attributes.get(key) == value)]
    return span


def test_a_request_is_a_span_of_its_clients_trace(traced: Any) -> None:
    spans, _, batch_id, _ = traced
    posted, created = _one(spans, f"POST {BATCHES}"), _one(spans, "create batch")
    assert (posted.trace, posted.parent) == (_TRACE, _SPAN)
    assert (created.trace, created.parent) == (_TRACE, posted.id)
    assert posted.attributes["http.response.status_code"] == 200
    assert posted.attributes["http.route"] == BATCHES
    assert created.attributes["overnight.batch.id"] == batch_id
    assert created.attributes["overnight.batch.requests"] == 2


def test_a_run_is_a_trace_of_its_own_that_is_linked_to_the_creation(traced: Any) -> None:
    spans, _, batch_id, _ = traced
    run, created = _one(spans, "run segment"), _one(spans, "create batch")
    assert run.parent == ""
    assert run.trace != _TRACE
    assert run.links == [(created.trace, created.id)]
    assert run.attributes["overnight.batch.id"] == batch_id
    assert not run.is_error


def test_each_attempt_is_a_span_in_the_words_of_generative_ai(traced: Any) -> None:
    spans, _, _, _ = traced
    run = _one(spans, "run segment")
    answered = _one(spans, "chat claude-test", "gen_ai.usage.input_tokens", 11)
    refused = _one(spans, "chat claude-test", "error.type", "400")
    for span in (answered, refused):
        assert (span.trace, span.parent) == (run.trace, run.id)
        assert span.kind == 3  # A client's.
        assert span.attributes["gen_ai.request.model"] == "claude-test"
        assert span.attributes["gen_ai.operation.name"] == "chat"
    assert answered.attributes["gen_ai.usage.output_tokens"] == 7
    assert (answered.is_error, refused.is_error) == (False, True)


def test_the_engine_is_told_which_span_asks_it(traced: Any) -> None:
    spans, heard, _, _ = traced
    asking = [span for span in spans if span.name in ("chat claude-test", "POST /v1/messages")]
    assert len(asking) == 3
    assert sorted(text[:-3] for text in heard) == sorted(span.traceparent for span in asking)


def test_nonsense_for_a_parent_begins_a_trace(traced: Any) -> None:
    spans, _, _, _ = traced
    span = _one(spans, "GET other")
    assert span.parent == ""
    assert not span.is_error  # A client's mistake is none of ours.


def test_no_prompt_answer_or_error_text_is_in_a_trace(traced: Any) -> None:
    *_, raw = traced
    assert b"POST /v1/messages" in raw
    assert _MARKER.encode() not in raw


def test_a_receiver_that_is_not_there_holds_nothing_up(tmp_path: Path) -> None:
    with _listening() as (url, handler):
        environment = {_ENDPOINT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with running_server(tmp_path / "data", "--engine", url, environment=environment) as server:
            _work(server.url)
            assert server.stop() == 0
        assert handler.received == []


def test_without_the_variables_nothing_is_traced_and_engines_are_told_nothing(tmp_path: Path) -> None:
    with _listening() as (url, handler):
        with running_server(tmp_path / "data", "--engine", url) as server:
            _work(server.url)
        assert handler.heard == ["", "", ""]
        assert handler.received == []


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, id="nothing set"),
        pytest.param({_ENDPOINT: ""}, id="an empty endpoint"),
        pytest.param({_ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "none"}, id="no exporter"),
        pytest.param({_ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "true"}, id="the SDK is disabled"),
    ],
)
def test_traces_are_off_unless_asked_for(environment: dict[str, str]) -> None:
    tracer = tracer_from(environment)
    assert isinstance(tracer, NoTracer)
    assert not tracer.is_on
    assert tracer.begin("x") is NO_SPAN


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, r"\$OTEL_TRACES_EXPORTER: 'zipkin' is not known here"),
        ({_ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "'grpc' is not spoken here; set it to http"),
    ],
)
def test_what_cannot_be_done_stops_the_start(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tracer_from(environment)


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http.trace_exporter"])
def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delitem(sys.modules, "overnight.server.otel", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"pip install 'overnight\[otel\]'"):
        tracer_from({_ENDPOINT: "http://127.0.0.1:9"})
