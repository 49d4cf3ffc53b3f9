"""Traces by OpenTelemetry's SDK, sent over OTLP/HTTP by a thread of its own. Imported only if they are asked for."""

from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from overnight import __version__
from overnight.ports.tracer import NOTHING, Kind, Span, Value

_KINDS: Mapping[Kind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}
_propagator = TraceContextTextMapPropagator()


class Otel:
    """A `Tracer`. Spans that cannot be sent are dropped, after tries that nothing waits for."""

    is_on = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        )
        own = {"service.version": __version__} | ({} if named else {"service.name": "overnight"})
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("overnight", __version__)

    def begin(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        parent: str = "",
        links: Sequence[str] = (),
        attributes: Mapping[str, Value] = NOTHING,
    ) -> Span:
        above = _context_of(parent)
        context = trace.set_span_in_context(trace.NonRecordingSpan(above)) if above.is_valid else Context()
        linked = [Link(found) for text in links if (found := _context_of(text)).is_valid]
        return _Span(self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=attributes, links=linked))

    def close(self) -> None:
        self._provider.shutdown()


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        found = self._span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def note(self, attributes: Mapping[str, Value], *, name: str = "") -> None:
        self._span.set_attributes(attributes)
        if name:
            self._span.update_name(name)

    def end(self, *, trouble: str = "") -> None:
        if trouble:
            self._span.set_attribute("error.type", trouble)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _context_of(traceparent: str) -> SpanContext:
    found = _propagator.extract({"traceparent": traceparent}, Context()) if traceparent else Context()
    return trace.get_current_span(found).get_span_context()
