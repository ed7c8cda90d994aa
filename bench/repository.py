"""What a large repository costs: a gigabyte of history, 100,000 files, deep nesting, a revision above every bound.

The repository is fetched from a real Git server over https, as an Application's. Its history cannot be compressed, like
that of one with images or jars. What has to hold is checked: of the history nothing is fetched, memory and disk stay
bounded, and what is refused says why and leaves nothing behind. What is fetched goes to memory: with 100,000 files the
disk would be measured else.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measuring import resident_mb, step
from secret_manager_controller.errors import PermanentError
from secret_manager_controller.grants import SourceGrant
from secret_manager_controller.sources.argocd import ArgoSource
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.git.login import GitLogin
from secret_manager_controller.sources.git.private import SHARED_MEMORY
from secret_manager_controller.sources.git.remote import Remote
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.testing.gitserver import GitServer

MIB = 2**20
BLOB = 16 * MIB
NAME, APPLICATION = "org/large", SourceGrant("Application", "argocd", "large")
SMALL, FILES, TOO_MANY, DEEP, HUGE = "main", "files", "too-many", "deep", "huge"
REFUSED = {TOO_MANY: "entries", DEEP: "directories deep", HUGE: "larger than the 256 MiB"}
"""Branches that are refused, and what the message says."""
SMALL_DISK, LARGE_DISK = MIB, 300 * MIB
"""Bytes that fetched repositories may take: for a revision of twenty files, and for any."""
GIT_MB, OWN_MB = 400.0, 200.0
"""Resident memory that git may take, and that our own process may grow by."""


def history(mebibytes: int) -> Iterator[bytes]:
    """Yield a stream for `git fast-import`: every commit of `main` replaces one large file; its tip has small ones."""
    for number in range(mebibytes * MIB // BLOB):
        yield _commit(SMALL, number)
        yield b"M 100644 inline image.bin\ndata %d\n" % BLOB + os.urandom(BLOB) + b"\n"
    yield _commit(SMALL, 1_000) + b"D image.bin\n" + _files(f"apps/{n}/a.env" for n in range(20))
    # 99,000 files in 99 directories are 99,099 entries, below the bound; 100,000 are above it.
    yield _commit(FILES, 1_001) + _files(f"d{n % 99}/f{n}" for n in range(99_000))
    yield _commit(TOO_MANY, 1_002) + _files(f"d{n % 100}/f{n}" for n in range(100_000))
    yield _commit(DEEP, 1_003) + _files(["d/" * 2_000 + "x"])
    yield _commit(HUGE, 1_004)
    for number in range(300 * MIB // BLOB):
        yield b"M 100644 inline %d.bin\ndata %d\n" % (number, BLOB) + os.urandom(BLOB) + b"\n"


def _commit(branch: str, number: int) -> bytes:
    when = 1_700_000_000 + number
    return b"commit refs/heads/%s\ncommitter example <e@example.invalid> %d +0000\ndata 0\n" % (branch.encode(), when)


def _files(paths: Any) -> bytes:
    return b"".join(b"M 100644 inline %s\ndata 4\nA=1\n\n" % path.encode() for path in paths)


def serve(directory: Path, mebibytes: int, pipe: Connection) -> None:
    """Make the repository, and serve it until the other side says so. A process of its own: memory is measured."""
    with GitServer(directory) as server:
        repository = server.create(NAME).bare
        command = ["git", "-c", "core.compression=0", "fast-import", "--quiet", "--big-file-threshold=1m"]
        with subprocess.Popen(command, cwd=repository, stdin=subprocess.PIPE) as importing:
            assert importing.stdin is not None
            for part in history(mebibytes):
                importing.stdin.write(part)
            importing.stdin.close()
        assert importing.returncode == 0
        pipe.send((server.url(NAME), server.ca, _size(repository)))
        pipe.recv()


class World:
    """One Application on the repository, and how it is logged in to."""

    def __init__(self, url: str, ca: bytes) -> None:
        self.login = GitLogin(ca=ca)
        self.url = url
        self.branch = SMALL

    async def read(self, reference: SourceReference, *, fresh: bool = False) -> dict[str, Any]:  # noqa: ARG002 - the protocol's signature.
        """Return the Application."""
        return {"spec": {"source": {"repoURL": self.url, "path": ".", "targetRevision": self.branch}}}

    async def find(self, ref: SourceReference, remote: Remote, *, project: str) -> GitLogin:  # noqa: ARG002 - the protocol's signature.
        """Return the login."""
        return self.login


async def measure(directory: Path, url: str, ca: bytes) -> dict[str, dict[str, Any]]:
    """Fetch each branch, and return what it cost."""
    world, found = World(url, ca), {}
    for branch in (SMALL, FILES, TOO_MANY, DEEP, HUGE):
        world.branch, where = branch, directory / branch
        where.mkdir()
        cache = SnapshotCache(where / "cache")
        repositories = GitRepositories(where / "git", clock=time.monotonic, refresh=60)
        source = ArgoSource(read_object=world.read, logins=world, repositories=repositories, cache=cache)
        began, before = time.monotonic(), resident_mb(os.getpid())
        refusal = None
        with step(f"Fetch the branch {branch}"):
            try:
                revision = await source.resolve(APPLICATION)
                async with source.fetch(APPLICATION, revision):
                    pass
            except PermanentError as error:
                refusal = error.message
        found[branch] = {
            "seconds": round(time.monotonic() - began, 2),
            "refused": refusal,
            "fetched_bytes": _size(where / "git"),
            "unpacked_bytes": _size(where / "cache"),
            "own_memory_grew_mb": round(max(0.0, resident_mb(os.getpid()) - before), 1),
            "git_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
        }
        await repositories.aclose()
        await cache.aclose()
    return found


def problems(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return what did not hold."""
    wrong = []
    for branch, figures in found.items():
        wanted, refusal = REFUSED.get(branch), figures["refused"]
        if (wanted is None) is not (refusal is None) or (wanted and wanted not in refusal):
            wrong.append(f"{branch}: refused with {refusal!r}")
        if figures["fetched_bytes"] > (SMALL_DISK if branch == SMALL else LARGE_DISK):
            wrong.append(f"{branch}: {figures['fetched_bytes']} bytes were fetched")
        if figures["git_peak_mb"] > GIT_MB or figures["own_memory_grew_mb"] > OWN_MB:
            wrong.append(f"{branch}: memory")
        if refusal is not None and figures["unpacked_bytes"]:
            wrong.append(f"{branch}: {figures['unpacked_bytes']} bytes were left behind")
    return wrong


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def main() -> int:
    """Measure, print, and return 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1024, help="of history")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with (
        tempfile.TemporaryDirectory(prefix="bench-repository-") as disk,
        tempfile.TemporaryDirectory(prefix="bench-repository-", dir=SHARED_MEMORY) as memory,
    ):
        server = context.Process(target=serve, args=(Path(disk) / "server", arguments.mebibytes, theirs))
        server.start()
        theirs.close()
        try:
            with step("Make the repository"):
                url, ca, size = ours.recv()
            found = asyncio.run(measure(Path(memory), url, ca))
        finally:
            ours.send(None)
            server.join()
    wrong = problems(found)
    print(json.dumps({"repository_bytes": size, "branches": found, "problems": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
