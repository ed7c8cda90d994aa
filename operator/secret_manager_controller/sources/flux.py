"""Flux sources: what a GitRepository's status publishes, and its artifact.

OCIRepository and Bucket publish an artifact in the same way (`source.toolkit.fluxcd.io/v1`, the Artifact type of
fluxcd/pkg).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import aiohttp

from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.download import check_digest, check_url, download
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.sources.tree import SnapshotTree

ReadObject = Callable[[SourceReference], Awaitable[Mapping[str, Any] | None]]
"""Reads the source's object as the API server has it; None if there is none."""


def revision_of(git_repository: Mapping[str, Any]) -> Revision:
    """Return the revision that a Flux source publishes in its status.

    Which status counts:

    - Ready=False: not read, even if an older artifact is still published. Whoever looks at the object sees why.
    - Ready=Unknown, or not told yet: Flux is at work on the next artifact, and says so on every new commit. The one
      that it publishes is the last good one, and is read.
    - observedGeneration < generation: the source's spec changed, e.g. to another branch, and what is published is of
      the old one. Not read; Flux catches up in seconds.
    - spec.suspend: Flux stands still on purpose and will never catch up, so the generation does not count. The
      published artifact is what its owner froze, and is read.

    Raises:
        RetryableError: SourceNotReady, with the source's own reason and message.
        PermanentError: FetchFailed or NotImplemented for an artifact that cannot be downloaded or verified.
    """
    name = _name_of(git_repository)
    status = _mapping(git_repository.get("status"))
    ready = _ready_condition(status)
    artifact = _mapping(status.get("artifact"))
    if ready.get("status") == "False" or not artifact:
        raise RetryableError(Reason.SOURCE_NOT_READY, f"{name} {_why_not_ready(ready, bool(artifact))}")
    if _is_stale(git_repository, status):
        message = f"{name} was changed, and Flux has not read the change yet; its artifact is of the old spec"
        raise RetryableError(Reason.SOURCE_NOT_READY, message)
    revision = artifact.get("revision")
    if not isinstance(revision, str) or not revision:
        raise PermanentError(Reason.FETCH_FAILED, f"{name} publishes an artifact without a revision")
    return Revision(
        revision=revision,
        digest=check_digest(artifact.get("digest"), of=name),
        url=str(check_url(artifact.get("url"), of=name)),
    )


class FluxSource:
    """Reads Flux sources: `Source` of the kinds whose status has an artifact.

    Args:
        read_object: reads the source's object, from a watch's cache or from the API server.
        session: shared by all downloads; closed by its owner.
        cache: keeps unpacked snapshots, shared by all objects.
        allowed_hosts: host names that artifacts may come from, each with all below it, e.g.
            `flux-system.svc.cluster.local`. None allows any: who may write the status of a source then decides where
            our requests go. Only source-controller should; policies will narrow it for each tenant.
    """

    def __init__(
        self,
        *,
        read_object: ReadObject,
        session: aiohttp.ClientSession,
        cache: SnapshotCache,
        allowed_hosts: Collection[str] | None = None,
    ) -> None:
        self._read_object = read_object
        self._session = session
        self._cache = cache
        self._allowed_hosts = allowed_hosts

    async def resolve(self, ref: SourceReference) -> Revision:
        """Return the revision that the source publishes now; see `Source.resolve` and `revision_of`."""
        found = await self._read_object(ref)
        if found is None:
            message = f"{ref.kind} {ref.namespace}/{ref.name} does not exist; create it or correct spec.sourceRef"
            raise RetryableError(Reason.SOURCE_NOT_FOUND, message)
        return revision_of(found)

    def fetch(self, revision: Revision) -> AbstractAsyncContextManager[SnapshotTree]:
        """Lease the files of a revision; see `Source.fetch`."""
        return self._cache.lease(
            revision, download=partial(download, self._session, revision, allowed_hosts=self._allowed_hosts)
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name_of(source: Mapping[str, Any]) -> str:
    metadata = _mapping(source.get("metadata"))
    kind, namespace, name = source.get("kind", "source"), metadata.get("namespace", "?"), metadata.get("name", "?")
    return foreign(f"{kind} {namespace}/{name}")


def _ready_condition(status: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if _mapping(condition).get("type") == "Ready":
            return _mapping(condition)
    return {}


def _why_not_ready(ready: Mapping[str, Any], has_artifact: bool) -> str:
    told = ": ".join(str(ready[key]) for key in ("reason", "message") if ready.get(key))
    what = "is not ready" if has_artifact else "has no artifact yet"
    return f"{what}: {foreign(told)}" if told else what


def _is_stale(source: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    if _mapping(source.get("spec")).get("suspend") is True:
        return False
    generation, observed = _mapping(source.get("metadata")).get("generation"), status.get("observedGeneration")
    return isinstance(generation, int) and isinstance(observed, int) and observed < generation
