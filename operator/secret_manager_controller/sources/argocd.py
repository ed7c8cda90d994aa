"""Argo CD Applications: which of its sources is read, and the repository behind it.

An Application publishes no artifact, so that its repository is read directly, with the login that Argo CD has for it
or with the one that the object names.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.git.login import Access, GitLogin
from secret_manager_controller.sources.git.remote import Remote, check_host, parse_remote
from secret_manager_controller.sources.git.repositories import GitRepositories, repository_key
from secret_manager_controller.sources.git.targets import MAX_TARGET, Commit, find_commit, full_commit
from secret_manager_controller.sources.protocol import ReadObject, RevisionReplaced, SourceReference
from secret_manager_controller.sources.tree import SnapshotTree

MAX_REMEMBERED = 4096
"""Applications, each as a login sees its repository, whose synced revision is remembered; one more costs a listing."""


class Logins(Protocol):
    """Where logins to Git servers come from."""

    async def find(self, ref: SourceReference, remote: Remote, *, project: str) -> GitLogin:
        """Return the login for a repository.

        Raises:
            RetryableError: CredentialsUnavailable: it cannot be read, or is not there yet.
            PermanentError: CredentialsUnavailable: it is not usable.
        """
        ...


@dataclass(frozen=True, slots=True)
class GitTarget:
    """What an Application reads from Git.

    Attributes:
        project: the Application's project, which Argo CD may have its own logins for.
        synced: what Argo CD says it has compared with, which changes when Git does.
    """

    remote: Remote
    target: str
    project: str
    synced: str


class ArgoSource:
    """Reads the repositories of Applications: `Source` of kind Application.

    Args:
        read_object: reads the Application.
        logins: finds the login to a repository.
        repositories: what was fetched, shared by all objects.
        cache: keeps unpacked snapshots, shared by all objects and sources.
    """

    def __init__(
        self, *, read_object: ReadObject, logins: Logins, repositories: GitRepositories, cache: SnapshotCache
    ) -> None:
        self._read_object = read_object
        self._logins = logins
        self._repositories = repositories
        self._cache = cache
        self._synced: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    async def resolve(self, ref: SourceReference, *, fresh: bool = False) -> Revision:
        """Return the commit that the Application's `targetRevision` means now; see `Source.resolve`."""
        target, access = await self._access(ref, fresh=fresh)
        if ref.require_verified:
            message = (
                f"{_name(ref)} tells nothing of signatures, and spec.requireVerifiedSource asks for a verified one; "
                "use a GitRepository with spec.verify"
            )
            raise PermanentError(Reason.SOURCE_NOT_VERIFIED, message)
        commit = full_commit(target.target)
        if commit is None:
            # For each login on its own: refs that another login has listed are not what this one is told.
            seen = (ref.namespace, ref.name, repository_key(access))
            news = self._synced.get(seen, target.synced) != target.synced
            refs = await self._repositories.refs(access, fresh=fresh or news)
            self._remember(seen, target.synced)
            commit = find_commit(target.target, refs, of=_name(ref))
        return _revision(access, commit)

    def fetch(self, ref: SourceReference, revision: Revision) -> AbstractAsyncContextManager[SnapshotTree]:
        """Lease the files of a commit; see `Source.fetch`."""
        return self._cache.lease(revision, download=partial(self._download, ref, revision))

    async def _download(self, ref: SourceReference, revision: Revision, into: Path) -> None:
        _, access = await self._access(ref)
        commit = Commit(revision.revision.rpartition(":")[2])
        if _revision(access, commit).digest != revision.digest:
            message = f"{_name(ref)} or its login changed meanwhile"
            raise RevisionReplaced(Reason.FETCH_FAILED, message)
        await self._repositories.archive(access, commit.id, into)

    async def _access(self, ref: SourceReference, *, fresh: bool = False) -> tuple[GitTarget, Access]:
        application = await self._read_object(ref, fresh=fresh)
        if application is None:
            message = f"{_name(ref)} does not exist; create it or correct spec.sourceRef"
            raise RetryableError(Reason.SOURCE_NOT_FOUND, message)
        target = git_target(application, source_name=ref.source_name, of=_name(ref))
        # Whoever may write an Application decides where its repository is.
        check_host(target.remote.host, ref.git_hosts, of=f"the repository of {_name(ref)}")
        return target, Access(target.remote, await self._logins.find(ref, target.remote, project=target.project))

    def _remember(self, seen: tuple[str, str, str], synced: str) -> None:
        self._synced[seen] = synced
        self._synced.move_to_end(seen)
        if len(self._synced) > MAX_REMEMBERED:
            self._synced.popitem(last=False)


