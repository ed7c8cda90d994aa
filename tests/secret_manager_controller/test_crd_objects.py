"""Objects of the CRD as a real API server stores and shows them."""

import json
import ssl
import urllib.request

import pytest

from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.inventory import MAX_SECRETS, InventoryEntry
from secret_manager_controller.model.status import Condition, Status, parse_status

pytestmark = pytest.mark.real

NAMESPACE = "crd-objects"
OBJECTS = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/secretmanagerconfigs"
DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/secretmanagerconfigs.{GROUP}"
SPEC = {"sourceRef": {"name": "repo"}, "provider": {"type": "aws", "aws": {}}, "secrets": {"environment": "dev"}}


@pytest.fixture(scope="module")
def server(smc_plane):
    """Return a function that sends a request to an API server that serves the CRD."""
    smc_plane.request(
        "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    )
    return smc_plane.request


def create(server, *, name, **changes):
    """Create an object and return it as it was stored."""
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "SecretManagerConfig",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": SPEC | changes,
    }
    status, answer = server("POST", OBJECTS, body=body)
    assert status == 201, answer
    return answer


def test_the_api_server_finds_nothing_to_complain_about(server):
    _, definition = server("GET", DEFINITION)
    conditions = {condition["type"]: condition["status"] for condition in definition["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}  # NonStructuralSchema would be a third.


def test_defaults_are_stored_and_unknown_fields_are_not(server):
    future = {"fromTheFuture": {"a": 1}}
    answer = create(server, name="defaulted", secrets={"environment": "dev"} | future, interval=None, **future)
    assert answer["spec"] == {
        "sourceRef": {"kind": "GitRepository", "name": "repo"},
        "requireVerifiedSource": False,
        "provider": {"type": "aws", "aws": {"region": "us-east-1"}},
        "secrets": {"environment": "dev"},
        "interval": "5m",
        "suspend": False,
        "prune": False,
        "deletionPolicy": "Orphan",
        "updatePolicy": "Replace",
        "adoption": "Fail",
    }


def test_the_short_name_and_the_category_are_known(server):
    _, resources = server("GET", f"/apis/{GROUP}/v1")
    [resource] = [item for item in resources["resources"] if item["name"] == "secretmanagerconfigs"]
    assert (resource["kind"], resource["singularName"], resource["namespaced"]) == (
        "SecretManagerConfig",
        "secretmanagerconfig",
        True,
    )
    assert (resource["shortNames"], resource["categories"]) == (["smc"], ["gitops"])


def test_the_columns_show_the_status(server, smc_plane):
    create(server, name="shown")
    status = Status(
        observed_generation=1,
        last_reconcile_time="2026-01-02T03:04:05Z",
        last_applied_revision="main@sha1:abc",
        secrets_synced=5,
        conditions=(
            Condition("Ready", "True", "ReconciliationSucceeded", "Synced 5 secrets", 1, "2026-01-02T03:04:05Z"),
        ),
    )
    write_status(server, "shown", status)
    request = urllib.request.Request(
        f"{smc_plane.url}{OBJECTS}/shown",
        headers={
            "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
            "Authorization": f"Bearer {smc_plane.token()}",
        },
    )
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=smc_plane.ca_file)) as answer:
        table = json.load(answer)
    [row] = table["rows"]
    cells = dict(zip([column["name"] for column in table["columnDefinitions"]], row["cells"], strict=True))
    # Times are shown as ages, which pass.
    assert {name: cells.pop(name) is not None for name in ("Age", "Last Reconcile")} == {
        "Age": True,
        "Last Reconcile": True,
    }
    assert cells == {
        "Name": "shown",
        "Ready": "True",
        "Reason": "ReconciliationSucceeded",
        "Source": "repo",
        "Revision": "main@sha1:abc",
        "Secrets": 5,
        "Environment": "dev",
        "Provider": "aws",
        "Message": "Synced 5 secrets",
    }
    wide = {column["name"] for column in table["columnDefinitions"] if column["priority"]}
    assert wide == {"Environment", "Provider", "Last Reconcile", "Message"}


def write_status(server, name, status):
    """Write a status as the controller does; return the answer."""
    http_status, answer = server(
        "PATCH",
        f"{OBJECTS}/{name}/status",
        body={"status": status.as_json()},
        content_type="application/merge-patch+json",
    )
    assert http_status == 200, answer
    return answer


def test_the_largest_status_is_stored_as_it_was_written(server):
    create(server, name="large")
    entries = [InventoryEntry(f"{number:04}-{'n' * 507}", "v" * 64, "0" * 32) for number in range(MAX_SECRETS)]
    status = Status(
        observed_generation=1,
        last_reconcile_time="2026-01-02T03:04:05Z",
        last_handled_reconcile_at="1700000000",
        last_attempted_revision="main@sha1:" + "a" * 40,
        last_applied_revision="main@sha1:" + "a" * 40,
        settled_key="0" * 64,
        secrets_synced=MAX_SECRETS,
        inventory={entry.name: entry for entry in entries},
        conditions=(
            Condition("Ready", "False", "StoreUnavailable", "m" * 4000, 1, "2026-01-02T03:04:05Z"),
            Condition("Reconciling", "True", "StoreUnavailable", "m", 1, "2026-01-02T03:04:05Z"),
        ),
    )
    answer = write_status(server, "large", status)
    assert parse_status(answer["status"]) == status
    # The inventory is atomic: were it a map, this list would name each entry once more.
    assert len(json.dumps(answer["metadata"]["managedFields"])) < 4096


def test_a_status_does_not_change_the_spec_nor_a_spec_the_status(server):
    create(server, name="apart")
    _, answer = server(
        "PATCH",
        f"{OBJECTS}/apart/status",
        body={"spec": {"prune": True}, "status": {"secretsSynced": 1}},
        content_type="application/merge-patch+json",
    )
    assert (answer["spec"]["prune"], answer["status"], answer["metadata"]["generation"]) == (
        False,
        {"secretsSynced": 1},
        1,
    )
    _, answer = server(
        "PATCH",
        f"{OBJECTS}/apart",
        body={"spec": {"prune": True}, "status": {"secretsSynced": 2}},
        content_type="application/merge-patch+json",
    )
    assert (answer["spec"]["prune"], answer["status"], answer["metadata"]["generation"]) == (
        True,
        {"secretsSynced": 1},
        2,
    )
