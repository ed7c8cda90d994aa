"""PGP: unwrap a data key with `gpg`, in a home that exists for that one time.

Measured (GnuPG 2.2, 2 cores): 11 ms to import, 5 ms (Curve25519) to 20 ms (RSA-3072) to decrypt, 1 ms
to clean up. A home that is kept would save the import and would hold keys outside this process for as
long; data keys are cached, so it is not kept.

A home is a directory of mode 0700, on tmpfs where there is one. Keys and messages go through pipes,
the environment is built from empty, nothing is asked, and output and time are bounded. Whatever
happens, the agent is told to end and the directory is removed; `sweep_gpg_homes` removes what a
killed process left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from secret_manager_controller.decrypt.openpgp import SecretKey
from secret_manager_controller.scratch import bases, scratch_directory, sweep

GPG_TIMEOUT = 20.0
"""Seconds for each run; 128 messages at once, 64 at a time, took 1.2 in all on 2 cores."""

AGENT_TIMEOUT = 2.0
"""Seconds until an agent that does not end is killed."""

MAX_OUTPUT_BYTES = 1024
"""What a message may hold; a data key has 32 bytes. A compressed message could hold gigabytes, and
`gpg --max-output` would unpack them all.
"""

MAX_MESSAGE_BYTES = 16 << 10
"""What a pipe takes everywhere without being read; one for RSA with 16,384 bits has 2 KiB."""

HOME_PREFIX = "smc-gpg-"

_AGENT_SOCKET = "S.gpg-agent"

# Without the first line, one in ten runs of 64 at once fails for want of locked memory.
_AGENT_CONFIGURATION = """\
auto-expand-secmem
allow-loopback-pinentry
disable-scdaemon
no-allow-external-cache
"""

_OPTIONS = (
    "--batch",
    "--no-tty",
    "--quiet",
    "--no-options",
    "--pinentry-mode=loopback",
    "--no-auto-check-trustdb",
    "--no-auto-key-retrieve",
    "--no-auto-key-locate",
    "--disable-dirmngr",
)


class GpgError(Exception):
    """`gpg` could not be run to its end: a sentence's end, without anything that it wrote."""


def unwrap(message: bytes, keys: Iterable[SecretKey], *, gpg: str = "gpg") -> bytes | None:
    """Return what a PGP message holds.

    Args:
        message: encrypted for one of the keys; not armored.
        keys: the only keys that `gpg` sees.
        gpg: the program: a path, or a name on PATH.

    Returns:
        The plaintext, None if none of the keys decrypts the message.

    Raises:
        GpgError: there is no such program, it did not end in time, or the message is too large.
    """
    program = shutil.which(gpg)
    if program is None:
        raise GpgError(f"cannot be unwrapped: there is no program `{gpg}`; install GnuPG")
    if len(message) > MAX_MESSAGE_BYTES:
        raise GpgError(f"is larger than {MAX_MESSAGE_BYTES} bytes")
    with gpg_home() as home:
        for key in keys:
            _run(program, home, "--import", data=key.packets)
        return _run(program, home, "--decrypt", data=message) or None


def _run(program: str, home: Path, command: str, *, data: bytes) -> bytes:
    """Run `gpg`; return its output, nothing if it failed or wrote too much."""
    process = subprocess.Popen(  # noqa: S603 - our own arguments; what is foreign goes to stdin.
        [program, *_OPTIONS, command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(home),
        cwd=home,
        start_new_session=True,
    )
    timer = threading.Timer(GPG_TIMEOUT, process.kill)
    timer.start()
    try:
        with process:
            output = _exchanged(process, data)
    finally:
        expired = not timer.is_alive()
        timer.cancel()
    if expired:
        raise GpgError(f"cannot be unwrapped: `gpg` did not end within {GPG_TIMEOUT:g} seconds")
    return output if process.returncode == 0 else b""


def _exchanged(process: subprocess.Popen[bytes], data: bytes) -> bytes:
    """Write all of the input, read the output as far as it is wanted, and kill what goes on."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.close()
    output = process.stdout.read(MAX_OUTPUT_BYTES + 1)
    if len(output) > MAX_OUTPUT_BYTES:
        process.kill()
    return output


def _environment(home: Path) -> dict[str, str]:
    return {"GNUPGHOME": str(home), "HOME": str(home), "LC_ALL": "C", "PATH": os.defpath}


@contextlib.contextmanager
def gpg_home() -> Iterator[Path]:
    """Make a home, yield it, and leave neither a process nor a file of it."""
    with scratch_directory(HOME_PREFIX, base=bases()[0], remove=_remove) as home:
        (home / "gpg-agent.conf").write_text(_AGENT_CONFIGURATION)
        yield home


def _remove(home: Path) -> None:
    sockets = _socket_directory(home)
    _stop_agent(sockets / _AGENT_SOCKET)
    for directory in {home, sockets}:
        # The agent may be removing its sockets at this moment, so a missing file is no error.
        shutil.rmtree(directory, ignore_errors=True)
    if home.exists():
        shutil.rmtree(home)


def _socket_directory(home: Path) -> Path:
    """Return where the home's agent has its sockets: under /run/user, if the user has that."""
    program = shutil.which("gpgconf")
    if (home / _AGENT_SOCKET).exists() or program is None or not _has_run_directory():
        return home
    listing = b""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listing = subprocess.run(  # noqa: S603 - our own arguments.
            [program, "--list-dirs", "socketdir"],
            env=_environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=AGENT_TIMEOUT,
            check=False,
        ).stdout
    directory = Path(os.fsdecode(listing.strip()))
    # GnuPG names the directory of a home that is not the default one like this.
    return directory if directory.name.startswith("d.") else home


def _has_run_directory() -> bool:
    return Path(f"/run/user/{os.getuid()}").is_dir()


def _stop_agent(path: Path) -> None:
    """End the agent that listens on a socket, and reap it where it is our own child.

    An agent detaches itself from `gpg`, so that it becomes a child of process 1. In a container that
    is this process, and nobody else would reap it.
    """
    pid = 0
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(AGENT_TIMEOUT)
        connection.connect(str(path))
        stream = connection.makefile("rwb", buffering=0)
        stream.readline()  # OK Pleased to meet you
        stream.write(b"GETINFO pid\n")
        pid = int(stream.readline().removeprefix(b"D "))
        stream.readline()  # OK
        stream.write(b"KILLAGENT\n")
        stream.readline()  # OK closing connection
    if pid > 1:
        _await_end(pid)


def _await_end(pid: int) -> None:
    """Wait until an agent has ended; kill it when it takes too long."""
    if not _ended(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _ended(pid)


def _ended(pid: int) -> bool:
    """Wait for a process's end; return whether it came in time."""
    deadline = time.monotonic() + AGENT_TIMEOUT
    while _runs(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def _runs(pid: int) -> bool:
    """Tell whether a process still runs; reap it if it is a child of ours that has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        # Field 3 of /proc/PID/stat, behind the name in brackets, is the state; Z has ended.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def sweep_gpg_homes() -> int:
    """Remove the homes that killed processes left behind; return how many. For start-up."""
    return sweep(HOME_PREFIX, remove=_remove)
