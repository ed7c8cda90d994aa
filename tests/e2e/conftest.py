"""One stack of real parts for a test process, a controller for a module, tenants for a test."""

import contextlib
import itertools
import json
import os
import random
import subprocess
import time
from pathlib import Path

import pyrage
import pytest

from secret_manager_controller.testing import argocd, flux
from secret_manager_controller.testing import jaeger as jaeger_server
from secret_manager_controller.testing.replicas import SHARDS, SHORT_SESSIONS, Replicas
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, condition
from secret_manager_controller.testing.tenants import Tenant, conditions
from secret_manager_controller.testing.workload import Workload

ROOT = Path(__file__).parent.parent.parent
NUMBERS = itertools.count(1)
VERDICT = "verdict"
"""Property of a test that the summary shows."""


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


@pytest.fixture
def encrypt_by_kms(stack, sops):
    """Return a function that lets the real sops encrypt with the test server's KMS; it returns the file as JSON."""

    def run(arn, text="A: one\n"):
        environment = {
            "HOME": os.devnull,
            "AWS_ENDPOINT_URL": stack.aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": stack.aws.access_keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": stack.aws.access_keys.secret_access_key,
        }
        command = [sops, "--encrypt", "--kms", arn, "--input-type", "yaml", "--output-type", "json", "/dev/stdin"]
        ran = subprocess.run(command, input=text.encode(), capture_output=True, check=True, env=environment)
        return json.loads(ran.stdout)

    return run


@pytest.fixture(scope="session")
def stack(start_stack, example_key):
    """Run API server, store and artifact server; the example key is the controller's own."""
    with start_stack() as started:
        started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
        yield started


@pytest.fixture(scope="session")
def jaeger(tool):
    """Run a real backend of traces."""
    with jaeger_server.running(tool("jaeger")) as running:
        yield running


@pytest.fixture(scope="module")
def controller(stack, kustomize_binary):
    """Run a controller for a module."""
    with stack.controller(KUSTOMIZE_BINARY=str(kustomize_binary)) as running:
        yield running


@pytest.fixture(scope="module")
def source_controller(stack, tool):
    """Run Flux's source-controller for a module."""
    with flux.source_controller(stack, tool("source-controller")):
        yield


@pytest.fixture(scope="session")
def start_argocd_stack(start_stack, tool, example_key):
    """Return a function that starts a stack with Argo CD's CRD and namespace; the example key is the controller's own."""

    @contextlib.contextmanager
    def start():
        with start_stack(argocd_crds=tool("argocd-crds")) as started:
            started.create_namespace(argocd.NAMESPACE)
            logins = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
            hosts = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
            started.allow(argocd.NAMESPACE, [logins, hosts])
            started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
            yield started

    return start


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
def check_longest_name(make_tenant):
    """Return a function that checks that a store takes a name at its limit, and what comes of one beyond it."""

    def check(store, provider, *, limit, title):
        tenant, other = make_tenant(), make_tenant()
        longest = "K" * (limit - len(tenant.name("")))
        for each in (tenant, other):
            each.apply(provider=provider)
        tenant.applied(tenant.commit(**{"A": "1", longest: "2"}))
        assert store.values() == {tenant.name("A"): b"1", tenant.name(longest): b"2"}
        store.clear_calls()
        beyond = tenant.commit(**{"A": "3", longest + "K": "2"})
        told = tenant.ready(reason="InvalidName", after=beyond.revision)
        assert "Stalled" in conditions(told)
        assert f"{limit + 1} characters; {title} allows {limit}" in condition(told)["message"]
        assert store.writes() == []
        other.applied(other.commit(A="4"))
        assert {call.names for call in store.writes()} == {(other.name("A"),)}
        assert store.values()[tenant.name("A")] == b"1"
        tenant.applied(tenant.commit(**{"A": "3", longest: "2"}))
        assert store.values()[tenant.name("A")] == b"3"

    return check


@pytest.fixture
def tenant(make_tenant):
    """Return a tenant with an empty source and without an object."""
    return make_tenant()


class Day:
    """Replicas under load, and the verdict at the end."""

    def __init__(self, stack, replicas, workload, random, node):
        self.stack = stack
        self.replicas = replicas
        self.workload = workload
        self.random = random
        self.node = node

    def start(self, count, **how):
        """Start so many replicas, and return them when each has its share and the store holds what Git holds."""
        started = [self.replicas.start(**how) for _ in range(count)]
        self.replicas.wait_balanced()
        self.workload.settle()
        return started

    def load(self):
        """Change the objects as long as the context lasts."""
        return self.workload.running(every=0.1)

    def pause(self, least, most):
        """Let a random time pass, so that what comes next meets the replicas at any moment."""
        time.sleep(self.random.uniform(least, most))

    def tenants_of(self, replica):
        """Return the tenants whose shards a replica owns."""
        owned = self.replicas.owned(replica)
        return [each for each in self.workload.tenants if self.replicas.log.shard(each.namespace) in owned]

    def end(self):
        """Wait until the store holds what Git holds, and ask the referee."""
        self.workload.settle()
        verdict = self.replicas.verdict(self.workload)
        self.node.user_properties.append((VERDICT, str(verdict)))
        assert verdict.writes > 0
        assert verdict.clean, str(verdict)


@pytest.fixture
def seed(pytestconfig):
    """Return what chooses moments and victims; `make chaos` prints it."""
    return pytestconfig.getoption("seed")


@pytest.fixture
def day(stack, seed, request):
    """Return a day that begins with objects and without replicas."""
    stack.delete_leases()
    stack.free_shards(SHARDS)
    stack.aws.reset()
    workload = Workload(stack, namespaces=16, seed=seed, label=f"day-{next(NUMBERS)}")
    try:
        with Replicas(stack, **SHORT_SESSIONS) as replicas:
            yield Day(stack, replicas, workload, random.Random(seed), request.node)
    finally:
        stack.aws.clear_faults()
        for tenant in workload.tenants:
            tenant.remove()
        stack.delete_leases()
        stack.free_shards(SHARDS)
