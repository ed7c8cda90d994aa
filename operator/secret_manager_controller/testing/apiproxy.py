"""A proxy before a real API server that fails on demand: outages, slowness, watches that break or are too old.

    with ApiProxy(plane) as proxy:
        environment = {"KUBECONFIG": str(proxy.kubeconfig(directory))}
        proxy.refuse(503)               # everything is refused from now on
        with proxy.expired_watches():   # every watch ends with 410 Gone
            ...                         # what happens here gives no event
        with proxy.partitioned():       # nothing gets through; it arrives late, when the context ends
            ...
        proxy.delay(30, of="/leases")   # these requests arrive late

What is not refused reaches the API server as it is, credentials included, and comes back as it is.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

from secret_manager_controller.testing.controlplane import ControlPlane

CHUNK = 65_536
UPSTREAM_TIMEOUT = 600.0  # Seconds; a watch is silent for as long as nothing happens.
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})
GONE = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old resource version"}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that go away; standard error belongs to the tests."""


class ApiProxy:
    """Forwards to a control plane from a free port of 127.0.0.1, over plain HTTP."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._refusal: int | None = None
        self._expired = False
        self._delay = (0.0, "")
        self._passing = threading.Event()
        self._passing.set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._watches: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._passing.set()
        self._flowing.set()
        self._server.shutdown()
        self._thread.join()
        self.cut_watches()
        self._server.server_close()

    def kubeconfig(self, directory: Path, token: str | None = None) -> Path:
        """Write a kubeconfig that logs in through this proxy, with a token or as `admin`."""
        name = "proxy"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}],
            "users": [{"name": name, "user": {"token": token or self._plane.token()}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        path = directory / "proxy.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def refuse(self, status: int | None) -> None:
        """Answer every request with an HTTP status and end all watches; None forwards again."""
        self._refusal = status
        if status is not None:
            self.cut_watches()

    def delay(self, seconds: float, *, of: str = "") -> None:
        """Let requests whose path contains `of` arrive so much later, even if the client is gone by then; 0 ends it."""
        self._delay = (seconds, of)

    @contextlib.contextmanager
    def partitioned(self) -> Iterator[None]:
        """Let nothing through either way as long as the context lasts: no refusal, no end of a connection, silence.

        What was sent meanwhile arrives afterwards, as packets do that are sent again.
        """
        self._passing.clear()
        try:
            yield
        finally:
            self._passing.set()

    @contextlib.contextmanager
    def hanging_watches(self) -> Iterator[None]:
        """Let watches show nothing as long as the context lasts, and all of it afterwards; the rest goes through."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def cut_watches(self) -> None:
        """Break every watch that is open."""
        with self._lock:
            for connection in self._watches:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def expired_watches(self) -> Iterator[None]:
        """End all watches, and let every new one end with 410 Gone as long as the context lasts.

        The client then lists again. What was deleted meanwhile is in no event.
        """
        self._expired = True
        self.cut_watches()
        try:
            yield
        finally:
            self._expired = False

    def forward(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        is_watch = "watch=true" in handler.path
        seconds, of = self._delay
        if seconds and of in handler.path and not is_watch:
            self._closed.wait(seconds)
        self._passing.wait()
        if self._closed.is_set():
            raise ConnectionAbortedError
        if (refusal := self._refusal) is not None:
            _answer(handler, refusal, {"kind": "Status", "status": "Failure", "code": refusal, "message": "refused"})
        elif is_watch and self._expired:
            _answer(handler, HTTPStatus.OK, {"type": "ERROR", "object": GONE})
        else:
            self._pass_on(handler, body, is_watch=is_watch)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes, *, is_watch: bool) -> None:
        address = urlsplit(self._plane.url)
        tls = ssl.create_default_context(cafile=self._plane.ca_file)
        upstream = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=tls, timeout=UPSTREAM_TIMEOUT
        )
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in HOP_BY_HOP}
        with contextlib.closing(upstream):
            upstream.request(handler.command, handler.path, body=body or None, headers=headers)
            with self._tracked(upstream.sock if is_watch else None, handler.connection if is_watch else None):
                response = upstream.getresponse()
                handler.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        handler.send_header(name, value)
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                for chunk in iter(functools.partial(response.read1, CHUNK), b""):
                    self._passing.wait()
                    if is_watch:
                        self._flowing.wait()
                    handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                handler.wfile.write(b"0\r\n\r\n")

    @contextlib.contextmanager
    def _tracked(self, *connections: socket.socket | None) -> Iterator[None]:
        found = {connection for connection in connections if connection is not None}
        with self._lock:
            self._watches |= found
        try:
            yield
        finally:
            with self._lock:
                self._watches -= found


def _answer(handler: BaseHTTPRequestHandler, status: int, document: object) -> None:
    body = json.dumps(document).encode() + b"\n"
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _handler_of(proxy: ApiProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            try:
                proxy.forward(self)
            except (OSError, http.client.HTTPException):
                self.close_connection = True  # One side went away, which is what the tests are about.

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _forward  # noqa: N815 - http.server's names.

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so.
            """Keep quiet: standard error belongs to the tests."""

    return Handler
