"""Side by side with a peer: External Secrets Operator's PushSecret, on the same API server and AWS server.

Both keep the same secrets in AWS Secrets Manager, look at them every minute, and work on ten objects at a time: ours
from files in Git, the peer from Kubernetes Secrets. One after the other they bring everything into the store, pass a
minute in which nothing changes, and put back a value that was changed by hand. The AWS server has no quotas, so
neither has the controller here; it takes its time for each request, as AWS does, for either of the two the same. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from measuring import built, cpu_seconds, resident_mb
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, ResourcePath
from secret_manager_controller.testing import processes
from secret_manager_controller.testing.stack import Stack, condition
from secret_manager_controller.testing.tenants import Tenant

EXTERNAL_SECRETS = "external-secrets.io"
PUSH_SECRETS = ResourcePath(EXTERNAL_SECRETS, "v1alpha1", "pushsecrets")
SECRET_STORES = ResourcePath(EXTERNAL_SECRETS, "v1", "secretstores")
CONCURRENT = 10  # Objects at a time.
WORKERS = 14
"""Of which the objects of one account occupy three in four, so that ten of them are worked on at a time."""
REFRESH = "1m"
QUIET = 60.0  # Seconds without a change: each object's turn comes once.
SETTLE = 5.0  # Seconds after the last object is ready, for what is still under way.
LONGEST_SYNC = 300.0
LOOK = 0.25  # Seconds between two looks, each one request: they take from both what they need themselves.
LATENCY = 20.0
"""Milliseconds that the AWS server takes for a request: within a region AWS takes 10 to 200."""
LONGEST_REPAIR = 150.0  # Seconds; both look every minute.


@dataclass(frozen=True, slots=True)
class Figures:
    """What one of the two took.

    Attributes:
        noop_calls: requests to the store in a minute without a change.
        converge_s: seconds from the first object until the store holds every secret.
        drift_calls: requests to the store from a change by hand until it is put back.
        cpu_s: CPU seconds in the minute without a change.
        rss_mb: resident memory at the end.
    """

    noop_calls: int
    converge_s: float
    drift_calls: int
    cpu_s: float
    rss_mb: float


def measure(
    title: str,
    stack: Stack,
    *,
    pid: int,
    make: Callable[[], None],
    synced: Callable[[], int],
    objects: int,
    drifted: str,
) -> Figures:
    """Run every phase for one of the two and return its figures.

    Args:
        title: for the lines that are printed.
        stack: the API server and the AWS server.
        pid: the process that is measured.
        make: makes the objects.
        synced: tells how many objects say that all is in the store.
        objects: how many there are.
        drifted: the secret that is changed by hand.
    """
    stack.aws.clear_calls()
    began, cpu = time.monotonic(), cpu_seconds(pid)
    make()
    while synced() < objects:
        if time.monotonic() - began > LONGEST_SYNC:
            raise RuntimeError(f"{title} did not converge: {synced()} of {objects} objects")
        time.sleep(LOOK)
    converged = time.monotonic() - began
    print(f"{title}: converged in {converged:.1f} s, {cpu_seconds(pid) - cpu:.1f} CPU s, {told(stack)}", flush=True)
    time.sleep(SETTLE)

    stack.aws.clear_calls()
    cpu = cpu_seconds(pid)
    time.sleep(QUIET)
    cpu = cpu_seconds(pid) - cpu
    quiet = len(stack.aws.calls())
    print(f"{title}: a minute without a change, {cpu:.2f} CPU s, {told(stack)}", flush=True)

    before = stack.aws.values()[drifted]
    stack.aws.clear_calls()
    began = time.monotonic()
    stack.aws.put_by_hand(drifted, b"changed by hand")
    while stack.aws.values()[drifted] != before:
        if time.monotonic() - began > LONGEST_REPAIR:
            raise RuntimeError(f"{title} did not put {drifted} back")
        time.sleep(4 * LOOK)  # The answer holds every secret.
    repaired = len(stack.aws.calls())
    print(f"{title}: a drift repaired after {time.monotonic() - began:.1f} s, {told(stack)}", flush=True)
    return Figures(
        noop_calls=quiet,
        converge_s=round(converged, 1),
        drift_calls=repaired,
        cpu_s=round(cpu, 2),
        rss_mb=round(resident_mb(pid), 1),
    )


def told(stack: Stack) -> str:
    """Return the calls that the AWS server saw, by operation."""
    calls = Counter(call.operation for call in stack.aws.calls())
    return f"{calls.total()} calls ({', '.join(f'{count} {name}' for name, count in sorted(calls.items()))})"


def ours(stack: Stack, *, objects: int, each: int) -> Figures:
    """Measure the controller of this repository."""
    tenants = [Tenant(stack, "ours", number=number) for number in range(objects)]
    for tenant in tenants:
        tenant.commit(**{f"KEY_{number:04}": f"value-{number}" for number in range(each)})

    def make() -> None:
        for tenant in tenants:
            tenant.apply(interval=REFRESH)

    def synced() -> int:
        statuses = (body.get("status") or {} for body in everywhere(stack, SECRET_MANAGER_CONFIGS))
        return sum(status.get("secretsSynced") == each for status in statuses)

    with stack.controller(WORKERS=str(WORKERS), LOG_LEVEL="info") as controller:
        figures = measure(
            "ours",
            stack,
            pid=controller.process.pid,
            make=make,
            synced=synced,
            objects=objects,
            drifted=tenants[0].name("KEY_0000"),
        )
    for tenant in tenants:
        stack.delete(tenant.path)
    return figures


def peer(stack: Stack, *, objects: int, each: int, binary: Path, crds: Path) -> Figures:
    """Measure External Secrets Operator."""
    for crd in sorted(crds.iterdir()):
        stack.apply(yaml.safe_load(crd.read_text()))
    for resource in (PUSH_SECRETS, SECRET_STORES):
        stack.wait(f"{resource.plural} to be served", functools.partial(stack.get, resource.url()))
    namespaces = [f"peer-{number}" for number in range(objects)]
    for namespace in namespaces:
        stack.create_namespace(namespace)
        stack.create_aws_credentials(namespace)
        stack.create_secret(
            namespace, "values", {f"KEY_{number:04}": f"value-{number}".encode() for number in range(each)}
        )
        stack.apply(secret_store(namespace, stack.aws.region))

    def make() -> None:
        for namespace in namespaces:
            stack.apply(push_secret(namespace, each))

    def synced() -> int:
        statuses = (body.get("status") or {} for body in everywhere(stack, PUSH_SECRETS))
        return sum(condition(status).get("status") == "True" for status in statuses)

    with external_secrets(stack, binary) as process:
        stores = [SECRET_STORES.url(namespace, "aws") for namespace in namespaces]
        stack.wait("the peer's stores to be ready", lambda: all(ready(stack, store) for store in stores))
        return measure(
            "peer",
            stack,
            pid=process.pid,
            make=make,
            synced=synced,
            objects=objects,
            drifted=f"{namespaces[0]}-KEY_0000",
        )


def everywhere(stack: Stack, resource: ResourcePath) -> list[dict[str, Any]]:
    """Return the objects of a kind, of all namespaces."""
    return list((stack.get(resource.url()) or {}).get("items", []))


def ready(stack: Stack, path: str) -> bool:
    """Tell whether an object is Ready."""
    return condition((stack.get(path) or {}).get("status") or {}).get("status") == "True"


@contextlib.contextmanager
def external_secrets(stack: Stack, binary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the peer while the context lasts."""
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(stack.directory),
        "KUBECONFIG": str(stack.plane.kubeconfig()),
        "AWS_SECRETSMANAGER_ENDPOINT": stack.aws.endpoint_url,
        "AWS_STS_ENDPOINT": stack.aws.endpoint_url,
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(binary), f"--concurrent={CONCURRENT}", f"--metrics-addr=127.0.0.1:{port}"]
    process = processes.start(command, log=stack.directory / "peer.log", environment=environment)
    try:
        yield process
    finally:
        processes.stop(process, grace=20.0)


