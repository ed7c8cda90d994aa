"""What one commit costs where 1,000 objects share one repository, and the commit touches one directory.

Artifacts are downloaded over HTTP and unpacked as Flux' are, files are encrypted by the real sops, every tenth object
is a build by the real kustomize, the store is the AWS test server. The API server is left out: its part is a status an
object.

The last line is one JSON object. Its counts of calls and downloads are the servers' own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pyrage

from lease_sharding.fence import SoleMemberFence
from measuring import built
from secret_manager_controller.decrypt import Decryptor, KeyRing
from secret_manager_controller.grants import Grants, Tenancy
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.plaintext import Plaintext
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.spec import Spec, parse_spec
from secret_manager_controller.providers.aws import AwsProvider
from secret_manager_controller.providers.protocol import Provider
from secret_manager_controller.reconcile import Reconciler
from secret_manager_controller.render.inputs import BuildInputs
from secret_manager_controller.render.kustomize import Kustomize
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.request import Progress, Request
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.flux import FluxSource
from secret_manager_controller.sources.protocol import SourceReference
from secret_manager_controller.testing.artifacts import Artifact, ArtifactServer, git_repository_status
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.stack import git

WORKERS = 16
"""As many as the controller has by default."""
BUILT_EVERY = 10
"""Every so many objects, one is a kustomize build; the others are profile files."""
KUSTOMIZATION = "secretGenerator: [{name: s, envs: [application.secrets.env]}]\n"


class CountingDecryptor(Decryptor):
    """Counts the files that are decrypted."""

    decrypted = 0

    def read(self, *args: Any, **options: Any) -> Any:
        """Read a file."""
        document = super().read(*args, **options)
        self.decrypted += document.encrypted
        return document

    def decrypt(self, *args: Any, **options: Any) -> Any:
        """Decrypt a file."""
        file = super().decrypt(*args, **options)
        self.decrypted += file.document.encrypted
        return file


class CountingKustomize(Kustomize):
    """Counts builds."""

    builds = 0

    def render(self, inputs: BuildInputs, keys: KeyRing) -> Plaintext:
        """Build a directory."""
        self.builds += 1
        return super().render(inputs, keys)


class Monorepo:
    """A Git repository with a directory an object, and how it is served."""

    def __init__(self, directory: Path, objects: int) -> None:
        self.directory = directory
        self.objects = objects
        self.identity = pyrage.x25519.Identity.generate()
        (self._sops,) = built("sops")
        git(directory, "init", "--quiet", "--initial-branch=main")
        first = self.encrypted("one")
        for number in range(objects):
            self.write(number, first)

    def encrypted(self, value: str) -> bytes:
        """Return a dotenv file with two secrets, encrypted."""
        command = [self._sops, "--encrypt", "--age", str(self.identity.to_public())]
        command += ["--input-type", "dotenv", "--output-type", "dotenv", "/dev/stdin"]
        text = f"KEY={value}\nURL=https://example.com\n".encode()
        return subprocess.run(command, input=text, capture_output=True, check=True, env={"HOME": os.devnull}).stdout

    @staticmethod
    def is_built(number: int) -> bool:
        """Tell whether an object is a kustomize build."""
        return number % BUILT_EVERY == 0

    def path(self, number: int) -> str:
        """Return an object's directory."""
        return f"services/s{number:04}/deployment-configuration/profiles/dev"

    def write(self, number: int, content: bytes) -> None:
        """Write an object's file."""
        directory = self.directory / self.path(number)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "application.secrets.env").write_bytes(content)
        if self.is_built(number):
            (directory / "kustomization.yaml").write_text(KUSTOMIZATION)

    def commit(self, server: ArtifactServer) -> Artifact:
        """Commit everything and serve it."""
        git(self.directory, "add", "--all")
        git(self.directory, "commit", "--quiet", "--message", "change")
        return server.publish()


