"""Fixtures for tests against real parts: the binaries, built on first use and cached, and a running control plane."""

import contextlib
import functools
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from controller_telemetry.export import Tracers
from lease_sharding.member import Member
from lease_sharding.settings import Settings as ShardingSettings
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.object_metrics import ObjectCollector
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.shard_metrics import ShardCollector
from secret_manager_controller.controller.trace_metrics import TraceCollector
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.crd import KINDS, custom_resource_definition
from secret_manager_controller.testing.controlplane import ControlPlane
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, Stack

ROOT = Path(__file__).parent.parent
REAL_PARTS = {"tool", "sops_binary"}
"""Fixtures that build or run a real part; what uses one, directly or not, is no test of seconds."""


def pytest_addoption(parser):
    """Take what `make chaos` says."""
    parser.addoption("--chaos", action="store_true", help="run the tests that take long, too")
    parser.addoption("--seed", type=int, default=0, help="chooses moments and victims of the bad days (0)")


def pytest_collection_modifyitems(config, items):
    """Mark every test that needs a real part, so that `make unit` leaves it out; leave out the long ones."""
    if not config.getoption("chaos"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("chaos")])
        items[:] = [item for item in items if not item.get_closest_marker("chaos")]
    for item in items:
        if REAL_PARTS.intersection(item.fixturenames):
            item.add_marker("real")


def pytest_terminal_summary(terminalreporter):
    """Show what the referee said of each bad day."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    verdicts = [
        (report.nodeid, told) for report in reports for name, told in report.user_properties if name == "verdict"
    ]
    if verdicts:
        terminalreporter.section("the referee's verdicts")
        for test, told in dict(verdicts).items():
            terminalreporter.line(f"{test.rpartition('::')[2]}: {told}")


@pytest.fixture(scope="session")
def tool(pytestconfig):
    """Return a function that gives the path of a real part by its name in tools/pins.toml.

    Test processes that ask at once share a build: tools/build.py locks.
    """
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    @functools.cache
    def path(name):
        # A build takes minutes, and its progress on stderr is for whoever waits.
        with capture.global_and_fixture_disabled():
            command = [sys.executable, str(ROOT / "tools" / "build.py"), name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            pytest.exit(f"{name} cannot be had; tools/build.py says why", returncode=done.returncode)
        return Path(done.stdout.strip())

    return path


@pytest.fixture(scope="session")
def sops(tool):
    """Return the real sops binary, the decryptor's oracle."""
    return tool("sops")


@pytest.fixture(scope="session")
def kustomize_binary(tool):
    """Return the real kustomize binary: what the controller runs, and the oracle of its output."""
    return tool("kustomize")


@pytest.fixture(scope="session")
def control_plane(tool):
    """Run a real API server for the session of one test process; tests use namespaces of their own."""
    with ControlPlane.start(etcd=tool("etcd"), kube_apiserver=tool("kube-apiserver"), audit_log=True) as plane:
        yield plane


@pytest.fixture(scope="session")
def smc_plane(control_plane):
    """Return the control plane with our CRDs installed and served."""
    for kind in KINDS.values():
        crd = custom_resource_definition(kind)
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
        query = "?fieldManager=tests&force=true"
        status, answer = control_plane.request(
            "PATCH", path + query, body=crd, content_type="application/apply-patch+yaml"
        )
        assert status in (200, 201), answer
    deadline = time.monotonic() + 30
    for kind in KINDS.values():
        while control_plane.request("GET", f"/apis/secret-management.microscaler.io/v1/{kind.plural}")[0] != 200:
            assert time.monotonic() < deadline, f"{kind.plural} are not served"
            time.sleep(0.05)
    return control_plane


@pytest.fixture(scope="session")
def render_chart(tool):
    """Return a function that renders the chart for a namespace, with values as `--set` takes them."""

    def render(namespace, *options, chart=ROOT / "helm" / "secret-manager-controller", **values):
        command = [tool("helm"), "template", "smc", chart, *options]
        command += ["--namespace", namespace, "--kube-version", "1.31.0"]
        command += [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]
        rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]

    return render


@pytest.fixture(scope="session")
def start_stack(tool, render_chart):
    """Return a function that starts a stack of all parts as a context manager.

    The chart is installed for each tenancy mode, so that every controller has the rights that it grants, and no other.
    What the API server refuses to one fails the tests, unless a test expected it.
    """

    @contextlib.contextmanager
    def start(*, charts=None, argocd_crds=None):
        parts = {"etcd": tool("etcd"), "kube_apiserver": tool("kube-apiserver"), "flux_crds": tool("flux-crds")}
        values = {"rbac__credentialSecrets": "{shared-login}", "sources__argocd": str(bool(argocd_crds)).lower()}
        with Stack.start(**parts, argocd_crds=argocd_crds, audit_log=True) as stack:
            for manifests in charts or [
                render_chart(CONTROLLER_NAMESPACE, "--skip-tests", **values),
                render_chart(
                    CONTROLLER_NAMESPACE,
                    "--skip-tests",
                    fullnameOverride="smc-shared",
                    tenancy__mode="shared",
                    **values,
                ),
            ]:
                stack.install(manifests)
            yield stack
            assert stack.refusals() == []

    return start


@pytest.fixture(scope="session")
def served_families():
    """Return every family of series that a controller serves."""
    settings = ShardingSettings(group="g", shards=1)
    member, cache = Member(client=None, settings=settings, member="m", handler=None), ObjectCache(len)
    metrics = Metrics()
    metrics.registry.register(ShardCollector(member=member, cache=cache, queue=WorkQueue(clock=float)))
    metrics.registry.register(TraceCollector(Tracers()))
    metrics.registry.register(
        ObjectCollector(
            reasons={},
            cache=cache,
            sources=WatchedSources(None, {}),
            progress=WatchProgress(float),
            owns=bool,
            per_object=True,
        )
    )
    return list(metrics.registry.collect())
