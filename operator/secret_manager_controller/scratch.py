"""Directories that hold plaintext or keys for one run: mode 0700, in memory, gone afterwards, after a crash too.

Each is locked by its owner as long as it is used, so that a sweep at start-up tells what a killed process has left from
what another one works with.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK_NAME = "owner.lock"
UNLOCKED_GRACE = 60.0
"""Seconds for which a directory without a lock may be one that is just being made."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - tmpfs on Linux: what is in it reaches no disk.
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_MOUNTS = Path("/proc/self/mounts")

Remove = Callable[[Path], None]


def bases() -> list[Path]:
    """Return where such directories may be, the best place first."""
    shared = [_SHARED_MEMORY] if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else []
    return [*shared, Path(tempfile.gettempdir())]


def base_in_memory() -> Path | None:
    """Return the first of `bases` whose files reach no disk, or None."""
    return next((base for base in bases() if _filesystem(base) in _IN_MEMORY), None)


@contextlib.contextmanager
def scratch_directory(prefix: str, *, base: Path, remove: Remove = shutil.rmtree) -> Iterator[Path]:
    """Make a directory, yield it, and remove it.

    Args:
        prefix: of its name; `sweep` finds it by that.
        base: where it is made.
        remove: removes it with all that is in it.
    """
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=base))  # Mode 0700.
    lock = -1
    try:
        lock = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    finally:
        remove(directory)
        if lock >= 0:
            os.close(lock)


def sweep(prefix: str, *, remove: Remove = shutil.rmtree) -> int:
    """Remove the directories that killed processes left behind; return how many. For start-up.

    One whose lock is held belongs to a process that lives, and stays.
    """
    found = [path for base in dict.fromkeys(bases()) for path in base.glob(f"{prefix}*")]
    return sum(_swept(path, remove) for path in found)


def _swept(path: Path, remove: Remove) -> bool:
    """Remove a directory unless its owner lives; return whether it was removed."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    try:
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        abandoned = time.time() - status.st_mtime > UNLOCKED_GRACE
        if abandoned:
            remove(path)
        return abandoned
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        remove(path)
        return True
    finally:
        os.close(lock)


def _filesystem(path: Path) -> str:
    """Return the type of the file system that a path is on; empty where that is not known."""
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    resolved, best, kind = path.resolve(), -1, ""
    for line in lines:
        # Of several mounts on one place the last is on top: proc_mounts(5).
        _, place, name, *_ = line.split(" ")
        mount = Path(place.encode().decode("unicode_escape"))
        if resolved.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), name
    return kind
