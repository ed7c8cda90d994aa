"""Unpack an artifact: regular files and directories, inside one new directory, and nothing else.

Every name is opened relative to a descriptor of its directory, with O_NOFOLLOW and O_EXCL, so that not even a bug in
the checks lets an entry write through a link or over another file. Modes, owners and times are ours, not the archive's.

**Symbolic links** are never made. Flux leaves them out of the artifacts that it builds, and skips them where it unpacks
others', so a link is no reason to refuse a repository. But an absence that nobody hears of is dangerous where secrets
that left Git are pruned; therefore the paths of links are returned, and `SnapshotTree` makes an error of reading one. A
link that leads out of the tree has no honest use in a source, and the artifact is refused as a whole.
"""

from __future__ import annotations

import enum
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from secret_manager_controller.errors import foreign
from secret_manager_controller.sources.tarstream import (
    DEFAULT_LIMITS,
    ArchiveLimits,
    Inflater,
    Kind,
    TarEntry,
    TarReader,
    invalid,
    shown,
)

INODE_BYTES = 4096  # What a file or directory costs beside its content; the block size of most file systems.
_NAME_BYTES = 255  # Linux' NAME_MAX.
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Extracted:
    """What unpacking made.

    Attributes:
        disk_bytes: what it occupies, an inode counted as a block.
        links: paths of symbolic links that were left out.
    """

    disk_bytes: int
    links: frozenset[str]


def extract(
    archive: BinaryIO,
    into: Path,
    *,
    limits: ArchiveLimits = DEFAULT_LIMITS,
    stopped: Callable[[], bool] = lambda: False,
) -> Extracted:
    """Unpack a tar.gz into a new directory; on any failure nothing of it remains.

    Args:
        archive: the artifact, its digest already checked.
        into: must not exist; its parent must.
        limits: what the archive may cost.
        stopped: asked for each chunk; once it is true, `Stopped` is raised.

    Raises:
        PermanentError: InvalidArchive: damaged, above a limit, or with an entry that an artifact must not have.
        OSError: the disk is full or broken.
        Stopped: `stopped` was true.
    """
    into.mkdir(mode=0o700)
    try:
        root = os.open(into, _DIRECTORY)
        try:
            with _Writer(root, limits=limits) as writer:
                reader = TarReader(Inflater(archive, limits=limits, stopped=stopped), limits=limits)
                for entry in reader:
                    writer.write(entry, reader.chunks())
                return writer.summary()
        finally:
            os.close(root)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


class _Made(enum.Enum):
    """What stands at a path; a parent that no entry has named may still be named once."""

    PARENT = "parent"
    DIRECTORY = "directory"
    FILE = "file"
    LINK = "symbolic link"


class _Writer:
    """Writes entries below a root, and remembers what stands where."""

    def __init__(self, root: int, *, limits: ArchiveLimits) -> None:
        self._root = root
        self._limits = limits
        self._made: dict[str, _Made] = {}
        self._file_bytes = 0
        # Entries mostly come directory by directory, so the last one is kept open.
        self._current: tuple[str, ...] = ()
        self._descriptor = os.dup(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def summary(self) -> Extracted:
        links = frozenset(path for path, made in self._made.items() if made is _Made.LINK)
        return Extracted(
            disk_bytes=self._file_bytes + INODE_BYTES * (1 + len(self._made) - len(links)),
            links=links,
        )

    def write(self, entry: TarEntry, chunks: Iterator[bytes]) -> None:
        names = self._checked_names(entry)
        if not names:
            return
        path = "/".join(names)
        made = self._made.get(path)
        if made is not None and not (made is _Made.PARENT and entry.kind is Kind.DIRECTORY):
            raise invalid(f"has two entries at {foreign(path)!r}")
        if entry.kind is Kind.DIRECTORY:
            self._enter(names)
            self._made[path] = _Made.DIRECTORY
            return
        self._enter(names[:-1])
        if entry.kind is Kind.LINK:
            _check_target(entry, names)
            self._note(path, _Made.LINK)
            return
        self._note(path, _Made.FILE)
        self._write_file(names[-1], chunks)

    def _checked_names(self, entry: TarEntry) -> tuple[str, ...]:
        """Return the names of an entry's path; none for the root, which archives name `.` or `./`."""
        raw = entry.name.removeprefix(b"./")
        if entry.kind is Kind.DIRECTORY:
            if entry.name in {b".", b"./"}:
                return ()
            raw = raw.removesuffix(b"/")
        names = raw.split(b"/")
        if raw.startswith(b"/") or b".." in names:
            raise invalid(f"has an entry outside its root: {shown(entry.name)}")
        if b"" in names or b"." in names or b"\0" in raw or b"\\" in raw:
            raise invalid(f"has an entry with an invalid name: {shown(entry.name)}")
        if len(raw) > self._limits.path_bytes or max(map(len, names)) > _NAME_BYTES:
            raise invalid(f"has a path that is too long: {shown(entry.name)}")
        if len(names) > self._limits.depth:
            raise invalid(f"is more than {self._limits.depth} directories deep: {shown(entry.name)}")
        return tuple(os.fsdecode(name) for name in names)

    def _enter(self, names: tuple[str, ...]) -> None:
        """Make the directory, where it does not exist, and keep it open."""
        if names == self._current:
            return
        descriptor = os.dup(self._root)
        try:
            for index, name in enumerate(names):
                path = "/".join(names[: index + 1])
                made = self._made.get(path)
                if made in {_Made.FILE, _Made.LINK}:
                    raise invalid(f"has an entry below a {made.value} at {foreign(path)!r}")
                if made is None:
                    self._note(path, _Made.PARENT)
                    os.mkdir(name, 0o700, dir_fd=descriptor)
                inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor, self._current = descriptor, names

    def _note(self, path: str, made: _Made) -> None:
        # Parents are counted as well: one entry may name thirty of them, and each costs an inode.
        if len(self._made) >= self._limits.entries:
            raise invalid(f"has more than {self._limits.entries} entries")
        self._made[path] = made

    def _write_file(self, name: str, chunks: Iterator[bytes]) -> None:
        descriptor = os.open(name, _NEW_FILE, 0o400, dir_fd=self._descriptor)
        try:
            for chunk in chunks:
                self._file_bytes += len(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)


def _check_target(entry: TarEntry, names: tuple[str, ...]) -> None:
    """Refuse a link that leads out of the tree, as its text says; it is never followed."""
    depth = len(names) - 1
    for name in entry.target.split(b"/"):
        depth += -1 if name == b".." else 0 if name in {b"", b"."} else 1
        if depth < 0 or entry.target.startswith(b"/"):
            raise invalid(f"has a symbolic link out of its root: {shown(entry.name)} leads to {shown(entry.target)}")
