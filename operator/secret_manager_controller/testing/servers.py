"""Test servers in processes of their own: how they are started, and how a test reaches into them.

A server's module prints its addresses as one line of JSON when it is ready, and takes controls as
`POST /_control/<action>` with their arguments as a JSON object.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from secret_manager_controller.testing import processes
from secret_manager_controller.testing.calls import Call

START_TIMEOUT = 30.0  # Seconds; it takes about one on an idle machine.
STOP_GRACE = 2.0  # Seconds; a server keeps nothing, so it has nothing to finish.
CONTROL_TIMEOUT = 10.0  # Seconds; a control answers in milliseconds.
CONTROL = "/_control/"


class ServerError(RuntimeError):
    """A test server cannot be started, or refused a control."""


def launch(module: str, *arguments: str, closing: contextlib.ExitStack) -> dict[str, Any]:
    """Start a server that ends with this process at the latest; return what it printed when it was ready.

    Args:
        module: what `python -m` runs.
        arguments: of its command line, beside the port.
        closing: ends the server when it is closed.

    Raises:
        ServerError: it did not start.
    """
    directory = closing.enter_context(processes.temporary_directory("server"))
    log = directory / "log"
    process = processes.start(
        [sys.executable, "-m", module, "--port", "0", *arguments],
        log=log,
        # No configuration of ours reaches the server; it finds its modules where we found ours.
        environment={
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(directory),
            "TMPDIR": str(directory),
        },
    )
    closing.callback(processes.stop, process, grace=STOP_GRACE)
    deadline = time.monotonic() + START_TIMEOUT
    while (address := _printed(log)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise ServerError(f"{module} did not start: {processes.tail(log)}")
        time.sleep(0.01)
    return address


def control(url: str, action: str, arguments: Mapping[str, Any]) -> Any:
    """Do something to a server from outside and return what it answers.

    Raises:
        ServerError: the server refused.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=CONTROL_TIMEOUT)
    try:
        connection.request("POST", f"{CONTROL}{action}", json.dumps(arguments))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise ServerError(f"the test server refused the control {action!r} with {response.status}")
    return json.loads(body)


class StoreServer:
    """A running server of a store, and what a test may do to any of them. Methods block for some milliseconds."""

    def __init__(self, control_url: str, *, writes: frozenset[str]) -> None:
        """Reach a server that runs.

        Args:
            control_url: where it takes controls.
            writes: the operations that change a secret.
        """
        self._control_url = control_url
        self._writes = writes
        self._closing = contextlib.ExitStack()

    def stop(self) -> None:
        """End the server's process."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def calls(self) -> list[Call]:
        """Return every request since the start or the last `clear_calls`, in the order of their answers."""
        return [Call(**{**call, "names": tuple(call["names"])}) for call in self._control("calls")]

    def writes(self) -> list[Call]:
        """Return the requests that asked for a change."""
        return [call for call in self.calls() if call.operation in self._writes]

    def clear_calls(self) -> None:
        """Empty the call log."""
        self._control("clear_calls")

    def hang(self, operation: str, seconds: float, times: int = 1) -> None:
        """Let the next requests wait before they are carried out, even if the client is gone by then."""
        self._control("fault", operation=operation, seconds=seconds, times=times)

    def faults_left(self) -> int:
        """Return how many requests are still to be met by a fault: 0 once the last one that hangs is under way."""
        return int(self._control("faults_left"))

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        self._control("clear_faults")

    def _control(self, action: str, **arguments: Any) -> Any:
        return control(self._control_url, action, arguments)


class HttpStoreServer(StoreServer):
    """A running server of a store that speaks HTTP."""

    def fail(
        self,
        operation: str,
        code: str,
        status: int = 500,
        *,
        times: int = 1,
        retry_after: float | None = None,
        commit: bool = False,
        name: str | None = None,
    ) -> None:
        """Answer the next requests with an error.

        Args:
            operation: the API's name of it, a login's as the call log names it (`GetToken` for Entra), or `*`.
            code: the error code. Azure: the inner one, where the service tells two; `AADSTS…` for Entra.
            status: HTTP status; 0 breaks the connection without an answer.
            times: how many requests.
            retry_after: seconds for the `Retry-After` header.
            commit: carry the request out all the same: its answer is what is lost.
            name: only requests that name this secret.
        """
        self._control(
            "fault",
            operation=operation,
            code=code,
            status=status,
            times=times,
            retry_after=retry_after,
            commit=commit,
            name=name,
        )


def _printed(log: Path) -> dict[str, Any] | None:
    """Return what the server printed when it was ready; its log may hold warnings too."""
    lines = log.read_bytes().splitlines(keepends=True)
    return next((json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")), None)
