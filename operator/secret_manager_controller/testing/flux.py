"""Flux itself on a `Stack`: the real source-controller, which fetches from Git and serves what it has fetched.

with source_controller(stack, program):
    follow(stack, "flux-system/services", url=server.url("team/app"), login={"ca.crt": server.ca})
    ...
    fetch_now(stack, "flux-system/services")
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from secret_manager_controller.kube import GIT_REPOSITORIES
from secret_manager_controller.testing import processes
from secret_manager_controller.testing.stack import Stack

HOST = "127.0.0.1"
STOP_GRACE = 10.0  # Seconds; it ends in one.
UNUSED_KINDS = {"HelmRepository": "helmrepositories", "HelmChart": "helmcharts"}
"""Kinds that source-controller wants to watch, and that nothing here uses."""


@contextlib.contextmanager
def source_controller(stack: Stack, program: Path) -> Iterator[None]:
    """Run source-controller on the stack's API server while the context lasts."""
    for kind, plural in UNUSED_KINDS.items():
        stack.apply(_anything(kind, plural))
        path = f"/apis/{GIT_REPOSITORIES.group}/v1/{plural}"
        stack.wait(f"{plural} to be served", functools.partial(stack.get, path))
    directory = Path(tempfile.mkdtemp(prefix="flux-", dir=stack.directory))
    address = f"{HOST}:{processes.free_ports(HOST, 1)[0]}"
    (directory / "storage").mkdir()
    command: list[str | os.PathLike[str]] = [
        program,
        f"--storage-path={directory / 'storage'}",
        f"--storage-addr={address}",
        f"--storage-adv-addr={address}",
        f"--metrics-addr={HOST}:0",
        f"--health-addr={HOST}:0",
        "--enable-leader-election=false",
        "--events-addr=",
        "--log-encoding=json",
    ]
    environment = {
        "PATH": os.defpath,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "KUBECONFIG": str(stack.plane.kubeconfig()),
        "RUNTIME_NAMESPACE": "flux-system",
    }
    process = processes.start(command, log=directory / "log", environment=environment)
    try:
        yield
    finally:
        processes.stop(process, grace=STOP_GRACE)


def follow(stack: Stack, key: str, *, url: str, login: Mapping[str, bytes], branch: str = "main") -> None:
    """Let a GitRepository follow a branch.

    Args:
        stack: where it is.
        key: its `namespace/name`.
        url: the repository's.
        login: data of its Secret, such as `ca.crt`, `username` and `password`.
        branch: the branch's name.
    """
    namespace, _, name = key.partition("/")
    stack.create_secret(namespace, f"{name}-login", login)
    stack.apply(
        {
            "apiVersion": f"{GIT_REPOSITORIES.group}/v1",
            "kind": "GitRepository",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "url": url,
                "interval": "1m",
                "ref": {"branch": branch},
                "secretRef": {"name": f"{name}-login"},
            },
        }
    )


def fetch_now(stack: Stack, key: str) -> None:
    """Ask Flux to look at Git at once, as `flux reconcile source git` does."""
    annotations = {"reconcile.fluxcd.io/requestedAt": str(time.time_ns())}
    stack.patch(GIT_REPOSITORIES.url(*key.split("/")), {"metadata": {"annotations": annotations}})


def _anything(kind: str, plural: str) -> dict[str, Any]:
    """Return a CustomResourceDefinition that takes anything."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GIT_REPOSITORIES.group}"},
        "spec": {
            "group": GIT_REPOSITORIES.group,
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version | {"schema": {"openAPIV3Schema": anything}}],
        },
    }
