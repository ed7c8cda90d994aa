"""The process among failures: a broken watch, an API server that is away, signals, a start that cannot be."""

import contextlib
import fcntl
import os
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest

from secret_manager_controller.kube import GIT_REPOSITORIES, SECRET_MANAGER_CONFIGS, ResourcePath
from secret_manager_controller.testing import processes
from secret_manager_controller.testing.apiproxy import ApiProxy
from secret_manager_controller.testing.artifacts import git_repository_status
from secret_manager_controller.testing.stack import FLUX_KINDS, StackError
from secret_manager_controller.testing.tenants import Tenant, metric

pytestmark = [pytest.mark.real]

PROMPT = 8  # Seconds that an idle controller may take to end; it takes one.


@pytest.fixture
def proxy(stack):
    with ApiProxy(stack.plane) as running:
        yield running


@pytest.fixture
def through(stack, proxy, tmp_path):
    """Return a function that runs a controller whose requests go through the proxy."""
    return lambda **settings: stack.controller(
        KUBECONFIG=str(proxy.kubeconfig(tmp_path, stack.controller_token())), **settings
    )


@contextlib.contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def synced(tenant, **spec):
    tenant.commit(A="1", B="2")
    tenant.apply(**spec)
    tenant.ready()
    return tenant


def ended(controller, timeout=PROMPT):
    """Wait for the process to end; return its exit code and its last line."""
    code = controller.process.wait(timeout)
    return code, processes.tail(controller.log).splitlines()[-1]


# --- watches


def test_the_sweep_finds_what_was_deleted_in_a_gap_of_the_watch(stack, proxy, through, make_tenant):
    """kopf lists again after 410 Gone, and no event tells of what is gone; objects and sources both."""
    ghost, orphan = make_tenant("ghost"), make_tenant("orphan")
    with through(SWEEP_INTERVAL_SECONDS="1") as controller:
        synced(ghost)
        synced(orphan, prune=True)
        stack.wait("both to be counted", lambda: metric(controller, "secret_manager_secrets_managed") == 4)
        with proxy.expired_watches():
            stack.delete(ghost.path)
            stack.delete(orphan.source_path)
            orphan.until("the loss of its source", lambda status: status["conditions"][0]["reason"] == "SourceNotFound")
            stack.wait("the ghost to go", lambda: metric(controller, "secret_manager_secrets_managed") == 2)

        def found():
            told = "Sweep found what the watch missed"
            return sum(record["count"] for record in controller.records() if record["message"] == told)

        stack.wait("the sweep to tell of it", lambda: found() >= 2)  # It ends after what it queued is worked on.
        assert orphan.values() == ghost.values() == {"A": b"1", "B": b"2"}
        # The watches are whole again.
        orphan.applied(orphan.commit(A="2", B="2"))


def test_a_cut_watch_is_opened_again_and_misses_nothing(proxy, through, tenant):
    with through():
        synced(tenant)
        proxy.cut_watches()
        tenant.applied(tenant.commit(A="2"), timeout=10)


def test_a_watch_that_hangs_is_told_by_what_listings_show(stack, proxy, through, tenant):
    lag = "secret_manager_watch_lag_seconds"
    with through(SWEEP_INTERVAL_SECONDS="1") as controller:
        synced(tenant)
        stack.wait("the watches to be up to date", lambda: metric(controller, lag) == 0)
        with proxy.hanging_watches():
            artifact = tenant.commit(A="2")
            stack.wait("the lag", lambda: metric(controller, lag, kind="GitRepository") > 0)
            assert controller.http("/healthz") == (200, "ok\n")  # It may still be only late.
        tenant.applied(artifact)
        stack.wait("the lag to be over", lambda: metric(controller, lag) == 0)


def test_a_watch_that_is_refused_for_good_ends_the_process(stack, through, proxy, tenant):
    """401 with credentials that do not change; after 503 for a minute kopf gives up as well.

    kopf then cancels every task of its loop, so that it must not be ours: what is under way ends as on SIGTERM.
    """
    tenant.commit(A="1")
    with through() as controller:
        stack.aws.hang("CreateSecret", 4)
        tenant.apply()
        stack.wait("the create to be under way", lambda: stack.aws.faults_left() == 0)
        proxy.refuse(401)
        code = controller.process.wait(25)
    assert code == 1
    told = "secret-manager-controller: the informer ended by itself ("
    assert [line for line in controller.log.read_text().splitlines() if line.startswith(told)]
    assert "Reconcile was cut off" not in {record["message"] for record in controller.records()}
    assert tenant.values() == {"A": b"1"}


