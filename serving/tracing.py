"""Traces by OpenTelemetry: a span a request, and one a batch with its read and its model.

Spans are made when a batch has been answered, from times that are taken anyhow: requests carry no
context through the data plane, and a server without traces does nothing for them. A batch belongs
to many requests: its span stands below that of its first one whose trace is kept, and it and all
the others name each other by links.

Needs ``headrace[tracing]``; nothing here is imported unless ``HEADRACE_SERVER_TRACES`` is set.
"""

import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.inputs import Inputs
from serving.outputs import Run
from serving.query import Query

_propagator = TraceContextTextMapPropagator()
_NO_PARENT = Context()


class Tracing:
    """Makes the spans of batches and sends them away, on a thread of their own."""

    def __init__(self, processor: SpanProcessor, *, share: float = 1.0) -> None:
        """Begin.

        Args:
            processor: where spans go.
            share: of the traces that begin here, how many are kept; a caller that sends
                ``traceparent`` has decided for its own.
        """
        sampler = ParentBased(TraceIdRatioBased(share))
        resource = Resource.create({"service.name": "headrace"})
        self._provider = TracerProvider(sampler=sampler, resource=resource)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("headrace.serving")

    def batch(self, inputs: Inputs, ran: Run | None, answered: float) -> None:
        """Make the spans of one answered batch.

        Args:
            inputs: its queries, and when their features were read.
            ran: the call of the model; None for results that were kept.
            answered: ``time.perf_counter()`` when its queries had been told.
        """
        clock = time.time_ns() - round(time.perf_counter() * 1e9)
        requests = [span for query in inputs.queries if (span := self._request(query, clock))]
        if not requests:
            return
        self._batch(inputs, ran, requests, answered, clock)
        for span in requests:
            span.end(_at(answered, clock))

    def close(self) -> None:
        """Send what waits to be sent."""
        self._provider.shutdown()

    def _request(self, query: Query, clock: int) -> Span | None:
        """The span of a request, begun when it arrived; None where its trace is not kept."""
        context = _NO_PARENT
        if query.traceparent:
            context = _propagator.extract({"traceparent": query.traceparent}, _NO_PARENT)
        span = self._tracer.start_span(
            "infer",
            context=context,
            kind=SpanKind.SERVER,
            attributes={
                "headrace.endpoint": query.model.release.endpoint,
                "headrace.model.version": query.model.version,
                "headrace.edge": query.edge,
                "headrace.rows": query.rows,
                "headrace.request_id": query.request_id,
            },
            start_time=_at(query.received, clock),
        )
        return span if span.is_recording() else None

    def _batch(
        self,
        inputs: Inputs,
        ran: Run | None,
        requests: Sequence[Span],
        answered: float,
        clock: int,
    ) -> None:
        begun = inputs.read[0] if inputs.read else ran.begun if ran else answered
        batch = self._tracer.start_span(
            "batch",
            # Kept because a request of it is: its own trace is not drawn by lot.
            context=trace.set_span_in_context(requests[0], _NO_PARENT),
            links=[Link(span.get_span_context()) for span in requests],
            attributes={
                "headrace.queries": len(inputs.queries),
                "headrace.rows": len(inputs.matrix),
            },
            start_time=_at(begun, clock),
        )
        inside = trace.set_span_in_context(batch, _NO_PARENT)
        if inputs.read:
            self._child("read features", inside, *inputs.read, clock)
        if ran:
            self._child("model", inside, ran.begun, ran.begun + ran.seconds, clock)
        batch.end(_at(answered, clock))
        for span in requests:
            span.add_link(batch.get_span_context())

    def _child(self, name: str, inside: Context, begun: float, ended: float, clock: int) -> None:
        span = self._tracer.start_span(name, context=inside, start_time=_at(begun, clock))
        span.end(_at(ended, clock))


def otlp(address: str) -> SpanProcessor:
    """What sends spans to the OTLP collector at ``address``, over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=f"{address.rstrip('/')}/v1/traces")
    return BatchSpanProcessor(exporter)


def _at(moment: float, clock: int) -> int:
    """Nanoseconds since 1970 of a moment of ``time.perf_counter()``."""
    return round(moment * 1e9) + clock
