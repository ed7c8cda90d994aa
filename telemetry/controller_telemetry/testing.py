"""A backend for tests: takes OTLP over HTTP on loopback and keeps the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it arrived.

    Attributes:
        failed: whether its status is an error.
        links: trace and span ids of what it is linked to.
        events: their names.
        nanoseconds: how long it took.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    attributes: Mapping[str, object]
    resource: Mapping[str, object]
    failed: bool
    links: tuple[tuple[str, str], ...] = ()
    events: tuple[str, ...] = ()
    nanoseconds: int = 0


def tree(spans: Iterable[ReceivedSpan], told: Callable[[ReceivedSpan], str] = lambda span: span.name) -> list[str]:
    """Return spans as lines, children below their parents and indented, in the order in which they are given.

    Args:
        spans: of one trace; what has no parent among them is at the top.
        told: the line of a span, without its indentation.
    """
    below: dict[str, list[ReceivedSpan]] = {}
    found = list(spans)
    known = {span.span_id for span in found}
    for span in found:
        below.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def lines(parent: str, indent: str) -> Iterator[str]:
        for span in below.get(parent, ()):
            yield indent + told(span)
            yield from lines(span.span_id, indent + "  ")

    return list(lines("", ""))


class OtlpBackend:
    """A server on a free port of 127.0.0.1; a context manager.

    Attributes:
        spans: what arrived, in that order.
        metrics: the last that arrived under each name.
        bodies: the requests as they arrived, unpacked.
        headers: those of the last request.
        status: what is answered.
        location: where a redirect leads.
    """

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.metrics: dict[str, Metric] = {}
        self.bodies: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.paths: list[str] = []
        self.status = HTTPStatus.OK
        self.location: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The address, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def tree(self, trace_id: str) -> list[str]:
        """Return a trace's spans as lines, children below their parents and indented, by the order of arrival."""
        return tree(span for span in self.spans if span.trace_id == trace_id)

    def take_metrics(self, body: bytes) -> None:
        """Keep what one request with metrics holds."""
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics}

    def take(self, body: bytes) -> None:
        """Keep what one request holds."""
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        ReceivedSpan(
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.name,
                            _plain(span.attributes),
                            _plain(resource.resource.attributes),
                            failed=span.status.code == span.status.STATUS_CODE_ERROR,
                            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                            events=tuple(event.name for event in span.events),
                            nanoseconds=span.end_time_unix_nano - span.start_time_unix_nano,
                        )
                    )


def _plain(attributes: list[KeyValue]) -> dict[str, object]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value") or "string_value") for entry in attributes}


def _handler_of(backend: OtlpBackend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Standard error belongs to the tests."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            backend.headers = {name.lower(): value for name, value in self.headers.items()}
            backend.paths.append(self.path)
            if backend.status is HTTPStatus.OK:
                take = backend.take_metrics if self.path.endswith("/metrics") else backend.take
                take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(backend.status)
            if backend.location is not None:
                self.send_header("Location", backend.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler
