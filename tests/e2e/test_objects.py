"""The life of an object on real parts: what its spec asks for, what the store refuses, and how it ends."""

import pyrage
import pytest

from secret_manager_controller.kube import SECRETS
from secret_manager_controller.model.annotations import FINALIZER
from secret_manager_controller.testing.aws import AwsServer
from secret_manager_controller.testing.aws_auth import web_identity_token
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, StackError
from secret_manager_controller.testing.tenants import ENV, YAML, conditions

pytestmark = [pytest.mark.real]

ROLE = "arn:aws:iam::123456789012:role/secrets"


@pytest.fixture(scope="module", autouse=True)
def controller(stack, tmp_path_factory):
    """Run a controller whose pod may assume a role."""
    token = tmp_path_factory.mktemp("irsa") / "token"
    token.write_text(web_identity_token("system:serviceaccount:microscaler-system:secret-manager-controller"))
    with stack.controller(AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ROLE_ARN=ROLE) as running:
        yield running


def synced(tenant, *, entries=None, **spec):
    tenant.commit(**(entries or {"A": "1", "B": "2"}))
    tenant.apply(**spec)
    tenant.ready()
    return tenant


def message(status):
    return status["conditions"][0]["message"]


def deleted(tenant):
    tenant.stack.delete(tenant.path)
    tenant.stack.wait("the object to be gone", lambda: not tenant.body())
    return tenant.values()


def test_a_name_may_have_512_characters_and_no_more(stack, check_longest_name):
    provider = {"type": "aws", "aws": {"region": "eu-west-3"}}
    aws = AwsServer(stack.aws.endpoint_url, stack.aws.access_keys, region="eu-west-3")
    check_longest_name(aws, provider, limit=512, title="AWS Secrets Manager")


# --- suspend, interval, policies


def test_a_suspended_object_leaves_everything_as_it_is_until_it_is_resumed(stack, tenant):
    synced(tenant)
    tenant.patch(suspend=True)
    stack.aws.put_by_hand(tenant.name("A"), b"by hand")
    writes = tenant.status_writes()
    tenant.commit(A="2", B="3")
    tenant.annotate("reconcile", "now")
    with pytest.raises(StackError, match="waited"):
        tenant.until("nothing", lambda _: tenant.status_writes() > writes, timeout=1)
    assert tenant.values() == {"A": b"by hand", "B": b"2"}
    tenant.patch(suspend=False)
    stack.wait("the newest values", lambda: tenant.values() == {"A": b"2", "B": b"3"})


def test_drift_is_repaired_at_the_interval_without_a_cause(stack, tenant):
    synced(tenant, interval="10s")
    version = stack.aws.put_by_hand(tenant.name("A"), b"by hand")
    stack.wait("the repair", lambda: tenant.values()["A"] == b"1", timeout=14)
    assert version in stack.aws.secrets()[tenant.name("A")].labels  # It is still there to be looked at.


def test_create_only_leaves_values_and_replace_repairs_them(stack, tenant):
    synced(tenant, updatePolicy="CreateOnly")
    stack.aws.put_by_hand(tenant.name("A"), b"rotated by hand")
    artifact = tenant.commit(A="2", B="2", C="3")
    tenant.applied(artifact)
    assert tenant.values() == {"A": b"rotated by hand", "B": b"2", "C": b"3"}
    tenant.patch(updatePolicy="Replace")
    tenant.ready()
    assert tenant.values() == {"A": b"2", "B": b"2", "C": b"3"}


def test_the_short_form_of_the_store_works_as_the_long_one(stack, tenant):
    store = tenant.spec()["provider"]["aws"]
    tenant.commit(A="1")
    tenant.apply(provider=None, aws=store)
    tenant.ready()
    assert tenant.values() == {"A": b"1"}


# --- deletion


def test_orphan_is_the_default_and_leaves_the_store_as_it_is(tenant):
    synced(tenant)
    assert deleted(tenant) == {"A": b"1", "B": b"2"}


def test_delete_deletes_what_is_ours_and_nothing_else(stack, tenant):
    stack.aws.put_by_hand(tenant.name("FOREIGN"), b"theirs")
    tenant.commit(A="1", B="2", FOREIGN="x")
    tenant.apply(deletionPolicy="Delete")
    tenant.ready(reason="Conflict")
    assert deleted(tenant) == {"FOREIGN": b"theirs"}
    # It can be restored for as long as the store keeps it.
    assert stack.aws.secrets()[tenant.name("A")].deleted


def test_the_annotation_overrides_delete(tenant):
    synced(tenant, deletionPolicy="Delete")
    tenant.annotate("deletion-policy", "Orphan")
    assert deleted(tenant) == {"A": b"1", "B": b"2"}


def test_a_suspended_object_that_is_deleted_leaves_the_store_as_it_is(tenant):
    synced(tenant, deletionPolicy="Delete")
    tenant.patch(suspend=True)
    assert deleted(tenant) == {"A": b"1", "B": b"2"}


def test_a_deletion_that_the_store_refuses_is_told_and_comes_right_by_itself(stack, tenant):
    synced(tenant, deletionPolicy="Delete")
    stack.aws.fail("DeleteSecret", "AccessDeniedException", 400, times=2, name=tenant.name("A"))
    stack.delete(tenant.path)
    status = tenant.ready(reason="StoreAccessDenied")
    assert message(status).startswith("cannot delete the secrets: AWS denies DeleteSecret")
    assert message(status).endswith("annotate the object with secret-management.microscaler.io/deletion-policy=Orphan")
    assert "Reconciling" in conditions(status)
    told = stack.wait("the Event behind the status", lambda: [e for e in tenant.events() if e["type"] == "Warning"])
    assert [event["reason"] for event in told] == ["StoreAccessDenied"]
    stack.wait("the object to be gone", lambda: not tenant.body())
    assert tenant.values() == {}


def test_a_deletion_that_hangs_is_released_by_the_annotation(stack, tenant):
    synced(tenant, deletionPolicy="Delete")
    stack.delete(SECRETS.url(tenant.namespace, "aws-credentials"))
    stack.aws.fail("ListSecrets", "ServiceUnavailable", 503, times=100)
    stack.delete(tenant.path)
    tenant.ready(reason="StoreUnavailable")
    tenant.annotate("deletion-policy", "Orphan")
    stack.wait("the object to be gone", lambda: not tenant.body())
    assert tenant.values() == {"A": b"1", "B": b"2"}


def test_an_object_that_never_owned_anything_can_always_be_deleted(stack, tenant):
    stack.delete(SECRETS.url(tenant.namespace, "aws-credentials"))
    tenant.commit(A="1")
    tenant.apply(deletionPolicy="Delete")
    tenant.ready(reason="CredentialsUnavailable")
    assert tenant.body()["metadata"].get("finalizers") in (None, [FINALIZER])
    assert deleted(tenant) == {}


def test_an_object_that_is_made_again_finds_its_secrets_and_writes_nothing(stack, tenant):
    synced(tenant)
    deleted(tenant)
    stack.aws.clear_calls()
    tenant.apply()
    tenant.ready()
    assert tenant.writes() == []
    assert {tenant.versions(key) for key in "AB"} == {1}


# --- prune


def test_what_left_git_stays_without_prune_and_goes_with_it(tenant):
    synced(tenant)
    status = tenant.applied(tenant.commit(A="1"))
    assert message(status) == "Synced 1 secrets; 1 left Git and stay in the store (spec.prune is false)"
    assert tenant.values() == {"A": b"1", "B": b"2"}
    tenant.patch(prune=True)
    tenant.ready()
    assert tenant.values() == {"A": b"1"}


