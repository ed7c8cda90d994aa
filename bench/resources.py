"""What one replica needs with all three clouds' SDKs in use: idle, at its peak, and settled, for the chart's resources.

Objects are spread evenly over Google, AWS and Azure, ten to a namespace and a source, two secrets each. First the
process with nothing to do; then everything is created; then one commit changes every object at once; then half a
minute's rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import built, cpu_seconds, peak_mb, resident_mb, step
from secret_manager_controller.testing.azure import AzureServer, federated_token
from secret_manager_controller.testing.gcp import GcpServer
from secret_manager_controller.testing.replicas import SHARDS, Replica, Replicas
from secret_manager_controller.testing.stack import Stack
from secret_manager_controller.testing.tenants import Tenant

PER_NAMESPACE = 10
TIMEOUT = 1800.0  # Seconds for a pass.
REST = 30.0  # Seconds that are measured without anything to do.


def providers(stack: Stack, gcp: GcpServer, azure: AzureServer) -> list[dict[str, Any]]:
    """Return a provider block for each store, logged in to as the pod."""
    return [
        {"type": "gcp", "gcp": {"projectId": gcp.project}},
        {"type": "aws", "aws": {"region": stack.aws.region, "auth": {"authType": "AccessKeys"}}},
        {"type": "azure", "azure": {"vaultName": azure.vault}},
    ]


def wait_synced(stack: Stack, tenants: list[Tenant], revisions: dict[str, str], names: list[str]) -> None:
    """Wait until every object has applied its source's revision."""
    waiting = {f"{tenant.namespace}/{name}" for tenant in tenants for name in names}

    def all_there() -> bool:
        for key in list(waiting):
            status = stack.config(key).get("status") or {}
            if status.get("lastAppliedRevision") != revisions[key.partition("/")[0]]:
                return False
            waiting.discard(key)
        return True

    stack.wait("every object to be synced", all_there, timeout=TIMEOUT)


def rest(pid: int) -> float:
    """Return the milliseconds of CPU a second that a process uses with nothing to do."""
    before = cpu_seconds(pid)
    time.sleep(REST)
    return round((cpu_seconds(pid) - before) / REST * 1000, 1)


def measure(stack: Stack, replica: Replica, blocks: list[dict[str, Any]], objects: int) -> dict[str, float]:
    """Run every phase and return the figures."""
    pid = replica.controller.process.pid
    stack.wait("the replica to be ready", replica.controller.ready, timeout=60)
    with step("doing nothing"):
        figures = {"objects": float(objects), "idle_cpu_millis": rest(pid), "idle_mb": round(resident_mb(pid))}
    names = [f"app-{number}" for number in range(PER_NAMESPACE)]
    tenants = [Tenant(stack, "load", number=number) for number in range(objects // PER_NAMESPACE)]
    before, began = cpu_seconds(pid), time.monotonic()
    with step(f"creating {objects} objects"):
        revisions = {tenant.namespace: tenant.commit(A="1", B="2").revision for tenant in tenants}
        for number, tenant in enumerate(tenants):
            for name in names:
                secrets = {"environment": "dev", "prefix": f"{tenant.namespace}-{name}"}
                tenant.apply(object_name=name, provider=blocks[number % len(blocks)], secrets=secrets)
        wait_synced(stack, tenants, revisions, names)
    figures |= {"create_s": round(time.monotonic() - began), "create_cpu_s": round(cpu_seconds(pid) - before, 1)}
    before, began = cpu_seconds(pid), time.monotonic()
    with step("changing every object at once"):
        revisions = {tenant.namespace: tenant.commit(A="3", B="4").revision for tenant in tenants}
        wait_synced(stack, tenants, revisions, names)
    figures |= {"change_s": round(time.monotonic() - began), "change_cpu_s": round(cpu_seconds(pid) - before, 1)}
    figures["peak_mb"] = round(peak_mb(pid))
    with step("resting"):
        return figures | {"settled_cpu_millis": rest(pid), "settled_mb": round(resident_mb(pid))}


def main() -> None:
    """Print what is being done, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100, help="how many (100)")
    objects = parser.parse_args().objects
    etcd, kube_apiserver, flux_crds = built("etcd", "kube-apiserver", "flux-crds")
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory()))
        gcp = closing.enter_context(GcpServer.start(tls=True))
        azure = closing.enter_context(AzureServer.start())
        stack = closing.enter_context(Stack.start(etcd=etcd, kube_apiserver=kube_apiserver, flux_crds=flux_crds))
        (directory / "token").write_text(federated_token())
        settings = gcp.environment | dict(azure.environment)
        quotas = ("GCP_SECRET_MANAGER_READS_PER_MINUTE", "GCP_SECRET_MANAGER_WRITES_PER_MINUTE")
        settings |= dict.fromkeys(quotas, "1000000")
        settings |= {"AZURE_FEDERATED_TOKEN_FILE": str(directory / "token"), "NO_PROXY": "127.0.0.1"}
        settings |= {"AZURE_CLIENT_ID": azure.client_secret.client_id}
        stack.free_shards(SHARDS)
        with Replicas(stack, **settings) as replicas:
            figures = measure(stack, replicas.start(), providers(stack, gcp, azure), objects)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
