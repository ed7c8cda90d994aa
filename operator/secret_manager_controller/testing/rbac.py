"""What the controller asked of the API server, held against the rules that the chart grants it.

A right that is missing shows as a request that was refused; a right that is idle, as a verb that no request needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secret_manager_controller.kube import ResourcePath

ROLES = ResourcePath("rbac.authorization.k8s.io", "v1", "roles")
FORBIDDEN = 403
NOT_FOUND = 404

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Asked:
    """One request about an object or a kind, as the audit log has it.

    Attributes:
        resource: the plural, with its subresource after a slash.
        code: the HTTP status of its answer, 0 while it goes on.
    """

    namespace: str
    resource: str
    verb: str
    name: str
    code: int


def asked(events: Iterable[Manifest], user: str) -> Iterator[Asked]:
    """Yield what a user asked for, in the order of audit events; what names no resource is left out."""
    for event in events:
        reference = event.get("objectRef") or {}
        if event["user"]["username"] != user or "resource" not in reference:
            continue
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        code = (event.get("responseStatus") or {}).get("code", 0)
        yield Asked(reference.get("namespace", ""), resource, event["verb"], reference.get("name", ""), code)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a Role or ClusterRole.

    Attributes:
        namespace: the Role's, or empty for a ClusterRole.
        names: the objects that it is for; empty for all.
    """

    namespace: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def idle(self, requests: Iterable[Asked]) -> tuple[str, ...]:
        """Return the verbs that none of the requests needed.

        One that did not find its object needed the right all the same: without it, it had been refused.
        """
        used = {request.verb for request in requests if self._covers(request)}
        return tuple(verb for verb in self.verbs if verb not in used)

    def _covers(self, request: Asked) -> bool:
        return (
            (request.code < 400 or request.code == NOT_FOUND)
            and request.resource in self.resources
            and self.namespace in ("", request.namespace)
            and (not self.names or request.name in self.names)
        )


def rules(manifests: Iterable[Manifest]) -> Iterator[Rule]:
    """Yield every rule of the Roles and ClusterRoles among manifests."""
    for manifest in manifests:
        if manifest["kind"] in ("Role", "ClusterRole"):
            for rule in manifest["rules"]:
                yield Rule(
                    manifest["metadata"].get("namespace", ""),
                    tuple(rule["resources"]),
                    tuple(rule["verbs"]),
                    tuple(rule.get("resourceNames", ())),
                )
