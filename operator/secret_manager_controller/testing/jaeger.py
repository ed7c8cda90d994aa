"""A real Jaeger on loopback: takes spans by OTLP, keeps them in memory, and is asked for them over its HTTP API."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from controller_telemetry.testing import ReceivedSpan, tree
from secret_manager_controller.testing import certificates, processes
from secret_manager_controller.testing.servers import ServerError
from secret_manager_controller.tracing import Attribute

HOST: Final = "127.0.0.1"
START_TIMEOUT: Final = 30.0  # Seconds; it takes about one on an idle machine.
START_TRIES: Final = 5  # Somebody else may take a port between our choice and Jaeger's start.
STOP_GRACE: Final = 3.0  # Seconds; it keeps nothing.
TRACE_TIMEOUT: Final = 20.0  # Seconds; spans are sent a second after they have ended.
PORTS: Final = ("query", "query_grpc", "grpc", "http", "guarded_grpc", "guarded_http")
LOGIN: Final = ("tenant", "example-only")

Spans = Sequence[ReceivedSpan]


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A running Jaeger.

    Attributes:
        grpc: the address for OTLP over gRPC.
        http: the address for OTLP over HTTP.
        guarded_grpc: the same with TLS and a login.
        guarded_http: likewise.
        ca: the authority of these two, in PEM.
        query_port: of the HTTP API.
    """

    grpc: str
    http: str
    guarded_grpc: str
    guarded_http: str
    ca: bytes
    query_port: int

    @property
    def login(self) -> Mapping[str, bytes]:
        """The data of a Secret with the header that the guarded addresses ask for."""
        return {"Authorization": b"Basic " + b64encode(":".join(LOGIN).encode())}

    def spans(self, trace_id: str) -> Spans:
        """Return a trace's spans by their start; none if there is no such trace."""
        answer = self._get(f"/api/v3/traces/{trace_id}")
        found = [
            (int(span["startTimeUnixNano"]), _received(span, resource.get("resource") or {}))
            for resource in answer.get("result", {}).get("resourceSpans", ())
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        return [span for _, span in sorted(found, key=lambda pair: pair[0])]

    def whole(self, trace_id: str, *, last: str = "reconcile") -> Spans:
        """Wait for the span that ends last, and return a trace's spans.

        Raises:
            ServerError: it did not come.
        """
        deadline = time.monotonic() + TRACE_TIMEOUT
        while True:
            found = self.spans(trace_id)
            names = [span.name for span in found]
            if last in names:
                return found
            if time.monotonic() > deadline:
                raise ServerError(f"Jaeger has no whole trace {trace_id}: {names}")
            time.sleep(0.1)

    def everything(self, trace_id: str) -> str:
        """Return all that Jaeger keeps of a trace, as text."""
        return json.dumps(self._get(f"/api/v3/traces/{trace_id}"))

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.query_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        finally:
            connection.close()
        return dict(body) if answer.status == http.HTTPStatus.OK else {}


@contextlib.contextmanager
def running(binary: Path) -> Iterator[Jaeger]:
    """Run Jaeger while the context lasts.

    Raises:
        ServerError: it did not start.
    """
    with processes.temporary_directory("jaeger") as directory, contextlib.ExitStack() as closing:
        certificates.write_serving_certificate(directory, address=HOST)
        for _ in range(START_TRIES):
            ports = dict(zip(PORTS, processes.free_ports(HOST, len(PORTS)), strict=True))
            config = directory / "config.yaml"
            config.write_text(yaml.safe_dump(_config(directory, ports)))
            log = directory / "log"
            process = processes.start([binary, "--config", config], log=log)
            closing.callback(processes.stop, process, grace=STOP_GRACE)
            if _answers(process, ports["query"]):
                break
        else:
            raise ServerError(f"Jaeger did not start: {processes.tail(log)}")
        yield Jaeger(
            grpc=f"http://{HOST}:{ports['grpc']}",
            http=f"http://{HOST}:{ports['http']}",
            guarded_grpc=f"https://{HOST}:{ports['guarded_grpc']}",
            guarded_http=f"https://{HOST}:{ports['guarded_http']}",
            ca=(directory / "ca.crt").read_bytes(),
            query_port=ports["query"],
        )


def span_tree(spans: Spans, *, times: bool = True) -> list[str]:
    """Return a trace as lines for people: each span below its parent, with what it tells and how long it took.

    Args:
        spans: of one trace, by their start.
        times: whether to tell how long they took.
    """

    def told(span: ReceivedSpan) -> str:
        took = f"  {span.nanoseconds / 1e6:.0f} ms" if times else ""
        details = {
            name.removeprefix(PREFIX): value
            for name, value in sorted(span.attributes.items())
            if name not in _TOLD_OTHERWISE
        }
        failed = "  failed" if span.failed else ""
        return f"{span.name}{took}{failed}" + "".join(f"  {name}={value}" for name, value in details.items())

    return tree(spans, told)


PREFIX: Final = "secret_manager."
_TOLD_OTHERWISE: Final = frozenset({Attribute.NAMESPACE, Attribute.PROVIDER, Attribute.OPERATION})
"""Attributes that an object's key and the names of calls repeat."""


def _received(span: Mapping[str, Any], resource: Mapping[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        span["traceId"],
        span["spanId"],
        span.get("parentSpanId", ""),
        span["name"],
        _plain(span),
        _plain(resource),
        failed=span.get("status", {}).get("code") == 2,  # STATUS_CODE_ERROR of OTLP.
        links=tuple((link["traceId"], link["spanId"]) for link in span.get("links", ())),
        events=tuple(event["name"] for event in span.get("events", ())),
        nanoseconds=int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]),
    )


def _plain(owner: Mapping[str, Any]) -> dict[str, object]:
    """Return attributes; those that Jaeger itself adds are none of the sender's."""
    values = {entry["key"]: entry["value"] for entry in owner.get("attributes", ())}
    return {
        name: int(value["intValue"]) if "intValue" in value else next(iter(value.values()), "")
        for name, value in values.items()
        if not name.startswith("@jaeger@")
    }


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the API answers; False where the process has ended."""
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        time.sleep(0.05)
    return False


def _config(directory: Path, ports: Mapping[str, int]) -> dict[str, Any]:
    """Return a configuration: https://www.jaegertracing.io/docs/latest/deployment/configuration/."""

    def at(name: str, **more: Any) -> dict[str, Any]:
        return {"endpoint": f"{HOST}:{ports[name]}", **more}

    tls = {"cert_file": str(directory / "server.crt"), "key_file": str(directory / "server.key")}
    guard: dict[str, Any] = {"tls": tls, "auth": {"authenticator": "basicauth"}}
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "basicauth"],
            "pipelines": {"traces": {"receivers": ["otlp", "otlp/guarded"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "basicauth": {"htpasswd": {"inline": ":".join(LOGIN)}},
            "jaeger_query": {"storage": {"traces": "memory"}, "http": at("query"), "grpc": at("query_grpc")},
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
        },
        "receivers": {
            "otlp": {"protocols": {"grpc": at("grpc"), "http": at("http")}},
            "otlp/guarded": {"protocols": {"grpc": at("guarded_grpc", **guard), "http": at("guarded_http", **guard)}},
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
