"""How many store calls one object with many secrets costs: the controller's own steps against a store's test server.

The last line is one JSON object. Its counts are the server's, so that retries and hidden calls of the SDK show too. The
servers have no quota, so that the calls are counted and not the waiting; `--own-quotas` keeps to those of the clouds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.grants import Grants, Tenancy
from secret_manager_controller.model.names import STORE_RULES, secret_name
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import Spec, parse_spec
from secret_manager_controller.providers.aws import AwsProvider, AwsQuotas
from secret_manager_controller.providers.azure import AzureProvider, AzureQuotas
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.gcp import GcpProvider, GcpQuotas
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.reconcile import Reconciler
from secret_manager_controller.render.kustomize import Kustomize
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.request import Progress, Request
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.sources.tree import SnapshotTree
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.azure import AzureServer
from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.gcp import GcpServer

PROFILE = "idam/deployment-configuration/profiles/dev/application.secrets.env"
UNLIMITED = 10**6
"""Requests a minute that no test server is asked for."""


class Server(Protocol):
    """What the cases need of a test server."""

    def calls(self) -> list[Call]:
        """Return every request."""
        ...

    def clear_calls(self) -> None:
        """Empty the call log."""
        ...

    def put_by_hand(self, name: str, value: bytes) -> str:
        """Write a value as a person would."""
        ...


@dataclass(frozen=True, slots=True)
class Store:
    """One kind of store.

    Attributes:
        start: starts its test server.
        block: of a spec, for a server.
        provider: for a server, within the cloud's own quotas or without any.
        value_reads: operations that return values, and at most how many.
    """

    start: Callable[[], AbstractContextManager[Any]]
    block: Callable[[Any], Mapping[str, str]]
    provider: Callable[[Any, bool], Provider]
    value_reads: Mapping[str, int]


def _aws(server: AwsServer, own_quotas: bool) -> Provider:
    quotas = AwsQuotas() if own_quotas else AwsQuotas(reads=UNLIMITED, writes=UNLIMITED)
    return AwsProvider(
        region=server.region,
        login=server.access_keys,
        endpoint_url=server.endpoint_url,
        quotas=quotas,
        budgets=Budgets(),
    )


def _gcp(server: GcpServer, own_quotas: bool) -> Provider:
    quotas = GcpQuotas() if own_quotas else GcpQuotas(reads=UNLIMITED, writes=UNLIMITED)
    return GcpProvider(
        project=server.project, login=server.key, endpoints=server.endpoints, quotas=quotas, budgets=Budgets()
    )


def _azure(server: AzureServer, own_quotas: bool) -> Provider:
    quotas = AzureQuotas() if own_quotas else AzureQuotas(UNLIMITED, UNLIMITED)
    return AzureProvider(
        vault=server.vault, login=server.client_secret, endpoints=server.endpoints, quotas=quotas, budgets=Budgets()
    )


STORES = {
    "aws": Store(
        start=AwsServer.start,
        block=lambda server: {"region": server.region},
        provider=_aws,
        value_reads={"GetSecretValue": 1, "BatchGetSecretValue": 20},
    ),
    "gcp": Store(
        start=GcpServer.start,
        block=lambda server: {"projectId": server.project},
        provider=_gcp,
        value_reads={"AccessSecretVersion": 1},
    ),
    "azure": Store(
        start=AzureServer.start,
        block=lambda server: {"vaultName": server.vault},
        provider=_azure,
        value_reads={"GetSecret": 1},
    ),
}


class Bench:
    """One object over a directory and a test server; stands in for the cluster's parts of a reconcile."""

    def __init__(self, directory: Path, kind: str, server: Server, *, secrets: int, own_quotas: bool) -> None:
        self.directory = directory
        self.server = server
        self.values = {f"KEY_{number:04}": f"value-{number}" for number in range(secrets)}
        self.commits = 0
        self.provider = STORES[kind].provider(server, own_quotas)
        self.reconciler = self.fresh_reconciler()
        spec = parse_spec(
            {
                "spec": {
                    "sourceRef": {"name": "bench"},
                    "provider": {"type": kind, kind: STORES[kind].block(server)},
                    "secrets": {"environment": "dev"},
                }
            }
        )
        self.request = Request("bench", "idam", 1, spec, {})
        self.write()

    def fresh_reconciler(self) -> Reconciler:
        """Return a reconciler that remembers nothing, as after a restart."""
        decryptor = Decryptor(HashKey(b"bench" * 8))
        return Reconciler(
            source=self,
            keys=self,
            stores=self,
            owners=self,
            renderer=Renderer(decryptor, Kustomize(decryptor)),
            cluster="bench",
            tenancy=Tenancy(controller_namespace="bench"),
        )

    def write(self) -> None:
        """Write the values as a new revision."""
        path = self.directory / PROFILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}={value}\n" for key, value in self.values.items()))
        self.commits += 1

    async def resolve(self, ref: SourceReference, *, fresh: bool = False) -> Revision:
        """Return the present revision."""
        del ref, fresh
        return Revision(f"main@sha1:{self.commits:040x}", f"sha256:{self.commits:064x}", "")

    @contextlib.asynccontextmanager
    async def fetch(self, ref: SourceReference, revision: Revision) -> AsyncIterator[SnapshotTree]:
        """Open the directory."""
        del ref
        yield SnapshotTree(revision=revision, root=self.directory)

    async def find(self, namespaces: tuple[str, ...]) -> KeyRing:
        """Return no keys: the files are plain."""
        del namespaces
        return KeyRing.parse(())

    async def open(self, spec: Spec, grants: Grants) -> tuple[Provider, str]:
        """Return the provider."""
        del spec, grants
        return self.provider, "bench"

    async def living(self, marks: Collection[OwnerMark]) -> frozenset[OwnerMark]:
        """Return all: nobody is known to be dead."""
        return frozenset(marks)

    async def reconcile(self) -> Counter[str]:
        """Reconcile once and return the calls that the server saw, by operation."""
        self.server.clear_calls()
        progress = Progress()
        report = await self.reconciler.reconcile(self.request, SoleMemberFence(), progress)
        if report is not None:
            if not report.complete:
                raise RuntimeError(f"the reconcile was not complete: {report.failures}")
            self.request = dataclasses.replace(
                self.request, inventory=report.inventory, settled_key=progress.settled_key
            )
        return Counter(call.operation for call in self.server.calls())


