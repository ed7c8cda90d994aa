"""A network namespace for one process: a loopback of its own, which can be taken away. Linux, and rights to make one.

with NetworkNamespace() as network:
    network.forward(port)                     # what listens there outside can be reached inside
    replicas.start(prefix=network.prefix)
    with network.partitioned():
        ...                                   # the kernel drops every packet
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from secret_manager_controller.testing import processes

HOST = "127.0.0.1"
CLONE_NEWNET = 0x40000000  # <linux/sched.h>
CHUNK = 65_536
START_TIMEOUT = 5.0  # Seconds; it takes milliseconds.


def allowed() -> bool:
    """Tell whether this process may make network namespaces."""
    if not all(shutil.which(program) for program in ("unshare", "nsenter", "ip")):
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


class NetworkNamespace:
    """A network namespace that lasts as long as the context."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._forwarders: list[_Forwarder] = []
        self._pid = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            directory = closing.enter_context(processes.temporary_directory("network"))
            holder = processes.start(
                [_program("unshare"), "--net", _program("sleep"), "infinity"], log=directory / "log"
            )
            closing.callback(processes.stop, holder, grace=1.0)
            self._pid = holder.pid
            deadline = time.monotonic() + START_TIMEOUT
            # The launcher and unshare run in the same process one after the other; then the namespace is another one.
            while Path(self._file).readlink() == Path("/proc/self/ns/net").readlink():
                if holder.poll() is not None or time.monotonic() > deadline:
                    raise OSError(f"no network namespace can be made: {processes.tail(directory / 'log')}")
                time.sleep(0.01)
            self._loopback("up")
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for forwarder in self._forwarders:
            forwarder.close()
        self._closing.close()

    @property
    def prefix(self) -> tuple[str, ...]:
        """The program and its arguments that run another one inside."""
        return (_program("nsenter"), f"--net={self._file}")

    def forward(self, port: int) -> None:
        """Let what listens on a port of loopback outside be reached at the same port inside."""
        listener = self._inside(socket.socket)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        self._forwarders.append(_Forwarder(listener, port))

    @contextlib.contextmanager
    def partitioned(self) -> Iterator[None]:
        """Take the loopback down as long as the context lasts: no packet arrives, and no connection is told so."""
        self._loopback("down")
        try:
            yield
        finally:
            self._loopback("up")

    @property
    def _file(self) -> str:
        return f"/proc/{self._pid}/ns/net"

    def _loopback(self, state: str) -> None:
        subprocess.run([*self.prefix, _program("ip"), "link", "set", "lo", state], check=True, capture_output=True)

    def _inside(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Return a socket that belongs to the namespace: to that of the thread that made it, for good (setns(2))."""

        def work() -> socket.socket:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(self._file).open("rb") as file:
                if libc.setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return make()

        with ThreadPoolExecutor(max_workers=1) as thread:  # Ends with the block: nobody else runs in there.
            return thread.submit(work).result()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(2, "not an executable program", name)
    return found


class _Forwarder:
    """Passes connections on from a listener to a port outside, until it is closed."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._listener = listener
        self._port = port
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, name=f"forward-{port}")]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection and wait until nothing is passed on any more."""
        with self._lock:
            self._closed = True
            _shut_down(self._listener, *self._ends)
        for thread in self._threads:  # The first one starts the others and ends before they are joined.
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listener.accept()
            except OSError:
                return  # It was shut down.
            self._threads.append(threading.Thread(target=self._join, args=(inside,)))
            self._threads[-1].start()

    def _join(self, inside: socket.socket) -> None:
        with inside:
            try:
                outside = socket.create_connection((HOST, self._port))
            except OSError:
                return  # Nobody listens there now: the client is told by the end of its connection.
            ends = {inside, outside}
            with outside:
                with self._lock:
                    self._ends |= ends
                    if self._closed:
                        return
                back = threading.Thread(target=_pump, args=(outside, inside))
                back.start()
                _pump(inside, outside)
                back.join()
                with self._lock:
                    self._ends -= ends


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    _shut_down(source, target)


def _shut_down(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
