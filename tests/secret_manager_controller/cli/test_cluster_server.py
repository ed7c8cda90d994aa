"""The cluster verbs on a real API server, as a user who may do what the reference's role says and nothing else."""

import asyncio
import json
import uuid

import pytest
import yaml

from secret_manager_controller.cli import force
from secret_manager_controller.cli.cluster import ObjectKey, connect
from secret_manager_controller.cli.options import ClusterOptions
from secret_manager_controller.model.annotations import DELETION_POLICY, FINALIZER, RECONCILE

pytestmark = pytest.mark.real

GROUP = "secret-management.microscaler.io"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REFERENCE_RULES = [
    {"apiGroups": [GROUP], "resources": ["secretmanagerconfigs"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": [GROUP], "resources": ["secretmanagerconfigs/status"], "verbs": ["get"]},
]


@pytest.fixture
def namespace(smc_plane):
    """Return a namespace of this test's own."""
    name = f"msmctl-{uuid.uuid4().hex[:8]}"
    done(smc_plane.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}}))
    return name


@pytest.fixture
def login(smc_plane, namespace, tmp_path):
    """Return a function that makes a user with some rules and returns their kubeconfig."""

    def make(rules):
        name = f"user-{uuid.uuid4().hex[:8]}"
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        done(smc_plane.request("POST", accounts, body={"metadata": {"name": name}}))
        role = {"metadata": {"name": name}, "rules": rules}
        done(smc_plane.request("POST", f"{RBAC}/clusterroles", body=role))
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        done(smc_plane.request("POST", f"{RBAC}/clusterrolebindings", body=binding))
        request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}}
        token = done(smc_plane.request("POST", f"{accounts}/{name}/token", body=request))["status"]["token"]
        document = yaml.safe_load(smc_plane.kubeconfig().read_text())
        document["users"][0]["user"] = {"token": token}
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    return make


@pytest.fixture
def stored(smc_plane, namespace, manifest):
    """Store the manifest; return functions that read and change it as an administrator."""
    manifest["metadata"] = {"name": "app"}
    collection = f"/apis/{GROUP}/v1/namespaces/{namespace}/secretmanagerconfigs"

    class Stored:
        path = f"{collection}/app"

        def create(self):
            return done(smc_plane.request("POST", collection, body=manifest))

        def read(self):
            return done(smc_plane.request("GET", self.path))

        def patch(self, body, subresource=""):
            kind = "application/merge-patch+json"
            return done(smc_plane.request("PATCH", self.path + subresource, body=body, content_type=kind))

    object_ = Stored()
    object_.create()
    return object_


def done(answer):
    status, body = answer
    assert status < 300, body
    return body


def test_the_references_role_is_enough_for_list_status_and_reconcile(msmctl, login, stored, namespace):
    options = ["--kubeconfig", login(REFERENCE_RULES)]
    key = ["--name", "app", "--namespace", namespace, *options]
    listed = msmctl("list", "-N", namespace, *options)
    assert listed.stdout.splitlines()[1].split() == ["app", namespace, "Unknown", "0"]
    result = msmctl("reconcile", *key)
    assert (result.stderr, result.exit_code) == ("", 0)
    first = stored.read()["metadata"]["annotations"][RECONCILE]
    assert f"   Timestamp: {first}\n" in result.stdout
    assert msmctl("reconcile", *key).exit_code == 0
    assert stored.read()["metadata"]["annotations"][RECONCILE] == str(int(first) + 1)
    status = msmctl("status", *key).stdout
    assert f"Status for SecretManagerConfig '{namespace}/app':" in status
    assert "  AWS Region: eu-central-1\n" in status


def test_a_status_that_the_controller_wrote_is_shown(msmctl, login, stored, namespace):
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "ReconciliationSucceeded",
        "message": "Synced 1 secrets",
        "observedGeneration": 1,
        "lastTransitionTime": "2024-01-15T10:30:00Z",
    }
    written = {"observedGeneration": 1, "secretsSynced": 1, "conditions": [condition], "lastAppliedRevision": "main@1"}
    written["secrets"] = [{"name": "app-KEY", "version": "v1", "sourceHash": "0" * 32}]
    stored.patch({"status": written}, "/status")
    options = ["-n", "app", "-N", namespace, "--kubeconfig", login(REFERENCE_RULES)]
    shown = msmctl("status", *options, "-o", "wide").stdout
    assert "  Revision: main@1\n\nConditions:\n  Ready: True\n    Reason: ReconciliationSucceeded\n" in shown
    assert shown.splitlines()[-1].split() == ["app-KEY", "v1"]
    document = json.loads(msmctl("status", *options, "-o", "json").stdout)
    assert document == stored.read() | {"metadata": document["metadata"]}
    assert "managedFields" not in document["metadata"]


