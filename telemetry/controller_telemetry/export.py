"""Where traces go: the one module that sets the OpenTelemetry SDK up.

Who traces something names it by a key and says where its traces go. Equal settings share one tracer provider, and equal
destinations one queue and one thread, since a thousand processors would be a thousand threads. A destination is closed
when its last key leaves. Nothing here may block: a queue that is full drops, and an end is waited for in a thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from controller_telemetry.destination import EXPORT_TIMEOUT, Deliveries, Destination
from controller_telemetry.spans import NO_TRACER

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_DESTINATIONS: Final = 50
"""Each has a thread and a queue; a full one holds 1 MB."""
MAX_TRACERS: Final = 1000
"""Distinct settings, such as service names, over all destinations; each takes some kilobytes."""
QUEUE_SIZE: Final = 512
BATCH_SIZE: Final = 128
EXPORT_DELAY: Final = 1.0
"""Seconds for which spans are gathered before they are sent."""
TRACER: Final = "controller_telemetry"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Where traces go, and as whose.

    Attributes:
        resource: attributes of all spans, such as `service.name`.
    """

    destination: Destination
    resource: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Counters:
    """What became of all spans; only grows.

    Attributes:
        exported: taken by a destination.
        failed: sent in vain.
        dropped: not sent, since the queue was full.
        refused: how often a key was not traced, since there are too many destinations or settings.
    """

    exported: int = 0
    failed: int = 0
    dropped: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Shared(Generic[T]):
    """What several share, and how many they are."""

    value: T
    users: int = 0


class Tracers:
    """Hands out tracers by key. For one thread; what the exporters' threads tell is counted under a lock."""

    def __init__(self, exporter_of: Callable[[Destination], SpanExporter] | None = None) -> None:
        self._exporter_of = exporter_of or otlp_exporter
        self._keys: dict[str, TraceSettings] = {}
        self._tracers: dict[TraceSettings, _Shared[Tracer]] = {}
        self._queues: dict[Destination, _Shared[_Queue]] = {}
        self._closing: set[threading.Thread] = set()
        self.counters = Counters()

    def tracer(self, key: str, settings: TraceSettings | None) -> Tracer:
        """Return the tracer for what a key traces from now on; None means nothing any more."""
        if settings is None or settings != self._keys.get(key):
            self.release(key)
        if settings is None:
            return NO_TRACER
        shared = self._tracers.get(settings) or self._open(settings)
        if shared is None:
            self.counters.refused += 1
            return NO_TRACER
        if key not in self._keys:
            self._keys[key] = settings
            shared.users += 1
        return shared.value

    def release(self, key: str) -> None:
        """Note that a key traces nothing any more; a destination that nobody uses is closed."""
        settings = self._keys.pop(key, None)
        if settings is None:
            return
        shared = self._tracers[settings]
        shared.users -= 1
        if shared.users:
            return
        del self._tracers[settings]
        queue = self._queues[settings.destination]
        queue.users -= 1
        if not queue.users:
            self._close(self._queues.pop(settings.destination).value)

    @property
    def destinations(self) -> int:
        """How many destinations are open."""
        return len(self._queues)

    def shutdown(self, timeout: float) -> None:
        """Send what is queued and close everything, in `timeout` seconds at most; what is left then is lost."""
        deadline = time.monotonic() + timeout
        for queue in self._queues.values():
            self._close(queue.value)
        self._queues.clear()
        self._tracers.clear()
        self._keys.clear()
        for thread in tuple(self._closing):
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _open(self, settings: TraceSettings) -> _Shared[Tracer] | None:
        """Return a tracer that nobody uses yet, or None where there are too many of them or of destinations."""
        destination = settings.destination
        queue = self._queues.get(destination)
        if len(self._tracers) >= MAX_TRACERS or (queue is None and len(self._queues) >= MAX_DESTINATIONS):
            return None
        if queue is None:
            made = _Queue(self._exporter_of(destination), destination, self.counters)
            queue = self._queues[destination] = _Shared(made)
        queue.users += 1
        provider = TracerProvider(resource=Resource(dict(settings.resource)), shutdown_on_exit=False)
        provider.add_span_processor(queue.value)
        # The tracer and not its provider is kept: asking for it again would clear all caches of `warnings`.
        shared = self._tracers[settings] = _Shared(provider.get_tracer(TRACER))
        return shared

    def _close(self, queue: _Queue) -> None:
        def close() -> None:
            queue.close()
            self._closing.discard(thread)

        thread = threading.Thread(target=close, name="traces-end", daemon=True)
        self._closing.add(thread)
        thread.start()


class _Queue(SpanProcessor):
    """The queue of one destination. Several providers share it, so that none of them may shut it down."""

    def __init__(self, exporter: SpanExporter, destination: Destination, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._waiting = 0
        self._processor = BatchSpanProcessor(
            _Told(exporter, destination, self._sent),
            max_queue_size=QUEUE_SIZE,
            max_export_batch_size=BATCH_SIZE,
            schedule_delay_millis=EXPORT_DELAY * 1000,
            export_timeout_millis=EXPORT_TIMEOUT * 1000,
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it where the queue is full."""
        if not span.context.trace_flags.sampled:
            return
        with self._lock:
            if self._waiting >= QUEUE_SIZE:
                self._counters.dropped += 1
                return
            self._waiting += 1
        self._processor.on_end(span)

    def shutdown(self) -> None:
        """Do nothing: a provider ends, but the queue may have others."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued."""
        return self._processor.force_flush(timeout_millis)

    def close(self) -> None:
        """Send what is queued, and end; it may block for as long as an export takes."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # The SDK leaves its return type out.

    def _sent(self, spans: int, *, ok: bool) -> None:
        with self._lock:
            self._waiting -= spans
            if ok:
                self._counters.exported += spans
            else:
                self._counters.failed += spans


class _Told(SpanExporter):
    """An exporter that tells what became of each batch."""

    def __init__(self, exporter: SpanExporter, destination: Destination, sent: Callable[..., None]) -> None:
        self._exporter = exporter
        self._deliveries = Deliveries("Traces", destination, logger)
        self._sent = sent

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        ok = self._deliveries.make(lambda: self._exporter.export(spans) is SpanExportResult.SUCCESS)
        self._sent(len(spans), ok=ok)
        return SpanExportResult.SUCCESS if ok else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the exporter flush."""
        return self._exporter.force_flush(timeout_millis)


def otlp_exporter(destination: Destination) -> SpanExporter:
    """Return the exporter for a destination. The environment has no say in it; see `without_ambient_settings`."""
    if destination.grpc:
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as by_grpc  # noqa: PLC0415

        return by_grpc.OTLPSpanExporter(**destination.options())
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http  # noqa: PLC0415

    return by_http.OTLPSpanExporter(**destination.options())


def without_ambient_settings(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Take every `OTEL_*` variable out of an environment and return them.

    The SDK reads them wherever it is told nothing, so that the controller's own headers, tokens among them, would go to
    an object's endpoint.
    """
    return {name: environment.pop(name) for name in list(environment) if name.startswith("OTEL_")}
