"""Policies and the namespaces' labels as the watch last showed them, and the status that tells whom a policy is for."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from secret_manager_controller.errors import ConfigError, Reason, RetryableError
from secret_manager_controller.kube import NAMESPACES, SECRET_MANAGER_POLICIES, KubeClient, KubeError
from secret_manager_controller.model.policy import MAX_LISTED_NAMESPACES, Policy, parse_policy

logger = logging.getLogger(__name__)

STATUS_INTERVAL = 5.0
"""Seconds between two looks at whether a policy's status is still right; it is written only where it is not."""

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One policy as it was last seen.

    Attributes:
        policy: None where it is malformed: it then grants nothing.
        fault: what is wrong with it.
        status: what its status says.
    """

    generation: int
    policy: Policy | None
    fault: str | None
    resource_version: str = field(compare=False)
    status: Mapping[str, Any] = field(compare=False)


class PolicyBook:
    """`Policies` for the controller: filled once before anything is reconciled, then kept up to date by the watch."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._entries: dict[str, _Entry] = {}
        self._labels: dict[str, Mapping[str, str]] = {}

    async def load(self) -> None:
        """Read all policies and namespaces, so that the first reconciles are not denied what is granted.

        Raises:
            KubeError: the API server refused or did not answer.
        """
        async for body in self._kube.list_objects(SECRET_MANAGER_POLICIES):
            self.put(body)
        async for metadata in self._kube.list_metadata(NAMESPACES):
            self.put_namespace({"metadata": metadata})

    async def of(self, namespace: str) -> Sequence[Policy]:
        """Return the policies for a namespace; one that the watch has not shown yet is read.

        Raises:
            RetryableError: StoreUnavailable: it could not be read.
        """
        if namespace not in self._labels:
            await self._read_labels(namespace)
        labels = self._labels.get(namespace, {})
        return [policy for policy in self._valid() if policy.spec.namespaces.include(namespace, labels)]

    def put(self, body: Body) -> frozenset[str]:
        """Take note of a policy; return the namespaces whose grants may have changed."""
        name, metadata = body["metadata"]["name"], body["metadata"]
        policy, fault = None, None
        try:
            policy = parse_policy(body)
        except ConfigError as error:
            fault = error.message
        entry = _Entry(
            metadata.get("generation", 0), policy, fault, metadata.get("resourceVersion", ""), body.get("status") or {}
        )
        before = self._entries.get(name)
        self._entries[name] = entry
        if before is not None and before.policy == policy:
            return frozenset()
        return self._matched(None if before is None else before.policy) | self._matched(policy)

    def remove(self, name: str) -> frozenset[str]:
        """Forget a policy that is gone; return the namespaces whose grants may have changed."""
        entry = self._entries.pop(name, None)
        return self._matched(None if entry is None else entry.policy)

    def put_namespace(self, body: Body) -> bool:
        """Take note of a namespace's labels; return whether other policies are for it than before."""
        name, labels = body["metadata"]["name"], dict(body["metadata"].get("labels") or {})
        before = self._labels.get(name)
        self._labels[name] = labels
        if before == labels:
            return False
        return any(
            policy.spec.namespaces.include(name, before or {}) != policy.spec.namespaces.include(name, labels)
            for policy in self._valid()
        )

    def remove_namespace(self, name: str) -> None:
        """Forget a namespace that is gone."""
        self._labels.pop(name, None)

    def ghosts(self, existing: Collection[str]) -> tuple[str, ...]:
        """Return the policies that may not exist any more: their deletion fell into a gap of the watch."""
        return tuple(name for name in self._entries if name not in existing)

    def wanted_statuses(self, keys: Iterable[str], *, now: datetime) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Return the resourceVersion and the new status of each policy whose status is not right.

        Args:
            keys: the request keys of all objects.
            now: the time to record, with a time zone.
        """
        objects = Counter(key.partition("/")[0] for key in keys)
        wanted = {}
        for name, entry in self._entries.items():
            status = _status_of(entry, self._matched(entry.policy), objects, now)
            if any(entry.status.get(field) != value for field, value in status.items()):
                wanted[name] = entry.resource_version, status
        return wanted

    def _valid(self) -> Iterable[Policy]:
        return [entry.policy for _, entry in sorted(self._entries.items()) if entry.policy is not None]

    def _matched(self, policy: Policy | None) -> frozenset[str]:
        if policy is None:
            return frozenset()
        include = policy.spec.namespaces.include
        return frozenset(name for name, labels in self._labels.items() if include(name, labels))

    async def _read_labels(self, namespace: str) -> None:
        try:
            body = await self._kube.get(NAMESPACES.url(name=namespace))
        except KubeError as error:
            message = f"cannot read namespace {namespace!r}, whose labels decide what is granted: {error.message}"
            raise RetryableError(Reason.STORE_UNAVAILABLE, message) from error
        # Meanwhile the watch may have shown it, and that is newer.
        if body is not None and namespace not in self._labels:
            self.put_namespace(body)


def _status_of(entry: _Entry, matched: frozenset[str], objects: Mapping[str, int], now: datetime) -> Mapping[str, Any]:
    status, reason, message = "True", "InForce", f"in force for {len(matched)} namespaces"
    if entry.fault is not None:
        status, reason, message = "False", str(Reason.INVALID_SPEC), f"it grants nothing: {entry.fault}"
    before: Mapping[str, Any] = next((c for c in entry.status.get("conditions") or () if c.get("type") == "Ready"), {})
    stamp = now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "observedGeneration": entry.generation,
        "matchedNamespaces": len(matched),
        "namespaces": sorted(matched)[:MAX_LISTED_NAMESPACES],
        "objects": sum(objects.get(namespace, 0) for namespace in matched),
        "conditions": [
            {
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": message,
                "observedGeneration": entry.generation,
                "lastTransitionTime": before.get("lastTransitionTime", stamp)
                if before.get("status") == status
                else stamp,
            }
        ],
    }


class PolicyStatusWriter:
    """Keeps the policies' statuses right. Every replica may do it: all would write the same, and only what differs."""

    def __init__(
        self,
        kube: KubeClient,
        book: PolicyBook,
        keys: Callable[[], Iterable[str]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Make a writer.

        Args:
            kube: the API server.
            book: the policies.
            keys: returns the request keys of all objects.
            now: the time of day.
        """
        self._kube = kube
        self._book = book
        self._keys = keys
        self._now = now

    async def run(self, *, caught_up: asyncio.Event) -> None:
        """Write until cancelled, once `caught_up` says that all objects are known."""
        await caught_up.wait()
        while True:
            await self.write()
            await asyncio.sleep(STATUS_INTERVAL)

    async def write(self) -> None:
        """Write each status that is not right, once; what is refused is tried again the next time."""
        for name, (version, status) in self._book.wanted_statuses(self._keys(), now=self._now()).items():
            path = SECRET_MANAGER_POLICIES.url(name=name, subresource="status")
            try:
                await self._kube.merge_patch(path, {"metadata": {"resourceVersion": version}, "status": status})
            except KubeError as error:
                if error.status not in (404, 409):  # It is gone, or the watch will show what is newer.
                    logger.warning(
                        "Policy status not written",
                        extra={"policy": name, "status": error.status, "error": error.message},
                    )
