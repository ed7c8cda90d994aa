"""kopf is our informer and nothing more: what it must not do, seen from the API server's audit log."""

from datetime import datetime

import pytest

from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.model.annotations import FINALIZER
from secret_manager_controller.testing.stack import FLUX_KINDS
from secret_manager_controller.testing.tenants import USER_AGENTS, metric

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("controller")]

READS = {"get", "list", "watch"}
AT_ONCE = 5  # Seconds for what takes a tenth of one; the interval is a day.


def asked_by(controller, stack):
    """Return the requests of a controller; one of an earlier module may have run in another mode on the same stack."""
    return [
        event
        for event in stack.plane.audit_events()
        if event.get("userAgent", "").startswith(USER_AGENTS)
        and datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp() >= controller.started
    ]


def synced(tenant, **spec):
    tenant.commit(A="1", B="2")
    tenant.apply(**spec)
    tenant.ready()
    return tenant


def test_kopf_only_reads_and_we_write_status_events_and_our_finalizer(controller, stack, tenant):
    synced(tenant, deletionPolicy="Delete")
    tenant.applied(tenant.commit(A="2", B="2"))
    tenant.reconcile()
    stack.delete(tenant.path)
    stack.wait("the object to be gone", lambda: not tenant.body())

    by_kopf = [event for event in asked_by(controller, stack) if event["userAgent"].startswith("kopf/")]
    assert {event["verb"] for event in by_kopf} <= READS
    # A stream a kind; neither peering objects, nor namespaces, nor CRDs are watched.
    watched = {event["requestURI"].partition("?")[0] for event in by_kopf if event["verb"] in {"list", "watch"}}
    assert watched == {path.url() for path in (SECRET_MANAGER_CONFIGS, *FLUX_KINDS.values())}
    writes = {(event["verb"], event["requestURI"]) for event in tenant.audit() if event["verb"] not in READS}
    assert writes == {
        ("patch", tenant.path),
        ("patch", f"{tenant.path}/status"),
        ("create", f"/api/v1/namespaces/{tenant.namespace}/events"),
    }
    assert len([event for event in tenant.audit("patch") if event["requestURI"] == tenant.path]) == 2  # On and off.


def test_objects_carry_nothing_of_kopf(stack, tenant):
    synced(tenant, deletionPolicy="Delete")
    body, source = tenant.body(), stack.get(tenant.source_path)
    assert body["metadata"]["finalizers"] == [FINALIZER]
    assert "annotations" not in body["metadata"]
    assert "kopf" not in str(body).lower()
    assert {entry["manager"] for entry in source["metadata"]["managedFields"]}.isdisjoint(USER_AGENTS)
    assert "kopf" not in str(source).lower()
    events = stack.wait("its Event, which comes after the status", tenant.events)
    assert {event["source"]["component"] for event in events} == {"secret-manager-controller"}


def test_a_finalizer_is_only_where_it_is_needed_and_goes_with_the_policy(tenant):
    synced(tenant)
    assert "finalizers" not in tenant.body()["metadata"]
    tenant.patch(deletionPolicy="Delete")
    tenant.ready()
    assert tenant.body()["metadata"]["finalizers"] == [FINALIZER]
    tenant.patch(deletionPolicy="Orphan")
    tenant.ready()
    assert "finalizers" not in tenant.body()["metadata"]


def test_a_reconcile_writes_status_once_and_its_own_write_starts_no_other(controller, stack, tenant):
    reconciled = metric(controller, "secret_manager_reconciliations_total")
    synced(tenant)
    tenant.applied(tenant.commit(A="2", B="2"))
    for _ in range(3):
        tenant.reconcile()
    # Only a reconcile that nothing caused would make another, and it would come within milliseconds.
    version = tenant.body()["metadata"]["resourceVersion"]
    with pytest.raises(Exception, match="waited"):
        tenant.until("nothing", lambda _: tenant.body()["metadata"]["resourceVersion"] != version, timeout=1)
    assert tenant.status_writes() == 5
    assert metric(controller, "secret_manager_reconciliations_total") - reconciled == 5


