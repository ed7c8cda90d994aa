"""The real controller keeps Google Secret Manager equal to Git: gRPC over TLS, with tokens of every kind of login."""

import json
from collections import Counter

import pytest

from secret_manager_controller.testing.gcp import PROJECT, SERVICE_ACCOUNT, GcpServer
from secret_manager_controller.testing.stack import condition
from secret_manager_controller.testing.tenants import conditions, metric

pytestmark = [pytest.mark.real]

OTHER = f"writer@{PROJECT}.iam.gserviceaccount.com"
KEY_SECRET = {"authType": "JsonCredentials", "secretName": "gcp-credentials"}


@pytest.fixture(scope="module")
def running_gcp():
    with GcpServer.start(tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def controller(stack, running_gcp):
    """Run a controller that finds Google, and its own identity, as it would in GKE."""
    with stack.controller(**running_gcp.environment) as started:
        yield started


@pytest.fixture
def gcp(running_gcp, controller):
    running_gcp.reset()
    return running_gcp


@pytest.fixture
def sync(gcp, tenant):
    """Return a function that lets an object sync values to the project; it returns the object's status."""

    def run(*, reason="ReconciliationSucceeded", block=None, **values):
        artifact = tenant.commit(**values)
        tenant.apply(provider={"type": "gcp", "gcp": {"projectId": gcp.project} | (block or {})}, prune=True)
        return tenant.ready(reason=reason, after=artifact.revision)

    return run


def becomes(stack, gcp, tenant, **values):
    wanted = {tenant.name(key): value.encode() for key, value in values.items()}
    stack.wait(f"the project to hold {sorted(values)}", lambda: gcp.values() == wanted)


def test_values_come_change_and_go_with_git(stack, gcp, tenant, sync):
    sync(A="1", B="2")
    becomes(stack, gcp, tenant, A="1", B="2")
    sync(A="3", B="2", C="4")
    becomes(stack, gcp, tenant, A="3", B="2", C="4")
    assert gcp.versions(tenant.name("B")) == 1
    sync(B="2", C="4")
    becomes(stack, gcp, tenant, B="2", C="4")


def test_a_change_by_hand_is_put_back(stack, gcp, tenant, sync):
    sync(A="1")
    gcp.put_by_hand(tenant.name("A"), b"by hand")
    tenant.reconcile()
    becomes(stack, gcp, tenant, A="1")
    assert gcp.versions(tenant.name("A")) == 3


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
def test_a_newest_version_that_cannot_be_read_gets_another(stack, gcp, tenant, sync, state):
    sync(A="1")
    gcp.change_version(tenant.name("A"), state)
    tenant.reconcile()
    becomes(stack, gcp, tenant, A="1")
    assert gcp.versions(tenant.name("A")) == 2


def test_a_mark_that_was_removed_by_hand_is_a_conflict_and_nothing_is_written(gcp, tenant, sync):
    sync(A="1")
    gcp.change_labels(tenant.name("A"))
    gcp.clear_calls()
    assert condition(tenant.reconcile())["reason"] == "Conflict"
    assert gcp.writes() == []
    assert gcp.values() == {tenant.name("A"): b"1"}


def test_while_nothing_changes_no_value_is_read(gcp, tenant, sync):
    sync(**{f"K{number}": "v" for number in range(5)})
    tenant.reconcile()
    gcp.clear_calls()
    tenant.reconcile()
    operations = Counter(call.operation for call in gcp.calls())
    assert operations.pop("GetSecretVersion") == 5
    assert operations == {"ListSecrets": 1}


def test_labels_are_enforced_without_another_version(gcp, tenant, sync):
    name = tenant.name("A")
    sync(A="1")
    gcp.change_labels(name, labels={**gcp.labels(name), "by-hand": "x"}, annotations=gcp.annotations(name))
    sync(A="1", block={"labels": {"team": "a"}})
    assert gcp.labels(name).items() >= {("team", "a"), ("by-hand", "x")}
    gcp.change_labels(name, labels={**gcp.labels(name), "team": "b"}, annotations=gcp.annotations(name))
    tenant.reconcile()
    assert gcp.labels(name)["team"] == "a"
    assert gcp.versions(name) == 1


def test_a_name_may_have_255_characters_and_no_more(gcp, check_longest_name):
    provider = {"type": "gcp", "gcp": {"projectId": gcp.project}}
    check_longest_name(gcp, provider, limit=255, title="Google Secret Manager")


def test_old_versions_are_disabled_then_destroyed(gcp, tenant, sync):
    for value in ("1", "2", "3"):
        sync(A=value, block={"keepVersions": 1})
    assert gcp.secrets()[tenant.name("A")].states == ("DESTROYED", "DISABLED", "ENABLED")


@pytest.mark.parametrize("kind", ["the workload", "another account", "a Secret", "another data key"])
def test_an_object_logs_in_as_it_says(stack, gcp, tenant, sync, kind):
    stack.create_secret(tenant.namespace, "gcp-credentials", {"key.json": gcp.key.document, "k": gcp.key.document})
    tenant.let_read("gcp-credentials")
    auth, who = {
        "the workload": ({}, f"workload@{PROJECT}.iam.gserviceaccount.com"),
        "another account": ({"serviceAccountEmail": OTHER}, OTHER),
        "a Secret": (KEY_SECRET, SERVICE_ACCOUNT),
        "another data key": (KEY_SECRET | {"secretKey": "k"}, SERVICE_ACCOUNT),
    }[kind]
    sync(A="1", block={"auth": auth})
    assert {call.who for call in gcp.writes()} == {who}


def test_a_key_that_was_removed_is_told_and_a_new_one_needs_no_restart(stack, gcp, tenant, sync):
    key = gcp.make_key(OTHER)
    stack.create_secret(tenant.namespace, "gcp-credentials", {"key.json": key.document})
    tenant.let_read("gcp-credentials")
    sync(A="1", block={"auth": KEY_SECRET})
    gcp.remove_key(key)
    gcp.expire_tokens()
    told = tenant.reconcile()
    assert condition(told)["reason"] == "CredentialsUnavailable"
    assert "Stalled" in conditions(told)
    assert json.loads(key.document)["private_key"] not in json.dumps(told)
    stack.create_secret(tenant.namespace, "gcp-credentials", {"key.json": gcp.make_key(OTHER).document})
    stack.wait("the new key to be used", lambda: condition(tenant.reconcile())["status"] == "True")


def test_a_token_that_expired_is_replaced_once_and_nobody_notices(gcp, tenant, sync):
    sync(A="1")
    gcp.expire_tokens()
    gcp.clear_calls()
    assert condition(tenant.reconcile())["status"] == "True"
    assert [call.operation for call in gcp.calls()].count("MetadataToken") == 1


def test_a_project_that_throttles_does_not_delay_another_store(stack, gcp, tenant, sync, make_tenant):
    gcp.fail("ListSecrets", "RESOURCE_EXHAUSTED", times=999)
    sync(A="1", reason="RateLimited")
    other = make_tenant()
    other.apply()
    other.applied(other.commit(A="1"))
    assert tenant.status()["conditions"][0]["reason"] == "RateLimited"
    gcp.clear_faults()


def test_requests_are_counted_under_the_documented_names(gcp, controller, tenant, sync):
    before = metric(controller, "secret_manager_gcp_operations_total")
    sync(A="1")
    assert metric(controller, "secret_manager_gcp_operations_total") > before
    assert metric(controller, "secret_manager_provider_operations_total", provider="gcp", operation="CreateSecret") >= 1
