"""A registry's series arrive by OTLP under their names, and a destination that does not answer costs nothing."""

import logging
import socket
import threading
import time
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from controller_telemetry import destination
from controller_telemetry.destination import Destination
from controller_telemetry.metric_export import MetricPusher
from controller_telemetry.testing import OtlpBackend

RESOURCE = {"service.name": "example"}


@pytest.fixture
def registry():
    made = CollectorRegistry()
    Counter("calls", "Calls.", ["code"], registry=made).labels("OK").inc(3)
    Gauge("depth", "Depth.", registry=made).set(7)
    Info("build", "Build.", registry=made).info({"version": "1"})
    duration = Histogram("seconds", "Seconds.", ["shard"], buckets=(1, 2), registry=made)
    for value in (0.5, 0.7, 1.5, 9):
        duration.labels("4").observe(value)
    Histogram("unused", "Unused.", ["shard"], registry=made)
    return made


@pytest.fixture
def backend():
    with OtlpBackend() as running:
        yield running


def send(destination, *readings):
    pusher = MetricPusher(destination, RESOURCE)
    for reading in readings:
        pusher.push(reading)
    pusher.shutdown(10)


def test_each_kind_of_series_arrives_under_the_name_that_prometheus_sees(backend, registry):
    send(Destination(f"{backend.url}/v1/metrics", grpc=False), registry.collect())
    assert set(backend.metrics) == {"calls_total", "depth", "build_info", "seconds"}
    calls, seconds = backend.metrics["calls_total"].sum, backend.metrics["seconds"].histogram
    assert calls.is_monotonic
    assert [(point.as_double, point.attributes[0].value.string_value) for point in calls.data_points] == [(3, "OK")]
    assert calls.data_points[0].start_time_unix_nano > 0
    assert backend.metrics["depth"].gauge.data_points[0].as_double == 7
    assert backend.metrics["build_info"].gauge.data_points[0].as_double == 1
    (point,) = seconds.data_points
    assert (point.count, point.sum) == (4, 11.7)
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([2, 1, 1], [1, 2])
    assert not point.HasField("max")


def test_series_arrive_by_grpc_with_their_headers(registry):
    came = []

    class Service(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request, context):  # noqa: N802 - the protocol's name.
            came.append((request, dict(context.invocation_metadata())))
            return metrics_service_pb2.ExportMetricsServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        send(Destination(f"http://127.0.0.1:{port}", grpc=True, headers=(("X-Key", "k"),)), registry.collect())
    finally:
        server.stop(None).wait()
    ((request, headers),) = came
    assert headers["x-key"] == "k"
    assert request.resource_metrics[0].resource.attributes[0].value.string_value == "example"
    assert len(request.resource_metrics[0].scope_metrics[0].metrics) == 4


class Exporter(MetricExporter):
    """Waits until it is let go, and notes what it was given."""

    def __init__(self):
        super().__init__()
        self.taken, self.busy, self.go_on = [], threading.Event(), threading.Event()

    def export(self, metrics_data, timeout_millis=0, **_):
        self.busy.set()
        self.go_on.wait(10)
        (metric,) = metrics_data.resource_metrics[0].scope_metrics[0].metrics
        self.taken.append(metric.data.data_points[0].value)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=0):
        return True

    def shutdown(self, timeout_millis=0, **_):
        self.go_on.set()


def test_only_the_newest_reading_waits_for_a_slow_destination():
    exporter, registry = Exporter(), CollectorRegistry()
    depth = Gauge("depth", "Depth.", registry=registry)
    pusher = MetricPusher(Destination("http://h", grpc=False), RESOURCE, lambda _: exporter)
    for value in (1, 2, 3, 4):
        depth.set(value)
        pusher.push(registry.collect())
        assert exporter.busy.wait(10)
    exporter.go_on.set()
    pusher.shutdown(10)
    assert exporter.taken == [1, 4]


@pytest.mark.parametrize("grpc", [False, True], ids=["HTTP", "gRPC"])
def test_a_destination_that_never_answers_delays_the_end_by_no_more_than_is_allowed(registry, grpc, monkeypatch):
    monkeypatch.setattr(destination, "EXPORT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pusher = MetricPusher(Destination(f"http://127.0.0.1:{silent.getsockname()[1]}", grpc), RESOURCE)
        pusher.push(registry.collect())
        started = time.monotonic()
        pusher.shutdown(0.2)
        assert time.monotonic() - started < 2
    pusher.shutdown(30)  # What it still tries and logs is no other test's.
    assert "metrics-push" not in {thread.name for thread in threading.enumerate()}


class Failing(Exporter):
    """Gives one result after the other, exceptions as such."""

    def __init__(self, *results):
        super().__init__()
        self.results, self.made = iter(results), threading.Semaphore(0)

    def export(self, metrics_data, timeout_millis=0, **_):
        self.made.release()
        result = next(self.results)
        if isinstance(result, Exception):
            raise result
        return result


def test_what_becomes_of_readings_is_logged_when_that_changes(registry, caplog):
    caplog.set_level(logging.INFO, "controller_telemetry")
    exporter = Failing(MetricExportResult.FAILURE, RuntimeError("canary-9a"), MetricExportResult.SUCCESS)
    pusher = MetricPusher(Destination("http://h:4318/v1/metrics", grpc=False), RESOURCE, lambda _: exporter)
    for _ in range(3):
        pusher.push(registry.collect())
        assert exporter.made.acquire(timeout=10)
    pusher.shutdown(10)
    assert [(record.getMessage(), record.host) for record in caplog.records] == [
        ("Metrics are not taken", "h"),
        ("Metrics are taken again", "h"),
    ]
    assert "canary" not in caplog.text