def test_an_outage_of_the_api_server_is_survived(stack, proxy, through, tenant):
    with through() as controller:
        synced(tenant)
        proxy.refuse(503)
        time.sleep(2)  # The outage.
        artifact = tenant.commit(A="2")
        proxy.refuse(None)
        tenant.applied(artifact)
        assert tenant.values()["A"] == b"2"
        assert controller.process.poll() is None


def test_an_api_server_that_stands_still_is_survived(stack, tenant):
    with stack.controller() as controller:
        synced(tenant)
        with frozen(stack.plane.pids["kube-apiserver"]):
            time.sleep(3)  # The stand-still.
            assert controller.http("/healthz")[0] == 200
        tenant.applied(tenant.commit(A="2"))


# --- the end


def test_sigterm_ends_an_idle_controller_promptly_with_0(stack, tenant):
    with stack.controller() as controller:
        synced(tenant)
        asked = time.monotonic()
        controller.process.terminate()
        assert ended(controller)[0] == 0
        assert time.monotonic() - asked < PROMPT


def test_sigterm_lets_a_slow_store_call_finish_and_records_it(stack, tenant):
    tenant.commit(A="1", B="2", C="3")
    with stack.controller() as controller:
        stack.aws.hang("CreateSecret", 2.5, times=3)
        tenant.apply()
        stack.wait("the creates to be under way", lambda: stack.aws.faults_left() == 0)
        controller.process.terminate()
        assert ended(controller, timeout=20)[0] == 0
        status = tenant.status()
        assert status["conditions"][0]["reason"] == "ReconciliationSucceeded"
        assert {entry["name"] for entry in status["secrets"]} == {tenant.name(key) for key in "ABC"}
        assert "Reconcile was cut off" not in {record["message"] for record in controller.records()}


def test_sigterm_beyond_the_grace_leaves_nothing_half_done_and_the_next_start_completes_it(stack, tenant):
    """The call under way ends before the process does; what it wrote is found and not written a second time."""
    tenant.commit(**{f"KEY_{number:02}": "value" for number in range(12)})
    with stack.controller(SHUTDOWN_GRACE_SECONDS="0.5") as controller:
        stack.aws.hang("CreateSecret", 3, times=8)  # As many as are written at a time.
        tenant.apply()
        stack.wait("the creates to be under way", lambda: stack.aws.faults_left() == 0)
        asked = time.monotonic()
        controller.process.terminate()
        assert ended(controller, timeout=20)[0] == 0
        assert 2 < time.monotonic() - asked < 15
        assert "Reconcile was cut off" in {record["message"] for record in controller.records()}
    assert len(tenant.values()) == 8  # No write was begun after the fence had closed.
    assert tenant.status_writes() == 0
    with stack.controller():
        tenant.ready()
    assert len(tenant.values()) == 12
    assert {tenant.versions(key) for key in tenant.values()} == {1}


def test_a_killed_controller_is_succeeded_without_a_second_version(stack, tenant):
    tenant.commit(**{f"KEY_{number:02}": "value" for number in range(12)})
    with stack.controller() as controller:
        stack.aws.hang("CreateSecret", 1, times=4)
        tenant.apply()
        stack.wait("some to be written", tenant.values)
        controller.process.kill()
        controller.process.wait()
    with stack.controller():
        tenant.ready()
    assert len(tenant.values()) == 12
    assert {tenant.versions(key) for key in tenant.values()} == {1}


def test_what_is_settled_is_only_looked_at_by_the_next_controller(stack, tenant):
    with stack.controller():
        synced(tenant)
    stack.aws.clear_calls()
    read, writes = len(tenant.audit("get")), tenant.status_writes()
    with stack.controller() as controller:
        stack.wait("the look", lambda: metric(controller, "secret_manager_reconciliations_total") == 1)
    assert [call.operation for call in tenant.calls()] == ["ListSecrets"]
    assert [event["requestURI"] for event in tenant.audit("get")[read:] if event["requestURI"] == tenant.path] == []
    assert tenant.status_writes() == writes
    assert len(tenant.events()) == 1


# --- a start that cannot be


def refused(stack, **settings):
    """Start a controller that ends by itself; return its exit code and what it printed."""
    controller = stack.launch_controller(LOG_LEVEL="info", **settings)
    code = controller.process.wait(20)
    return code, controller.log.read_text()


def test_a_wrong_setting_is_told_in_one_line(stack):
    code, text = refused(stack, METRICS_PORT="eighty")
    wanted = "secret-manager-controller: METRICS_PORT='eighty': expected a number from 0 to 65535\n"
    assert (code, text) == (2, wanted)


def test_a_missing_kubeconfig_is_told_in_one_line(stack):
    code, text = refused(stack, KUBECONFIG="/no/such/file")
    assert (code, text) == (1, "secret-manager-controller: there is no kubeconfig at /no/such/file\n")