def test_more_than_half_go_only_when_the_very_revision_is_confirmed(tenant):
    many = {f"KEY_{number}": "x" for number in range(6)}
    synced(tenant, entries=many, prune=True)
    artifact = tenant.commit(KEY_0="x", KEY_1="x")
    status = tenant.ready(reason="PruneBlocked", after=artifact.revision)
    assert message(status).startswith("Synced 2 secrets; 4 left Git and were kept")
    assert "Stalled" in conditions(status)
    assert len(tenant.values()) == 6
    tenant.annotate("confirm-prune", "main@sha1:another")
    tenant.reconcile()
    assert len(tenant.values()) == 6
    tenant.annotate("confirm-prune", artifact.revision)
    tenant.ready()
    assert set(tenant.values()) == {"KEY_0", "KEY_1"}
    # The next revision would need a confirmation of its own.
    assert tenant.status()["lastAppliedRevision"] == artifact.revision


# --- whose secret it is


def test_a_secret_of_nobody_is_a_conflict_until_it_is_adopted(stack, tenant):
    stack.aws.put_by_hand(tenant.name("A"), b"theirs")
    tenant.commit(A="1", B="2")
    tenant.apply()
    status = tenant.ready(reason="Conflict")
    assert message(status).startswith(f"Synced 1 of 2 secrets; 1 in conflict: {tenant.name('A')!r} exists")
    assert "Stalled" in conditions(status)
    assert tenant.values() == {"A": b"theirs", "B": b"2"}
    assert stack.aws.tags(tenant.name("A")) == {}
    tenant.patch(adoption="Adopt")
    tenant.ready()
    assert tenant.values() == {"A": b"1", "B": b"2"}
    assert stack.aws.tags(tenant.name("A"))["secret-management.microscaler.io/owner"] == tenant.key


def test_two_objects_one_name_is_one_ready_and_one_conflict_for_good(stack, make_tenant):
    first, second = make_tenant("first"), make_tenant("second")
    synced(first)
    same = {"environment": "dev", "prefix": first.namespace}
    second.commit(A="other", C="own")
    second.apply(secrets=same, adoption="Adopt")
    status = second.ready(reason="Conflict")
    assert f"is managed by {first.key!r}" in message(status)
    # Neither takes it from the other, whoever comes next.
    first.reconcile()
    second.reconcile()
    assert first.values() == {"A": b"1", "B": b"2", "C": b"own"}
    assert first.versions("A") == 1
    assert first.status()["conditions"][0]["status"] == "True"
    # Once the first is gone, its secrets are nobody's.
    deleted(first)
    second.reconcile()
    second.ready()
    assert first.values() == {"A": b"other", "B": b"2", "C": b"own"}


def test_a_deleted_owners_secret_is_a_conflict_without_adoption(make_tenant):
    first, second = make_tenant("gone"), make_tenant("heir")
    synced(first)
    deleted(first)
    second.commit(A="other")
    second.apply(secrets={"environment": "dev", "prefix": first.namespace})
    second.ready(reason="Conflict")
    assert first.values()["A"] == b"1"


# --- the store among failures


def test_partial_success_is_told_and_the_retry_writes_the_rest(stack, tenant):
    stack.aws.fail("CreateSecret", "LimitExceededException", 400, name=tenant.name("B"))
    tenant.commit(A="1", B="2", C="3")
    tenant.apply()
    status = tenant.ready(reason="StoreRefused")
    assert message(status).startswith("Synced 2 of 3 secrets; 1 not written: AWS refuses CreateSecret")
    assert (status["secretsSynced"], len(status["secrets"])) == (2, 2)
    assert "lastAppliedRevision" not in status
    stack.aws.clear_calls()
    tenant.reconcile()
    assert [call.names for call in tenant.writes()] == [(tenant.name("B"),)]
    assert tenant.values() == {"A": b"1", "B": b"2", "C": b"3"}


