"""Unpacked snapshots by digest, shared by all objects on one source.

A snapshot is fetched once however many objects want it at the same time, stays as long as anyone reads it, and is then
kept while there is room. Nothing is kept over a restart: what lies on the disk then was not checked by this process.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.archive import Extracted, extract
from secret_manager_controller.sources.tarstream import DEFAULT_LIMITS, ArchiveLimits
from secret_manager_controller.sources.tree import SnapshotTree

MAX_CACHE_BYTES = 2**30
MAX_SNAPSHOTS = 1_024
"""Namespaces come in turn, often each with a source of its own. With fewer, an object would find evicted what another
one of its namespace had fetched."""

_SNAPSHOT = "snapshot-"
_WORK = "work-"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Unpacked:
    root: Path
    disk_bytes: int
    links: frozenset[str]


@dataclass(slots=True, eq=False)
class _Slot:
    """One digest: the task that fetches it, and how many wait for it or read it."""

    task: asyncio.Task[_Unpacked]
    users: int = 0

    def unpacked(self) -> _Unpacked | None:
        done = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.task.result() if done else None


class SnapshotCache:
    """Keeps unpacked snapshots in a directory of its own. For one event loop.

    Args:
        directory: made if missing; removed from it is only what this class has put there.
        max_bytes: of the snapshots that nobody reads, together with those that someone does. Those in use stay whatever
            they occupy, so that the bound is passed for as long as they are read.
        max_snapshots: likewise.
        limits: what one archive may cost.

    Raises:
        RuntimeError: another process keeps its snapshots in this directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
        max_snapshots: int = MAX_SNAPSHOTS,
        limits: ArchiveLimits = DEFAULT_LIMITS,
    ) -> None:
        self._directory = directory.absolute()
        self._max_bytes = max_bytes
        self._max_snapshots = max_snapshots
        self._limits = limits
        self._slots: OrderedDict[str, _Slot] = OrderedDict()  # Least recently used first.
        self._tasks: set[asyncio.Task[_Unpacked]] = set()
        self._number = itertools.count()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory)
        _sweep(directory)

    async def aclose(self) -> None:
        """Stop what is being fetched and remove all snapshots; nobody may be reading one."""
        for slot in self._slots.values():
            slot.task.cancel()
        self._slots.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(_sweep, self._directory)
        self._lock.close()

    @asynccontextmanager
    async def lease(
        self, revision: Revision, *, download: Callable[[Path], Awaitable[None]]
    ) -> AsyncIterator[SnapshotTree]:
        """Yield a revision's files, fetched if they are not here; they stay until the block is left.

        Args:
            revision: its digest names the content.
            download: writes the artifact to a file that does not exist yet, and has checked its digest when it returns.
                Called once for all who wait for this digest; cancelled when none of them waits any more.

        Raises:
            RetryableError: FetchFailed, DigestMismatch.
            PermanentError: InvalidArchive, or what `download` raises.
        """
        slot = self._slots.get(revision.digest)
        if slot is None:
            slot = self._slots[revision.digest] = _Slot(self._start(revision.digest, download))
        self._slots.move_to_end(revision.digest)
        slot.users += 1
        try:
            # Shielded: one of several who wait may be cancelled without the others losing what they wait for.
            unpacked = await asyncio.shield(slot.task)
            yield SnapshotTree(revision=revision, root=unpacked.root, links=unpacked.links)
        finally:
            slot.users -= 1
            await self._released(revision.digest, slot)

    def _start(self, digest: str, download: Callable[[Path], Awaitable[None]]) -> asyncio.Task[_Unpacked]:
        task = asyncio.create_task(self._fetch(digest, download))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[_Unpacked]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Those who wait are told; if nobody does any more, asyncio need not complain.

    async def _released(self, digest: str, slot: _Slot) -> None:
        if slot.users == 0 and slot.unpacked() is None:
            if self._slots.get(digest) is slot:
                del self._slots[digest]
            slot.task.cancel()
        await self._evict()

    async def _fetch(self, digest: str, download: Callable[[Path], Awaitable[None]]) -> _Unpacked:
        try:
            return await self._download_and_unpack(digest, download)
        except BaseException as error:
            # Whoever comes next tries anew, also while those who waited have not yet heard of the failure.
            slot = self._slots.get(digest)
            if slot is not None and slot.task is asyncio.current_task():
                del self._slots[digest]
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                message = "no room is left on the disk that holds the snapshots"
                raise RetryableError(Reason.FETCH_FAILED, message) from None
            raise

    async def _download_and_unpack(self, digest: str, download: Callable[[Path], Awaitable[None]]) -> _Unpacked:
        work = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_WORK, dir=self._directory))
        try:
            archive, tree = work / "artifact", work / "tree"
            await download(archive)
            extracted = await _in_thread(lambda stopped: _unpack(archive, tree, self._limits, stopped))
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            raise
        # Nothing is awaited from here on: a cancellation can't leave a snapshot that nobody knows of.
        root = self._directory / f"{_SNAPSHOT}{digest.replace(':', '-')}-{next(self._number)}"
        os.rename(tree, root)  # noqa: PTH104 - ASYNC240 would have a thread, and so an await, for two system calls.
        os.rmdir(work)  # noqa: PTH106 - likewise.
        return _Unpacked(root=root, disk_bytes=extracted.disk_bytes, links=extracted.links)

    async def _evict(self) -> None:
        """Remove the least recently used snapshots that nobody reads, until the rest fits."""
        while (victim := self._victim()) is not None:
            await asyncio.to_thread(shutil.rmtree, victim, ignore_errors=True)

    def _victim(self) -> Path | None:
        held = [unpacked for slot in self._slots.values() if (unpacked := slot.unpacked())]
        if len(held) <= self._max_snapshots and sum(unpacked.disk_bytes for unpacked in held) <= self._max_bytes:
            return None
        for digest, slot in self._slots.items():
            unpacked = slot.unpacked()
            if slot.users == 0 and unpacked is not None:
                # Forgotten before it is removed: who asks for it from now on fetches it into another directory.
                del self._slots[digest]
                return unpacked.root
        return None


def _unpack(archive: Path, tree: Path, limits: ArchiveLimits, stopped: Callable[[], bool]) -> Extracted:
    with archive.open("rb") as file:
        extracted = extract(file, tree, limits=limits, stopped=stopped)
    archive.unlink()
    return extracted


async def _in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run work in a thread and give it a way to know that it is cancelled; return only once the thread has ended."""
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, stop.is_set))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        # The thread's directory is removed next, and must not be written to any more.
        await asyncio.gather(running, return_exceptions=True)
        raise


def _lock(directory: Path) -> BinaryIO:
    """Take the directory for this process, until the file is closed or the process ends."""
    file = (directory / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RuntimeError(f"another process keeps its snapshots in {directory}: give each its own") from None
    return file


def _sweep(directory: Path) -> None:
    """Remove what this class makes, and what a crash has left of it."""
    for path in directory.iterdir():
        if path.name.startswith((_SNAPSHOT, _WORK)):
            shutil.rmtree(path, ignore_errors=True)
