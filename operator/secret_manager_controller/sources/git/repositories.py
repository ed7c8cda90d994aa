"""Bare repositories on disk, one for each address and login, shared by all objects on it.

They hold what was fetched: single commits without history. Refs are asked for once in a while, however many objects
want them; a commit is fetched once. Nothing is kept over a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from secret_manager_controller.errors import ControllerError, PermanentError, Reason
from secret_manager_controller.sources.git.command import run_git
from secret_manager_controller.sources.git.failures import MAX_FILE_BYTES, TOO_LARGE
from secret_manager_controller.sources.git.login import Access
from secret_manager_controller.sources.git.private import SHARED_MEMORY
from secret_manager_controller.sources.git.targets import COMMIT, Refs

LIST_TIMEOUT = 30.0
FETCH_TIMEOUT = 120.0
FAILURE_TTL = 15.0
"""Seconds for which a server that failed is not asked again: a thousand objects would ask one by one."""
MAX_REPOSITORIES = 64
MAX_BYTES = 2**30
"""Of all repositories, with those in use on top."""
CONCURRENT_COMMANDS = 4
# The tree's own attributes must not change what is read: export-ignore would make a secret look deleted.
_ATTRIBUTES = b"* -export-ignore -export-subst -text -eol -ident -filter -working-tree-encoding\n"


@dataclass(slots=True, eq=False)
class _Repository:
    """One address and login.

    Attributes:
        asked_at: when the refs were last asked for.
        refs: what was answered, or why nothing was.
        disk_bytes: what the directory occupied after the last fetch.
    """

    path: Path
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = float("-inf")
    refs: Refs | ControllerError | None = None
    disk_bytes: int = 0
    users: int = 0


class GitRepositories:
    """Lists and fetches, in a directory of its own. For one event loop.

    Args:
        directory: removed and made anew; its parent must be this process's own.
        clock: seconds, monotonic.
        refresh: seconds for which refs are taken for what they were.
        base: where logins are kept while git runs; tmpfs.
    """

    def __init__(
        self, directory: Path, *, clock: Callable[[], float], refresh: float, base: Path = SHARED_MEMORY
    ) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        self._directory = directory.absolute()  # git runs elsewhere.
        self._clock = clock
        self._refresh = refresh
        self._base = base
        self._known: OrderedDict[str, _Repository] = OrderedDict()  # Least recently used first.
        self._trusted_from = float("-inf")
        self._running = asyncio.Semaphore(CONCURRENT_COMMANDS)

    async def aclose(self) -> None:
        """Remove everything; nothing may be under way."""
        self._known.clear()
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    def distrust(self) -> None:
        """List the refs of each repository once more, when they are asked for the next time.

        Whoever takes work over must know at least what the last owner knew, or it would take the store back to what Git
        held before.
        """
        self._trusted_from = self._clock()

    async def refs(self, access: Access, *, fresh: bool = False) -> Refs:
        """Return the refs of a repository; `fresh` as they are now, whatever is remembered.

        Raises:
            ControllerError: see `run_git`.
        """
        asked = self._clock()
        repository = self._repository(access)
        async with repository.lock:
            age = asked - repository.asked_at
            failed = isinstance(repository.refs, ControllerError)
            limit = FAILURE_TTL if failed else 0.0 if fresh else self._refresh
            if repository.refs is None or age > limit or repository.asked_at < self._trusted_from:
                repository.asked_at = self._clock()
                repository.refs = await self._list(access)
            if isinstance(repository.refs, ControllerError):
                raise repository.refs.with_traceback(None)  # It is raised to many, one after the other.
            return repository.refs

    async def archive(self, access: Access, commit: str, into: Path) -> None:
        """Write a commit's tree as a tar.gz, fetched if it is not here.

        Raises:
            RevisionReplaced: the server does not have the commit any more.
            ControllerError: see `run_git`.
        """
        assert COMMIT.fullmatch(commit)
        repository = self._repository(access)
        repository.users += 1
        try:
            async with repository.lock, self._running:
                await self._ensure(access, repository, commit)
                arguments = ["archive", "--format=tar.gz", "-1", f"--output={into}", commit]
                await self._git(repository, arguments, timeout=FETCH_TIMEOUT)
        finally:
            repository.users -= 1
        await self._evict()

    async def _list(self, access: Access) -> Refs | ControllerError:
        try:
            async with self._running:
                listed = await run_git(
                    ["ls-remote", "--quiet", "--", access.remote.url],
                    directory=self._directory,
                    access=access,
                    timeout=LIST_TIMEOUT,
                    base=self._base,
                )
            return _parse_refs(listed)
        except ControllerError as error:
            return error

    async def _ensure(self, access: Access, repository: _Repository, commit: str) -> None:
        if not repository.path.exists():
            form = "sha1" if len(commit) == 40 else "sha256"
            arguments = ["init", "--quiet", "--bare", f"--object-format={form}", "--template=", repository.path.name]
            await run_git(arguments, directory=self._directory, timeout=LIST_TIMEOUT, base=self._base)
            await asyncio.to_thread(_write_attributes, repository.path)
        ref = f"refs/snapshots/{commit}"
        listed = await self._git(repository, ["for-each-ref", "--format=%(objectname)", ref], timeout=LIST_TIMEOUT)
        if listed.strip() == commit.encode():
            return
        options = ["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        arguments = ["fetch", *options, "--", access.remote.url, f"+{commit}:{ref}"]
        try:
            await self._git(repository, arguments, timeout=FETCH_TIMEOUT, access=access)
        except BaseException as error:
            # When git is stopped for the size of its pack, all that it says may be that the connection broke off.
            full = isinstance(error, ControllerError) and await asyncio.to_thread(_is_full, repository.path)
            # Half a pack is of no use, and a repository that grew to its bound would never shrink.
            await asyncio.to_thread(shutil.rmtree, repository.path, ignore_errors=True)
            if full:
                raise PermanentError(Reason.INVALID_ARCHIVE, TOO_LARGE) from None
            raise
        repository.disk_bytes = await asyncio.to_thread(_disk_bytes, repository.path)

    async def _git(
        self,
        repository: _Repository,
        arguments: list[str],
        *,
        timeout: float,  # noqa: ASYNC109 - see run_git.
        access: Access | None = None,
    ) -> bytes:
        where = [f"--git-dir={repository.path}"]
        return await run_git(
            [*where, *arguments], directory=self._directory, access=access, timeout=timeout, base=self._base
        )

    def _repository(self, access: Access) -> _Repository:
        key = repository_key(access)
        repository = self._known.get(key)
        if repository is None:
            repository = self._known[key] = _Repository(self._directory / key)
        self._known.move_to_end(key)
        return repository

    async def _evict(self) -> None:
        """Remove the least recently used repositories that nobody works with, until the rest fits."""
        while len(self._known) > MAX_REPOSITORIES or sum(r.disk_bytes for r in self._known.values()) > MAX_BYTES:
            idle = [key for key, r in self._known.items() if r.users == 0 and not r.lock.locked()]
            if not idle:
                return
            gone = self._known.pop(idle[0])
            # Renamed before it is removed: who asks for it from now on makes a new one.
            grave = gone.path.with_suffix(f".{id(gone)}")
            if gone.path.exists():
                os.rename(gone.path, grave)  # noqa: PTH104 - ASYNC240 would have an await between the two.
                await asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True)


def repository_key(access: Access) -> str:
    """Return the name of a repository as a login sees it."""
    return hashlib.sha256(f"{access.remote.url}\0{access.login.identity}".encode()).hexdigest()


def _parse_refs(listed: bytes) -> Refs:
    """Read lines of `commit TAB ref`; an annotated tag comes twice, the second time with its commit and `^{}`."""
    refs: dict[str, str] = {}
    for line in listed.decode(errors="replace").splitlines():
        commit, _, ref = line.partition("\t")
        if not COMMIT.fullmatch(commit):
            message = "the Git server listed refs that are none"
            raise PermanentError(Reason.FETCH_FAILED, message)
        refs[ref.removesuffix("^{}")] = commit
    return refs


def _write_attributes(repository: Path) -> None:
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "attributes").write_bytes(_ATTRIBUTES)


def _is_full(repository: Path) -> bool:
    """Tell whether a file was written up to the limit."""
    return any(path.lstat().st_size >= MAX_FILE_BYTES - 2**20 for path in repository.rglob("*"))


def _disk_bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*"))
