"""The inner side of every test server: the HTTP connection, and what a test may do to the server from outside."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.faults import Fault, Faults
from secret_manager_controller.testing.servers import CONTROL


class Application(Protocol):
    """What stands in for a store.

    Attributes:
        lock: held while a control is carried out.
        faults: what is to go wrong.
        calls: what was asked.
    """

    lock: threading.RLock
    faults: Faults
    calls: deque[Call]


A = TypeVar("A", bound=Application)


class Controls(Generic[A]):
    """What a test may do to any server: `POST /_control/<method>` with its arguments as a JSON object.

    A server's own controls are further public methods of a subclass.
    """

    def __init__(self, application: A) -> None:
        self._application = application

    def answer(self, action: str, body: bytes) -> tuple[int, Any]:
        """Carry out one of the methods below; return a status and what it returned."""
        method = getattr(self, action, None)
        if action.startswith("_") or action == "answer" or method is None:
            return HTTPStatus.NOT_FOUND, "there is no such control"
        arguments = json.loads(body or b"{}")
        with self._application.lock:
            return HTTPStatus.OK, method(**arguments)

    def calls(self) -> list[dict[str, Any]]:
        """Return the call log."""
        return [asdict(call) for call in self._application.calls]

    def clear_calls(self) -> None:
        """Empty the call log."""
        self._application.calls.clear()

    def fault(self, **fault: Any) -> None:
        """Let something go wrong; see `Fault`."""
        self._application.faults.add(Fault(**fault))

    def faults_left(self) -> int:
        """Return how many requests are still to be met by a fault."""
        return self._application.faults.left()

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._application.faults.clear()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, which stays open for the next request; subclasses answer what is no control."""

    controls: Controls[Any]

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # An answer is sent at once, not header by header.

    def answer(self, body: bytes) -> None:
        """Answer a request that is no control: `command`, `path` and `headers` say which."""
        raise NotImplementedError

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.startswith(CONTROL):
            self.answer(body)
            return
        status, document = self.controls.answer(self.path.removeprefix(CONTROL), body)
        self.send(status, json.dumps(document).encode())

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815 - http.server's names.

    def send(
        self, status: int, body: bytes, *, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer the request; without a body there is no content type."""
        self.send_response(status)
        if body:
            self.send_header("content-type", kind)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def break_off(self) -> None:
        """Break the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name.
        """Stay silent: the call log is the log."""


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128  # More than any test connects at once: whom the queue refuses waits for a second.

    def __init__(self, port: int, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", port), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about clients that broke off; faults of this server show in its log."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # As it came.
