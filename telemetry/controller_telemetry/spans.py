"""Spans through the OpenTelemetry API alone: without a tracer that was set up for it, nothing is recorded.

A piece of work names its tracer once, with `traced`; whatever runs inside opens its spans with `span` and need not know
where they go. Both follow the context of the task, and the tasks that it starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    Span,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

AttributeValue = str | bool | int | float

NO_TRACER: Tracer = NoOpTracer()

_TRACER: ContextVar[Tracer] = ContextVar("tracer", default=NO_TRACER)


@contextmanager
def traced(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    parent: str | None = None,
    link: str | None = None,
) -> Iterator[Span]:
    """Open the first span of a piece of work; `span` inside goes to the same tracer.

    Args:
        tracer: where the spans go.
        name: the span's name.
        attributes: what it tells.
        parent: a `traceparent` (W3C Trace Context) of a trace that this one continues; what is none is ignored.
        link: a `traceparent` of what led to the work; what is none is ignored.
    """
    above, origin = _context_of(parent), get_current_span(_context_of(link)).get_span_context()
    links = [Link(origin)] if origin.is_valid else []
    token = _TRACER.set(tracer)
    try:
        with _opened(tracer, name, attributes, context=above, links=links) as opened:
            yield opened
    finally:
        _TRACER.reset(token)


@contextmanager
def span(name: str, attributes: Mapping[str, AttributeValue] | None = None) -> Iterator[Span]:
    """Open a span below the present one; an exception that leaves it is told by its type, and goes on."""
    with _opened(_TRACER.get(), name, attributes, context=None) as opened:
        yield opened


def trace_id() -> str | None:
    """Return the id of the trace that is being recorded, as 32 hexadecimal digits; None if none is."""
    present = get_current_span()
    return format_trace_id(present.get_span_context().trace_id) if present.is_recording() else None


def log_fields() -> Mapping[str, str]:
    """Return `trace_id` and `span_id` of the present span in hexadecimal, for a log line; nothing if there is none."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}


def _context_of(traceparent: str | None) -> Context:
    return (
        TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context()) if traceparent else Context()
    )


@contextmanager
def _opened(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, AttributeValue] | None,
    *,
    context: Context | None,
    links: Sequence[Link] = (),
) -> Iterator[Span]:
    # The SDK would record an exception with its text and its frames, and either may quote a secret.
    with tracer.start_as_current_span(
        name, context=context, attributes=attributes, links=links, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_status(StatusCode.ERROR)
            opened.set_attribute("error.type", type(error).__name__)
            raise