@pytest.mark.parametrize(
    ("verbs", "arguments", "told"),
    [
        (["get", "list"], ["reconcile", "-n", "app"], "Error: Failed to trigger reconciliation: "),
        (["list"], ["reconcile", "-n", "app"], "Error: Failed to trigger reconciliation: "),
        (
            ["get", "list", "patch"],
            ["reconcile", "-n", "app", "--force"],
            "Error: Failed to delete SecretManagerConfig '",
        ),
        (["patch"], ["status", "-n", "app"], "Error: Failed to read SecretManagerConfig '"),
        (["get"], ["list"], "Error: Failed to list SecretManagerConfigs: "),
    ],
    ids=["patch", "get", "delete", "status", "list"],
)
def test_a_missing_verb_is_told_and_changes_nothing(msmctl, login, stored, namespace, verbs, arguments, told):
    before = stored.read()
    options = ["-N", namespace, "--kubeconfig", login([{**REFERENCE_RULES[0], "verbs": verbs}])]
    result = msmctl(*arguments, *options)
    assert result.stderr.startswith(told)
    assert "is forbidden: User " in result.stderr
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert stored.read() == before


def test_a_wrong_token_is_told(msmctl, login, namespace):
    path = login(REFERENCE_RULES)
    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"]["token"] += "x"
    path.write_text(yaml.safe_dump(document))
    result = msmctl("list", "--kubeconfig", path)
    assert result.stderr == (
        "Error: Failed to list SecretManagerConfigs: Unauthorized; "
        "the login was refused: log in anew, or use another --context\n"
    )


def test_a_server_that_nobody_vouches_for_is_not_talked_to(msmctl, login):
    path = login(REFERENCE_RULES)
    document = yaml.safe_load(path.read_text())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    path.write_text(yaml.safe_dump(document))
    result = msmctl("list", "--kubeconfig", path)
    assert "the API server did not answer: ClientConnectorCertificateError" in result.stderr
    assert result.exit_code == 1


def test_a_missing_object_is_told(msmctl, login, namespace):
    result = msmctl("reconcile", "-n", "none", "-N", namespace, "--kubeconfig", login(REFERENCE_RULES))
    assert result.stderr.startswith(f"Error: Resource not found: SecretManagerConfig '{namespace}/none' does not exist")


def test_pages_are_put_together(msmctl, login, stored, namespace, monkeypatch, smc_plane, manifest):
    monkeypatch.setattr("secret_manager_controller.cli.cluster.LIST_CHUNK", 2)
    collection = stored.path.rpartition("/")[0]
    for number in range(4):
        body = {**manifest, "metadata": {"name": f"app-{number}"}}
        done(smc_plane.request("POST", collection, body=body))
    rows = msmctl("list", "-N", namespace, "--kubeconfig", login(REFERENCE_RULES)).stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["app", "app-0", "app-1", "app-2", "app-3"]


async def test_force_deletes_past_the_finalizer_without_touching_the_store(login, stored, namespace, clock, smc_plane):
    """With deletionPolicy Delete the object waits for the controller, which finds the annotation that says Orphan."""
    stored.patch({"spec": {"deletionPolicy": "Delete"}, "metadata": {"finalizers": [FINALIZER]}})
    before = stored.read()["metadata"]
    seen = []

    def controller_lets_go():
        seen.append(stored.read()["metadata"])
        stored.patch({"metadata": {"finalizers": []}})

    clock.at(2, controller_lets_go)
    clock.at(4, stored.create)
    rules = [{**REFERENCE_RULES[0], "verbs": ["get", "list", "patch", "delete"]}]
    async with connect(ClusterOptions(str(login(rules)), None)) as kube:
        await asyncio.wait_for(force.recreate(kube, ObjectKey(namespace, "app"), clock, patience=300), 60)
    (at_deletion,) = seen
    assert at_deletion["annotations"] == {DELETION_POLICY: "Orphan"}
    assert at_deletion["deletionTimestamp"]
    after = stored.read()["metadata"]
    assert after["uid"] != before["uid"]
    assert "annotations" not in after
