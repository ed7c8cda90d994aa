"""What became of the spans, made when it is scraped."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from controller_telemetry.export import Tracers
from secret_manager_controller.controller.shard_metrics import PREFIX, counter, gauge


class TraceCollector(Collector):
    """Counts spans by their outcome."""

    def __init__(self, tracers: Tracers) -> None:
        self._tracers = tracers

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: the registry need not look for duplicates."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the series as they are now."""
        counters = self._tracers.counters
        spans = CounterMetricFamily(PREFIX + "spans", "Spans, by what became of them.", labels=["outcome"])
        for outcome in ("exported", "failed", "dropped"):
            spans.add_metric([outcome], getattr(counters, outcome))
        yield spans
        yield gauge("trace_destinations", "Destinations of traces that are open.", self._tracers.destinations)
        yield counter("trace_destinations_refused", "Objects not traced, since there are too many.", counters.refused)
