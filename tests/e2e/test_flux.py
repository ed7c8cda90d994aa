"""Flux itself: the real source-controller fetches from a Git server, and the real controller what it has made of that."""

import os
import socket

import pytest

from secret_manager_controller.testing import processes
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.tenants import ENV, SOURCE, dotenv

pytestmark = [pytest.mark.real]


HELM_KINDS = {"HelmRepository": "helmrepositories", "HelmChart": "helmcharts"}
"""Kinds that source-controller wants to watch, and that nothing here uses."""


def definition(kind, plural):
    """Return a CustomResourceDefinition that takes anything."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.source.toolkit.fluxcd.io"},
        "spec": {
            "group": "source.toolkit.fluxcd.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version | {"schema": {"openAPIV3Schema": anything}}],
        },
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with GitServer(tmp_path_factory.mktemp("git")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def source_controller(stack, tool, tmp_path_factory):
    """Run Flux's source-controller on the stack's API server."""
    for kind, plural in HELM_KINDS.items():
        stack.apply(definition(kind, plural))
        stack.wait(f"{plural} to be served", lambda p=plural: stack.get(f"/apis/source.toolkit.fluxcd.io/v1/{p}"))
    directory, address = tmp_path_factory.mktemp("flux"), f"127.0.0.1:{free_port()}"
    (directory / "storage").mkdir()
    command = [
        tool("source-controller"),
        f"--storage-path={directory / 'storage'}",
        f"--storage-addr={address}",
        f"--storage-adv-addr={address}",
        "--metrics-addr=127.0.0.1:0",
        "--health-addr=127.0.0.1:0",
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
    yield
    processes.stop(process, grace=10)


def follow(tenant, server, branch="main"):
    """Let Flux follow a branch of the tenant's repository."""
    tenant.stack.create_secret(tenant.namespace, "authority", {"ca.crt": server.ca})
    tenant.stack.apply(
        {
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "GitRepository",
            "metadata": {"namespace": tenant.namespace, "name": SOURCE},
            "spec": {
                "url": server.url(tenant.namespace),
                "interval": "1m",
                "ref": {"branch": branch},
                "secretRef": {"name": "authority"},
            },
        }
    )


def fetch_now(tenant, number):
    annotations = {"reconcile.fluxcd.io/requestedAt": str(number)}
    tenant.stack.patch(tenant.source_path, {"metadata": {"annotations": annotations}})


def test_a_commit_reaches_the_store_by_flux(server, controller, tenant):
    repository = server.create(tenant.namespace)
    first = repository.commit({ENV: dotenv(A="1"), "elsewhere/README.md": "x"})
    tenant.apply(prune=True)
    tenant.ready(reason="SourceNotFound")
    follow(tenant, server)
    tenant.until("the commit", lambda status: status.get("lastAppliedRevision") == f"main@sha1:{first}")
    assert tenant.values() == {"A": b"1"}

    second = repository.commit({ENV: dotenv(A="2", B="3")})
    fetch_now(tenant, 1)
    tenant.until("the next", lambda status: status.get("lastAppliedRevision") == f"main@sha1:{second}")
    assert tenant.values() == {"A": b"2", "B": b"3"}

    follow(tenant, server, branch="gone")
    status = tenant.until("the loss", lambda status: status["conditions"][0]["status"] == "False")
    assert status["conditions"][0]["reason"] == "SourceNotReady"
    tenant.until("Flux' own words", lambda status: "GitOperationFailed" in status["conditions"][0]["message"])
    assert tenant.values() == {"A": b"2", "B": b"3"}
