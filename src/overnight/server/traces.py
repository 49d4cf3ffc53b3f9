"""Whether this server sends traces: by OpenTelemetry's own environment variables, and by nothing else.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. They are off unless an OTLP
endpoint or `OTEL_TRACES_EXPORTER` is set. The SDK is an optional dependency.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from overnight.errors import UsageError
from overnight.ports.tracer import NoTracer, Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def tracer_from(environment: Mapping[str, str]) -> Tracer:
    """The tracer that these variables ask for. UsageError if they ask for what this server cannot do."""
    if not _is_wanted(environment):
        return NoTracer()
    exporter = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter != "otlp":
        raise UsageError(f"$OTEL_TRACES_EXPORTER: {exporter!r} is not known here; set it to otlp, or to none")
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise UsageError(f"${_PROTOCOLS[1]}: {protocol!r} is not spoken here; set it to http/protobuf")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise UsageError("traces are asked for by $OTEL_… and need the SDK: pip install 'overnight[otel]'")
    try:
        otel = import_module("overnight.server.otel")
    except ImportError as error:
        raise UsageError(f"traces need {error.name}: pip install 'overnight[otel]'") from error
    return cast(Tracer, otel.Otel(environment))


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in _ENDPOINTS))
