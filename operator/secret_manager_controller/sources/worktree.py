"""A local directory as a source, for the one-shot commands: what is on the disk now, as it is.

Nothing is copied and nothing checked beforehand; `SnapshotTree` refuses links while it reads.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.sources.tree import SnapshotTree

NO_GIT_REVISION = "worktree"
"""The revision of a directory that is in no Git worktree, or whose Git does not answer."""
GIT_TIMEOUT = 10.0  # `git status` on a large, cold worktree takes seconds; nobody waits longer for a label.


class WorktreeSource:
    """A local directory: `Source` for `msmctl plan` and `msmctl apply`.

    Args:
        directory: the source's root; a worktree's root or a directory in it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def resolve(self, ref: SourceReference, *, fresh: bool = False) -> Revision:  # noqa: ARG002 - the directory stands for any reference.
        """Return the commit that is checked out, with `-dirty` if the directory differs from it.

        The digest is empty: what may change at any time has no name.

        Raises:
            PermanentError: PathNotFound: there is no such directory.
        """
        return await asyncio.to_thread(self._revision)

    @asynccontextmanager
    async def fetch(self, ref: SourceReference, revision: Revision) -> AsyncIterator[SnapshotTree]:  # noqa: ARG002 - likewise.
        """Yield the directory itself."""
        yield SnapshotTree(revision=revision, root=self._directory)

    def _revision(self) -> Revision:
        if not self._directory.is_dir():
            raise PermanentError(Reason.PATH_NOT_FOUND, f"{foreign(self._directory)} is not a directory")
        name = NO_GIT_REVISION
        commit = self._git("rev-parse", "--verify", "HEAD")
        if commit is not None:
            changes = self._git(
                "status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=all", "--", "."
            )
            name = commit.strip() + ("" if changes == "" else "-dirty")
        return Revision(revision=name, digest="", url=self._directory.absolute().as_uri())

    def _git(self, *arguments: str) -> str | None:
        """Return what Git says, or None if it cannot; a monitor that the worktree configures is not started."""
        command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
        # PATH finds git; HOME holds `safe.directory`, without which Git refuses another user's worktree.
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        try:
            done = subprocess.run(  # noqa: S603 - a fixed list, no shell; the directory is no argument but the cwd.
                command,
                cwd=self._directory,
                env=environment | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=GIT_TIMEOUT,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.decode(errors="replace")