def git_target(application: Mapping[str, Any], *, source_name: str | None, of: str) -> GitTarget:
    """Return what an Application reads from Git, decided from its spec.

    With `source_name` it is the source of that name; else the only one, or the first of several with a path in Git.

    Raises:
        PermanentError: SourceUnsupported: it reads nothing from Git, or not where it was said.
    """
    spec, status = _mapping(application.get("spec")), _mapping(application.get("status"))
    source = _chosen(spec, source_name, of)
    target = source.get("targetRevision") or "HEAD"
    if not isinstance(target, str) or len(target) > MAX_TARGET or target.startswith("-") or not target.isprintable():
        message = f"{of} has a targetRevision that is no name of a branch, tag, commit or range of versions"
        raise PermanentError(Reason.SOURCE_UNSUPPORTED, message)
    sync = _mapping(status.get("sync"))
    return GitTarget(
        remote=parse_remote(source.get("repoURL"), of=of),
        target=target,
        project=str(spec.get("project") or "default"),
        synced=f"{sync.get('revision')} {sync.get('revisions')}",
    )


def slim_application(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of an Application that `git_target` reads, which is all that the watch keeps."""
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    sources = spec.get("sources")
    several = [_slim_source(source) for source in sources] if isinstance(sources, list) else None
    return {
        "kind": "Application",
        "spec": {
            "project": spec.get("project"),
            "source": _slim_source(spec["source"]) if spec.get("source") else None,
            "sources": several,
            "sourceHydrator": bool(spec.get("sourceHydrator")),
        },
        "status": {"sync": {name: _mapping(status.get("sync")).get(name) for name in ("revision", "revisions")}},
    }


def _slim_source(source: object) -> Mapping[str, Any]:
    given = _mapping(source)
    return {
        name: given[name] for name in ("repoURL", "path", "chart", "targetRevision", "name", "ref") if name in given
    }


def _chosen(spec: Mapping[str, Any], source_name: str | None, of: str) -> Mapping[str, Any]:
    several = spec.get("sources")
    # As in Argo CD, `sources` counts where there are both.
    found = several if isinstance(several, Sequence) and several else [spec.get("source")]
    sources = [_mapping(source) for source in found if source]
    if not sources:
        what = "hydrates its source, which is not read" if spec.get("sourceHydrator") else "has no source"
        raise _unsupported(of, f"{what}; give it spec.source or spec.sources with a path in Git")
    if source_name is not None:
        named = [source for source in sources if source.get("name") == source_name]
        if not named:
            names = ", ".join(sorted(repr(str(s["name"])) for s in sources if s.get("name"))) or "none has a name"
            raise _unsupported(of, f"has no source named {source_name!r} ({foreign(names)}); correct spec.sourceRef")
        if (other := _other_than_git(named[0])) is not None:
            raise _unsupported(of, f"has {other} as its source {source_name!r}; name one in Git")
        return named[0]
    in_git = [source for source in sources if _other_than_git(source) is None]
    if not in_git:
        kinds = " and ".join(sorted({str(_other_than_git(source)) for source in sources}))
        raise _unsupported(of, f"has only {kinds} as its source; give it a source in Git, or use a GitRepository")
    if len(sources) == 1:
        return in_git[0]
    with_path = [source for source in in_git if source.get("path")]
    if not with_path:
        raise _unsupported(of, "has no source with a path in Git; name one in spec.sourceRef.sourceName")
    return with_path[0]


def _other_than_git(source: Mapping[str, Any]) -> str | None:
    """Return what a source is if it is none in Git."""
    if str(source.get("repoURL") or "").lower().startswith("oci://"):
        return "an OCI artifact"
    return "a Helm chart" if source.get("chart") else None


def _unsupported(of: str, what: str) -> PermanentError:
    return PermanentError(Reason.SOURCE_UNSUPPORTED, f"{of} {what}")


def _revision(access: Access, commit: Commit) -> Revision:
    # Not the commit alone: whoever knows one must not get from the cache what only another's login may read.
    digest = hashlib.sha256(f"{repository_key(access)} {commit.id}".encode()).hexdigest()
    return Revision(revision=str(commit), digest=f"git:{digest}", url=access.remote.url)


def _name(ref: SourceReference) -> str:
    return f"{ref.kind} {ref.namespace}/{ref.name}"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
