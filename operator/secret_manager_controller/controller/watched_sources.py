"""Sources as the watch last showed them, slim: what decides the revision, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from secret_manager_controller.controller.cache import SourceKey
from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.kube import GIT_REPOSITORIES, KubeClient, KubeError, ResourcePath
from secret_manager_controller.sources.protocol import SourceReference

SOURCE_PATHS: Mapping[str, ResourcePath] = {"GitRepository": GIT_REPOSITORIES}
"""The kinds that are watched, by `spec.sourceRef.kind`."""


class WatchedSources:
    """Answers what a source publishes from the watch, and from the API server for what the watch has not shown yet."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._known: dict[SourceKey, Mapping[str, Any]] = {}

    def put(self, key: SourceKey, body: Mapping[str, Any]) -> bool:
        """Store what the watch shows; return whether anything changed that decides the revision."""
        slim = slim_source(body, kind=key.kind)
        changed = self._known.get(key) != slim
        self._known[key] = slim
        return changed

    def remove(self, key: SourceKey) -> None:
        """Forget a source that is gone."""
        self._known.pop(key, None)

    def ghosts(self, kind: str, existing: Collection[tuple[str, str]]) -> tuple[SourceKey, ...]:
        """Return the sources of a kind that do not exist: their deletion fell into a gap of the watch."""
        return tuple(k for k in self._known if k.kind == kind and (k.namespace, k.name) not in existing)

    async def read(self, reference: SourceReference) -> Mapping[str, Any] | None:
        """Return the source's object, slim, or None if there is none.

        Raises:
            RetryableError: SourceNotReady: the API server refused or did not answer.
        """
        key = SourceKey(reference.kind, reference.namespace, reference.name)
        if (known := self._known.get(key)) is not None:
            return known
        path = SOURCE_PATHS[reference.kind].url(reference.namespace, reference.name)
        try:
            body = await self._kube.get(path)
        except KubeError as error:
            raise RetryableError(
                Reason.SOURCE_NOT_READY,
                f"cannot read {reference.kind} {reference.namespace}/{reference.name}: {error.message}",
            ) from error
        if body is None:
            return None
        # What the watch has shown meanwhile is newer; otherwise its first event is then no change.
        return self._known.setdefault(key, slim_source(body, kind=reference.kind))


def slim_source(body: Mapping[str, Any], *, kind: str) -> Mapping[str, Any]:
    """Return the part of a Flux source that `sources.flux.revision_of` reads."""
    metadata, spec, status = (body.get(part) or {} for part in ("metadata", "spec", "status"))
    artifact = status.get("artifact") or {}
    return {
        "kind": kind,
        "metadata": {name: metadata.get(name) for name in ("namespace", "name", "generation")},
        "spec": {"suspend": spec.get("suspend", False)},
        "status": {
            "observedGeneration": status.get("observedGeneration"),
            "artifact": {name: artifact[name] for name in ("url", "digest", "revision") if name in artifact},
            "conditions": [
                {name: condition.get(name) for name in ("type", "status", "reason", "message")}
                for condition in status.get("conditions") or []
                if condition.get("type") == "Ready"
            ],
        },
    }
