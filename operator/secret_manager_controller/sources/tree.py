"""The one safe way to read a snapshot: names are walked one by one, from directory to directory, never through a link.

An unpacked artifact holds no links at all; a worktree holds whatever its owner put there. Both are read by the same
code, so that `msmctl plan` on a laptop refuses what the controller would refuse.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.snapshot import Snapshot

MAX_FILE_BYTES = (
    4 * 2**20
)  # Stores take at most 64 KiB a value; 4 MiB hold all that one object may manage at 2 KiB each.

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO in a worktree would block its reader for ever; O_NONBLOCK opens it at once, and then it is refused.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


def split_path(path: str) -> tuple[str, ...]:
    """Split a path relative to the source's root into its names.

    A leading `./` and a trailing `/` are dropped; the root itself is `""`, `.` or `./`.

    Raises:
        PermanentError: PathNotFound, for a path that is absolute, has `..` or an empty name in it.
    """
    trimmed = path.removeprefix("./").removesuffix("/") if path != "/" else path
    if trimmed in {"", "."}:
        return ()
    names = tuple(trimmed.split("/"))
    if any(name in {"", ".", ".."} or "\0" in name for name in names):
        raise PermanentError(
            Reason.PATH_NOT_FOUND,
            f"path {foreign(path)!r} is not one inside the source: give it relative to the source's root, without '..'",
        )
    return names


@dataclass(frozen=True, slots=True)
class SnapshotTree(Snapshot):
    """A snapshot with its reader. Blocking, some microseconds a name: callers render in a thread.

    Attributes:
        links: paths of symbolic links that the artifact held and that were left out when it was unpacked. Reading one
            is an error and not an absence: a file that silently went missing would look like a secret to prune.
        within: the directories that are shown, each with all below it; None for all. What is outside of them does not
            exist here, but for the directories on the way.
    """

    links: frozenset[str] = frozenset()
    within: tuple[tuple[str, ...], ...] | None = None

    def confined(self, directories: Collection[str] | None) -> Self:
        """Return the same snapshot, of which nothing is shown but these directories; None shows all.

        Raises:
            PermanentError: PathNotFound, for a directory that is not one inside the source.
        """
        return replace(self, within=None if directories is None else tuple(map(split_path, directories)))

    def shows(self, names: tuple[str, ...], *, on_the_way: bool = True) -> bool:
        """Tell whether a path is shown: one of the directories, below one, or (a directory) on the way to one."""
        if self.within is None:
            return True
        inside = any(names[: len(inner)] == inner for inner in self.within)
        return inside or (on_the_way and any(inner[: len(names)] == names for inner in self.within))

    def read_file(self, path: str) -> bytes | None:
        """Return a regular file's content, or None if there is no such path.

        Raises:
            PermanentError: PathNotFound for a path outside, or one that may not be read; InvalidArchive for a symbolic
                link on the way or a special file; InvalidDocument for a directory or a file above MAX_FILE_BYTES.
        """
        *parents, name = split_path(path) or (".",)
        with self._open_directory(path, tuple(parents)) as directory:
            if directory is None or not self.shows((*parents, name), on_the_way=False):
                return None
            self._refuse_left_out(path, (*parents, name))
            try:
                descriptor = os.open(name, _FILE, dir_fd=directory)
            except OSError as error:
                _absent_or_raise(error, path, name, directory)
                return None
        try:
            return _read_regular(descriptor, path)
        finally:
            os.close(descriptor)

    def list_dir(self, path: str) -> Mapping[str, bool] | None:
        """Return the names in a directory in order, each with whether it is a directory; None if there is none.

        Links are listed (as no directories), those that were left out too.

        Raises:
            PermanentError: PathNotFound for a path outside, or one that may not be read; InvalidArchive for a symbolic
                link on the way.
        """
        names = split_path(path)
        with self._open_directory(path, names) as directory:
            if directory is None:
                return None
            with os.scandir(directory) as entries:
                found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        here = "/".join(names)
        for link in self.links:
            parent, _, name = link.rpartition("/")
            if parent == here:
                found[name] = False
        return {name: found[name] for name in sorted(found) if self.shows((*names, name))}

    def exists(self, path: str) -> bool:
        """Return whether a path names a regular file or a directory.

        Raises:
            PermanentError: PathNotFound for a path outside; InvalidArchive for a symbolic link on the way.
        """
        *parents, name = split_path(path) or (".",)
        with self._open_directory(path, tuple(parents)) as directory:
            if directory is None or not self.shows(split_path(path)):
                return False
            self._refuse_left_out(path, (*parents, name))
            try:
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except OSError as error:
                _absent_or_raise(error, path, name, directory)
                return False
        if stat.S_ISLNK(mode):
            raise _is_link(path, name)
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)

    @contextmanager
    def _open_directory(self, path: str, names: tuple[str, ...]) -> Iterator[int | None]:
        """Yield a descriptor of the directory, reached name by name; None if it is not there."""
        # The root is our own directory, or the one that the user named: only what lies under it is foreign.
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for index, name in enumerate(names):
                if not self.shows(names[: index + 1]):
                    break
                self._refuse_left_out(path, names[: index + 1])
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
                except OSError as error:
                    _absent_or_raise(error, path, name, descriptor)
                    break
                os.close(descriptor)
                descriptor = inner
            else:
                yield descriptor
                return
            yield None
        finally:
            os.close(descriptor)

    def _refuse_left_out(self, path: str, names: tuple[str, ...]) -> None:
        if self.links and "/".join(names) in self.links:
            raise _is_link(path, names[-1])


def _absent_or_raise(error: OSError, path: str, name: str, directory: int) -> None:
    """Tell a missing name from a link and from one that may not be read."""
    if error.errno in {errno.ELOOP, errno.ENOTDIR} and _names_link(name, directory):
        raise _is_link(path, name) from None
    if error.errno == errno.EACCES:
        message = f"{foreign(path)} may not be read by this user"
        raise PermanentError(Reason.PATH_NOT_FOUND, message) from None
    if error.errno in {errno.ENXIO, errno.ENODEV}:
        raise _not_regular(path) from None
    if error.errno not in _ABSENT:
        raise error


def _names_link(name: str, directory: int) -> bool:
    # With O_DIRECTORY Linux answers ENOTDIR for a link as for a file; only lstat tells them apart.
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _is_link(path: str, name: str) -> PermanentError:
    where = "it" if path.endswith(name) else foreign(name)
    return PermanentError(
        Reason.INVALID_ARCHIVE,
        f"{foreign(path)} cannot be read: {where} is a symbolic link, and links are not followed; "
        f"put a regular file or directory there",
    )


def _not_regular(path: str) -> PermanentError:
    return PermanentError(Reason.INVALID_ARCHIVE, f"{foreign(path)} is neither a regular file nor a directory")


def _read_regular(descriptor: int, path: str) -> bytes:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise PermanentError(Reason.INVALID_DOCUMENT, f"{foreign(path)} is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path)
    # The size may change in a worktree while it is read, so the reading itself is bounded too.
    content = bytearray()
    while len(content) <= MAX_FILE_BYTES:
        chunk = os.read(descriptor, min(2**20, MAX_FILE_BYTES + 1 - len(content)))
        if not chunk:
            return bytes(content)
        content += chunk
    raise PermanentError(
        Reason.INVALID_DOCUMENT, f"{foreign(path)} is larger than {MAX_FILE_BYTES // 2**20} MiB, the limit for one file"
    )
