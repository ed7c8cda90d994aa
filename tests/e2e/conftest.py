"""One stack of real parts for a test process, a controller for a module, tenants for a test."""

import itertools
import os
import subprocess
from pathlib import Path

import pyrage
import pytest

from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE
from secret_manager_controller.testing.tenants import Tenant

ROOT = Path(__file__).parent.parent.parent
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def example_key():
    """Return the age key of the examples, which every file of these tests may be encrypted for."""
    return (ROOT / "examples" / "keys" / "EXAMPLE-ONLY.age.key").read_bytes()


@pytest.fixture(scope="session")
def example_recipient(example_key):
    """Return the public half of the example key."""
    return str(pyrage.x25519.Identity.from_str(example_key.decode().splitlines()[-1]).to_public())


@pytest.fixture(scope="session")
def encrypt(sops):
    """Return a function that encrypts a file with the real sops for age recipients; nothing reaches a disk."""

    def run(data, *recipients, kind="dotenv"):
        ran = subprocess.run(
            [
                sops,
                "--encrypt",
                "--age",
                ",".join(recipients),
                "--input-type",
                kind,
                "--output-type",
                kind,
                "/dev/stdin",
            ],
            input=data.encode() if isinstance(data, str) else data,
            capture_output=True,
            check=False,
            env={"PATH": os.defpath, "HOME": os.devnull},
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


@pytest.fixture(scope="session")
def stack(start_stack, example_key):
    """Run API server, store and artifact server; the example key is the controller's own."""
    with start_stack(audit_log=True) as started:
        started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
        yield started


@pytest.fixture(scope="module")
def controller(stack):
    """Run a controller for a module."""
    with stack.controller() as running:
        yield running


@pytest.fixture
def make_tenant(stack):
    """Return a function that makes tenants; their objects are removed at the end."""
    made = []

    def make(label="tenant"):
        made.append(Tenant(stack, label, number=next(NUMBERS)))
        return made[-1]

    yield make
    stack.aws.clear_faults()
    for tenant in made:
        tenant.remove()


@pytest.fixture
def tenant(make_tenant):
    """Return a tenant with an empty source and without an object."""
    return make_tenant()
