"""Sources as the watch last showed them, slim: what decides the revision, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from secret_manager_controller.controller.cache import SourceKey
from secret_manager_controller.controller.kinds import SOURCE_KINDS, Kinds
from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.kube import KubeClient, KubeError
from secret_manager_controller.model.spec import SourceKind
from secret_manager_controller.sources.argocd import slim_application
from secret_manager_controller.sources.flux import READY, SOURCE_VERIFIED
from secret_manager_controller.sources.protocol import SourceReference


@dataclass(frozen=True, slots=True)
class Seen:
    """A source in one state.

    Attributes:
        version: its resourceVersion, which grows (KEP-5504).
        trust: for what was asked of the API server, how often trust had been lost before.
    """

    slim: Mapping[str, Any]
    version: int
    trust: int = -1


class WatchedSources:
    """Answers what a source publishes from the watch, and from the API server for what the watch may not have shown.

    A watch may be late without bounds: one that outlives a partition goes on where it stood. That does no harm as long
    as nobody else acts, but whoever takes over must know at least what the last owner knew, or it would take the store
    back to what Git held before. So `distrust` is called with every shard that is gained; each source is then asked for
    once, and the watch's older events do not outdo the answer.

    Args:
        kube: the API server.
        kinds: the kinds that are watched, and where.
    """

    def __init__(self, kube: KubeClient, kinds: Kinds) -> None:
        self._kube = kube
        self._kinds = kinds
        self._known: dict[SourceKey, Seen] = {}
        self._confirmed: dict[SourceKey, Seen] = {}
        self._distrusted = 0
        self._asked: dict[SourceKey, Mapping[str, Any] | None] = {}
        """What was answered about sources that the watch has not shown, so that its first event may be no change."""

    def put(self, key: SourceKey, body: Mapping[str, Any]) -> bool:
        """Store what the watch shows; return whether it is news to those who asked for the source, if anybody did."""
        seen = seen_of(body, kind=key.kind)
        known, asked = self._known.get(key), self._asked.pop(key, seen.slim)
        self._known[key] = seen
        return (asked if known is None else known.slim) != seen.slim

    def distrust(self) -> None:
        """Ask the API server once more for each source, when it is read the next time."""
        self._distrusted += 1

    def remove(self, key: SourceKey) -> None:
        """Forget a source that is gone."""
        for seen in (self._known, self._confirmed, self._asked):
            seen.pop(key, None)

    def ghosts(self, kind: str, existing: Collection[tuple[str, str]]) -> tuple[SourceKey, ...]:
        """Return the sources of a kind that do not exist: their deletion fell into a gap of the watch."""
        return tuple(k for k in self._known if k.kind == kind and (k.namespace, k.name) not in existing)

    def stale(self, key: SourceKey) -> bool:
        """Tell whether a source that is referred to is missing, or says that what it publishes is not the newest.

        One that is suspended stays as it is because somebody wants it so. Applications have no such condition.
        """
        seen = self._known.get(key)
        if seen is None:
            return True
        if key.kind == SourceKind.APPLICATION or seen.slim["spec"]["suspend"]:
            return False
        ready = [each["status"] for each in seen.slim["status"]["conditions"] if each["type"] == READY]
        return ready != ["True"]

    async def read(self, reference: SourceReference, *, fresh: bool = False) -> Mapping[str, Any] | None:
        """Return the source's object, slim, or None if there is none.

        Args:
            reference: which object.
            fresh: ask the API server although the watch has shown the object: it may be late.

        Raises:
            RetryableError: SourceNotReady: the API server refused or did not answer; SourceNotFound: the cluster has
                no such kind.
        """
        key = SourceKey(reference.kind, reference.namespace, reference.name)
        known, trust = self._known.get(key), self._distrusted
        if known is not None and not fresh and (newest := self._newest(key, known)) is not None:
            return newest.slim
        try:
            seen = await self._get(reference)
        except RetryableError:
            if known is None:
                self._asked.setdefault(key, None)
            raise
        if known is not None:
            return None if seen is None else self._confirm(key, replace(seen, trust=trust)).slim
        if (shown := self._known.get(key)) is not None:
            return shown.slim  # Meanwhile, and so it is newer.
        # The next one asks again: a kind that was installed after our start is not watched.
        self._asked[key] = slim = None if seen is None else seen.slim
        return slim

    def _newest(self, key: SourceKey, known: Seen) -> Seen | None:
        """Return the newest state that is known, or None if it may be too old."""
        if not self._distrusted:
            return known
        confirmed = self._confirmed.get(key)
        if confirmed is None or confirmed.trust != self._distrusted:
            return None
        return max(known, confirmed, key=lambda seen: seen.version)

    def _confirm(self, key: SourceKey, seen: Seen) -> Seen:
        """Remember what the API server answered for `_newest`, not for `put`: the watch's event still tells others."""
        before = self._confirmed.get(key)
        if before is None or (before.version, before.trust) < (seen.version, seen.trust):
            self._confirmed[key] = seen
        shown = self._known.get(key)
        return seen if shown is None else max(seen, shown, key=lambda each: each.version)

    async def _get(self, reference: SourceReference) -> Seen | None:
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
        return None if body is None else seen_of(body, kind=reference.kind)


def seen_of(body: Mapping[str, Any], *, kind: str) -> Seen:
    """Return a Flux source as it is remembered."""
    version = str((body.get("metadata") or {}).get("resourceVersion") or "")
    return Seen(slim_source(body, kind=kind), int(version) if version.isdecimal() and version.isascii() else 0)


def slim_source(body: Mapping[str, Any], *, kind: str) -> Mapping[str, Any]:
    """Return the part of a source that decides its revision: what `sources.flux` or `sources.argocd` reads."""
    if kind == SourceKind.APPLICATION:
        return slim_application(body)
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
