"""One replica, 10,000 objects in 500 namespaces, a real API server: start, memory, and a pass that changes nothing.

A first replica brings everything into the store. A second one then starts with everything in place: what it takes until
it is ready, what it uses of CPU and of the API server to reconcile every object once without a change, and how much
memory it holds afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import urlsplit

from measuring import built, cpu_seconds, resident_mb, step
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.testing.replicas import SHARDS, Replica, Replicas
from secret_manager_controller.testing.stack import Stack
from secret_manager_controller.testing.tenants import ENV, USER_AGENTS, Tenant, dotenv, metric

REGIONS = (
    "ap-northeast-1",
    "ap-south-1",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-2",
)
"""The test server lists a region in time that grows with its secrets, unlike AWS."""
WRITERS = 4
PASS_TIMEOUT = 3600.0  # Seconds; the test server carries out some hundred requests a second.
PROGRESS = 15.0  # Seconds from one line of progress to the next.


def make(stack: Stack, tenant: Tenant, region: str, names: list[str]) -> None:
    """Make a namespace's source and objects, over one connection: a handshake each would take longer than they do."""
    tenant.commit({ENV: dotenv(TOKEN=tenant.namespace)})
    address, tls = urlsplit(stack.plane.url), ssl.create_default_context(cafile=stack.plane.ca_file)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=tls)
    headers = {"Authorization": f"Bearer {stack.plane.token()}", "Content-Type": "application/json"}
    aws = {"region": region, "auth": {"authType": "AccessKeys"}}
    for name in names:
        secrets = {"environment": "dev", "prefix": f"{tenant.namespace}-{name}"}
        body = {
            "apiVersion": "secret-management.microscaler.io/v1",
            "kind": "SecretManagerConfig",
            "metadata": {"name": name},
            "spec": tenant.spec(provider={"type": "aws", "aws": aws}, secrets=secrets),
        }
        connection.request("POST", SECRET_MANAGER_CONFIGS.url(tenant.namespace), json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.CREATED:
            raise RuntimeError(f"an object was refused: {answer[:256]!r}")
    connection.close()


def reconciled(replica: Replica) -> float:
    return metric(replica.controller, "secret_manager_reconciliations_total")


def wait_for_pass(replica: Replica, objects: int) -> None:
    """Wait until a replica has reconciled so many objects; raise if one of them failed."""
    told = 0.0
    deadline = time.monotonic() + PASS_TIMEOUT
    while (done := reconciled(replica)) < objects:
        if time.monotonic() > deadline or not replica.running:
            raise RuntimeError(f"the pass came to {done:.0f} of {objects} objects")
        if time.monotonic() - told > PROGRESS:
            told = time.monotonic()
            print(f"  {done:.0f} of {objects}", flush=True)
        time.sleep(1)  # A scrape looks at all that waits: more of them would count as the replica's own work.
    if failed := metric(replica.controller, "secret_manager_reconciliation_errors_total"):
        raise RuntimeError(f"{failed:.0f} reconciles failed")


def api_calls(stack: Stack, began: float, ended: float) -> int:
    """Return how many requests of the controller the API server answered in a period, watches not counted."""
    return sum(
        event["verb"] != "watch"
        and event.get("userAgent", "").startswith(USER_AGENTS)
        and began <= datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp() <= ended
        for event in stack.plane.audit_events()
    )


def measure(stack: Stack, *, objects: int, namespaces: int) -> dict[str, float]:
    """Run every phase and return the figures."""
    each = -(-objects // namespaces)
    names = [f"app-{number}" for number in range(objects)]
    with step(f"making {objects} objects in {namespaces} namespaces"), ThreadPoolExecutor(WRITERS) as pool:
        tenants = list(pool.map(lambda number: Tenant(stack, "scale", number=number), range(namespaces)))
        shares = [names[at : at + each] for at in range(0, objects, each)]
        regions = [REGIONS[number % len(REGIONS)] for number in range(namespaces)]
        list(pool.map(lambda tenant, region, share: make(stack, tenant, region, share), tenants, regions, shares))
    with Replicas(stack) as replicas:
        with step("bringing them into the store"):
            first = replicas.start()
            stack.wait("the first replica to be ready", first.controller.ready, timeout=PASS_TIMEOUT)
            wait_for_pass(first, objects)
            first.stop()
        with step("starting a replica"):
            began = time.monotonic()
            replica = replicas.start()
            pid = replica.controller.process.pid
            stack.wait("it to be ready", replica.controller.ready, timeout=PASS_TIMEOUT)
            start, start_cpu = time.monotonic() - began, cpu_seconds(pid)
        with step("a pass that changes nothing"):
            ready_at = time.time()
            wait_for_pass(replica, objects)
            cpu, ended_at = cpu_seconds(pid) - start_cpu, time.time()
        return {
            "objects": objects,
            "start_s": round(start, 1),
            "start_cpu_s": round(start_cpu, 1),
            "noop_s": round(ended_at - ready_at, 1),
            "noop_cpu_s": round(cpu, 1),
            "api_calls_per_object": round(api_calls(stack, ready_at, ended_at) / objects, 3),
            "rss_mb": round(resident_mb(pid)),
        }


def main() -> None:
    """Print what is being done, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000, help="how many (10,000)")
    parser.add_argument("--namespaces", type=int, default=500, help="in how many namespaces (500)")
    arguments = parser.parse_args()
    etcd, kube_apiserver, flux_crds = built("etcd", "kube-apiserver", "flux-crds")
    with Stack.start(etcd=etcd, kube_apiserver=kube_apiserver, flux_crds=flux_crds, audit_log=True) as stack:
        stack.free_shards(SHARDS)
        figures = measure(stack, objects=arguments.objects, namespaces=arguments.namespaces)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