def test_a_pass_without_changes_is_one_listing_no_value_no_event_and_one_status_write(stack, tenant):
    synced(tenant)
    before, events = tenant.status(), len(tenant.events())
    writes = tenant.status_writes()
    stack.aws.clear_calls()
    after = tenant.reconcile()
    assert [call.operation for call in stack.aws.calls()] == ["ListSecrets"]
    assert len(tenant.events()) == events
    assert tenant.status_writes() == writes + 1
    fleeting = {"lastReconcileTime", "lastHandledReconcileAt", "lastStoreCalls"}
    assert {k: v for k, v in after.items() if k not in fleeting} == {
        k: v for k, v in before.items() if k not in fleeting
    }


def test_events_tell_changes_failures_and_recoveries_once_each(tenant):
    synced(tenant)
    tenant.applied(tenant.commit(A="2", B="2"))
    tenant.reconcile()
    tenant.patch(secrets={"environment": "nowhere"})
    tenant.ready(reason="PathNotFound")
    tenant.reconcile()
    tenant.patch(secrets={"environment": "dev"})
    tenant.ready()
    tenant.stack.wait("the last Event, which comes after the status", lambda: len(tenant.events()) >= 4)
    told = [(event["type"], event["reason"], event["message"].partition(" (")[0]) for event in tenant.events()]
    assert told == [
        ("Normal", "ReconciliationSucceeded", "created 2"),
        ("Normal", "ReconciliationSucceeded", "updated 1"),
        ("Warning", "PathNotFound", "environment 'nowhere' is not in app/deployment-configuration; there is dev"),
        ("Normal", "ReconciliationSucceeded", "Synced 2 secrets"),
    ]
    assert {event["involvedObject"]["uid"] for event in tenant.events()} == {tenant.body()["metadata"]["uid"]}


def test_a_new_revision_reconciles_every_object_on_the_source_at_once(stack, tenant):
    synced(tenant)
    tenant.apply(object_name="second", secrets={"environment": "dev", "prefix": tenant.name("second")})
    second = f"{tenant.namespace}/second"
    stack.wait_ready(second)
    artifact = tenant.commit(A="2", B="2")
    tenant.applied(artifact, timeout=AT_ONCE)
    stack.wait_ready(second, after=artifact.revision)
    assert (tenant.values()["A"], tenant.values()["second-A"]) == (b"2", b"2")


def test_a_source_that_comes_late_reconciles_at_once(controller, stack, tenant):
    def missed():
        return metric(controller, "secret_manager_reconciliation_errors_total", reason="SourceNotFound")

    before = missed()
    tenant.apply()
    tenant.ready(reason="SourceNotFound")
    # Its first retries come after one and two seconds; by the third, only the watch is as fast.
    stack.wait("two retries", lambda: missed() >= before + 3)
    assert tenant.status_writes() == 1
    tenant.applied(tenant.commit(A="1"), timeout=3)


def test_a_deleted_source_is_told_at_once_and_deletes_nothing(stack, tenant):
    synced(tenant, prune=True)
    stack.delete(tenant.source_path)
    tenant.until("the loss", lambda status: status["conditions"][0]["reason"] == "SourceNotFound", timeout=AT_ONCE)
    assert tenant.values() == {"A": b"1", "B": b"2"}


def test_the_annotation_asks_for_one_reconcile_and_is_answered_in_status(stack, tenant):
    synced(tenant)
    stack.aws.put_by_hand(tenant.name("A"), b"by hand")
    writes = tenant.status_writes()
    tenant.annotate("reconcile", "2024-01-15T11:00:00Z")
    tenant.until("the answer", lambda status: status.get("lastHandledReconcileAt") == "2024-01-15T11:00:00Z")
    assert tenant.values()["A"] == b"1"
    assert tenant.status_writes() == writes + 1


def test_a_burst_of_changes_is_few_reconciles(stack, tenant):
    """Ten changes within the time of one reconcile make one or two more, not ten."""
    synced(tenant)
    writes = tenant.status_writes()
    stack.aws.hang("ListSecrets", 1.5)
    for number in range(10):
        tenant.annotate("reconcile", str(number))
    tenant.until("the last", lambda status: status.get("lastHandledReconcileAt") == "9")
    assert tenant.status_writes() - writes <= 3


def test_another_tools_label_is_no_reason_to_reconcile(stack, tenant):
    synced(tenant)
    writes = tenant.status_writes()
    stack.patch(tenant.path, {"metadata": {"labels": {"team": "a"}, "annotations": {"someone.example/note": "x"}}})
    tenant.reconcile()
    assert tenant.status_writes() == writes + 1
