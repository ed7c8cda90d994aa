"""Tracers are shared, bounded, and cost nothing when nobody answers."""

import socket
import threading
import time
from concurrent import futures
from http import HTTPStatus

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from controller_telemetry import export
from controller_telemetry.destination import Destination
from controller_telemetry.export import Tracers, TraceSettings, without_ambient_settings
from controller_telemetry.spans import NO_TRACER, traced
from controller_telemetry.testing import OtlpBackend


class Exporter(SpanExporter):
    """Keeps spans; may wait until it is let go, or fail."""

    def __init__(self):
        self.names, self.closed = [], False
        self.go_on = threading.Event()
        self.go_on.set()
        self.result = SpanExportResult.SUCCESS

    def export(self, spans):
        self.go_on.wait(10)
        self.names += [span.name for span in spans]
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self):
        self.closed = True

    def force_flush(self, timeout_millis=0):
        return True


class Bench:
    def __init__(self):
        self.exporters = {}
        self.tracers = Tracers(self.make)

    def make(self, destination):
        assert destination not in self.exporters
        return self.exporters.setdefault(destination, Exporter())


@pytest.fixture
def bench():
    made = Bench()
    yield made
    for exporter in made.exporters.values():
        exporter.go_on.set()
    made.tracers.shutdown(10)


def settings(endpoint="http://a:4318/v1/traces", *, service="s", headers=()):
    return TraceSettings(Destination(endpoint, grpc=False, headers=headers), (("service.name", service),))


def wait(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def record(tracer, name):
    with traced(tracer, name):
        pass


def test_equal_settings_share_a_provider_and_equal_destinations_a_queue(bench):
    for number in range(100):
        bench.tracers.tracer(f"team/{number}", settings(service=f"s{number % 5}"))
    assert (len(bench.exporters), bench.tracers.destinations) == (1, 1)
    record(bench.tracers.tracer("team/1", settings(service="s1")), "work")
    bench.tracers.shutdown(10)
    assert [exporter.names for exporter in bench.exporters.values()] == [["work"]]


def test_a_destination_is_closed_when_its_last_object_leaves(bench):
    bench.tracers.tracer("a", settings())
    bench.tracers.tracer("b", settings(service="t"))
    (exporter,) = bench.exporters.values()
    bench.tracers.release("a")
    assert not exporter.closed
    bench.tracers.release("b")
    bench.tracers.release("b")
    wait(lambda: exporter.closed)
    assert bench.tracers.destinations == 0


def test_a_rotated_key_takes_a_new_destination_and_closes_the_old_one(bench):
    first, second = settings(headers=(("k", "1"),)), settings(headers=(("k", "2"),))
    record(bench.tracers.tracer("a", first), "before")
    record(bench.tracers.tracer("a", second), "after")
    wait(lambda: bench.exporters[first.destination].closed)
    bench.tracers.shutdown(10)
    assert [bench.exporters[each.destination].names for each in (first, second)] == [["before"], ["after"]]


def test_an_object_that_does_not_want_traces_any_more_has_none(bench):
    bench.tracers.tracer("a", settings())
    assert bench.tracers.tracer("a", None) is NO_TRACER
    assert bench.tracers.destinations == 0


def test_there_are_no_more_destinations_than_the_bound(bench, monkeypatch):
    monkeypatch.setattr(export, "MAX_DESTINATIONS", 2)
    for number in range(2):
        bench.tracers.tracer(f"{number}", settings(f"http://{number}:4318"))
    assert bench.tracers.tracer("2", settings("http://2:4318")) is NO_TRACER
    assert bench.tracers.counters.refused == 1
    bench.tracers.release("0")
    assert bench.tracers.tracer("2", settings("http://2:4318")) is not NO_TRACER


def test_there_are_no_more_settings_than_the_bound(bench, monkeypatch):
    monkeypatch.setattr(export, "MAX_TRACERS", 2)
    for number in range(2):
        bench.tracers.tracer(f"{number}", settings(service=f"s{number}"))
    assert bench.tracers.tracer("2", settings(service="s2")) is NO_TRACER
    assert bench.tracers.tracer("2", settings(service="s1")) is bench.tracers.tracer("1", settings(service="s1"))
    bench.tracers.release("0")
    assert bench.tracers.tracer("3", settings(service="s3")) is not NO_TRACER
    assert bench.tracers.destinations == 1


def test_releasing_many_keys_looks_at_none_of_the_others(bench):
    for number in range(20_000):
        bench.tracers.tracer(f"{number}", settings(service=f"s{number % 3}"))
    for number in range(20_000):  # A look at all others for each would take a minute.
        bench.tracers.release(f"{number}")
    assert bench.tracers.destinations == 0


def test_a_backend_that_hangs_drops_spans_counts_them_and_delays_nothing(bench, monkeypatch):
    monkeypatch.setattr(export, "QUEUE_SIZE", 8)
    monkeypatch.setattr(export, "BATCH_SIZE", 2)
    tracer = bench.tracers.tracer("a", settings())
    (exporter,) = bench.exporters.values()
    exporter.go_on.clear()
    for _ in range(20):
        record(tracer, "work")
    assert bench.tracers.counters.dropped == 12
    exporter.go_on.set()
    wait(lambda: bench.tracers.counters.exported == 8)


def test_an_end_waits_no_longer_than_it_is_told(bench):
    record(bench.tracers.tracer("a", settings()), "work")
    (exporter,) = bench.exporters.values()
    exporter.go_on.clear()
    done = threading.Event()
    threading.Thread(target=lambda: (bench.tracers.shutdown(0.1), done.set()), daemon=True).start()
    assert done.wait(8)
    assert exporter.names == []


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, RuntimeError("canary-51")], ids=["refused", "a fault"])
def test_a_batch_that_is_not_taken_is_counted_and_told_once(bench, result, caplog):
    caplog.set_level("INFO")
    tracer = bench.tracers.tracer("a", settings())
    (exporter,) = bench.exporters.values()
    exporter.result = result
    queue = next(iter(bench.tracers._queues.values())).value
    for _ in range(3):
        record(tracer, "work")
        queue.force_flush(10_000)
    exporter.result = SpanExportResult.SUCCESS
    record(tracer, "work")
    queue.force_flush(10_000)
    counters = bench.tracers.counters
    assert (counters.failed, counters.exported) == (3, 1)
    told = [entry.getMessage() for entry in caplog.records if entry.name == "controller_telemetry.export"]
    assert [line for line in told if line.startswith("Traces")] == ["Traces are not taken", "Traces are taken again"]
    assert "canary-51" not in caplog.text


