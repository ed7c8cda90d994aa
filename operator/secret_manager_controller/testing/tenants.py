"""Tenants of a `Stack`: each a namespace with a source, a login and one object of its own, so that many share a stack.

tenant = Tenant(stack, "payments")
tenant.commit(API_KEY="one")
tenant.apply(prune=True)
tenant.ready()
assert tenant.values() == {"API_KEY": b"one"}
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from secret_manager_controller.errors import Reason
from secret_manager_controller.kube import EVENTS, GIT_REPOSITORIES, SECRET_MANAGER_CONFIGS, SOPS_SECRETS
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.artifacts import Artifact, ArtifactServer
from secret_manager_controller.testing.aws import WRITES
from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.stack import WAIT_TIMEOUT, ControllerProcess, Stack, StackError

OBJECT, SOURCE = "app", "source"
PROFILES = "app/deployment-configuration/profiles"
PROFILE = f"{PROFILES}/dev"
ENV = f"{PROFILE}/application.secrets.env"
YAML = f"{PROFILE}/application.secrets.yaml"
PROPERTIES = f"{PROFILE}/application.properties"

USER_AGENTS = ("secret-manager-controller/", "kopf/")
"""How the controller's requests begin to name themselves in the API server's audit log."""

Files = Mapping[str, str | bytes]
Status = Mapping[str, Any]


class Tenant:
    """A namespace with all that one SecretManagerConfig needs. Methods block for some milliseconds, or until they see.

    Attributes:
        namespace: begins with the label and is unique in the stack; it is the prefix of all names in the store too.
        key: the object's request key.
        path: the object's API path.
    """

    def __init__(self, stack: Stack, label: str, *, number: int = 1) -> None:
        self.stack = stack
        self.namespace = f"{label}-{number}"
        self.key = f"{self.namespace}/{OBJECT}"
        self.path = SECRET_MANAGER_CONFIGS.url(self.namespace, OBJECT)
        self.source_path = GIT_REPOSITORIES.url(self.namespace, SOURCE)
        self._commits = itertools.count(1)
        stack.create_namespace(self.namespace)
        stack.create_aws_credentials(self.namespace)
        self._readable = [*SOPS_SECRETS, "aws-credentials"]
        self.let_read()

    def let_read(self, *secrets: str) -> None:
        """Let the controller read Secrets of the namespace, beside the usual ones: the Role that docs/rbac.md shows."""
        self._readable.extend(secrets)
        rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": self._readable, "verbs": ["get"]}
        self.stack.allow(self.namespace, [rule])

    def name(self, key: str) -> str:
        """Return the store's name of one of this tenant's keys."""
        return f"{self.namespace}-{key}"

    def spec(self, **changes: Any) -> dict[str, Any]:
        """Return a spec that syncs all of the source; `changes` replace whole fields, None leaves one out."""
        auth = {"authType": "AccessKeys", "secretName": "aws-credentials"}
        whole = {
            "sourceRef": {"kind": "GitRepository", "name": SOURCE},
            "provider": {"type": "aws", "aws": {"region": self.stack.aws.region, "auth": auth}},
            "secrets": {"environment": "dev", "prefix": self.namespace},
            "interval": "24h",  # What happens without a cause would hide what does not happen for one.
        } | changes
        return {field: value for field, value in whole.items() if value is not None}

    def apply(
        self, *, object_name: str = OBJECT, annotations: Mapping[str, str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Apply the object, or another one beside it; see `spec`."""
        metadata = {"namespace": self.namespace, "name": object_name, "annotations": dict(annotations or {})}
        kind = {"apiVersion": f"{GROUP}/v1", "kind": "SecretManagerConfig"}
        return self.stack.apply({**kind, "metadata": metadata, "spec": self.spec(**changes)})

    def patch(self, **spec: Any) -> dict[str, Any]:
        """Change fields of the spec; None removes one."""
        return self.stack.patch(self.path, {"spec": spec})

    def annotate(self, name: str, value: str | None) -> None:
        """Set one of our annotations, by its name without the group."""
        self.stack.patch(self.path, {"metadata": {"annotations": {f"{GROUP}/{name}": value}}})

    def reconcile(self) -> Status:
        """Ask for a reconcile and return the status that it wrote."""
        asked = str(time.time_ns())
        self.annotate("reconcile", asked)
        return self.until("its reconcile", lambda status: status.get("lastHandledReconcileAt") == asked)

    def commit(
        self,
        files: Files | None = None,
        *,
        content: bytes | None = None,
        server: ArtifactServer | None = None,
        publish: bool = True,
        **entries: str,
    ) -> Artifact:
        """Let the source publish a new artifact.

        Args:
            files: what it holds, by path.
            content: the artifact's own bytes, instead of `files`.
            server: serves it, instead of the stack's.
            publish: whether the GitRepository tells of it; else that is left to `publish`.
            entries: instead of both, the keys and values of one dotenv file.
        """
        if content is None:
            content = packed({ENV: dotenv(**entries)} if files is None else files)
        number = next(self._commits)
        commit = hashlib.sha256(f"{self.namespace} {number}".encode()).hexdigest()[:40]
        artifact = (server or self.stack.artifacts).publish_bytes(
            content, revision=f"main@sha1:{commit}", file=f"{self.namespace}/{number}.tar.gz"
        )
        if publish:
            self.publish(artifact)
        return artifact

    def publish(self, artifact: Artifact) -> None:
        """Let the source tell of an artifact."""
        self.stack.publish(artifact, namespace=self.namespace, name=SOURCE)

    def body(self) -> dict[str, Any]:
        """Return the object, empty if there is none."""
        return self.stack.config(self.key)

    def status(self) -> Status:
        """Return the object's status, empty if there is none."""
        return self.body().get("status") or {}

    def until(self, what: str, look: Callable[[Status], object], *, timeout: float = WAIT_TIMEOUT) -> Status:
        """Wait for a status, and return it.

        Raises:
            StackError: it did not come; the message quotes what was there instead.
        """

        def found() -> Status | None:
            status = self.status()
            return status if look(status) else None

        try:
            return self.stack.wait(f"{self.key}: {what}", found, timeout=timeout)
        except StackError as error:
            raise StackError(f"{error}; its status is {json.dumps(self.status(), indent=1)}") from None

    def ready(self, *, reason: str = "ReconciliationSucceeded", after: str = "") -> Status:
        """Wait until Ready of the present generation has a reason, and return the status; see `Stack.wait_ready`."""
        return self.stack.wait_ready(self.key, reason=reason, after=after)

    def applied(self, artifact: Artifact, *, timeout: float = WAIT_TIMEOUT) -> Status:
        """Wait until the store equals an artifact, and return the status."""

        def is_applied(status: Status) -> bool:
            return status.get("lastAppliedRevision") == artifact.revision

        return self.until(f"{artifact.revision} to be applied", is_applied, timeout=timeout)

    def values(self) -> Mapping[str, bytes]:
        """Return what the store holds under this tenant's prefix, by key."""
        prefix = self.name("")
        return {
            name.removeprefix(prefix): value
            for name, value in self.stack.aws.values().items()
            if name.startswith(prefix)
        }

    def versions(self, key: str) -> int:
        """Return how many versions a secret has; 0 where there is none."""
        return self.stack.aws.versions(self.name(key))

    def calls(self) -> list[Call]:
        """Return the store calls that name one of this tenant's secrets, and those that name none: listings."""
        return [
            call
            for call in self.stack.aws.calls()
            if not call.names or any(name.startswith(self.name("")) for name in call.names)
        ]

    def writes(self) -> list[Call]:
        """Return the store calls that asked for a change of this tenant's secrets."""
        return [call for call in self.calls() if call.operation in WRITES]

    def events(self) -> list[dict[str, Any]]:
        """Return the namespace's Events, oldest first, beside the one that a tenant's access keys are deprecated."""
        listed = self.stack.get(EVENTS.url(self.namespace)) or {}
        told = (event for event in listed.get("items") or [] if event["reason"] != Reason.DEPRECATED)
        return sorted(told, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def audit(self, *verbs: str) -> list[dict[str, Any]]:
        """Return the controller's requests about this namespace, of these verbs or of all."""
        return [
            event
            for event in self.stack.plane.audit_events()
            if event.get("userAgent", "").startswith(USER_AGENTS)
            and f"/namespaces/{self.namespace}/" in event["requestURI"]
            and (not verbs or event["verb"] in verbs)
        ]

    def status_writes(self) -> int:
        """Return how often the controller wrote the object's status."""
        return sum(event["requestURI"] == f"{self.path}/status" for event in self.audit("patch", "update"))

    def remove(self) -> None:
        """Delete the namespace's objects whatever holds them, so that nothing of them goes on beside others."""
        listed = self.stack.get(SECRET_MANAGER_CONFIGS.url(self.namespace)) or {}
        for body in listed.get("items") or []:
            path = SECRET_MANAGER_CONFIGS.url(self.namespace, body["metadata"]["name"])
            if body["metadata"].get("finalizers"):
                self.stack.patch(path, {"metadata": {"finalizers": None}})
            self.stack.delete(path)


def packed(files: Files, *members: tarfile.TarInfo) -> bytes:
    """Return a tar.gz of files, and of members that have no content."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, text in sorted(files.items()):
            data = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in members:
            tar.addfile(member)
    return content.getvalue()


def dotenv(**entries: str) -> str:
    """Return a dotenv file that is not encrypted."""
    return "".join(f"{key}={value}\n" for key, value in entries.items())


def conditions(status: Status) -> Mapping[str, str]:
    """Return the reasons of the conditions that are True, by type."""
    found: Iterable[Mapping[str, str]] = status.get("conditions") or ()
    return {each["type"]: each["reason"] for each in found if each["status"] == "True"}


def metric(controller: ControllerProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    _, text = controller.http("/metrics")
    total = 0.0
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name and all(
            f'{label}="{wanted}"' in sample for label, wanted in labels.items()
        ):
            total += float(value)
    return total
