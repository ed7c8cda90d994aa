"""A directory in memory for what `git` and `ssh` can only read from files: a login, known hosts, a CA.

It lies on tmpfs, is its owner's alone, and is gone when the one command has ended. What a killed process left is
removed at the next start: a directory whose lock nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PREFIX = "smc-git-"
UNLOCKED_GRACE = 60.0
"""Seconds for which a directory without a lock may be one that is just being made."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - tmpfs on Linux, in every container too.


@contextlib.contextmanager
def private_directory(files: Mapping[str, bytes], *, base: Path = SHARED_MEMORY) -> Iterator[Path]:
    """Make a directory with these files, each for its owner's eyes only, and remove it at the end.

    Raises:
        OSError: there is no tmpfs, or it is full.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # Mode 0700.
    lock = -1
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name, content in files.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(directory / name, flags, 0o600), "wb") as file:
                file.write(content)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


def sweep_private_directories(*, base: Path = SHARED_MEMORY) -> int:
    """Remove what killed processes left; return how many. For the start."""
    return sum(_sweep(directory) for directory in base.glob(f"{PREFIX}*"))


def _sweep(directory: Path) -> bool:
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(lock)
        young = time.time() - status.st_mtime < UNLOCKED_GRACE
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or young:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(lock)
