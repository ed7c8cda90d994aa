"""Run a program that reads files and writes to stdout, and let it do nothing else; see `launcher`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secret_manager_controller.render import launcher

MAX_ERROR_BYTES = 64 << 10
"""What is kept of stderr, to tell kinds of failures apart; the rest is read and dropped."""

_LAUNCHER = Path(launcher.__file__)
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use.

    Attributes:
        seconds: on the clock; as much on the processor.
        memory: bytes of data; Go's runtime takes 100 MiB of it before it does anything.
        output: bytes of stdout.
    """

    seconds: float = 30.0  # A build of a hundred overlays takes one.
    memory: int = 160 << 20
    output: int = 16 << 20


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended.

    Attributes:
        code: the exit code; the signal's number, negative, where one ended it.
        output: stdout, which may hold plaintext.
        errors: the beginning of stderr, which may too.
        exceeded: the limit that it was killed for, as a sentence's end; None if it ended by itself.
    """

    code: int
    output: bytes = field(repr=False)
    errors: bytes = field(repr=False)
    exceeded: str | None = None


def run(program: Path, arguments: Sequence[str], *, directory: Path, limits: Limits) -> Finished:
    """Run a program in a directory to its end, with an environment built from empty.

    Args:
        program: an absolute path.
        arguments: may not hold plaintext: everybody can read them.
        directory: the working directory, and HOME.
        limits: what it may use.
    """
    cpu_seconds = str(max(1, round(limits.seconds)))
    command = [sys.executable, "-I", str(_LAUNCHER), str(limits.memory), cpu_seconds, str(program), *arguments]
    process = subprocess.Popen(  # noqa: S603 - our own launcher; what is foreign is in files.
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(directory, limits),
        cwd=directory,
        start_new_session=True,
    )
    with process:
        try:
            output, errors, exceeded = _drained(process, limits)
        finally:
            # The whole group, and only as long as it is not reaped: then its number may be somebody else's.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return Finished(code, output, errors, exceeded)


def _environment(home: Path, limits: Limits) -> Mapping[str, str]:
    # No PATH: there is nothing to be found. Go's collector works harder before the limit that ends the process.
    go = {"GOMAXPROCS": "2", "GOMEMLIMIT": str(limits.memory // 2), "GOTRACEBACK": "none"}
    return {"HOME": str(home), "LC_ALL": "C"} | go


def _drained(process: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, bytes, str | None]:
    """Read both pipes to their ends; stop at the first limit that is passed."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = bytearray(), bytearray()
    deadline = time.monotonic() + limits.seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            left = deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                return bytes(output), bytes(errors), f"did not end within {limits.seconds:g} seconds"
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data is output:
                    output += chunk
                else:
                    errors += chunk[: MAX_ERROR_BYTES - len(errors)]
            if len(output) > limits.output:
                return b"", bytes(errors), f"wrote more than {limits.output >> 20} MiB"
    # Pipes are closed, the process may still run: nobody waits for it beyond the deadline.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(deadline - time.monotonic(), 0.01))
        return bytes(output), bytes(errors), None
    return b"", bytes(errors), f"did not end within {limits.seconds:g} seconds"
