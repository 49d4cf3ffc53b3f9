"""Spans of the work on batches: one for each run of a segment, one for each attempt at an engine.

Names follow OpenTelemetry's conventions for generative AI where they fit
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/). No prompt, answer or word of an error is in them.
"""

from typing import assert_never

from msgspec.structs import replace

from overnight.core.retry import Answered, Broken, Busy, Outcome, Refused
from overnight.engines.engine import Call, Engine
from overnight.ports.tracer import NO_SPAN, Span, Tracer, Value
from overnight.runner.segmentrun import SegmentRun, Work
from overnight.wire import message


def begin_run(tracer: Tracer, run: SegmentRun, *, created: str) -> Span:
    """The span of a run. It is a trace of its own, as its batch may outlive any caller; `created` is the traceparent
    of the creation of the batch, which it is linked to."""
    if not tracer.is_on:
        return NO_SPAN
    segment = run.lease.segment
    return tracer.begin(
        "run segment",
        links=[created] if created else (),
        attributes={
            "overnight.batch.id": segment.batch_id,
            "overnight.segment.index": segment.index,
            "overnight.segment.epoch": run.lease.epoch,
            "overnight.segment.requests": run.leased.source.requests,
        },
    )


async def attempt(tracer: Tracer, engine: Engine, call: Call, work: Work) -> Outcome:
    """`engine.answer`, in a span whose traceparent goes with the call."""
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "overnight",
        "gen_ai.request.model": call.model,
        "gen_ai.request.max_tokens": work.max_tokens,
        "overnight.engine": engine.name,
        "overnight.batch.id": work.run.lease.segment.batch_id,
        "overnight.attempt": work.attempt,
    }
    parent = work.run.span.traceparent
    span = tracer.begin(f"chat {call.model}", kind="client", parent=parent, attributes=attributes)
    trouble = "interrupted"
    try:
        outcome = await engine.answer(replace(call, traceparent=span.traceparent))
        trouble = _noted(span, outcome)
        return outcome
    finally:
        span.end(trouble=trouble)


def _noted(span: Span, outcome: Outcome) -> str:
    """What kind of trouble it is; empty if it is none."""
    match outcome:
        case Answered(message=answer):
            if (usage := message.usage_of(answer)) is not None:
                span.note(
                    {
                        "gen_ai.usage.input_tokens": usage.input_tokens,
                        "gen_ai.usage.output_tokens": usage.output_tokens,
                    }
                )
            return ""
        case Refused(status=status):
            return str(status)
        case Busy():
            return "busy"
        case Broken(type=kind):
            return kind
        case _:
            assert_never(outcome)
