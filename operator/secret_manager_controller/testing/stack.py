"""Everything that the controller meets, on loopback: an API server, a Git repository served as Flux serves it, a store.

The demo and the tests on real processes share it. What stands in for Flux is `ArtifactServer` and a status that we
write as source-controller does.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from lease_sharding.leases import GROUP, Names, config_lease, format_lease, placeholder, released
from secret_manager_controller.cli.check import Account, bound_role
from secret_manager_controller.crd import KINDS, custom_resource_definition
from secret_manager_controller.grants import Mode
from secret_manager_controller.kube import (
    GIT_REPOSITORIES,
    LEASE_GROUP,
    LEASES,
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    SECRETS,
    ResourcePath,
)
from secret_manager_controller.testing import processes, rbac
from secret_manager_controller.testing.artifacts import Artifact, ArtifactServer, git_repository_status
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.controlplane import ControlPlane, User

T = TypeVar("T")

Manifest = Mapping[str, Any]

CONTROLLER_NAMESPACE = "microscaler-system"
DEFAULT_SHARDS = 32
SOURCE_NAMESPACE, SOURCE_NAME = "flux-system", "services"
WAIT_TIMEOUT = 30.0  # Seconds; what is waited for takes one or two.
POLL_INTERVAL = 0.05
STOP_GRACE = 25.0  # Seconds; the controller's own grace is 20.
FLUX_KINDS = {
    "GitRepository": GIT_REPOSITORIES,
    "OCIRepository": ResourcePath(GIT_REPOSITORIES.group, "v1", "ocirepositories"),
    "Bucket": ResourcePath(GIT_REPOSITORIES.group, "v1", "buckets"),
    "ExternalArtifact": ResourcePath(GIT_REPOSITORIES.group, "v1", "externalartifacts"),
}
APPLICATIONS = ResourcePath("argoproj.io", "v1alpha1", "applications")
PLURALS = {kind: path.plural for kind, path in FLUX_KINDS.items()} | {
    "NetworkPolicy": "networkpolicies",
    "SecretManagerPolicy": "secretmanagerpolicies",
}
"""Plurals that are more than the kind in lower case with an `s`."""


class StackError(RuntimeError):
    """Something did not come about in time, or the API server refused a manifest."""


class ControllerProcess:
    """A running controller.

    Attributes:
        process: its process.
        log: the file that it logs to.
        started: when, in seconds of the Unix time; what it asks for comes later.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.started = time.time()
        self._port: int | None = None

    @property
    def port(self) -> int | None:
        """The port of /metrics, or None as long as it is not served."""
        if self._port is None:
            self._port = next((record["port"] for record in self.records() if record.get("message") == "Started"), None)
        return self._port

    def records(self) -> list[dict[str, Any]]:
        """Return the log records so far; a line that is no JSON comes as `{"message": line}`."""
        complete, _, _ = self.log.read_text(errors="replace").rpartition("\n")
        records = []
        for line in complete.splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                records.append({"message": line})
        return records

    def http(self, path: str) -> tuple[int, str]:
        """Return status and text of an endpoint of METRICS_PORT."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ready(self) -> bool:
        """Tell whether /readyz says so; raise if the process has ended."""
        if self.process.poll() is not None:
            raise StackError(f"the controller ended with {self.process.returncode}:\n{processes.tail(self.log)}")
        return self.port is not None and self.http("/readyz")[0] == 200

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        processes.stop(self.process, grace=STOP_GRACE)
        return int(self.process.returncode)


class Stack:
    """The parts, running; a context manager that stops and removes all of them."""

    def __init__(
        self, directory: Path, plane: ControlPlane, aws: AwsServer, repository: Path, artifacts: ArtifactServer
    ) -> None:
        self.directory = directory
        self.plane = plane
        self.aws = aws
        self.repository = repository
        self.artifacts = artifacts
        self._replicas = itertools.count()
        self._accounts: dict[Mode, str] = {}
        self._refusals: set[tuple[str, str, str]] = set()

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        *,
        etcd: Path,
        kube_apiserver: Path,
        flux_crds: Path,
        argocd_crds: Path | None = None,
        audit_log: bool = False,
        users: Iterable[User] = (),
    ) -> Iterator[Self]:
        """Start everything but the controller: CRDs installed, namespaces made, an empty Git repository.

        Args:
            etcd: the program.
            kube_apiserver: the program.
            flux_crds: the directory with Flux's CRDs.
            argocd_crds: the directory with Argo CD's, if they are to be installed.
            audit_log: whether the API server records every request.
            users: who may log in beside `admin`.
        """
        with contextlib.ExitStack() as closing:
            directory = closing.enter_context(processes.temporary_directory("stack"))
            repository = directory / "repository"
            repository.mkdir()
            (directory / "cache").mkdir()
            git(repository, "init", "--quiet", "--initial-branch=main")
            aws = closing.enter_context(AwsServer.start(region="eu-central-1"))
            plane = closing.enter_context(
                ControlPlane.start(etcd=etcd, kube_apiserver=kube_apiserver, audit_log=audit_log, users=users)
            )
            artifacts = closing.enter_context(ArtifactServer(repository, namespace=SOURCE_NAMESPACE, name=SOURCE_NAME))
            stack = cls(directory, plane, aws, repository, artifacts)
            for kind in KINDS.values():
                stack.apply(custom_resource_definition(kind))
            for crd in (*flux_crds.iterdir(), *(argocd_crds.iterdir() if argocd_crds else ())):
                stack.apply(yaml.safe_load(crd.read_text()))
            argo = [APPLICATIONS] if argocd_crds else []
            for resource in (SECRET_MANAGER_CONFIGS, SECRET_MANAGER_POLICIES, *FLUX_KINDS.values(), *argo):
                stack.wait(f"{resource.plural} to be served", functools.partial(stack.get, resource.url()))
            for namespace in (CONTROLLER_NAMESPACE, SOURCE_NAMESPACE):
                stack.create_namespace(namespace)
            stack.free_shards(DEFAULT_SHARDS)
            yield stack

    def install(self, manifests: Iterable[Manifest]) -> None:
        """Apply what the chart renders; its pods are processes here, which log in as their ServiceAccount from now on.

        A controller is of the installation whose tenancy mode it has; without any, it logs in as an administrator.
        """
        for manifest in manifests:
            if manifest["kind"] != "Deployment":
                self.apply(manifest)
                continue
            pod = manifest["spec"]["template"]["spec"]
            environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
            self._accounts[Mode(environment["TENANCY_MODE"])] = pod["serviceAccountName"]

    def allow(self, namespace: str, rules: Iterable[Manifest], *, name: str = "of-a-test") -> None:
        """Let the installed controllers do something in a namespace, by a Role there."""
        for account in self._accounts.values():
            whose = Account(CONTROLLER_NAMESPACE, account)
            for manifest in bound_role(namespace, f"{name}-{account}", rules, whose):
                self.apply(manifest)

    def expect_refusal(self, namespace: str, verb: str, resource: str) -> None:
        """Tell that the API server will refuse this to a controller, which a test is about."""
        self._refusals.add((namespace, verb, resource))

    def refusals(self) -> list[rbac.Asked]:
        """Return what the API server refused to installed controllers although no test expected it.

        Whether SOPS keys are found by their label, which takes a listing, is up to each namespace: that refusal counts
        as an answer.
        """
        events = self.plane.audit_events()
        return [
            each
            for account in self._accounts.values()
            for each in rbac.asked(events, service_account(account))
            if each.code == rbac.FORBIDDEN
            and (each.resource, each.verb) != (SECRETS.plural, "list")
            and (each.namespace, each.verb, each.resource) not in self._refusals
        ]

    def controller_token(self, mode: str = "") -> str:
        """Return a token of the controller's ServiceAccount, or an administrator's where nothing is installed."""
        account = self._accounts.get(Mode(mode or Mode.SHARED))
        return self.plane.service_account_token(CONTROLLER_NAMESPACE, account) if account else self.plane.token()

    def free_shards(self, count: int) -> None:
        """Leave the Leases as replicas leave them that have stopped.

        In a cluster that never had any, the first replica waits for as long as a session lasts: it cannot tell that
        from a cluster whose claims somebody has deleted.
        """
        names = Names(LEASE_GROUP, count)
        claims = (released(placeholder(names, shard, epoch=0), now=datetime.now(UTC)) for shard in range(count))
        for lease in (config_lease(names), *claims):
            self.apply(format_lease(lease, namespace=CONTROLLER_NAMESPACE))

    def delete_leases(self) -> None:
        """Delete every Lease of the replicas, as before the first start in a cluster."""
        self.delete(f"{LEASES.url(CONTROLLER_NAMESPACE)}?labelSelector={GROUP}={LEASE_GROUP}")

    def create_namespace(self, name: str) -> None:
        """Make a namespace."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def apply(self, manifest: Manifest) -> dict[str, Any]:
        """Server-side apply one manifest and return the object.

        Raises:
            StackError: the API server refused it; the message is its own.
        """
        path = path_of(manifest) + "?fieldManager=stack&force=true"
        status, answer = self.plane.request("PATCH", path, body=manifest, content_type="application/apply-patch+yaml")
        if status >= 400:
            raise StackError(answer["message"] if isinstance(answer, dict) else str(answer))
        return dict(answer)

    def apply_file(self, path: Path) -> None:
        """Apply every manifest of a file."""
        for manifest in yaml.safe_load_all(path.read_text()):
            self.apply(manifest)

    def create_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Make a Secret, or replace its data."""
        encoded = {key: b64encode(value).decode() for key, value in data.items()}
        metadata = {"namespace": namespace, "name": name}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})

    def create_aws_credentials(self, namespace: str, name: str = "aws-credentials") -> None:
        """Make the Secret that the examples log in to AWS with."""
        keys = self.aws.access_keys
        data = {"access-key-id": keys.access_key_id.encode(), "secret-access-key": keys.secret_access_key.encode()}
        self.create_secret(namespace, name, data)

    def get(self, path: str) -> dict[str, Any] | None:
        """Return what the API server has at a path, or None."""
        status, answer = self.plane.request("GET", path)
        return answer if status == 200 else None

    def config(self, key: str) -> dict[str, Any]:
        """Return the SecretManagerConfig with that request key, `namespace/name`; empty if there is none."""
        namespace, _, name = key.partition("/")
        return self.get(SECRET_MANAGER_CONFIGS.url(namespace, name)) or {}

    def patch(self, path: str, body: Manifest) -> dict[str, Any]:
        """Merge-patch an object."""
        status, answer = self.plane.request("PATCH", path, body=body, content_type="application/merge-patch+json")
        if status >= 400:
            raise StackError(str(answer))
        return dict(answer)

    def delete(self, path: str) -> None:
        """Delete an object."""
        self.plane.request("DELETE", path)

    def commit(self, message: str = "change") -> Artifact:
        """Commit the repository's files as they are and publish them as Flux would."""
        git(self.repository, "add", "--all")
        git(self.repository, "commit", "--quiet", "--allow-empty", "--message", message)
        artifact = self.artifacts.publish()
        self.publish(artifact)
        return artifact

    def publish(self, artifact: Artifact, *, namespace: str = SOURCE_NAMESPACE, name: str = SOURCE_NAME) -> None:
        """Let a GitRepository tell of an artifact; it is made where there is none."""
        source = self.apply(
            {
                "apiVersion": "source.toolkit.fluxcd.io/v1",
                "kind": "GitRepository",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"url": "https://git.example.invalid/services", "interval": "1m", "ref": {"branch": "main"}},
            }
        )
        status = git_repository_status(artifact, generation=source["metadata"]["generation"])
        self.patch(f"{GIT_REPOSITORIES.url(namespace, name)}/status", {"status": status})

    def wait(self, what: str, look: Callable[[], T | None], *, timeout: float = WAIT_TIMEOUT) -> T:
        """Look until there is something true to see, and return it.

        Raises:
            StackError: it did not come about within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise StackError(f"waited {timeout:g} s for {what}")
            time.sleep(POLL_INTERVAL)
        return seen

    def wait_ready(self, key: str, *, reason: str = "ReconciliationSucceeded", after: str = "") -> dict[str, Any]:
        """Wait until the Ready condition of an object's present generation has a reason, and return its status.

        Args:
            key: `namespace/name`.
            reason: the condition's reason.
            after: the revision that must have been attempted, if given.
        """

        def look() -> dict[str, Any] | None:
            body = self.config(key)
            status = body.get("status") or {}
            current = status.get("observedGeneration") == body.get("metadata", {}).get("generation")
            there = current and condition(status).get("reason") == reason
            return status if there and after in status.get("lastAttemptedRevision", "") else None

        try:
            return self.wait(f"{key} to be {reason}", look)
        except StackError as error:
            raise StackError(f"{error}; its status is {self.config(key).get('status')}") from None

    @contextlib.contextmanager
    def controller(self, **settings: str) -> Iterator[ControllerProcess]:
        """Run a controller against the parts while the context lasts, from when it is ready.

        Args:
            settings: environment variables beside those that the parts need.
        """
        controller = self.launch_controller(**settings)
        try:
            self.wait("the controller to be ready", controller.ready)
            yield controller
        finally:
            controller.stop()

    def launch_controller(self, *, prefix: Sequence[str] = (), **settings: str) -> ControllerProcess:
        """Start a controller and return at once; see `controller`. Who calls this stops it.

        Args:
            prefix: a program and its arguments that start the controller in their turn.
            settings: environment variables beside those that the parts need.
        """
        replica = settings.get("POD_NAME") or f"replica-{next(self._replicas)}"
        log = self.directory / f"{replica}-{time.monotonic_ns()}.log"
        token = self.controller_token(settings.get("TENANCY_MODE", ""))
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.directory),
            "KUBECONFIG": str(self.plane.write_kubeconfig(log.stem, token)),
            "POD_NAMESPACE": CONTROLLER_NAMESPACE,
            "POD_NAME": replica,
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": "0",
            "ARTIFACT_HOSTS": "127.0.0.1",
            "CACHE_DIRECTORY": str(self.directory / "cache" / replica),
            "AWS_ENDPOINT_URL": self.aws.endpoint_url,
            "AWS_SECRETS_MANAGER_READS_PER_SECOND": "100000",  # The test server has no quotas.
            "AWS_SECRETS_MANAGER_WRITES_PER_SECOND": "100000",
            "LOG_LEVEL": "debug",
        }
        command = [*prefix, sys.executable, "-m", "secret_manager_controller.controller.main"]
        return ControllerProcess(processes.start(command, log=log, environment=environment | settings), log)


def condition(status: Mapping[str, Any], kind: str = "Ready") -> dict[str, Any]:
    """Return one condition of a status; empty if there is none."""
    return next((dict(found) for found in status.get("conditions") or [] if found["type"] == kind), {})


def path_of(manifest: Manifest) -> str:
    """Return the API path of a manifest's object."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    plural = PLURALS.get(manifest["kind"], manifest["kind"].lower() + "s")
    metadata = manifest["metadata"]
    return ResourcePath(group, version, plural).url(metadata.get("namespace"), metadata["name"])


def service_account(name: str) -> str:
    """Return the user name of a ServiceAccount of the controller's namespace."""
    return f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{name}"


def secret_path(namespace: str, name: str) -> str:
    """Return the API path of a Secret."""
    return SECRETS.url(namespace, name)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory's content over another's."""
    shutil.copytree(source, target, dirs_exist_ok=True)


def git(repository: Path, *arguments: str) -> str:
    """Run git in a repository, as nobody in particular and without this machine's configuration."""
    identity = ["-c", "user.name=example", "-c", "user.email=example@example.invalid", "-c", "commit.gpgsign=false"]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *identity, "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60).stdout