def test_a_lost_answer_after_the_commit_makes_no_second_version(stack, tenant):
    for operation in ("CreateSecret", "PutSecretValue", "UpdateSecretVersionStage"):
        stack.aws.fail(operation, "InternalServiceError", 0, times=4, commit=True, name=tenant.name("A"))
    tenant.commit(A="1")
    tenant.apply()
    tenant.ready()
    assert (tenant.versions("A"), tenant.values()) == (1, {"A": b"1"})
    tenant.applied(tenant.commit(A="2"))
    assert tenant.values() == {"A": b"2"}
    assert len([v for v, labels in stack.aws.secrets()[tenant.name("A")].labels.items() if "AWSCURRENT" in labels]) == 1
    assert tenant.versions("A") == 2


def test_a_store_that_is_down_is_told_and_comes_right_by_itself(stack, tenant):
    synced(tenant)
    stack.aws.fail("*", "ServiceUnavailable", 503, times=7)
    artifact = tenant.commit(A="2", B="2")
    status = tenant.ready(reason="StoreUnavailable", after=artifact.revision)
    assert conditions(status) == {"Reconciling": "StoreUnavailable"}
    # What was there before is still told.
    assert (status["secretsSynced"], len(status["secrets"])) == (2, 2)
    tenant.applied(artifact)
    assert conditions(tenant.status()) == {"Ready": "ReconciliationSucceeded"}


def test_a_store_that_throttles_is_left_alone_for_as_long_as_it_asks(stack, tenant):
    synced(tenant)
    stack.aws.fail("ListSecrets", "ThrottlingException", 400, retry_after=4)
    stack.aws.clear_calls()
    tenant.annotate("reconcile", "now")
    tenant.until("the pass", lambda status: status.get("lastHandledReconcileAt") == "now")
    first, second = [call.at for call in stack.aws.calls() if call.operation == "ListSecrets"]
    assert second - first >= 4


def test_a_store_that_goes_on_throttling_is_told(stack, tenant):
    synced(tenant)
    stack.aws.fail("ListSecrets", "ThrottlingException", 400, times=3)
    tenant.annotate("reconcile", "now")
    status = tenant.ready(reason="RateLimited")
    assert conditions(status) == {"Reconciling": "RateLimited"}
    tenant.ready()


# --- logins and keys


def test_a_login_that_is_missing_is_told_and_waited_for(stack, tenant):
    stack.delete(SECRETS.url(tenant.namespace, "aws-credentials"))
    tenant.commit(A="1")
    tenant.apply()
    status = tenant.ready(reason="CredentialsUnavailable")
    assert message(status).startswith(f"Secret {tenant.namespace}/aws-credentials does not exist; create it")
    assert "Reconciling" in conditions(status)


@pytest.mark.parametrize(
    ("data", "reason", "fragment"),
    [
        pytest.param(
            {"access-key-id": b"AKIA0000000000000000"},
            "CredentialsUnavailable",
            "has no usable data key 'secret-access-key'",
            id="incomplete",
        ),
        pytest.param(
            {"access-key-id": b"AKIA000000000000WXYZ", "secret-access-key": b"x" * 40},
            "StoreAccessDenied",
            "AWS does not accept access key …WXYZ",
            id="unknown",
        ),
    ],
)
def test_a_login_that_cannot_be_is_told(stack, tenant, data, reason, fragment):
    stack.delete(SECRETS.url(tenant.namespace, "aws-credentials"))
    stack.create_secret(tenant.namespace, "aws-credentials", data)
    tenant.commit(A="1")
    tenant.apply()
    status = tenant.ready(reason=reason)
    assert fragment in message(status)
    assert "Stalled" in conditions(status)
    assert "x" * 40 not in str(tenant.body())