def secret_store(namespace: str, region: str) -> dict[str, Any]:
    """Return the peer's login to AWS."""
    keys = {
        "accessKeyIDSecretRef": {"name": "aws-credentials", "key": "access-key-id"},
        "secretAccessKeySecretRef": {"name": "aws-credentials", "key": "secret-access-key"},
    }
    aws = {"service": "SecretsManager", "region": region, "auth": {"secretRef": keys}}
    return {
        "apiVersion": f"{EXTERNAL_SECRETS}/v1",
        "kind": "SecretStore",
        "metadata": {"namespace": namespace, "name": "aws"},
        "spec": {"provider": {"aws": aws}},
    }


def push_secret(namespace: str, each: int) -> dict[str, Any]:
    """Return what lets the peer push every key of a Secret as a secret of its own."""
    keys = [f"KEY_{number:04}" for number in range(each)]
    data = [{"match": {"secretKey": key, "remoteRef": {"remoteKey": f"{namespace}-{key}"}}} for key in keys]
    return {
        "apiVersion": f"{EXTERNAL_SECRETS}/v1alpha1",
        "kind": "PushSecret",
        "metadata": {"namespace": namespace, "name": "app"},
        "spec": {
            "refreshInterval": REFRESH,
            "secretStoreRefs": [{"name": "aws", "kind": "SecretStore"}],
            "selector": {"secret": {"name": "values"}},
            "data": data,
        },
    }


def main() -> None:
    """Measure both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10, help="how many objects (10)")
    parser.add_argument("--latency", type=float, default=LATENCY, help="milliseconds that AWS takes a request (20)")
    parser.add_argument("--each", type=int, default=100, help="how many secrets each of them has (100)")
    arguments = parser.parse_args()
    etcd, kube_apiserver, flux_crds, binary, crds = built(
        "etcd", "kube-apiserver", "flux-crds", "external-secrets", "external-secrets-crds"
    )
    size = {"objects": arguments.objects, "each": arguments.each}
    figures: dict[str, Figures] = {}
    with Stack.start(etcd=etcd, kube_apiserver=kube_apiserver, flux_crds=flux_crds) as stack:
        stack.aws.hang("*", arguments.latency / 1000, times=sys.maxsize)
        figures["ours"] = ours(stack, **size)
        stack.aws.reset()
        stack.aws.hang("*", arguments.latency / 1000, times=sys.maxsize)
        figures["peer"] = peer(stack, **size, binary=binary, crds=crds)
    print(json.dumps({name: asdict(each) for name, each in figures.items()}))


if __name__ == "__main__":
    main()
