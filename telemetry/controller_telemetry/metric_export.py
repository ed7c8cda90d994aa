"""Metrics by OTLP: the series of a Prometheus registry, sent as they are; sets the OpenTelemetry SDK up, like `export`.

The registry is read where its owner calls `push`, and sent in a thread of its own. While a destination does not answer
the newest reading waits, and no other: nothing queues up, since each holds all that the ones before it did.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric as Family

from controller_telemetry.destination import Deliveries, Destination
from controller_telemetry.export import TRACER

logger = logging.getLogger(__name__)

CUMULATIVE: Final = AggregationTemporality.CUMULATIVE

Labels = tuple[tuple[str, str], ...]


class MetricPusher:
    """Sends readings of a registry to one destination."""

    def __init__(
        self,
        destination: Destination,
        resource: Mapping[str, str],
        exporter_of: Callable[[Destination], MetricExporter] | None = None,
    ) -> None:
        """Start its thread.

        Args:
            destination: where readings go.
            resource: attributes of all series, such as `service.name`.
            exporter_of: makes what sends.
        """
        self._exporter = (exporter_of or otlp_exporter)(destination)
        self._deliveries = Deliveries("Metrics", destination, logger)
        self._resource = Resource(dict(resource))
        self._started = time.time_ns()
        self._changed = threading.Condition()
        self._newest: MetricsData | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)
        self._thread.start()

    def push(self, families: Iterable[Family]) -> None:
        """Send these families; returns at once."""
        reading = reading_of(families, self._resource, started=self._started, now=time.time_ns())
        with self._changed:
            self._newest = reading
            self._changed.notify()

    def shutdown(self, timeout: float) -> None:
        """Send what waits and end, in `timeout` seconds at most; what is left then is lost."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while (reading := self._take()) is not None:
            self._deliveries.make(functools.partial(self._taken, reading))
        self._exporter.shutdown()

    def _taken(self, reading: MetricsData) -> bool:
        return self._exporter.export(reading) is MetricExportResult.SUCCESS

    def _take(self) -> MetricsData | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended)
            reading, self._newest = self._newest, None
            return reading


def reading_of(families: Iterable[Family], resource: Resource, *, started: int, now: int) -> MetricsData:
    """Return families as OTLP has them, under the names that Prometheus sees.

    Args:
        families: of a registry.
        resource: whose they are.
        started: since when counters count, in nanoseconds of the Unix time.
        now: when they were read, likewise.
    """
    metrics = [metric for family in families if (metric := _metric(family, started, now)) is not None]
    scope = ScopeMetrics(InstrumentationScope(TRACER), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def otlp_exporter(destination: Destination) -> MetricExporter:
    """Return the exporter for a destination; see `export.without_ambient_settings`."""
    if destination.grpc:
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as by_grpc  # noqa: PLC0415

        return by_grpc.OTLPMetricExporter(**destination.options())
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as by_http  # noqa: PLC0415

    return by_http.OTLPMetricExporter(**destination.options())


def _metric(family: Family, started: int, now: int) -> Metric | None:
    if family.type == "histogram":
        points = _histogram_points(family, started, now)
        return Metric(family.name, family.documentation, "", Histogram(points, CUMULATIVE)) if points else None
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    samples = [sample for sample in family.samples if sample.name == family.name + suffix]
    if not samples:
        return None
    monotonic = family.type == "counter"
    numbers = [NumberDataPoint(sample.labels, started if monotonic else 0, now, sample.value) for sample in samples]
    data = Sum(numbers, CUMULATIVE, is_monotonic=True) if monotonic else Gauge(numbers)
    return Metric(family.name + suffix, family.documentation, "", data)


def _histogram_points(family: Family, started: int, now: int) -> list[HistogramDataPoint]:
    buckets: defaultdict[Labels, list[tuple[float, int]]] = defaultdict(list)
    sums: dict[Labels, float] = {}
    for sample in family.samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            buckets[labels].append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    points = []
    for labels, counted in buckets.items():
        counted.sort()
        totals = [total for _, total in counted]  # Prometheus' buckets hold those below them too.
        counts = [total - below for total, below in zip(totals, [0, *totals[:-1]], strict=True)]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=started,
                time_unix_nano=now,
                count=totals[-1],
                sum=sums[labels],
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in counted[:-1]],
                min=None,  # type: ignore[arg-type]  # Optional in OTLP, and not kept by Prometheus.
                max=None,  # type: ignore[arg-type]  # Likewise.
            )
        )
    return points
