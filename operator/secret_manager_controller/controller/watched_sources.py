"""Sources as the watch last showed them, slim: what decides the revision, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from secret_manager_controller.controller.cache import SourceKey
from secret_manager_controller.controller.kinds import SOURCE_KINDS, Kinds
from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.kube import KubeClient, KubeError
from secret_manager_controller.sources.flux import READY, SOURCE_VERIFIED
from secret_manager_controller.sources.protocol import SourceReference


class WatchedSources:
    """Answers what a source publishes from the watch, and from the API server for what the watch has not shown yet.

    Args:
        kube: the API server.
        kinds: the kinds that are watched, and where.
    """

    def __init__(self, kube: KubeClient, kinds: Kinds) -> None:
        self._kube = kube
        self._kinds = kinds
        self._known: dict[SourceKey, Mapping[str, Any]] = {}
        self._asked: dict[SourceKey, Mapping[str, Any] | None] = {}
        """What was answered about sources that the watch has not shown, so that its first event may be no change."""

    def put(self, key: SourceKey, body: Mapping[str, Any]) -> bool:
        """Store what the watch shows; return whether it is news to those who asked for the source, if anybody did."""
        slim = slim_source(body, kind=key.kind)
        before = self._known.get(key, self._asked.pop(key, slim))
        self._known[key] = slim
        return before != slim

    def remove(self, key: SourceKey) -> None:
        """Forget a source that is gone."""
        self._known.pop(key, None)
        self._asked.pop(key, None)

    def ghosts(self, kind: str, existing: Collection[tuple[str, str]]) -> tuple[SourceKey, ...]:
        """Return the sources of a kind that do not exist: their deletion fell into a gap of the watch."""
        return tuple(k for k in self._known if k.kind == kind and (k.namespace, k.name) not in existing)

    async def read(self, reference: SourceReference, *, fresh: bool = False) -> Mapping[str, Any] | None:
        """Return the source's object, slim, or None if there is none.

        Args:
            reference: which object.
            fresh: ask the API server although the watch has shown the object: it may be late. What comes of it is not
                remembered, so that the watch's event still tells the other objects on the source.

        Raises:
            RetryableError: SourceNotReady: the API server refused or did not answer; SourceNotFound: the cluster has
                no such kind.
        """
        key = SourceKey(reference.kind, reference.namespace, reference.name)
        known = self._known.get(key)
        if known is not None and not fresh:
            return known
        try:
            slim = await self._get(reference)
        except RetryableError:
            self._asked.setdefault(key, None)
            raise
        if known is not None:
            return slim
        if (shown := self._known.get(key)) is not None:
            return shown  # Meanwhile, and so it is newer.
        # The next one asks again: a kind that was installed after our start is not watched.
        self._asked[key] = slim
        return slim

    async def _get(self, reference: SourceReference) -> Mapping[str, Any] | None:
        installed = self._kinds.get(reference.kind)
        path = installed or SOURCE_KINDS[reference.kind][0]
        try:
            body = await self._kube.get(path.url(reference.namespace, reference.name))
        except KubeError as error:
            raise RetryableError(
                Reason.SOURCE_NOT_READY,
                f"cannot read {reference.kind} {reference.namespace}/{reference.name}: {error.message}",
            ) from error
        if body is None and installed is None:
            raise RetryableError(
                Reason.SOURCE_NOT_FOUND,
                f"the cluster has no kind {reference.kind} ({path.plural}.{path.group}); install it, or correct "
                "spec.sourceRef.kind",
            )
        return None if body is None else slim_source(body, kind=reference.kind)


def slim_source(body: Mapping[str, Any], *, kind: str) -> Mapping[str, Any]:
    """Return the part of a Flux source that `sources.flux.revision_of` reads."""
    metadata, spec, status = (body.get(part) or {} for part in ("metadata", "spec", "status"))
    artifact = status.get("artifact") or {}
    return {
        "kind": kind,
        "metadata": {name: metadata.get(name) for name in ("namespace", "name", "generation")},
        # How a signature is verified is Flux's own matter; that it is asked for is ours.
        "spec": {"suspend": spec.get("suspend", False), "verify": bool(spec.get("verify"))},
        "status": {
            "observedGeneration": status.get("observedGeneration"),
            "artifact": {name: artifact[name] for name in ("url", "digest", "revision") if name in artifact},
            "conditions": [
                {name: condition.get(name) for name in ("type", "status", "reason", "message")}
                for condition in status.get("conditions") or []
                if condition.get("type") in {READY, SOURCE_VERIFIED}
            ],
        },
    }