def values_read(calls: Counter[str], reads: Mapping[str, int], secrets: int) -> int:
    """Return how many values the calls can have read at most."""
    return min(sum(calls[operation] * most for operation, most in reads.items()), secrets)


async def measure(directory: Path, kind: str, server: Server, *, secrets: int, own_quotas: bool) -> dict[str, int]:
    """Run every case and return the figures."""
    bench = Bench(directory, kind, server, secrets=secrets, own_quotas=own_quotas)
    by_hand = secret_name("KEY_0001", prefix="idam", suffix=None, rules=STORE_RULES[kind])
    try:
        cases: dict[str, Counter[str]] = {"first sync": await bench.reconcile()}
        cases["nothing changed"] = await bench.reconcile()
        bench.values["KEY_0000"] = "changed in Git"
        bench.write()
        cases["one value changed in Git"] = await bench.reconcile()
        server.put_by_hand(by_hand, b"changed by hand")
        cases["one value changed by hand"] = await bench.reconcile()
        bench.reconciler = bench.fresh_reconciler()
        cases["nothing changed, after a restart"] = await bench.reconcile()
        bench.values["KEY_0002"] = "changed in Git"
        bench.write()
        cases["one value changed in Git, after a restart"] = await bench.reconcile()
    finally:
        await bench.provider.aclose()
    for case, calls in cases.items():
        told = ", ".join(f"{count} {operation}" for operation, count in sorted(calls.items()))
        print(f"{case:45} {calls.total():5} calls: {told}")
    return {
        "secrets": secrets,
        "cold_calls": cases["first sync"].total(),
        "noop_calls": cases["nothing changed"].total(),
        "noop_values_read": values_read(cases["nothing changed"], STORES[kind].value_reads, secrets),
        "one_change_calls": cases["one value changed in Git"].total(),
        "drift_repair_calls": cases["one value changed by hand"].total(),
        "restart_noop_calls": cases["nothing changed, after a restart"].total(),
        "restart_one_change_calls": cases["one value changed in Git, after a restart"].total(),
    }


def main() -> None:
    """Print a line a case, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=int, default=100, help="how many secrets the object has (100)")
    parser.add_argument("--store", choices=STORES, default="aws", help="the kind of store (aws)")
    parser.add_argument("--own-quotas", action="store_true", help="keep to the cloud's quotas, which takes minutes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, STORES[asked.store].start() as server:
        case = measure(Path(directory), asked.store, server, secrets=asked.secrets, own_quotas=asked.own_quotas)
        figures = asyncio.run(case)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