@pytest.fixture
def tracers():
    made = Tracers()
    yield made
    made.shutdown(10)


def http_settings(backend, headers=()):
    return TraceSettings(Destination(f"{backend.url}/v1/traces", grpc=False, headers=headers), (("service.name", "s"),))


def test_spans_arrive_over_http_with_their_headers_and_their_resource(tracers):
    with OtlpBackend() as backend:
        record(tracers.tracer("a", http_settings(backend, (("x-token", "t"),))), "work")
        tracers.shutdown(10)
        (span,) = backend.spans
        assert (span.name, span.resource) == ("work", {"service.name": "s"})
        assert (backend.paths, backend.headers["x-token"]) == (["/v1/traces"], "t")
    assert tracers.counters.exported == 1


def test_a_redirect_is_a_refusal_and_takes_no_header_elsewhere(tracers):
    with OtlpBackend() as backend, OtlpBackend() as elsewhere:
        backend.status, backend.location = HTTPStatus.TEMPORARY_REDIRECT, f"{elsewhere.url}/v1/traces"
        record(tracers.tracer("a", http_settings(backend, (("x-token", "t"),))), "work")
        tracers.shutdown(10)
        assert elsewhere.paths == []
    assert (tracers.counters.exported, tracers.counters.failed) == (0, 1)


def test_no_login_of_the_environment_goes_along(tracers, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password canary-9\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with OtlpBackend() as backend:
        record(tracers.tracer("a", http_settings(backend)), "work")
        tracers.shutdown(10)
        assert backend.paths
        assert "authorization" not in backend.headers


def test_nobody_at_the_address_is_a_failed_batch(tracers):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = TraceSettings(Destination(f"http://127.0.0.1:{port}/v1/traces", grpc=False), ())
    record(tracers.tracer("a", nobody), "work")
    tracers.shutdown(10)
    assert (tracers.counters.exported, tracers.counters.failed) == (0, 1)


def test_spans_arrive_over_grpc_with_their_headers(tracers):
    received = []

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 - gRPC's name.
            names = [span.name for r in request.resource_spans for s in r.scope_spans for span in s.spans]
            received.append((names, dict(context.invocation_metadata()).get("x-token")))
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        destination = Destination(f"http://127.0.0.1:{port}", grpc=True, headers=(("X-Token", "t"),))
        record(tracers.tracer("a", TraceSettings(destination, ())), "work")
        tracers.shutdown(10)
    finally:
        server.stop(None)
    assert received == [(["work"], "t")]


def test_a_destination_shows_no_header():
    shown = repr(Destination("http://a", grpc=False, headers=(("k", "canary"),), ca=b"canary"))
    assert "canary" not in shown


def test_the_sdk_is_kept_from_the_environment():
    environment = {"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_SERVICE_NAME": "s", "PATH": "/bin"}
    taken = without_ambient_settings(environment)
    assert (taken, environment) == (
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_SERVICE_NAME": "s"},
        {"PATH": "/bin"},
    )