def test_a_rotated_login_and_a_rotated_sops_key_work_within_seconds(stack, tenant, encrypt):
    """Neither Secret is watched: both are read anew after 15 seconds, and the next reconcile finds them changed."""
    old, new = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    first = stack.aws.add_access_key("AKIA00000000000FIRST", "f" * 40)
    stack.create_secret(tenant.namespace, "sops-private-key", {"private-key": str(old).encode()})
    stack.create_secret(
        tenant.namespace,
        "aws-credentials",
        {"access-key-id": first.access_key_id.encode(), "secret-access-key": first.secret_access_key.encode()},
    )
    tenant.commit({ENV: encrypt("A=1\n", str(old.to_public()))})
    tenant.apply()
    tenant.ready()
    stack.aws.remove_access_key(first.access_key_id)
    stack.create_aws_credentials(tenant.namespace)
    stack.create_secret(tenant.namespace, "sops-private-key", {"private-key": str(new).encode()})
    artifact = tenant.commit({ENV: encrypt("A=2\n", str(new.to_public()))})

    def works():
        return tenant.reconcile().get("lastAppliedRevision") == artifact.revision

    stack.wait("the new keys to be used", works)
    assert tenant.values() == {"A": b"2"}


def test_keys_of_the_objects_namespace_win_over_the_controllers(stack, tenant, encrypt, example_recipient):
    own = pyrage.x25519.Identity.generate()
    stack.create_secret(tenant.namespace, "gpg-key", {"key": str(own).encode()})
    tenant.commit({ENV: encrypt("A=1\n", str(own.to_public()))})
    tenant.apply()
    tenant.ready()
    artifact = tenant.commit({ENV: encrypt("A=2\n", example_recipient)})
    status = tenant.ready(reason="DecryptionFailed", after=artifact.revision)
    assert f"the keys here are age {own.to_public()}" in message(status)
    assert tenant.values() == {"A": b"1"}


def test_the_controllers_keys_serve_a_namespace_without_any(tenant, encrypt, example_recipient):
    tenant.commit({ENV: encrypt("A=1\n", example_recipient)})
    tenant.apply()
    tenant.ready()
    assert tenant.values() == {"A": b"1"}


def test_the_pods_own_role_logs_in_without_any_secret(stack, tenant):
    tenant.commit(A="1")
    tenant.apply(provider={"type": "aws", "aws": {"region": stack.aws.region}})
    tenant.ready()
    assert {call.who for call in tenant.writes()} == {"secrets/secret-manager-controller"}


def test_an_objects_role_is_assumed_instead_of_the_pods(stack, tenant):
    tenant.commit(A="1")
    role = "arn:aws:iam::123456789012:role/another"
    tenant.apply(provider={"type": "aws", "aws": {"region": stack.aws.region, "auth": {"roleArn": role}}})
    tenant.ready()
    assert {call.who for call in tenant.writes()} == {"another/secret-manager-controller"}


# --- what is not granted, or not there yet


def test_a_credential_secret_of_the_controllers_namespace_may_be_named(stack, tenant):
    stack.create_aws_credentials(CONTROLLER_NAMESPACE, "shared-login")
    store = tenant.spec()["provider"]["aws"]
    store["auth"] |= {"secretNamespace": CONTROLLER_NAMESPACE, "secretName": "shared-login"}
    tenant.commit(A="1")
    tenant.apply(provider={"type": "aws", "aws": store})
    tenant.ready()


def test_any_secret_with_the_label_is_a_key_beside_the_others(stack, tenant, encrypt):
    """So a key is rotated: files for the old and the new one are read as long as both Secrets are there."""
    old, new = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    stack.create_secret(tenant.namespace, "sops-private-key", {"private-key": str(old).encode()})
    stack.create_secret(tenant.namespace, "keys-of-2026", {"age.agekey": str(new).encode()})
    stack.allow(tenant.namespace, [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}], name="list")
    label = {"metadata": {"labels": {"secret-management.microscaler.io/sops-key": "true"}}}
    stack.patch(SECRETS.url(tenant.namespace, "keys-of-2026"), label)
    tenant.commit(
        {
            ENV: encrypt("OLD=1\n", str(old.to_public())),
            YAML: encrypt("NEW: two\n", str(new.to_public()), kind="yaml"),
        }
    )
    tenant.apply()
    tenant.ready()
    assert tenant.values() == {"OLD": b"1", "NEW": b"two"}