class Bench:
    """All objects over one source; stands in for the cluster's parts of a reconcile."""

    def __init__(
        self, repository: Monorepo, aws: AwsServer, session: aiohttp.ClientSession, cache: SnapshotCache
    ) -> None:
        self.provider = AwsProvider(region=aws.region, login=aws.access_keys, endpoint_url=aws.endpoint_url)
        self.decryptor = CountingDecryptor(HashKey(b"bench" * 8))
        (kustomize,) = built("kustomize")
        self.kustomize = CountingKustomize(self.decryptor, binary=str(kustomize))
        self.ring = KeyRing.parse([str(repository.identity).encode()])
        self.source: Mapping[str, Any] = {}
        self.reconciler = Reconciler(
            source=FluxSource(read_object=self.read, session=session, cache=cache),
            keys=self,
            stores=self,
            owners=self,
            renderer=Renderer(self.decryptor, self.kustomize),
            cluster="bench",
            tenancy=Tenancy(controller_namespace="bench"),
        )
        self.requests = [
            Request("bench", f"s{number:04}", 1, self.spec(repository, aws.region, number), {})
            for number in range(repository.objects)
        ]

    @staticmethod
    def spec(repository: Monorepo, region: str, number: int) -> Spec:
        """Return an object's spec."""
        path = repository.path(number)
        where = {"kustomizePath": path} if repository.is_built(number) else {"basePath": f"services/s{number:04}"}
        return parse_spec(
            {
                "spec": {
                    "sourceRef": {"name": "bench"},
                    "provider": {"type": "aws", "aws": {"region": region}},
                    "secrets": {"environment": "dev", "prefix": f"s{number:04}"} | where,
                }
            }
        )

    def publish(self, artifact: Artifact) -> None:
        """Let the source tell of an artifact."""
        metadata = {"namespace": "bench", "name": "bench", "generation": 1}
        self.source = {"kind": "GitRepository", "metadata": metadata, "status": git_repository_status(artifact)}

    async def read(self, reference: SourceReference, *, fresh: bool = False) -> Mapping[str, Any]:
        """Return the source."""
        del reference, fresh
        return self.source

    async def find(self, namespaces: tuple[str, ...]) -> KeyRing:
        """Return the key."""
        del namespaces
        return self.ring

    async def open(self, spec: Spec, grants: Grants) -> tuple[Provider, str]:
        """Return the provider."""
        del spec, grants
        return self.provider, "bench"

    async def living(self, marks: Collection[OwnerMark]) -> frozenset[OwnerMark]:
        """Return all: nobody is known to be dead."""
        return frozenset(marks)

    async def reconcile_all(self) -> float:
        """Reconcile every object once, as many at a time as the controller does; return the seconds that it took."""
        line = iter(range(len(self.requests)))

        async def work() -> None:
            for number in line:
                await self._reconcile(number)

        started = time.perf_counter()
        # All are asked for at once; a look at the store that began since is new enough, as in the controller.
        self.requests = [dataclasses.replace(request, since=time.monotonic()) for request in self.requests]
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
        return time.perf_counter() - started

    async def _reconcile(self, number: int) -> None:
        request, progress = self.requests[number], Progress()
        report = await self.reconciler.reconcile(request, SoleMemberFence(), progress)
        if report is not None and not report.complete:
            raise RuntimeError(f"{request.key} was not complete: {report.failures}")
        inventory = request.inventory if report is None else report.inventory
        inputs = progress.inputs_key or request.inputs_key
        self.requests[number] = dataclasses.replace(
            request, inventory=inventory, settled_key=progress.settled_key, inputs_key=inputs
        )


async def measure(directory: Path, aws: AwsServer, objects: int) -> dict[str, float | int]:
    """Sync everything, then commit one change, and return what that cost."""
    (directory / "repository").mkdir()
    repository = Monorepo(directory / "repository", objects)
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(ArtifactServer(repository.directory))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        cache = SnapshotCache(directory / "cache")
        stack.push_async_callback(cache.aclose)
        bench = Bench(repository, aws, session, cache)
        stack.push_async_callback(bench.provider.aclose)
        bench.publish(repository.commit(server))
        first = await bench.reconcile_all()
        print(f"first sync of {objects} objects: {first:.1f} s, {len(aws.calls())} store calls")
        figures: dict[str, float | int] = {"objects": objects, "first_sync_seconds": round(first, 2)}
        for case, changed in (("commit", 0), ("profile_commit", 1)):
            figures |= await one_commit(case, repository, bench, server, aws, changed)
    return figures


async def one_commit(
    case: str, repository: Monorepo, bench: Bench, server: ArtifactServer, aws: AwsServer, changed: int
) -> dict[str, float | int]:
    """Change one object's directory, and return what followed."""
    repository.write(changed, repository.encrypted("two"))
    artifact = repository.commit(server)
    aws.clear_calls()
    server.requests.clear()
    bench.decryptor.decrypted = bench.kustomize.builds = 0
    bench.publish(artifact)
    seconds = await bench.reconcile_all()
    calls = Counter(call.operation for call in aws.calls())
    told = ", ".join(f"{count} {operation}" for operation, count in sorted(calls.items()))
    print(f"{case}, to object {changed}: {seconds:.2f} s; store: {told}; downloads: {server.requests.total()}")
    return {
        f"{case}_downloads": server.requests.total(),
        f"{case}_bytes_downloaded": server.requests.total() * artifact.size,
        f"{case}_files_decrypted": bench.decryptor.decrypted,
        f"{case}_builds": bench.kustomize.builds,
        f"{case}_store_calls": calls.total(),
        f"{case}_wall_seconds": round(seconds, 2),
    }


def main() -> None:
    """Print a line a case, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000, help="how many objects share the repository (1000)")
    objects = parser.parse_args().objects
    with tempfile.TemporaryDirectory(prefix="monorepo-") as directory, AwsServer.start() as aws:
        figures = asyncio.run(measure(Path(directory), aws, objects))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
