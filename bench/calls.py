"""How many store calls one object with many secrets costs: the controller's own steps against the AWS test server.

The last line is one JSON object. Its counts are the server's, so that retries and hidden calls of the SDK show too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import Spec, parse_spec
from secret_manager_controller.providers.aws import AwsProvider, AwsQuotas
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.reconcile import Progress, Reconciler, Request
from secret_manager_controller.render.kustomize import Kustomize
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.sources.tree import SnapshotTree
from secret_manager_controller.tenancy import Grants, Tenancy
from secret_manager_controller.testing.aws import AwsServer

PROFILE = "idam/deployment-configuration/profiles/dev/application.secrets.env"
VALUE_READS = {"GetSecretValue": 1, "BatchGetSecretValue": 20}
"""Operations that return values, and at most how many."""


class Bench:
    """One object over a directory and a test server; stands in for the cluster's parts of a reconcile."""

    def __init__(self, directory: Path, server: AwsServer, secrets: int) -> None:
        self.directory = directory
        self.server = server
        self.values = {f"KEY_{number:04}": f"value-{number}" for number in range(secrets)}
        self.commits = 0
        self.provider = AwsProvider(
            region=server.region,
            login=server.access_keys,
            endpoint_url=server.endpoint_url,
            quotas=AwsQuotas(reads=100_000, writes=100_000),  # The server has none, and calls are what is counted.
        )
        self.reconciler = self.fresh_reconciler()
        spec = parse_spec(
            {
                "spec": {
                    "sourceRef": {"name": "bench"},
                    "provider": {"type": "aws", "aws": {"region": server.region}},
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


def values_read(calls: Counter[str], secrets: int) -> int:
    """Return how many values the calls can have read at most."""
    return min(sum(calls[operation] * most for operation, most in VALUE_READS.items()), secrets)


async def measure(directory: Path, server: AwsServer, secrets: int) -> dict[str, int]:
    """Run every case and return the figures."""
    bench = Bench(directory, server, secrets)
    try:
        cases: dict[str, Counter[str]] = {"first sync": await bench.reconcile()}
        cases["nothing changed"] = await bench.reconcile()
        bench.values["KEY_0000"] = "changed in Git"
        bench.write()
        cases["one value changed in Git"] = await bench.reconcile()
        server.put_by_hand("idam-KEY_0001", b"changed by hand")
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
        "noop_values_read": values_read(cases["nothing changed"], secrets),
        "one_change_calls": cases["one value changed in Git"].total(),
        "drift_repair_calls": cases["one value changed by hand"].total(),
        "restart_noop_calls": cases["nothing changed, after a restart"].total(),
        "restart_one_change_calls": cases["one value changed in Git, after a restart"].total(),
    }


def main() -> None:
    """Print a line a case, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secrets", type=int, default=100, help="how many secrets the object has (100)")
    secrets = parser.parse_args().secrets
    with tempfile.TemporaryDirectory() as directory, AwsServer.start() as server:
        figures = asyncio.run(measure(Path(directory), server, secrets))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
