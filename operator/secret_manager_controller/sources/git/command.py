"""Run `git` so that nothing but one repository can be reached, and nothing of a login can be seen.

- Its configuration is ours alone: the system's, the user's and the repository's say nothing. A login is in a file on
  tmpfs that exists as long as the command runs: never in arguments, the environment, a URL or on a disk.
- https and ssh only, to the address that was given: no redirects, no `ext::`, no `file://`, no bundle URIs.
- Nothing is ever checked out, so that there are no hooks, filters, submodules, LFS objects or links to follow.
- Bounded are time, processor time, memory, the size of every file that is written, and what is read of the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.sources.git.failures import MAX_FILE_BYTES, explain
from secret_manager_controller.sources.git.login import Access
from secret_manager_controller.sources.git.private import SHARED_MEMORY, private_directory

MAX_OUTPUT = 32 * 2**20
"""Bytes of standard output: 300,000 refs."""
MAX_ERRORS = 64 * 2**10
CPU_SECONDS = 120
MEMORY_KIB = 2 * 2**20
"""Of address space, which git also maps its packs into."""

# A shell sets the limits, which Python can't between fork and exec while it has threads. The text is constant; what
# is foreign comes as arguments, which a shell does not read.
_LAUNCHER = (
    f"ulimit -c 0 && ulimit -f {MAX_FILE_BYTES // 512} && ulimit -t {CPU_SECONDS} && ulimit -v {MEMORY_KIB} && "
    'exec git "$@"'
)
_CONFIGURATION = """\
[core]
    hooksPath = /dev/null
    symlinks = false
    fsmonitor = false
    bigFileThreshold = 1m
    deltaBaseCacheLimit = 32m
[credential]
    helper =
[fetch]
    recurseSubmodules = false
    unpackLimit = 1
[gc]
    auto = 0
[http]
    followRedirects = false
    sslVerify = true
    lowSpeedLimit = 1000
    lowSpeedTime = 30
[maintenance]
    auto = false
[pack]
    threads = 1
[protocol]
    version = 2
[submodule]
    recurse = false
[transfer]
    bundleURI = false
    unpackLimit = 1
"""
_SSH = (
    "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={home}/known_hosts "
    "-o GlobalKnownHostsFile=/dev/null -o UpdateHostKeys=no -o IdentitiesOnly=yes -o IdentityAgent=none "
    "-o IdentityFile={home}/{key} -o PreferredAuthentications=publickey -o ConnectTimeout=15 "
    "-o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o ClearAllForwardings=yes -o PermitLocalCommand=no"
)


async def run_git(
    arguments: Sequence[str],
    *,
    directory: Path,
    access: Access | None = None,
    timeout: float,  # noqa: ASYNC109 - it ends the whole process group, which cancelling does not.
    base: Path = SHARED_MEMORY,
) -> bytes:
    """Run git in a directory and return its output; nothing of what it writes is shown to anyone.

    Args:
        arguments: git's own; foreign text only behind `--` or in full ref names.
        directory: where it runs.
        access: what it may reach; without it, nothing outside.
        timeout: seconds.
        base: where the login's files go; on tmpfs.

    Raises:
        RevisionReplaced: FetchFailed: the server does not have what was asked for.
        RetryableError: FetchFailed: no answer, or not in time.
        PermanentError: CredentialsUnavailable, FetchFailed, InvalidArchive: refused, unknown or too large.
    """
    with ExitStack() as stack:
        files = {"gitconfig": _CONFIGURATION.encode()} | ({} if access is None else _files(access))
        try:
            home = stack.enter_context(private_directory(files, base=base))
        except OSError as error:
            message = f"{base} cannot hold a login while git runs ({error.strerror}); it has to be a tmpfs with room"
            raise RetryableError(Reason.FETCH_FAILED, message) from None
        if access is not None:
            with (home / "gitconfig").open("ab") as file:
                file.write(_access_configuration(access, home))
        status, output, errors = await _execute(arguments, directory, _environment(home, access), timeout)
    if status != 0:
        raise explain(status, errors, access)
    return output


def _files(access: Access) -> dict[str, bytes]:
    login = access.login
    files = {"known_hosts": login.known_hosts, "ca": login.ca, "certificate": login.certificate}
    files |= {"certificate-key": login.certificate_key, "key": login.ssh_key}
    # OpenSSH refuses a key without the last line's end, which values in Secrets often lack.
    return {name: content.rstrip() + b"\n" for name, content in files.items() if content is not None}


def _access_configuration(access: Access, home: Path) -> bytes:
    login, lines = access.login, []
    if access.remote.scheme == "https":
        lines.append(b'[http "%b"]' % access.remote.origin.encode())
        if (header := login.authorization(access.remote)) is not None:
            lines.append(b'    extraHeader = "Authorization: %b"' % _quoted(header))
        if login.ca is not None:
            lines.append(b"    sslCAInfo = %b/ca" % bytes(home))
        if login.certificate is not None:
            lines += [b"    sslCert = %b/certificate" % bytes(home), b"    sslKey = %b/certificate-key" % bytes(home)]
    return b"\n".join([*lines, b""])


def _quoted(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _environment(home: Path, access: Access | None) -> Mapping[str, str]:
    environment = {
        "PATH": os.defpath,
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": f"{home}/gitconfig",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": access.remote.scheme if access else "none",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_SSH_VARIANT": "ssh",
        "SSH_ASKPASS_REQUIRE": "never",
    }
    key = "key" if access and access.login.ssh_key is not None else "none"
    return environment | {"GIT_SSH_COMMAND": _SSH.format(home=home, key=key)}


async def _execute(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], seconds: float
) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        _LAUNCHER,
        "git",
        *arguments,
        cwd=directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds):
            output, errors = await asyncio.gather(
                _read(process.stdout, MAX_OUTPUT, strict=True), _read(process.stderr, MAX_ERRORS, strict=False)
            )
            return await process.wait(), output, errors
    except TimeoutError:
        message = f"the Git server did not deliver within {seconds:g} s"
        raise RetryableError(Reason.FETCH_FAILED, message) from None
    finally:
        # The whole group: git leaves its helpers behind when it is killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read(stream: asyncio.StreamReader, most: int, *, strict: bool) -> bytes:
    """Read to the end and return at most so many bytes; more is an error if `strict`, else dropped."""
    kept = bytearray()
    while chunk := await stream.read(2**16):
        if len(kept) + len(chunk) > most and strict:
            raise PermanentError(Reason.FETCH_FAILED, f"the repository has more than {most // 2**20} MiB of refs")
        kept += chunk[: most - len(kept)]
    return bytes(kept)