def test_an_api_server_that_is_away_is_told_in_one_line(stack, proxy, tmp_path):
    kubeconfig = proxy.kubeconfig(tmp_path)
    proxy.refuse(503)
    code, text = refused(stack, KUBECONFIG=str(kubeconfig))
    assert (code, text) == (1, "secret-manager-controller: cannot start: refused\n")


def test_a_port_in_use_is_told_in_one_line(stack):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        code, text = refused(stack, METRICS_PORT=str(holder.getsockname()[1]))
    assert (code, len(text.splitlines())) == (1, 1)
    assert "METRICS_PORT" in text
    assert "in use" in text


def test_a_cache_directory_of_another_process_is_told_in_one_line(stack, tmp_path):
    with (tmp_path / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, text = refused(stack, CACHE_DIRECTORY=str(tmp_path))
    assert (code, len(text.splitlines())) == (1, 1)
    assert "CACHE_DIRECTORY" in text


def test_keys_that_a_killed_controller_left_in_memory_are_removed_at_the_start(stack, tenant):
    home = Path(tempfile.mkdtemp(prefix="smc-gpg-", dir="/dev/shm"))
    (home / "owner.lock").touch()
    with stack.controller():
        assert not home.exists()


# --- kinds that are not installed


@pytest.fixture(scope="module")
def bare(start_stack):
    """Run a stack of its own, whose CRDs come and go."""
    with start_stack() as started:
        yield started


def uninstall(stack, resource):
    stack.delete(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{resource.plural}.{resource.group}")
    stack.wait("the kind to be gone", lambda: stack.plane.request("GET", resource.url())[0] == 404)


def test_a_cluster_without_flux_works_and_flux_is_watched_once_it_is_there(bare):
    flux = bare.get(
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{GIT_REPOSITORIES.plural}.{GIT_REPOSITORIES.group}"
    )
    uninstall(bare, GIT_REPOSITORIES)
    tenant = Tenant(bare, "early")
    with bare.controller(SWEEP_INTERVAL_SECONDS="6") as controller:
        tenant.apply()
        tenant.ready(reason="SourceNotFound")
        bare.apply(
            {k: flux[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": {"name": flux["metadata"]["name"]}}
        )
        bare.wait("the kind to be served", lambda: bare.get(GIT_REPOSITORIES.url()))
        tenant.applied(tenant.commit(A="1"))
        # Nothing watches the source yet, but nobody takes what it said once for what it says now.
        tenant.commit(A="2")
        with contextlib.suppress(StackError):
            tenant.reconcile()
        code, line = ended(controller)
    assert (code, line) == (
        1,
        "secret-manager-controller: gitrepositories.source.toolkit.fluxcd.io was installed or granted, and is watched after a restart",
    )
    assert tenant.values() == {"A": b"2"}
    with bare.controller():
        tenant.applied(tenant.commit(A="3"), timeout=10)


def test_a_source_that_is_served_in_an_older_version_only_is_read(bare):
    """As Flux before 2.6 serves OCIRepositories."""
    new = FLUX_KINDS["OCIRepository"]
    name = f"{new.plural}.{new.group}"
    crd = bare.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    uninstall(bare, new)
    crd["spec"]["versions"][0]["name"] = "v1beta2"
    bare.apply({k: crd[k] for k in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}})
    old = ResourcePath(new.group, "v1beta2", new.plural)
    bare.wait("the older version to be served", lambda: bare.get(old.url()))
    tenant = Tenant(bare, "older")
    artifact = tenant.commit(publish=False, A="1")
    source = {
        "apiVersion": f"{old.group}/{old.version}",
        "kind": "OCIRepository",
        "metadata": {"namespace": tenant.namespace, "name": "older"},
        "spec": {"url": "oci://registry.example.invalid/app", "interval": "1m"},
    }
    generation = bare.apply(source)["metadata"]["generation"]
    status = {"status": git_repository_status(artifact, generation=generation)}
    with bare.controller():
        tenant.apply(sourceRef={"kind": "OCIRepository", "name": "older"})
        tenant.ready(reason="SourceNotReady")
        bare.patch(f"{old.url(tenant.namespace, 'older')}/status", status)
        tenant.applied(artifact, timeout=10)
    assert tenant.values() == {"A": b"1"}


def test_a_cluster_without_our_kind_is_told_in_one_line(bare):
    uninstall(bare, SECRET_MANAGER_CONFIGS)
    code, text = refused(bare)
    told = "cannot start: the CustomResourceDefinition secretmanagerconfigs.secret-management.microscaler.io is not installed"
    assert (code, text) == (1, f"secret-manager-controller: {told}\n")
