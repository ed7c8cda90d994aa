"""Fixtures for tests against real parts: the binaries, built on first use and cached, and a running control plane."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from secret_manager_controller.crd import custom_resource_definition
from secret_manager_controller.testing.controlplane import ControlPlane
from secret_manager_controller.testing.stack import Stack

ROOT = Path(__file__).parent.parent


def built(*names):
    """Return the paths of real parts; several test processes that ask at once build each of them once."""
    command = [sys.executable, str(ROOT / "tools" / "build.py"), *names]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.fail(answer.stderr, pytrace=False)
    return [Path(line) for line in answer.stdout.splitlines()]


@pytest.fixture(scope="session")
def sops():
    """Return the real sops binary, the decryptor's oracle."""
    (path,) = built("sops")
    return path


@pytest.fixture(scope="session")
def control_plane():
    """Run a real API server for the session of one test process."""
    etcd, kube_apiserver = built("etcd", "kube-apiserver")
    with ControlPlane.start(etcd=etcd, kube_apiserver=kube_apiserver, audit_log=True) as plane:
        yield plane


@pytest.fixture(scope="session")
def smc_plane(control_plane):
    """Return the control plane with our CRD installed and served."""
    crd = custom_resource_definition()
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    query = "?fieldManager=tests&force=true"
    status, answer = control_plane.request("PATCH", path + query, body=crd, content_type="application/apply-patch+yaml")
    assert status in (200, 201), answer
    served = "/apis/secret-management.microscaler.io/v1/secretmanagerconfigs"
    deadline = time.monotonic() + 30
    while control_plane.request("GET", served)[0] != 200:
        assert time.monotonic() < deadline, "the CRD is not served"
        time.sleep(0.05)
    return control_plane


@pytest.fixture(scope="session")
def start_stack():
    """Return a function that starts a stack of all parts as a context manager."""
    etcd, kube_apiserver, flux_crds = built("etcd", "kube-apiserver", "flux-crds")

    def start(**options):
        return Stack.start(etcd=etcd, kube_apiserver=kube_apiserver, flux_crds=flux_crds, **options)

    return start
