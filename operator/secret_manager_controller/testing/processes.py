"""Child processes for tests and demos: they log to a file, die with their parent, and stop in bounded time."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from secret_manager_controller import scratch

PREFIX = "smc-parts-"
"""Of the directories of test servers and the like."""
TAIL_LINES = 20  # A crash tells its cause within its last lines; more would hide the error that quotes them.
TAIL_BYTES = 16_384  # What is read of a log to find them, however long it has grown.

# The kernel sends the parent-death signal when the *thread* that started the child ends (prctl(2)), so children are
# started on a thread that lasts as long as the interpreter, whichever thread asks.
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")


def start(
    command: Sequence[str | os.PathLike[str]], *, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process ends, however that is.

    Where there is no `setpriv --pdeathsig` (util-linux before 2.33, other systems than Linux), the program outlives a
    parent that is killed before it can stop it.

    Args:
        command: program and arguments.
        log: file that its output is appended to.
        environment: its whole environment; empty by default, so that no variable of ours configures it.

    Raises:
        OSError: the program cannot be started.
    """
    # The launcher would turn a missing program into an exit code; this keeps it an OSError.
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(2, "not an executable program", os.fspath(command[0]))

    def popen() -> subprocess.Popen[bytes]:
        with log.open("ab") as sink:
            return subprocess.Popen(
                [*_launcher(os.getpid()), *command],
                env=dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # Ctrl-C is for the parent, which then stops its children in order.
            )

    return _STARTER.submit(popen).result()


@contextlib.contextmanager
def temporary_directory(name: str, *, kept_after: tuple[type[BaseException], ...] = ()) -> Iterator[Path]:
    """Make a directory that is removed at the end; what killed processes have left of such is removed at the beginning.

    Args:
        name: what it is for, a part of its name.
        kept_after: errors that name a file in it: then it stays, until the next such directory is made.
    """
    kept = False

    def remove(directory: Path) -> None:
        if not kept:
            _remove(directory)

    scratch.sweep(PREFIX, remove=_remove)
    with scratch.scratch_directory(f"{PREFIX}{name}-", base=Path(tempfile.gettempdir()), remove=remove) as directory:
        try:
            yield directory
        except kept_after:
            kept = True
            raise


def stop(process: subprocess.Popen[bytes], *, grace: float) -> None:
    """End a program with SIGTERM and, when `grace` seconds have passed, with SIGKILL; return when it has ended."""
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_remove = functools.partial(shutil.rmtree, ignore_errors=True)  # Others sweep at the same time.


@contextlib.contextmanager
def reserved_port(host: str) -> Iterator[int]:
    """Yield a TCP port that nobody else is given meanwhile; a program may take it with SO_REUSEPORT set."""
    with socket.socket() as holder:
        # Who asks for any free port is given none that is bound, not even if both have this option.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, 0))
        yield holder.getsockname()[1]


def free_ports(host: str, count: int) -> list[int]:
    """Return TCP ports that nobody listens on now, for programs that share none and choose none themselves.

    Somebody else may be given one before the program takes it.
    """
    with contextlib.ExitStack() as holders:
        sockets = [holders.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])


def _launcher(parent: int) -> list[str]:
    """Return the prefix that ties a program's life to its parent's, or nothing where there is none."""
    setpriv = _setpriv()
    if not setpriv:
        return []
    # A parent that died before setpriv asked for the signal is not told of any more: then the program must not start.
    return [*setpriv, "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(parent)]


@functools.cache
def _setpriv() -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "KILL", "--")
    # BusyBox has a setpriv without this option.
    works = subprocess.run([*prefix, setpriv, "--version"], capture_output=True, check=False).returncode == 0
    return prefix if works else ()
